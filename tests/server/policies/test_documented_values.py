"""docs/server-devices.md lists every value that a policy's document may have, and refusals of one name the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args, get_type_hints

import pytest

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.policy import NAMED_OBJECTS
from cardwright_server.policies.document import PROFILES, ManagementKeyPart, SlotPart, read, shipped
from cardwright_server.policies.errors import PolicyContradictory, PolicyInvalid
from cardwright_server.policies.model import ClearSecrets, Compliance, DeviceKind, Origin, UnlockMethod
from tests.support.tree import REPOSITORY

HEAD = "| key | values |"
SIGNATURE = 'slot = "9c"\nalgorithm = "p256"\nprofile = "signature"'
AGAIN = SIGNATURE.replace("9c", "9a").replace("signature", "piv-authentication")


def words(part: type, field: str) -> list[str]:
    """The literals of a field, without None."""
    return [
        word
        for kind in (get_type_hints(part)[field], *get_args(get_type_hints(part)[field]))
        for word in get_args(kind)
        if isinstance(word, str)
    ]


VALUES: dict[str, Iterable[str]] = {
    "compliance": list(Compliance),
    "clear_secrets": list(ClearSecrets),
    "device_kinds": list(DeviceKind),
    "objects": NAMED_OBJECTS,
    "unlock": list(UnlockMethod),
    "management_key.algorithm": words(ManagementKeyPart, "algorithm"),
    "slots.slot": [one.label.lower() for one in Slot if one.label in ("9A", "9C", "9D", "9E")],
    "slots.algorithm": [one.label for one in Algorithm],
    "slots.profile": sorted(PROFILES),
    "slots.key": words(SlotPart, "key"),
    "slots.least_origin": list(Origin),
    "slots.pin_policy": words(SlotPart, "pin_policy"),
    "slots.touch_policy": words(SlotPart, "touch_policy"),
}


def test_the_table_has_every_value() -> None:
    lines = (REPOSITORY / "docs" / "server-devices.md").read_text().splitlines()
    start = lines.index(HEAD) + 2
    told = {key: ", ".join(f"`{value}`" for value in values) for key, values in VALUES.items()}
    assert lines[start : start + len(VALUES)] == [f"| `{key}` | {values} |" for key, values in told.items()]


@pytest.mark.parametrize(
    "old, new, told",
    [
        ('algorithm = "p256"', 'algorithm = "p257"', [f"{one.label}" for one in Algorithm]),
        ('slot = "9e"', 'slot = "9x"', ["9a", "9c", "9d", "9e"]),
        (SIGNATURE, AGAIN, ["Slot 9A is named twice"]),
        ('profile = "card-authentication"', 'profile = "card"', sorted(PROFILES)),
        ('objects = ["chuid"', 'objects = ["cuid"', list(NAMED_OBJECTS)),
    ],
)
def test_a_refused_value_names_those_that_are_taken(old: str, new: str, told: list[str]) -> None:
    text = shipped("civ").replace('"rsa2048"', '"p256"')
    assert old in text
    with pytest.raises((PolicyInvalid, PolicyContradictory)) as refused:
        read(text.replace(old, new))
    for word in told:
        assert word in refused.value.explain()
