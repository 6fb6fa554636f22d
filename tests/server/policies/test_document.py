"""Policy documents: what is shipped is sound, what is unknown or contradictory is refused and says where."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.policy import KeySource
from cardwright_server.policies.document import PROFILES, SHIPPED, read, shipped
from cardwright_server.policies.errors import PolicyContradictory, PolicyInvalid
from cardwright_server.policies.model import ClearSecrets, Compliance, DeviceKind, Origin, UnlockMethod
from cardwright_server.vault.profiles import DEFAULT_RULES, ISSUING_PROFILES

MINIMAL = """
name = "minimal"
[[slots]]
slot = "9a"
algorithm = "p256"
profile = "piv-authentication"
"""
ESCROWED = """
[[slots]]
slot = "9d"
algorithm = "rsa2048"
key = "escrow"
profile = "key-management"
"""


@pytest.mark.parametrize("leave", [None, False, True])
@pytest.mark.parametrize("files", [None, False, True])
def test_old_keys_are_left_to_an_archive_that_gives_them_back_only(leave: bool | None, files: bool | None) -> None:
    said = "".join(f"{name} = {str(value).lower()}\n" for name, value in (("leave", leave), ("files", files))
                   if value is not None)  # fmt: skip
    made = read(MINIMAL.replace("[[slots]]", f"[escrow]\n{said}[[slots]]"))
    assert made.old_keys_may_leave is (leave is not False and files is not False)


@pytest.mark.parametrize("told", [False, True])
def test_superseded_keys_of_tokens_go_only_where_that_is_said(told: bool) -> None:
    said = "[token]\ndelete_superseded = true\n" if told else ""
    assert read(MINIMAL.replace("[[slots]]", f"{said}[[slots]]")).delete_superseded is told


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_are_sound(name: str) -> None:
    policy = read(shipped(name))
    assert policy.name == name
    assert policy.strict == name.startswith("piv")
    assert policy.card.slots
    assert set(policy.least_origin) == {row.slot for row in policy.card.slots}
    assert policy.unlock
    for row in policy.card.slots:
        assert row.algorithm.label in DEFAULT_RULES[row.profile].public_keys


def test_known_profiles_are_those_of_a_new_vault() -> None:
    assert set(ISSUING_PROFILES) >= PROFILES


def test_what_the_shipped_piv_policy_says() -> None:
    policy = read(shipped("piv"))
    assert policy.compliance is Compliance.PIV
    assert policy.clear_secrets is ClearSecrets.NEVER
    assert policy.escrowed == {Slot.KEY_MANAGEMENT}
    assert policy.unlock == {UnlockMethod.OPERATOR}
    assert policy.two_person_termination
    assert policy.card.secrets.retries == (10, 10)
    assert policy.least_origin[Slot.SIGNATURE] is Origin.SEALED
    assert {row.slot: row.source for row in policy.card.slots}[Slot.KEY_MANAGEMENT] is KeySource.IMPORTED
    assert not policy.self_bind


def test_what_a_short_document_means() -> None:
    policy = read(MINIMAL)
    assert policy.compliance is Compliance.CIV
    assert policy.title == "minimal"
    assert policy.max_devices == 1
    assert policy.card.renew_before == timedelta(days=30)
    assert policy.least_origin == {Slot.AUTHENTICATION: Origin.UNPROVEN}
    assert DeviceKind.PHONE not in policy.device_kinds
    assert not policy.two_person_termination


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name = ", "no TOML"),
        ("name = 3", r"\$\.name"),
        ("title = 'x'", "`name`"),
        (MINIMAL.replace("slot =", "slott ="), r"slott|slot"),
        ("colour = 'red'\n" + MINIMAL, "colour"),
        ("compliance = 'fips'\n" + MINIMAL, r"\$\.compliance"),
        ("max_devices = 0\n" + MINIMAL, r"\$\.max_devices"),
        ("clear_secrets = 'sometimes'\n" + MINIMAL, r"\$\.clear_secrets"),
        (MINIMAL + "least_origin = 'sworn'", r"\$\.slots\[0\]\.least_origin"),
        (MINIMAL.replace("p256", "p257"), r"\$\.slots\[0\]"),
        (MINIMAL.replace("9a", "9z"), r"\$\.slots\[0\]"),
        (MINIMAL.replace("piv-authentication", "../x"), r"\$\.slots\[0\]\.profile"),
        (MINIMAL + "[pin]\nmin_length = '6'", r"\$\.pin\.min_length"),
        (MINIMAL + "[management_key]\nalgorithm = 'rot13'", r"\$\.management_key\.algorithm"),
        ("x" * 70000, "65536"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_path(text: str, where: str) -> None:
    with pytest.raises(PolicyInvalid, match=where) as refused:
        read(text)
    assert refused.value.code == "POLICY_INVALID"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (MINIMAL.replace("piv-authentication", "unheard-of"), r"\$\.slots\[0\]\.profile"),
        (MINIMAL + ESCROWED + "least_origin = 'attested'", r"\$\.slots\[1\]\.least_origin: a card attests"),
        ("clear_secrets = 'never'\n" + MINIMAL + ESCROWED, "must arrive sealed"),
        (MINIMAL + ESCROWED.replace("9d", "9c").replace("key-management", "signature"), "only 9D"),
        (MINIMAL + ESCROWED.replace("9d", "82"), "retired"),
        (MINIMAL.replace("9a", "9e"), "9E works without PIN"),
        (MINIMAL.replace("piv-authentication", "card-authentication"), "belongs to 9E"),
        (MINIMAL.replace("piv-authentication", "signature"), "belongs to 9C"),
        (MINIMAL.replace("piv-authentication", "key-management"), "belongs to 9D"),
        (MINIMAL.replace("p256", "x25519"), "cannot sign"),
        (MINIMAL + "[[slots]]" + MINIMAL.split("[[slots]]")[1], "twice"),
        (MINIMAL + "[pin]\nmin_length = 8\nmax_length = 6", r"\$\.pin"),
        (MINIMAL + "[pin]\nretries = 5", "both are needed"),
        (MINIMAL + "[pin]\nretries = 5\n[puk]\nretries = 5\nown = false", r"\$\.puk\.own"),
        ("unlock = ['self']\n" + MINIMAL + "[puk]\nown = false", r"\$\.unlock"),
        (MINIMAL + "[management_key]\nown = false\ntouch = true", r"\$\.management_key\.touch"),
        ("validity_days = 30\n" + MINIMAL, r"\$\.renew_before_days"),
        ("validity_days = 40\ntemporary_days = 41\n" + MINIMAL, r"\$\.temporary_days"),
        ("objects = ['chuid', 'chuid']\n" + MINIMAL, "twice"),
        ("objects = ['tarot']\n" + MINIMAL, "tarot"),
        ("device_kinds = ['phone', 'phone']\n" + MINIMAL, r"\$\.device_kinds"),
        ("compliance = 'piv'\ntwo_person_termination = false\n" + MINIMAL, r"\$\.two_person_termination"),
    ],
)
def test_contradictions_are_refused_with_their_path(text: str, where: str) -> None:
    with pytest.raises(PolicyContradictory, match=where) as refused:
        read(text)
    assert refused.value.code == "POLICY_CONTRADICTORY"


def test_all_contradictions_are_told_at_once() -> None:
    text = "validity_days = 30\n" + MINIMAL.replace("piv-authentication", "unheard-of") + "[pin]\nretries = 5"
    with pytest.raises(PolicyContradictory) as refused:
        read(text)
    assert len(refused.value.findings) == 3


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, MINIMAL + text):
        try:
            read(candidate)
        except (PolicyInvalid, PolicyContradictory):
            continue


def test_origins_are_ordered() -> None:
    assert Origin.ATTESTED.proves(Origin.SEALED)
    assert Origin.UNPROVEN.proves(Origin.UNPROVEN)
    assert not Origin.TRUSTED_STATION.proves(Origin.SEALED)
    assert [ClearSecrets(one).allows(trusted=True) for one in ("never", "trusted_station", "any")] == [
        False,
        True,
        True,
    ]
    assert [ClearSecrets(one).allows(trusted=False) for one in ClearSecrets] == [False, False, True]
