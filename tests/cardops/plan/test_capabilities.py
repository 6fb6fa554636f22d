"""What each kind of card can do, written down again, and which kind a card is taken for."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, Slot
from cardwright_cardops.plan.capabilities import (
    BACKENDS,
    OPENFIPS201,
    PIVAPPLET,
    PLAIN,
    YUBICO,
    YUBICO_OLDER,
    Backend,
    CapabilityMissing,
    backend_of,
    require_algorithm,
    signs,
)
from cardwright_cardops.plan.inventory import Features, Inventory

ABILITIES = (
    "imports", "sets_management_key", "sets_retries", "moves", "attests", "seals", "policies", "matches",
    "any_key_signs", "origin_from_zero",
)  # fmt: skip
TOKEN = {"imports", "sets_management_key", "sets_retries", "attests", "policies", "any_key_signs"}
EVERY = {*ACTIVE_SLOTS, *RETIRED_SLOTS}

# Name to abilities, slots of keys that are made and that are brought, most octets of an object.
TABLE: dict[str, tuple[set[str], set[Slot], set[Slot], int]] = {
    "plain": (set(), set(ACTIVE_SLOTS), set(), 12720),
    "openfips201": ({"seals"}, set(ACTIVE_SLOTS), set(), 12720),
    "yubico": (TOKEN | {"moves", "seals"}, EVERY, EVERY, 3063),
    "yubico before 5.7": (TOKEN, EVERY, EVERY, 3063),
    "pivapplet": (
        TOKEN | {"origin_from_zero"}, {*ACTIVE_SLOTS, *map(Slot, range(0x82, 0x8D))},
        {*ACTIVE_SLOTS, *map(Slot, range(0x82, 0x8D))}, 3063,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_each_kind_of_card(name: str) -> None:
    one = BACKENDS[name]
    able, made, brought, octets = TABLE[name]
    assert {what for what in ABILITIES if getattr(one, what)} == able
    assert (set(one.generate_slots), set(one.import_slots), one.max_object) == (made, brought, octets)
    assert (one.name, one.management_attempts) == (name, 3)


def test_there_are_no_more_kinds() -> None:
    assert BACKENDS.keys() == TABLE.keys()


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        (Features(), PLAIN),
        (Features(label="PivApplet v0.9"), PIVAPPLET),
        (Features(label="PivApplet", version="5.7.1"), PIVAPPLET),
        (Features(label="OpenFIPS201 1.10"), OPENFIPS201),
        (Features(label="another"), PLAIN),
        (Features(version="4.3.7"), YUBICO_OLDER),
        (Features(version="5.6.9"), YUBICO_OLDER),
        (Features(version="5.7.0"), YUBICO),
        (Features(version="5.10.0"), YUBICO),
        (Features(version="10.0.0"), YUBICO),
    ],
)
def test_a_card_is_taken_for_what_it_answers(features: Features, kind: Backend) -> None:
    assert backend_of(features) is kind


def test_algorithms_that_the_card_or_its_kind_lacks() -> None:
    def lacks(backend: Backend, algorithm: Algorithm, announced: tuple[int, ...] = ()) -> bool:
        inventory = Inventory(features=Features(announced=announced))
        try:
            require_algorithm(backend, inventory, Slot.SIGNATURE, algorithm)
        except CapabilityMissing as missing:
            assert missing.capability == algorithm.label and "slot 9C" in str(missing)
            return True
        return False

    older = {Algorithm.RSA1024, Algorithm.RSA2048, Algorithm.P256, Algorithm.P384}
    standard = {Algorithm.RSA2048, Algorithm.RSA3072, Algorithm.P256, Algorithm.P384}
    for algorithm in Algorithm:
        assert not lacks(YUBICO, algorithm)
        assert lacks(YUBICO_OLDER, algorithm) is lacks(PIVAPPLET, algorithm) is (algorithm not in older)
        assert lacks(PLAIN, algorithm) is lacks(OPENFIPS201, algorithm) is (algorithm not in standard)
        assert lacks(YUBICO, algorithm, (int(Algorithm.P256),)) is (algorithm is not Algorithm.P256)
        assert not lacks(YUBICO, algorithm, (0x27, 0x2E)), "cipher suites say nothing of keys"


def test_keys_that_can_sign_their_own_certificate() -> None:
    for slot in (*ACTIVE_SLOTS, *RETIRED_SLOTS):
        agreement = slot is Slot.KEY_MANAGEMENT or slot in RETIRED_SLOTS
        assert signs(PLAIN, slot, Algorithm.RSA2048) and signs(YUBICO, slot, Algorithm.P256)
        assert signs(PLAIN, slot, Algorithm.P256) is not agreement
        assert not signs(YUBICO, slot, Algorithm.X25519)
