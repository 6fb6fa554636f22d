"""Device policies: the short form of --keys, and documents that say nothing unknown."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import (
    Algorithm,
    ManagementAlgorithm,
    PinPolicy,
    TouchPolicy,
    UnsupportedAlgorithm,
)
from cardwright_cardops.piv.references import Slot, UnknownSlot
from cardwright_cardops.plan.policy import (
    DevicePolicy,
    KeySource,
    PolicyMalformed,
    RecoveredKey,
    SecretsPolicy,
    SlotPolicy,
    parse_keys,
)


def test_the_short_form() -> None:
    assert parse_keys("9a=p256, 9C=P384,9d=rsa2048:import,82=ed25519:generate") == (
        SlotPolicy(Slot.AUTHENTICATION, Algorithm.P256),
        SlotPolicy(Slot.SIGNATURE, Algorithm.P384),
        SlotPolicy(Slot.KEY_MANAGEMENT, Algorithm.RSA2048, KeySource.IMPORTED),
        SlotPolicy(Slot.RETIRED_1, Algorithm.ED25519),
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", PolicyMalformed),
        ("9a", PolicyMalformed),
        ("9a=", PolicyMalformed),
        ("=p256", PolicyMalformed),
        ("9a=p256,", PolicyMalformed),
        ("9a=p256:", PolicyMalformed),
        ("9a=p256:borrow", PolicyMalformed),
        ("9a=p256,9A=p384", PolicyMalformed),
        ("9f=p256", UnknownSlot),
        ("zz=p256", UnknownSlot),
        ("9a=p521", UnsupportedAlgorithm),
        ("9a=aes256", UnsupportedAlgorithm),
    ],
)
def test_what_the_short_form_refuses(text: str, error: type[CardwrightError]) -> None:
    with pytest.raises(error) as caught:
        parse_keys(text)
    assert caught.value.effect and caught.value.advice


WHOLE: dict[str, Any] = {
    "name": "staff",
    "slots": [
        {
            "slot": "9A", "algorithm": "p256", "key": "generate", "profile": "piv-authentication",
            "pin_policy": "once", "touch_policy": "cached",
        }
    ],
    "objects": ["chuid", "ccc", "security-object", "5FC10C"],
    "recovered": [{"fingerprint": "ab" * 32, "algorithm": "rsa2048"}],
    "secrets": {
        "pin": True, "puk": True, "management_key": True, "management_algorithm": "aes256",
        "management_touch": False, "retries": [8, 5],
    },
    "replace": True,
    "renew_before_days": 30,
}  # fmt: skip


def test_a_whole_document() -> None:
    policy = DevicePolicy.from_document(WHOLE)
    assert policy.slots == (
        SlotPolicy(
            Slot.AUTHENTICATION, Algorithm.P256, KeySource.GENERATED, "piv-authentication",
            PinPolicy.ONCE, TouchPolicy.CACHED,
        ),
    )  # fmt: skip
    assert policy.secrets == SecretsPolicy(management_algorithm=ManagementAlgorithm.AES256, retries=(8, 5))
    assert DevicePolicy.from_document(policy.document()) == policy


def test_tries_are_1_to_255() -> None:
    for counts in ([1, 255], [255, 1]):
        policy = DevicePolicy.from_document({"secrets": {"retries": counts}})
        assert policy.secrets.retries == tuple(counts)
    for bad in ([0, 255], [255, 0], [256, 1], [1, 256], [3, 3, 3], [True, 3], ["3", "3"], 3):
        with pytest.raises(PolicyMalformed):
            DevicePolicy.from_document({"secrets": {"retries": bad}})


def test_renewal_begins_at_most_a_hundred_years_before_the_end() -> None:
    for days in (0, 36500):
        policy = DevicePolicy.from_document({"renew_before_days": days})
        assert policy.renew_before == timedelta(days=days)
    for days in (-1, 36501):
        with pytest.raises(PolicyMalformed):
            DevicePolicy.from_document({"renew_before_days": days})


def test_there_are_twenty_retired_slots_for_recovered_keys() -> None:
    rows = [{"fingerprint": f"{number:02x}" * 32, "algorithm": "p256"} for number in range(21)]
    assert len(DevicePolicy.from_document({"recovered": rows[:20]}).recovered) == 20
    with pytest.raises(PolicyMalformed, match="more than 20 entries"):
        DevicePolicy.from_document({"recovered": rows})
    with pytest.raises(PolicyMalformed, match="20 retired slots"):
        DevicePolicy(recovered=tuple(RecoveredKey(f"{number:02x}" * 32, Algorithm.P256) for number in range(21)))


def test_the_policy_of_a_slot() -> None:
    policy = DevicePolicy(slots=parse_keys("9c=p256,9a=p384"))
    assert [policy.slot(slot) for slot in (Slot.SIGNATURE, Slot.AUTHENTICATION)] == list(policy.slots)
    for slot in set(Slot) - {Slot.SIGNATURE, Slot.AUTHENTICATION}:
        assert policy.slot(slot) is None


def test_what_is_left_out_has_its_default() -> None:
    assert DevicePolicy.from_document({}) == DevicePolicy()


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"slots": {}},
        {"slots": ["9a=p256"]},
        {"slots": [{"slot": "9A"}]},
        {"slots": [{"slot": "9A", "algorithm": "p256", "pin": "once"}]},
        {"slots": [{"slot": "9A", "algorithm": "p256", "key": "found"}]},
        {"slots": [{"slot": "9A", "algorithm": "p256", "pin_policy": "sometimes"}]},
        {"slots": [{"slot": "9A", "algorithm": "p256"}] * 2},
        {"slots": [{"slot": "F9", "algorithm": "p256"}]},
        {"objects": ["nonsense"]},
        {"objects": ["chuid", "5FC102"]},
        {"objects": ["5FC105"]},
        {"objects": [5]},
        {"secrets": {"pin": 1}},
        {"secrets": {"retries": [3]}},
        {"secrets": {"retries": [0, 3]}},
        {"secrets": {"retries": [3, 3], "puk": False}},
        {"secrets": {"management_algorithm": "des"}},
        {"recovered": [{"fingerprint": "ab", "algorithm": "p256"}]},
        {"recovered": [{"fingerprint": "ab" * 32, "algorithm": "p256"}] * 2},
        {"replace": "yes"},
        {"renew_before_days": True},
        {"renew_before_days": -1},
    ],
)
def test_a_document_that_says_something_unknown_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyMalformed):
        DevicePolicy.from_document({**WHOLE, **change})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*WHOLE, "slot", "algorithm"]) | st.text(max_size=3), inner, max_size=4),
        max_leaves=12,
    )
)
def test_any_document_is_a_policy_or_a_documented_error(document: Any) -> None:
    with suppress(PolicyMalformed, UnknownSlot, UnsupportedAlgorithm):
        DevicePolicy.from_document(document)
