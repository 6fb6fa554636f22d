"""Key references and the containers of their certificates: SP 800-73-5 part 1 tables 3 and 4, written down again."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.references import (
    ACTIVE_SLOTS,
    MANAGEMENT_KEY,
    RETIRED_SLOTS,
    SECURE_MESSAGING_KEY,
    PinReference,
    Slot,
    UnknownSlot,
    slot_of_certificate,
)

TAGS = {
    "9A": 0x5FC105, "9C": 0x5FC10A, "9D": 0x5FC10B, "9E": 0x5FC101, "F9": 0x5FFF01,
    "82": 0x5FC10D, "83": 0x5FC10E, "84": 0x5FC10F, "85": 0x5FC110, "86": 0x5FC111, "87": 0x5FC112, "88": 0x5FC113,
    "89": 0x5FC114, "8A": 0x5FC115, "8B": 0x5FC116, "8C": 0x5FC117, "8D": 0x5FC118, "8E": 0x5FC119, "8F": 0x5FC11A,
    "90": 0x5FC11B, "91": 0x5FC11C, "92": 0x5FC11D, "93": 0x5FC11E, "94": 0x5FC11F, "95": 0x5FC120,
}  # fmt: skip


def test_slots_and_the_containers_of_their_certificates() -> None:
    assert {slot.label: slot.certificate_tag for slot in Slot} == TAGS
    for label, tag in TAGS.items():
        slot = Slot(int(label, 16))
        assert slot_of_certificate(tag) is slot
        assert Slot.named(label) is Slot.named(label.lower()) is slot
    assert slot_of_certificate(0x5FC102) is None


def test_slots_by_their_names() -> None:
    assert [slot.label for slot in ACTIVE_SLOTS] == ["9A", "9C", "9D", "9E"]
    assert [f"{slot:02X}" for slot in RETIRED_SLOTS] == list(TAGS)[5:]
    assert [slot.name for slot in RETIRED_SLOTS] == [f"RETIRED_{number}" for number in range(1, 21)]
    assert (Slot.AUTHENTICATION, Slot.SIGNATURE) == (0x9A, 0x9C)
    assert (Slot.KEY_MANAGEMENT, Slot.CARD_AUTHENTICATION, Slot.ATTESTATION) == (0x9D, 0x9E, 0xF9)


def test_references_of_values_and_other_keys() -> None:
    assert (MANAGEMENT_KEY, SECURE_MESSAGING_KEY) == (0x9B, 0x04)
    assert {one.name: f"{one:02X}" for one in PinReference} == {
        "GLOBAL_PIN": "00", "PIN": "80", "PUK": "81", "OCC_PRIMARY": "96", "OCC_SECONDARY": "97", "PAIRING_CODE": "98",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "9b", "81", "96", "9a9a", "pin", "1000"])
def test_there_is_no_such_slot(text: str) -> None:
    with pytest.raises(UnknownSlot, match=f"no slot '{text}'"):
        Slot.named(text)
