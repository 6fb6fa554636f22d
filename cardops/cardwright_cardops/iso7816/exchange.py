"""One logical command in, one whole answer out: chaining, GET RESPONSE, 6Cxx and extended length.

This is the executing end's part of a card program (ISO 7816-4 sections 5.3.3, 5.3.4; SP 800-73-5 part 2
section 2.1). What is above it sees commands and answers of any size; what is below it sees APDUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import CardwrightError
from ..transport.connection import (
    CardRemoved,
    CardReset,
    CardUnresponsive,
    Connection,
    Interface,
    ReaderGone,
    Transmission,
    TransportError,
)
from .apdu import CLA_CHAINING, MAX_SHORT_DATA, MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from .status import NEEDS_LE, PRECEDES_DATA, SW

MAX_ANSWER: Final = 0x10000
"""Octets that one answer may have in all; the largest PIV container holds 12,710."""

DEFAULT_MAX_COMMAND: Final = 2038
"""Data octets of an extended command that every card known to take extended length takes."""

INS_SELECT: Final = 0xA4
INS_GET_RESPONSE: Final = 0xC0
_REFUSES_EXTENDED: Final = frozenset(
    (SW.WRONG_LENGTH, SW.CLA_NOT_SUPPORTED, SW.INS_NOT_SUPPORTED, SW.WRONG_P1P2, SW.NO_DIAGNOSIS, 0x6883)
)


class Sends(Protocol):
    """What takes a logical command: an Exchange, or a secure channel over one."""

    def send(self, command: CommandAPDU) -> ResponseAPDU:
        """The whole answer. Raises TransportError and BrokenExchange."""


class BrokenExchange(CardwrightError):
    """A command of several APDUs stopped in the middle; whether it took effect is not known.

    ``sw`` is the status word of the failing block, None where none came.
    """

    code = "EXCHANGE_BROKEN"
    default_effect = "Whether the card carried out the command is not known."
    default_advice = "Start again: the card is read first, and only what is missing is done."

    def __init__(self, message: str, sw: int | None) -> None:
        super().__init__(message)
        self.sw = sw


@dataclass(frozen=True, slots=True)
class Limits:
    """What a card takes. ``extended`` None means that the first SELECT finds out."""

    extended: bool | None = None
    max_command: int = DEFAULT_MAX_COMMAND


class Exchange:
    """The exchange of one connection. What it learned of extended length lasts as long as it lives."""

    __slots__ = ("_connection", "_limits", "_t0", "_transmit")

    def __init__(self, connection: Connection, limits: Limits | None = None) -> None:
        link = connection.link
        self._connection = connection
        self._transmit = connection.transmit
        self._t0 = link.transmission is Transmission.T0
        if self._t0 or link.interface is Interface.CONTACTLESS:
            limits = Limits(extended=False)
        self._limits = limits or Limits()

    @property
    def limits(self) -> Limits:
        """What is known of extended length by now."""
        return self._limits

    def send(self, command: CommandAPDU) -> ResponseAPDU:
        """Send ``command`` in as many APDUs as it takes and return its whole answer.

        Raises TransportError when nothing of it, or its only APDU, was lost (``sent`` tells), and
        BrokenExchange when it failed after its first APDU.
        """
        extended = self._limits.extended
        if extended is None:
            if command.ins == INS_SELECT:
                return self._probe(command)
            extended = False
        size = len(command.data)
        if extended and (size > MAX_SHORT_DATA or command.le > MAX_SHORT_LE):
            if size <= self._limits.max_command:
                return self._finish(command, self._transmit(self._encode(command, extended=True)), True)
        elif size <= MAX_SHORT_DATA:
            return self._finish(command, self._transmit(self._encode(command)), False)
        return self._chain(command)

    def _encode(self, command: CommandAPDU, *, extended: bool = False) -> bytes:
        le = command.le
        if self._t0 and command.data:
            le = 0  # T=0 has no case 4: the answer is fetched by GET RESPONSE (ISO 7816-3 section 12.2)
        elif not extended and le > MAX_SHORT_LE:
            le = MAX_SHORT_LE
        if le == command.le:
            return command.encode(extended=extended)
        return CommandAPDU(
            command.cla, command.ins, command.p1, command.p2, command.data, le
        ).encode(extended=extended)

    def _probe(self, command: CommandAPDU) -> ResponseAPDU:
        """SELECT in the extended form; a card that refuses or misreads it gets short APDUs from now on."""
        try:
            raw = self._transmit(self._encode(command, extended=True))
        except (CardRemoved, CardReset, ReaderGone):
            raise
        except CardUnresponsive:
            return self._short_from_now(command)  # some readers fail such a transfer, and only that
        sw = raw[-2] << 8 | raw[-1] if len(raw) >= 2 else 0
        # A card that took the two-octet Lc for an empty SELECT answers with the FCI of its own choice (6F).
        misread = raw[:1] == b"\x6f"
        if sw in _REFUSES_EXTENDED or misread:
            return self._short_from_now(command)
        self._limits = Limits(extended=True, max_command=self._limits.max_command)
        return self._finish(command, raw, True)

    def _short_from_now(self, command: CommandAPDU) -> ResponseAPDU:
        self._limits = Limits(extended=False)
        return self.send(command)

    def _chain(self, command: CommandAPDU) -> ResponseAPDU:
        """Command chaining: all blocks but the last carry 255 octets and CLA bit 5 (ISO 7816-4 5.3.3)."""
        data = command.data
        last = (len(data) - 1) // MAX_SHORT_DATA * MAX_SHORT_DATA
        for start in range(0, last, MAX_SHORT_DATA):
            block = CommandAPDU(
                command.cla | CLA_CHAINING, command.ins, command.p1, command.p2,
                data[start : start + MAX_SHORT_DATA],
            )
            response = ResponseAPDU.parse(self._next(block.encode(), first=start == 0))
            if response.sw != SW.OK:
                raise BrokenExchange(
                    f"the card stopped a chained command at octet {start} ({response.sw:04X})", response.sw
                )
        final = CommandAPDU(command.cla, command.ins, command.p1, command.p2, data[last:], command.le)
        return self._finish(final, self._next(self._encode(final), first=False), False, chained=True)

    def _next(self, raw: bytes, *, first: bool) -> bytes:
        """One more APDU of a command. After the first, a lost one leaves the command in doubt."""
        try:
            return self._transmit(raw)
        except TransportError as error:
            if first:
                raise
            raise BrokenExchange(f"the card was lost in the middle of a command: {error}", None) from error

    def _finish(
        self, command: CommandAPDU, raw: bytes, extended: bool, *, chained: bool = False
    ) -> ResponseAPDU:
        """Follow 6Cxx and 61xx to the end of the answer."""
        if raw[-2:-1] not in (b"\x61", b"\x6c"):
            response = ResponseAPDU.parse(raw)
            if extended and response.sw == SW.WRONG_LENGTH and command.ins != INS_SELECT:
                # The card announced more than it takes. 6700 says that nothing was carried out.
                self._limits = Limits(extended=False)
                return self.send(command)
            return response
        if raw[-2] == NEEDS_LE:
            exact = CommandAPDU(
                command.cla, command.ins, command.p1, command.p2, command.data, raw[-1] or MAX_SHORT_LE
            )
            raw = self._next(exact.encode(extended=extended), first=not chained)
            if raw[-2:-1] == b"\x6c":
                raise BrokenExchange("the card keeps asking for another length", raw[-2] << 8 | raw[-1])
        return self._collect(command, raw)

    def _collect(self, command: CommandAPDU, raw: bytes) -> ResponseAPDU:
        """GET RESPONSE until the status word is not 61xx; fragments may be longer than asked for."""
        parts: list[bytes] = []
        total, idle = 0, 0
        response = ResponseAPDU.parse(raw)
        while response.sw >> 8 == PRECEDES_DATA:
            parts.append(response.data)
            total += len(response.data)
            idle = 0 if response.data else idle + 1
            if total > MAX_ANSWER or idle > 2:
                raise BrokenExchange("the card's answer has no end", response.sw)
            wanted = CommandAPDU(
                command.cla & 0x03 if command.cla < 0x40 else 0x00,
                INS_GET_RESPONSE, 0, 0, b"", (response.sw & 0xFF) or MAX_SHORT_LE,
            )
            response = ResponseAPDU.parse(self._next(wanted.encode(), first=False))
            if response.sw >> 8 == NEEDS_LE:
                le = (response.sw & 0xFF) or MAX_SHORT_LE
                exact = CommandAPDU(wanted.cla, INS_GET_RESPONSE, 0, 0, b"", le)
                response = ResponseAPDU.parse(self._next(exact.encode(), first=False))
        if not parts:
            return response
        parts.append(response.data)
        if total and response.sw != SW.OK and response.sw >> 8 not in (0x62, 0x63):
            raise BrokenExchange(f"the card broke off its answer ({response.sw:04X})", response.sw)
        return ResponseAPDU(b"".join(parts), response.sw)
