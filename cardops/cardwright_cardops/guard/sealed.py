"""Wrapped commands: what their clear headers say, and that the header is the one that goes to the card."""

from __future__ import annotations

from typing import Final

from ..iso7816.apdu import CommandAPDU, MalformedApdu
from ..program.items import SealedItem
from .intents import Sealed
from .verdict import Deny, Rule

_SECURED: Final = frozenset((0x04, 0x84))
"""Class bytes of protected commands (GlobalPlatform Amendment D section 6.2), first channel."""
_CHAINED: Final = 0x10


def sealed_meaning(item: SealedItem) -> Sealed | Deny:
    """The instruction and parameters of ``item``; Deny where its APDUs say something else than its header."""
    cla, ins, p1, p2 = item.header
    if cla not in _SECURED:
        return Deny(Rule.ITEM, "a command of a sealed batch is not protected")
    last = len(item.apdus) - 1
    for number, raw in enumerate(item.apdus):
        try:
            command = CommandAPDU.parse(raw)
        except MalformedApdu:
            return Deny(Rule.ITEM, "a block of a sealed command is no APDU")
        chained = cla if number == last else cla | _CHAINED
        if command.header != bytes((chained, ins, p1, p2)):
            return Deny(Rule.ITEM, "a block of a sealed command differs from its header")
    return Sealed(ins, p1, p2)
