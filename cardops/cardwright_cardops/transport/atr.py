"""The little that a connection needs of an answer to reset (ISO 7816-3 section 8.2)."""

from __future__ import annotations

from .connection import Interface, Transmission

_T = {0: Transmission.T0, 1: Transmission.T1}


def offered(atr: bytes) -> tuple[Transmission, ...]:
    """The protocols that ``atr`` offers, first offer first; T=0 alone when it names none.

    Never raises: what cannot be read offers nothing more.
    """
    found: list[Transmission] = []
    at = 1
    while at < len(atr):
        present = atr[at] >> 4
        if at > 1 and (protocol := _T.get(atr[at] & 0x0F)) and protocol not in found:
            found.append(protocol)
        if not present & 0x8:
            break
        at += (present & 0x7).bit_count() + 1
    return tuple(found) or (Transmission.T0,)


def coupling(atr: bytes) -> Interface:
    """Contactless for the ATR that readers make up for such cards: 3B 8n 80 01 (PC/SC part 3 section 3.1.3.2.3)."""
    made_up = len(atr) > 4 and atr[0] == 0x3B and atr[1] & 0xF0 == 0x80 and atr[2:4] == b"\x80\x01"
    return Interface.CONTACTLESS if made_up else Interface.CONTACT
