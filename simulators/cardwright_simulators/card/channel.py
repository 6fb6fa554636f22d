"""From APDU octets to logical commands and back: lengths, command chaining, GET RESPONSE, 6Cxx, T=0 rules."""

from __future__ import annotations

from typing import Final, Protocol

from cardwright_cardops.iso7816.apdu import CLA_CHAINING
from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.transport.connection import Transmission

from .profiles import Profile

GET_RESPONSE: Final = 0xC0
PUT_DATA: Final = 0xDB
_OK: Final = b"\x90\x00"
_WRONG_LENGTH: Final = b"\x67\x00"
_SHORT_LE: Final = 256
_EXTENDED_LE: Final = 65536


class Executor(Protocol):
    """What lies behind the channel."""

    def run(
        self, cla: int, ins: int, p1: int, p2: int, data: bytes, le: int, extended: bool
    ) -> tuple[bytes, int]:
        """Execute one logical command: data and status word."""

    def chains(self, cla: int, ins: int) -> int:
        """The status word for a block that says more blocks follow; 9000 where the command may be chained."""


class Channel:
    """One logical channel (ISO 7816-4 section 5.1). Holds at most one open chain and one pending answer."""

    def __init__(self, profile: Profile, executor: Executor) -> None:
        self._executor = executor
        self._t0 = profile.transmission is Transmission.T0
        self._extended = profile.extended
        self._answers_without_le = profile.answers_without_le
        self._max_data = profile.max_data
        self._pending = b""
        self._pending_sw: int = SW.OK
        self._chain = bytearray()
        self._chain_head: tuple[int, int, int, int] | None = None
        self._repeat: tuple[bytes, bytes, int] | None = None

    def clear(self) -> None:
        """Forget an open chain and a pending answer, as a reset does."""
        self._pending = b""
        self._chain = bytearray()
        self._chain_head = None
        self._repeat = None

    def transmit(self, raw: bytes) -> bytes:
        """One command APDU, any octets; the response APDU."""
        size = len(raw)
        if size < 4:
            return self._malformed()
        cla, ins, p1, p2 = raw[0], raw[1], raw[2], raw[3]
        extended = False
        data = b""
        le = 0
        if size == 5:
            le = raw[4] or _SHORT_LE
        elif size > 5:
            lc = raw[4]
            if lc:
                data = raw[5 : 5 + lc]
                rest = size - 5 - lc
                if rest == 1:
                    le = raw[-1] or _SHORT_LE
                elif rest:
                    return self._malformed()
                if le and self._t0:
                    return self._malformed()
            else:
                extended = True
                lengths = _extended_body(raw)
                if lengths is None or not self._extended:
                    return self._malformed()
                data, le = lengths
        if ins == GET_RESPONSE and cla & ~0x0C == 0:
            return self._get_response(p1, p2, data, le, extended)
        if self._repeat is not None:
            again, self._repeat = self._repeat, None
            if raw[:4] == again[0] and le == len(again[1]) and not data:
                return again[1] + again[2].to_bytes(2, "big")
        self._pending = b""
        if cla & CLA_CHAINING or self._chain_head is not None:
            head = (cla & ~CLA_CHAINING, ins, p1, p2)
            if head != self._chain_head:
                self._chain = bytearray()
                self._chain_head = None
            if cla & CLA_CHAINING:
                return self._block(head, data)
            if self._chain_head is not None:
                data = bytes(self._chain) + data
                self._chain = bytearray()
                self._chain_head = None
                if len(data) > self._max_data:
                    return self._too_long(ins)
        elif len(data) > self._max_data:
            return self._too_long(ins)
        body, sw = self._executor.run(cla & ~CLA_CHAINING, ins, p1, p2, data, le, extended)
        if not body:
            return sw.to_bytes(2, "big")
        return self._answer(body, sw, le, extended, raw[:4])

    def _block(self, head: tuple[int, int, int, int], data: bytes) -> bytes:
        """A block that is not the last one."""
        sw = self._executor.chains(head[0], head[1])
        if sw == SW.OK and len(self._chain) + len(data) > self._max_data:
            self._chain = bytearray()
            self._chain_head = None
            return self._too_long(head[1])
        if sw != SW.OK:
            return sw.to_bytes(2, "big")
        self._chain_head = head
        self._chain += data
        return _OK

    def _answer(self, body: bytes, sw: int, le: int, extended: bool, header: bytes) -> bytes:
        """As much of ``body`` as this answer may carry, and what to ask for next."""
        most = le
        if not le and self._answers_without_le and not self._t0:
            most = _EXTENDED_LE if extended else _SHORT_LE
        if self._t0:
            if le in (0, _SHORT_LE):
                most = 0
            elif le != len(body) < _SHORT_LE:
                self._repeat = (header, body, sw)
                return bytes((0x6C, len(body)))
        if len(body) <= most:
            return body + sw.to_bytes(2, "big")
        self._pending, self._pending_sw = body[most:], sw
        return body[:most] + _more(len(self._pending))

    def _get_response(self, p1: int, p2: int, data: bytes, le: int, extended: bool) -> bytes:
        """The next piece; an absent Le asks for as much as its form allows."""
        self._chain = bytearray()
        self._chain_head = None
        self._repeat = None
        if data:
            self._pending = b""
            return _WRONG_LENGTH
        if p1 or p2:
            self._pending = b""
            return SW.WRONG_P1P2.to_bytes(2, "big")
        if not self._pending:
            return SW.CONDITIONS.to_bytes(2, "big")
        most = le or (_EXTENDED_LE if extended else _SHORT_LE)
        left = len(self._pending)
        if self._t0 and left < most < _SHORT_LE:
            return bytes((0x6C, left))
        piece, self._pending = self._pending[:most], self._pending[most:]
        return piece + (_more(len(self._pending)) if self._pending else self._pending_sw.to_bytes(2, "big"))

    def _too_long(self, ins: int) -> bytes:
        sw = SW.NO_SPACE if ins == PUT_DATA else SW.WRONG_LENGTH
        return sw.to_bytes(2, "big")

    def _malformed(self) -> bytes:
        """An APDU of no valid form is a command, too: it ends a chain and drops a pending answer."""
        self.clear()
        return _WRONG_LENGTH


def _more(left: int) -> bytes:
    return bytes((0x61, left if left < _SHORT_LE else 0))


def _extended_body(raw: bytes) -> tuple[bytes, int] | None:
    """Data and Le of an extended APDU; None where the lengths do not add up."""
    size = len(raw)
    if size < 7:
        return None
    number = raw[5] << 8 | raw[6]
    if size == 7:
        return b"", number or _EXTENDED_LE
    rest = size - 7 - number
    if not number or rest not in (0, 2):
        return None
    le = (raw[-2] << 8 | raw[-1]) or _EXTENDED_LE if rest else 0
    return raw[7 : 7 + number], le
