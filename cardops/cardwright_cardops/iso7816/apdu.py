"""Command and response APDUs (ISO 7816-4 section 5.1), short and extended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import CardwrightError

MAX_SHORT_DATA: Final = 255
MAX_SHORT_LE: Final = 256
MAX_EXTENDED: Final = 65535
MAX_EXTENDED_LE: Final = 65536

CLA_CHAINING: Final = 0x10
"""Bit 5 of an interindustry class byte: more blocks of this command follow."""


class MalformedApdu(CardwrightError):
    """Bytes that are no command or response APDU."""

    code = "APDU_MALFORMED"
    default_effect = "Nothing was sent to the card."
    default_advice = "This is a defect of the program that made it; please report it."


@dataclass(frozen=True, slots=True)
class CommandAPDU:
    """One logical command: any amount of data, and how many octets may come back.

    ``le`` is 0 when no response data is wanted, else the most octets wanted (256 and 65536 are the
    maxima of the short and the extended form). ``data`` longer than one APDU takes is chained by the
    executing end; ``encode`` refuses it.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    le: int = 0

    def encode(self, *, extended: bool = False) -> bytes:
        """The octets on the wire, short unless ``extended``.

        Raises MalformedApdu where the data or ``le`` does not fit the form.
        """
        head = bytes((self.cla, self.ins, self.p1, self.p2))
        size = len(self.data)
        if not extended:
            if size > MAX_SHORT_DATA or self.le > MAX_SHORT_LE:
                raise MalformedApdu(f"{size} octets of data and Le {self.le} do not fit a short APDU")
            body = bytes((size,)) + self.data if size else b""
            return head + body + (bytes((self.le & 0xFF,)) if self.le else b"")
        if size > MAX_EXTENDED or self.le > MAX_EXTENDED_LE:
            raise MalformedApdu(f"{size} octets of data and Le {self.le} do not fit an extended APDU")
        if size:
            tail = (self.le & 0xFFFF).to_bytes(2, "big") if self.le else b""
            return head + b"\x00" + size.to_bytes(2, "big") + self.data + tail
        return head + (b"\x00" + (self.le & 0xFFFF).to_bytes(2, "big") if self.le else b"")

    @classmethod
    def parse(cls, raw: bytes) -> CommandAPDU:
        """The command in ``raw``, all seven forms of ISO 7816-4 section 5.1. Raises MalformedApdu."""
        if len(raw) < 4:
            raise MalformedApdu(f"a command APDU has at least 4 octets, not {len(raw)}")
        cla, ins, p1, p2 = raw[:4]
        body = raw[4:]
        if not body:
            return cls(cla, ins, p1, p2)
        if len(body) == 1:
            return cls(cla, ins, p1, p2, b"", body[0] or MAX_SHORT_LE)
        if body[0] or len(body) < 3:
            return cls(cla, ins, p1, p2, *_tail(body, 1, body[0], MAX_SHORT_LE))
        size = int.from_bytes(body[1:3], "big")
        if len(body) == 3:
            return cls(cla, ins, p1, p2, b"", size or MAX_EXTENDED_LE)
        return cls(cla, ins, p1, p2, *_tail(body, 3, size, MAX_EXTENDED_LE))

    @property
    def header(self) -> bytes:
        """CLA INS P1 P2."""
        return bytes((self.cla, self.ins, self.p1, self.p2))

    def __repr__(self) -> str:
        # Data may be a PIN or a key: only its length is ever shown.
        return f"CommandAPDU({self.header.hex()} Lc={len(self.data)} Le={self.le})"


def _tail(body: bytes, start: int, size: int, all_octets: int) -> tuple[bytes, int]:
    """Data and Le of a body whose length field says ``size`` and whose data begins at ``start``."""
    end = start + size
    data, rest = body[start:end], body[end:]
    le_octets = 1 if start == 1 else 2
    if not size or len(data) != size or len(rest) not in (0, le_octets):
        raise MalformedApdu(f"the length field says {size} octets, {len(body) - start} follow")
    return data, (int.from_bytes(rest, "big") or all_octets) if rest else 0


@dataclass(frozen=True, slots=True)
class ResponseAPDU:
    """Response data and status word."""

    data: bytes
    sw: int

    @classmethod
    def parse(cls, raw: bytes) -> ResponseAPDU:
        """The response in ``raw``. Raises MalformedApdu for fewer than two octets."""
        if len(raw) < 2:
            raise MalformedApdu(
                f"the card answered {len(raw)} octets, fewer than a status word",
                effect="Whether the card carried out the command is not known.",
                advice="Take the card out, put it back and try again.",
            )
        return cls(raw[:-2], raw[-2] << 8 | raw[-1])

    def encode(self) -> bytes:
        """Data and status word as sent."""
        return self.data + self.sw.to_bytes(2, "big")

    def __repr__(self) -> str:
        return f"ResponseAPDU({len(self.data)} octets, {self.sw:04X})"
