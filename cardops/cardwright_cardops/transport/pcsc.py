"""Cards in the machine's readers, through PC/SC.

Always SHARED and always LEAVE: other programs keep their turn and their login. A connection has a context
and a thread of its own (worker.py says why), so that one hanging card hangs nothing else. Whoever sends many
commands hands them over in one piece with ``perform``; single calls work from anywhere and cost a hand-over.

A deadline that passes ends the connection: the caller gets an error at once, and when the call returns after
all, its transaction is ended and the card let go with LEAVE, on the spot.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from types import TracebackType
from typing import Final, TypeVar

from . import pcsc_api
from .atr import coupling
from .connection import CardRemoved, CardUnresponsive, Link, ReaderGone, Transmission, TransportError
from .deadlines import Deadlines
from .holders import busy
from .pcsc_api import LEAVE, PCI, RESET, Failure, ReaderState, Result, Scard
from .pcsc_errors import ConnectionOver, DeadlinePassed, PcscNotRunning, error_for, stopped, unavailable
from .worker import NEVER, Late, Over, Worker

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MOST_RESETS: Final = 5
"""How often a transaction is begun anew because somebody reset the card just before."""
_NOTICE: Final = 600
"""Milliseconds in which pcscd notices a card that left; it looks every 400."""
_CLOSING: Final = 2.0
_TRANSMISSION: Final = {pcsc_api.T0: Transmission.T0, pcsc_api.T1: Transmission.T1}


def readers(deadlines: Deadlines | None = None) -> tuple[ReaderState, ...]:
    """All readers and what is in them, in PC/SC's order; none is no error.

    Raises PcscNotRunning (also when it does not answer) and PcscAccessDenied.
    """
    session = _Session(deadlines or Deadlines(), "")
    try:
        return session.call(session.look)
    finally:
        session.close()


def connect(reader: str, deadlines: Deadlines | None = None) -> PcscConnection:
    """A connection to the card in ``reader``, SHARED, with whichever of T=0 and T=1 the card takes.

    Raises NoReader, NoCard, CardUnresponsive, CardBusy, PcscNotRunning, PcscAccessDenied and other TransportErrors.
    """
    session = _Session(deadlines or Deadlines(), reader)
    try:
        session.call(session.connect)
    except BaseException:
        session.close()
        raise
    return PcscConnection(session)


class PcscConnection:
    """A Connection through PC/SC; a context manager, too. Made by ``connect``."""

    __slots__ = ("_session", "_worker")

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._worker = session.worker

    @property
    def link(self) -> Link:
        """Reader, ATR, protocol; read again after each reset."""
        return self._session.link

    def transmit(self, command: bytes) -> bytes:
        """One command APDU to the card, its response APDU back.

        Raises CardReset (nothing was sent; ``reconnect`` first), CardRemoved, CardUnresponsive, ReaderGone,
        CardBusy, PcscNotRunning, DeadlinePassed and ConnectionOver.
        """
        session = self._session
        if get_ident() == self._worker.ident:
            return session.transmit(command)
        return session.call(lambda: session.transmit(command))

    def perform(self, work: Callable[[], T]) -> T:
        """Do ``work`` on this connection's thread, where ``transmit`` needs no hand-over, and return its value.

        Deadlines hold inside: when one passes, DeadlinePassed is raised *here* while ``work`` still hangs, so
        what it found out so far has to be kept where the caller can see it.
        """
        return self._session.call(work)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nobody else reaches the card inside. Not re-entrant.

        Waits for another program's transaction and raises CardBusy after the deadline for that; a card that
        was reset meanwhile is taken up again, its state unknown. Raises CardRemoved and other TransportErrors.
        """
        session = self._session
        session.call(session.begin)
        try:
            yield
        finally:
            try:
                session.call(session.end)
            except TransportError as error:
                _log.info("the transaction ended by itself: %s", error)

    def reset(self) -> None:
        """Reset the card (warm). Other programs see CardReset. Raises TransportError."""
        self._session.call(lambda: self._session.reconnect(RESET))

    def reconnect(self) -> None:
        """Take up the connection again after CardReset; every security status is unknown, nothing selected.

        Raises CardRemoved when the card was out in between, also when another is in now.
        """
        self._session.call(lambda: self._session.reconnect(LEAVE))

    def close(self) -> None:
        """Let the card go as it is (LEAVE). Never raises; further calls raise ConnectionOver."""
        self._session.close()

    def __enter__(self) -> PcscConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Session:
    """Context, handle and thread of a connection. All methods but ``call`` and ``close`` run on the thread."""

    __slots__ = (
        "_api", "_begun", "_context", "_deadlines", "_handle", "_of", "_pci", "_reader", "_waits", "link", "worker",
    )  # fmt: skip

    def __init__(self, deadlines: Deadlines, reader: str) -> None:
        self._api = Scard()
        self._deadlines = deadlines
        self._of = deadlines.of
        self._reader = reader
        self._context: int | None = None
        self._handle: int | None = None
        self._pci = 0
        self._begun = False
        self._waits = False  # for another program, so that a deadline means CardBusy
        self.link = Link(reader, b"")
        self.worker = Worker(f"pcsc:{reader}", self._let_go, deadlines.shortest)

    def call(self, work: Callable[[], T]) -> T:
        """``work()`` on the thread. Raises TransportError."""
        try:
            return self.worker.call(work)
        except Late:
            if self._waits:
                message = f"Another program has kept the card in {self._reader} for {self._deadlines.waiting:.0f} s."
                raise busy(message, self._reader) from None
            if self._handle is None:
                raise PcscNotRunning(
                    "The smart card service does not answer.", reader=self._reader, sent=False,
                    advice="Restart it, for example with: sudo systemctl restart pcscd.",
                ) from None  # fmt: skip
            raise DeadlinePassed(
                f"The card in {self._reader} did not answer in time.", reader=self._reader
            ) from None
        except Over:
            raise ConnectionOver(
                f"The connection to {self._reader} is over.", reader=self._reader, sent=False
            ) from None

    def close(self) -> None:
        self.worker.stop(_CLOSING)

    def look(self) -> tuple[ReaderState, ...]:
        """All readers and what is in them."""
        context = self._establish()
        try:
            names = self._timed(lambda: self._api.list_readers(context))
            if not names:
                return ()
            return self._timed(lambda: self._api.status_change(context, [(name, 0) for name in names], 0))
        except Failure as failure:
            raise error_for(failure.result, "looking for readers", "", sent=False) from None

    def connect(self) -> None:
        context = self._establish()
        self._waits = True
        try:
            self._meet(self._timed(lambda: self._open(context)))
        except Failure as failure:
            raise error_for(failure.result, "connecting", self._reader, sent=False) from None
        finally:
            self._waits = False

    def _open(self, context: int) -> int:
        # The handle is noted before anything can find out that nobody waits for it any more.
        self._handle, protocol = self._api.connect(context, self._reader)
        return protocol

    def transmit(self, command: bytes) -> bytes:
        # The hot path: no helper calls, one list each way because pyscard takes and gives lists.
        worker = self.worker
        worker.expires = time.monotonic() + self._of(command)
        if worker.abandoned:
            raise Over
        result, answer = pcsc_api.transmit(self._handle, self._pci, list(command))
        worker.expires = NEVER
        if worker.abandoned:
            raise Over
        if result or len(answer) < 2:
            # Some drivers report success and no answer for a card that was pulled in the middle.
            raise self._lost(result & 0xFFFFFFFF or Result.NOT_TRANSACTED)
        return bytes(answer)

    def begin(self) -> None:
        if self._begun:
            raise RuntimeError("a transaction is open on this connection already")
        handle = self._connected()
        self._waits = True
        try:
            for _ in range(_MOST_RESETS):
                self._begun = True  # before it is, because a late return has to end it
                try:
                    self._timed(lambda: self._api.begin(handle))
                    return
                except Failure as failure:
                    self._begun = False
                    if failure.result != Result.RESET_CARD:
                        raise error_for(failure.result, "taking the card", self._reader, sent=False) from None
                    self.reconnect(LEAVE)
        finally:
            self._waits = False
        raise busy(f"Another program keeps resetting the card in {self._reader}.", self._reader)

    def end(self) -> None:
        self._begun = False
        handle = self._connected()
        self._timed(lambda: self._api.end(handle))

    def reconnect(self, disposition: int) -> None:
        handle = self._connected()
        try:
            try:
                # Reconnecting succeeds on whatever card is in the reader now; only this tells.
                self._timed(lambda: self._api.status(handle))
            except Failure as failure:
                if failure.result != Result.RESET_CARD:
                    raise
            protocol = self._timed(lambda: self._api.reconnect(handle, disposition))
            if not self._timed(lambda: self._api.status(handle))[1]:
                protocol = self._timed(lambda: self._api.reconnect(handle, RESET))
            self._meet(protocol)
        except Failure as failure:
            raise error_for(
                failure.result, "resetting the card", self._reader, sent=disposition == RESET
            ) from None

    def _establish(self) -> int:
        try:
            return self._timed(self._note_context)
        except Failure as failure:
            raise unavailable(failure.result) from None

    def _note_context(self) -> int:
        self._context = self._api.establish()
        return self._context

    def _meet(self, protocol: int) -> None:
        """Note the protocol, which a reset can change, and the ATR."""
        handle = self._connected()
        if protocol not in PCI:
            raise Failure("SCardConnect", Result.PROTO_MISMATCH)
        self._pci = PCI[protocol]
        atr, _ = self._timed(lambda: self._api.status(handle))
        self.link = Link(self._reader, atr, _TRANSMISSION[protocol], coupling(atr))

    def _connected(self) -> int:
        if self._handle is None:
            raise Over
        return self._handle

    def _timed(self, blocking: Callable[[], T]) -> T:
        """A blocking call under its deadline."""
        self.worker.allow(self._deadlines.waiting if self._waits else self._deadlines.default)
        try:
            return blocking()
        finally:
            self.worker.returned()

    def _lost(self, result: int) -> TransportError:
        """What became of a command that came back with ``result`` and no answer."""
        doing = "a command was on its way"
        error = error_for(result, doing, self._reader, sent=True)
        if not isinstance(error, CardUnresponsive) or result == Result.UNRESPONSIVE_CARD:
            return error
        # A card that is pulled in the middle looks like one that broke off, until pcscd looks again.
        context = self._context
        assert context is not None
        try:
            before = self._state(context, 0, 0)
            after = self._state(context, before.state, _NOTICE) if before.present else before
        except Failure as failure:
            if failure.result == Result.TIMEOUT:
                return error
            return stopped(doing, self._reader, sent=True)
        if after.gone:
            return ReaderGone(f"The reader {self._reader} is gone.", reader=self._reader)
        if not after.present or after.events != before.events:
            return CardRemoved(f"The card left {self._reader} while {doing}.", reader=self._reader)
        return error

    def _state(self, context: int, known: int, milliseconds: int) -> ReaderState:
        return self._timed(
            lambda: self._api.status_change(context, [(self._reader, known)], milliseconds)
        )[0]

    def _let_go(self) -> None:
        """The thread's last act: end the transaction, disconnect with LEAVE, give the context back."""
        handle, self._handle = self._handle, None
        context, self._context = self._context, None
        if handle is not None:
            if self._begun:
                self._api.end(handle)
            self._api.disconnect(handle)
        if context is not None:
            self._api.release(context)
