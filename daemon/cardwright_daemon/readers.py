"""Where readers come from: PC/SC, or readers inside this process that follow the same protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from cardwright_cardops.transport import pcsc
from cardwright_cardops.transport.connection import Connection, Link, TransportError
from cardwright_cardops.transport.deadlines import Deadlines
from cardwright_cardops.transport.pcsc_errors import NoReader
from cardwright_cardops.transport.watcher import (
    CardInserted,
    CardRemoved,
    Event,
    ReaderAdded,
    ReaderRemoved,
    Watcher,
)

T = TypeVar("T")

Tell = Callable[[Event], object]


class ReaderSource(Protocol):
    """Readers that come and go, with cards that come and go."""

    def start(self, tell: Tell) -> None:
        """Begin to watch. Events come on any thread, one after another, beginning with what is there."""

    def stop(self) -> None:
        """Watch no more. Blocks for a moment."""

    def connect(self, reader: str) -> Connection:
        """A connection to the card in ``reader``. Blocks. Raises TransportError."""


class PcscReaders:
    """The machine's readers. The service may be absent, stop, or come back at any time."""

    def __init__(self, deadlines: Deadlines | None = None) -> None:
        self._deadlines = deadlines
        self._watcher: Watcher | None = None

    def start(self, tell: Tell) -> None:
        """See ``ReaderSource``."""
        self._watcher = Watcher(tell).start()

    def stop(self) -> None:
        """See ``ReaderSource``."""
        if self._watcher is not None:
            self._watcher.stop()

    def connect(self, reader: str) -> Connection:
        """See ``ReaderSource``."""
        return pcsc.connect(reader, self._deadlines)


class VirtualCard(Protocol):
    """A card in a virtual slot."""

    @property
    def atr(self) -> bytes:
        """The answer to reset."""


class VirtualSlot(Protocol):
    """A reader with one slot in this process; the simulator's ``SlotReader`` is one."""

    @property
    def name(self) -> str:
        """Name of the reader."""

    @property
    def card(self) -> VirtualCard | None:
        """The card in it."""

    def connect(self) -> Connection:
        """A connection to the card. Raises NoCard."""


class VirtualReaders:
    """Readers in this process: demonstrations, tests, simulated workstations.

    Whoever puts a card in or takes one out says so with ``look``. A card that leaves while it is used is noticed.
    """

    def __init__(self, slots: Iterable[VirtualSlot] = ()) -> None:
        self._slots = {slot.name: slot for slot in slots}
        self._cards: dict[str, VirtualCard | None] = {}
        self._tell: Tell | None = None
        self._lock = threading.Lock()

    def start(self, tell: Tell) -> None:
        """See ``ReaderSource``."""
        self._tell = tell
        self.look()

    def stop(self) -> None:
        """See ``ReaderSource``."""
        self._tell = None

    def add(self, slot: VirtualSlot) -> None:
        """Plug a reader in."""
        self._slots[slot.name] = slot
        self.look()

    def unplug(self, reader: str) -> None:
        """Pull a reader out, with the card that is in it."""
        self._slots.pop(reader, None)
        self.look()

    def look(self) -> None:
        """Tell what changed since the last look. From any thread."""
        with self._lock:
            tell = self._tell
            if tell is None:
                return
            for gone in [name for name in self._cards if name not in self._slots]:
                if self._cards.pop(gone) is not None:
                    tell(CardRemoved(gone))
                tell(ReaderRemoved(gone))
            for name, slot in tuple(self._slots.items()):
                if name not in self._cards:
                    self._cards[name] = None
                    tell(ReaderAdded(name))
                card, before = slot.card, self._cards[name]
                if card is before:
                    continue
                self._cards[name] = card
                if before is not None:
                    tell(CardRemoved(name))
                if card is not None:
                    tell(CardInserted(name, card.atr))

    def connect(self, reader: str) -> Connection:
        """See ``ReaderSource``."""
        slot = self._slots.get(reader)
        if slot is None:
            raise NoReader(f"There is no reader called {reader}.", reader=reader, sent=False)
        return _Watched(slot.connect(), self.look)


class _Watched:
    """A connection whose failures are a reason to look again."""

    __slots__ = ("_connection", "_look")

    def __init__(self, connection: Connection, look: Callable[[], None]) -> None:
        self._connection = connection
        self._look = look

    @property
    def link(self) -> Link:
        return self._connection.link

    def transmit(self, command: bytes) -> bytes:
        try:
            return self._connection.transmit(command)
        except TransportError:
            self._look()
            raise

    def perform(self, work: Callable[[], T]) -> T:
        return self._connection.perform(work)

    def transaction(self) -> AbstractContextManager[None]:
        return self._connection.transaction()

    def reset(self) -> None:
        self._connection.reset()

    def close(self) -> None:
        self._connection.close()
