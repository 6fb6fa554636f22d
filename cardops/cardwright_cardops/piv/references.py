"""Key references (SP 800-73-5 part 1 table 4): slots, PINs and the administration key."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ..errors import CardwrightError

MANAGEMENT_KEY: Final = 0x9B
SECURE_MESSAGING_KEY: Final = 0x04


class PinReference(IntEnum):
    """References that VERIFY, CHANGE REFERENCE DATA and RESET RETRY COUNTER take."""

    GLOBAL_PIN = 0x00
    PIN = 0x80
    PUK = 0x81
    OCC_PRIMARY = 0x96
    OCC_SECONDARY = 0x97
    PAIRING_CODE = 0x98


class UnknownSlot(CardwrightError):
    """A slot name that PIV does not have."""

    code = "SLOT_UNKNOWN"
    default_effect = "Nothing on the card was changed."
    default_advice = "Slots are 9a, 9c, 9d, 9e and the retired ones 82 to 95."


class Slot(IntEnum):
    """Asymmetric keys of a PIV card. 82 to 95 are the retired key management keys 1 to 20."""

    AUTHENTICATION = 0x9A
    SIGNATURE = 0x9C
    KEY_MANAGEMENT = 0x9D
    CARD_AUTHENTICATION = 0x9E
    RETIRED_1 = 0x82
    RETIRED_2 = 0x83
    RETIRED_3 = 0x84
    RETIRED_4 = 0x85
    RETIRED_5 = 0x86
    RETIRED_6 = 0x87
    RETIRED_7 = 0x88
    RETIRED_8 = 0x89
    RETIRED_9 = 0x8A
    RETIRED_10 = 0x8B
    RETIRED_11 = 0x8C
    RETIRED_12 = 0x8D
    RETIRED_13 = 0x8E
    RETIRED_14 = 0x8F
    RETIRED_15 = 0x90
    RETIRED_16 = 0x91
    RETIRED_17 = 0x92
    RETIRED_18 = 0x93
    RETIRED_19 = 0x94
    RETIRED_20 = 0x95
    ATTESTATION = 0xF9
    """Vendor slot: signs statements about keys made on the card."""

    @property
    def label(self) -> str:
        """As people write it: ``9A``."""
        return f"{self.value:02X}"

    @property
    def is_retired(self) -> bool:
        """Whether it is one of the retired key management slots."""
        return 0x82 <= self <= 0x95

    @property
    def certificate_tag(self) -> int:
        """Tag of the container that holds this key's certificate."""
        return _CERTIFICATES[self]

    @classmethod
    def named(cls, text: str) -> Slot:
        """The slot people call ``text`` (two hex digits, any case). Raises UnknownSlot."""
        if len(text) == 2 and text.isascii() and text.isalnum():
            try:
                return cls(int(text, 16))
            except ValueError:
                pass
        raise UnknownSlot(f"There is no slot '{text}'.")


_CERTIFICATES: Final = {
    Slot.AUTHENTICATION: 0x5FC105,
    Slot.SIGNATURE: 0x5FC10A,
    Slot.KEY_MANAGEMENT: 0x5FC10B,
    Slot.CARD_AUTHENTICATION: 0x5FC101,
    Slot.ATTESTATION: 0x5FFF01,
    **{Slot(0x82 + index): 0x5FC10D + index for index in range(20)},
}

ACTIVE_SLOTS: Final = (
    Slot.AUTHENTICATION,
    Slot.SIGNATURE,
    Slot.KEY_MANAGEMENT,
    Slot.CARD_AUTHENTICATION,
)
RETIRED_SLOTS: Final = tuple(slot for slot in Slot if slot.is_retired)


def slot_of_certificate(tag: int) -> Slot | None:
    """The slot whose certificate the container ``tag`` holds, if it is such a container."""
    return _SLOTS.get(tag)


_SLOTS: Final = {tag: slot for slot, tag in _CERTIFICATES.items()}
