"""The calls of PC/SC that are used, typed, over smartcard.scard; each result that is no success is a failure.

pyscard's own layers above scard are not used: they poll, power cards down on disconnect, and end for good
when the service stops. On pcsc-lite 1.9.9 all of these calls can block without limit while another program
holds a transaction, or while pcscd itself hangs; they release the interpreter's lock.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from smartcard import scard

_log = logging.getLogger(__name__)

_POWERED: Final = 0x04 if sys.platform == "win32" else 0x10
"""In what SCardStatus says of a card; on Windows the states above are numbers with the same bit."""
LEAVE: Final[int] = scard.SCARD_LEAVE_CARD
RESET: Final[int] = scard.SCARD_RESET_CARD
T0: Final[int] = scard.SCARD_PROTOCOL_T0
T1: Final[int] = scard.SCARD_PROTOCOL_T1
PNP: Final = "\\\\?PnP?\\Notification"
"""The reader that is none: its state changes when readers come and go."""

transmit = scard.SCardTransmit
"""``transmit(handle, pci, list of octets) -> (result, list of octets)``: bare, because each microsecond counts."""

PCI: Final[dict[int, int]] = {T0: scard.SCARD_PCI_T0, T1: scard.SCARD_PCI_T1}


class Result(IntEnum):
    """Results of PC/SC calls that mean something to us."""

    OK = 0
    CANCELLED = 0x80100002
    INVALID_HANDLE = 0x80100003
    UNKNOWN_READER = 0x80100009
    TIMEOUT = 0x8010000A
    SHARING_VIOLATION = 0x8010000B
    NO_SMARTCARD = 0x8010000C
    PROTO_MISMATCH = 0x8010000F
    COMM_ERROR = 0x80100013
    NOT_TRANSACTED = 0x80100016
    READER_UNAVAILABLE = 0x80100017
    NO_SERVICE = 0x8010001D
    SERVICE_STOPPED = 0x8010001E
    NO_ACCESS = 0x80100027
    NO_READERS_AVAILABLE = 0x8010002E
    UNRESPONSIVE_CARD = 0x80100066
    UNPOWERED_CARD = 0x80100067
    RESET_CARD = 0x80100068
    REMOVED_CARD = 0x80100069
    SECURITY_VIOLATION = 0x8010006A


class State(IntEnum):
    """Bits of a reader's state; the upper 16 bits count insertions and removals."""

    CHANGED = 0x0002
    UNKNOWN = 0x0004
    UNAVAILABLE = 0x0008
    EMPTY = 0x0010
    PRESENT = 0x0020
    EXCLUSIVE = 0x0080
    IN_USE = 0x0100
    MUTE = 0x0200


class Failure(Exception):
    """A call that did not succeed. Never leaves this package: it becomes a TransportError."""

    def __init__(self, call: str, result: int) -> None:
        super().__init__(f"{call} gave {result:08X}")
        self.call = call
        self.result = result


@dataclass(frozen=True, slots=True)
class ReaderState:
    """What PC/SC knows of a reader. ``atr`` is empty without a card and of a card that does not answer."""

    reader: str
    state: int
    atr: bytes = b""

    @property
    def present(self) -> bool:
        """There is a card in it."""
        return bool(self.state & State.PRESENT)

    @property
    def mute(self) -> bool:
        """The card does not answer to reset."""
        return bool(self.state & State.MUTE)

    @property
    def in_use(self) -> bool:
        """Some program is connected to the card."""
        return bool(self.state & (State.IN_USE | State.EXCLUSIVE))

    @property
    def exclusive(self) -> bool:
        """Some program has the card for itself."""
        return bool(self.state & State.EXCLUSIVE)

    @property
    def gone(self) -> bool:
        """PC/SC does not know the reader any more."""
        return bool(self.state & (State.UNKNOWN | State.UNAVAILABLE)) and not self.present

    @property
    def events(self) -> int:
        """Insertions and removals counted since the reader came."""
        return self.state >> 16 & 0xFFFF


class Waiting(Protocol):
    """The calls that watch readers."""

    def establish(self) -> int:
        """A new context. Raises Failure."""

    def release(self, context: int) -> None:
        """Give the context back. Never raises."""

    def cancel(self, context: int) -> None:
        """End a ``status_change`` that waits on ``context`` now. Never raises."""

    def list_readers(self, context: int) -> tuple[str, ...]:
        """Names of all readers. Raises Failure."""

    def status_change(
        self, context: int, known: Sequence[tuple[str, int]], milliseconds: int | None
    ) -> tuple[ReaderState, ...]:
        """Wait until a reader's state is not as ``known``; None waits without end. Raises Failure."""


class Scard:
    """The calls, on the machine's PC/SC. Holds no state."""

    __slots__ = ()

    def establish(self) -> int:
        result, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        _check("SCardEstablishContext", result)
        return int(context)

    def release(self, context: int) -> None:
        _quietly("SCardReleaseContext", scard.SCardReleaseContext(context))

    def cancel(self, context: int) -> None:
        _quietly("SCardCancel", scard.SCardCancel(context))

    def list_readers(self, context: int) -> tuple[str, ...]:
        result, names = scard.SCardListReaders(context, [])
        if _unsigned(result) == Result.NO_READERS_AVAILABLE:
            return ()
        _check("SCardListReaders", result)
        usable = tuple(name for name in names if name.isascii())
        if len(usable) != len(names):
            _log.warning("readers with a name that is not ASCII are left out: pyscard cannot name them")
        return usable

    def status_change(
        self, context: int, known: Sequence[tuple[str, int]], milliseconds: int | None
    ) -> tuple[ReaderState, ...]:
        timeout = scard.INFINITE if milliseconds is None else milliseconds
        result, states = scard.SCardGetStatusChange(context, timeout, list(known))
        _check("SCardGetStatusChange", result)
        return tuple(ReaderState(name, state, bytes(atr)) for name, state, atr in states)

    def connect(self, context: int, reader: str) -> tuple[int, int]:
        """Connect shared, T=0 or T=1, powering a card up that is not. Returns handle and protocol. Raises Failure."""
        result, handle, protocol = scard.SCardConnect(context, reader, scard.SCARD_SHARE_SHARED, T0 | T1)
        if _unsigned(result) == Result.UNPOWERED_CARD:
            return self._connect_unpowered(context, reader)
        _check("SCardConnect", result)
        return int(handle), int(protocol)

    def _connect_unpowered(self, context: int, reader: str) -> tuple[int, int]:
        """pcsc-lite powers no card up for us while a program is connected that took it up after another one had
        powered it down (see ``status``). Through the reader itself it does."""
        result, handle, _ = scard.SCardConnect(context, reader, scard.SCARD_SHARE_DIRECT, 0)
        _check("SCardConnect", result)
        try:
            return int(handle), self.reconnect(int(handle), RESET)
        except Failure:
            self.disconnect(int(handle))
            raise

    def reconnect(self, handle: int, disposition: int) -> int:
        """Take up a connection again, LEAVE or RESET; the protocol. Raises Failure."""
        result, protocol = scard.SCardReconnect(handle, scard.SCARD_SHARE_SHARED, T0 | T1, disposition)
        _check("SCardReconnect", result)
        return int(protocol)

    def status(self, handle: int) -> tuple[bytes, bool]:
        """The ATR of the connected card, and whether it has power. Raises Failure: REMOVED_CARD, RESET_CARD, others.

        It has none where another program powered it down when it let go, as those on pyscard do: for pcsc-lite
        that is a reset, and taking the connection up again does not power the card up.
        """
        result, _, state, _, atr = scard.SCardStatus(handle)
        _check("SCardStatus", result)
        return bytes(atr), bool(state & _POWERED)

    def begin(self, handle: int) -> None:
        """Begin a transaction, waiting for another program's to end. Raises Failure."""
        _check("SCardBeginTransaction", scard.SCardBeginTransaction(handle))

    def end(self, handle: int) -> None:
        """End the transaction, leaving the card as it is. Never raises: one that cannot be ended is over."""
        _quietly("SCardEndTransaction", scard.SCardEndTransaction(handle, LEAVE))

    def disconnect(self, handle: int) -> None:
        """Let the card go as it is. Never raises."""
        _quietly("SCardDisconnect", scard.SCardDisconnect(handle, LEAVE))


def _unsigned(result: int) -> int:
    return result & 0xFFFFFFFF


def _check(call: str, result: int) -> None:
    if result:
        raise Failure(call, _unsigned(result))


def _quietly(call: str, result: int) -> None:
    if result:
        _log.debug("%s gave %08X", call, _unsigned(result))
