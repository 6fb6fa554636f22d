"""Containers of the PIV data model and who may read them (SP 800-73-5 part 1 tables 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cardwright_cardops.iso7816.tlv import MalformedTlv, iterate, parse_one, parse_unique

DISCOVERY: Final = 0x7E
BIT_GROUP: Final = 0x7F61
PRINTED: Final = 0x5FC109
PAIRING_CODE_OBJECT: Final = 0x5FC123
ATTESTATION_CERTIFICATE: Final = 0x5FFF01
BARE: Final = frozenset((DISCOVERY, BIT_GROUP))
"""Objects that are read and written without the 53 wrapper."""


class Rule(Enum):
    """What must have been proved to read an object or use a key."""

    ALWAYS = "always"
    PIN = "PIN"
    PIN_OR_OCC = "PIN or OCC"


@dataclass(frozen=True, slots=True)
class Container:
    """One container: least capacity in octets of its value, read rule, and whether contactless needs the VCI."""

    capacity: int
    rule: Rule
    vci: bool


def _table() -> dict[int, Container]:
    always, pin, either = Rule.ALWAYS, Rule.PIN, Rule.PIN_OR_OCC
    table = {
        0x5FC107: Container(170, always, True),
        0x5FC102: Container(2881, always, False),
        0x5FC105: Container(1857, always, True),
        0x5FC103: Container(4006, pin, True),
        0x5FC106: Container(1336, always, True),
        0x5FC108: Container(12710, pin, True),
        0x5FC101: Container(1857, always, False),
        0x5FC10A: Container(1857, always, True),
        0x5FC10B: Container(1857, always, True),
        PRINTED: Container(245, either, True),
        DISCOVERY: Container(19, always, False),
        0x5FC10C: Container(128, always, True),
        0x5FC121: Container(7106, pin, True),
        BIT_GROUP: Container(65, always, False),
        0x5FC122: Container(2471, always, False),
        PAIRING_CODE_OBJECT: Container(12, either, True),
    }
    table.update({tag: Container(1895, always, True) for tag in range(0x5FC10D, 0x5FC121)})
    return table


CONTAINERS: Final[Mapping[int, Container]] = _table()
"""Every container of the data model by tag."""


@dataclass(frozen=True, slots=True)
class PinUsage:
    """The PIN usage policy of the Discovery object (part 1 section 3.3.2); without the object: PIN 80 only."""

    global_pin: bool = False
    occ: bool = False
    vci: bool = False
    vci_without_pairing: bool = False

    @classmethod
    def read(cls, discovery: bytes | None) -> PinUsage:
        """The policy in a Discovery object as GET DATA answers it; damaged content counts as absent."""
        bits = _inner(discovery or b"").get(0x5F2F, b"")[:1]
        if not bits:
            return cls()
        return cls(bool(bits[0] & 0x20), bool(bits[0] & 0x10), bool(bits[0] & 0x08), bool(bits[0] & 0x04))


def finger_limits(bit_group: bytes | None, reference: int) -> tuple[int, int] | None:
    """Least and most minutiae that the BIT group states for a finger reference; None if it is not listed.

    The template of one finger (SP 800-73-5 part 1 section 3.3.6) is 7F60 with the reference in 83 and, inside
    A1 and B1, the two limits in 81. A template without limits takes any number that fits a short command.
    """
    try:
        templates = [item.value for item in iterate(parse_one(bit_group or b"").value) if item.tag == 0x7F60]
    except MalformedTlv:
        return None
    for template in templates:
        inner = _values(template)
        if inner.get(0x83) != bytes((reference,)):
            continue
        limits = _values(_values(inner.get(0xA1, b"")).get(0xB1, b"")).get(0x81, b"")
        return (limits[0], limits[1]) if len(limits) == 2 else (1, 85)
    return None


def _inner(answer: bytes) -> dict[int, bytes]:
    """The data objects inside the one data object ``answer``; none when it is damaged."""
    try:
        return _values(parse_one(answer).value)
    except MalformedTlv:
        return {}


def _values(raw: bytes) -> dict[int, bytes]:
    try:
        return parse_unique(raw)
    except MalformedTlv:
        return {}
