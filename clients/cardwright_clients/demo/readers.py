"""The two readers of the demo's workplace: in this process, or virtual ones of a real pcscd."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from cardwright_cardops.transport import pcsc
from cardwright_cardops.transport.connection import Connection
from cardwright_daemon.readers import PcscReaders, ReaderSource, VirtualReaders
from cardwright_simulators.reader.pcscd import SOCKET_VARIABLE, PrivatePcscd
from cardwright_simulators.reader.slot import SlotReader

from .counting import CountedCard
from .keeper import Keeper

SIDES: Final = ("Left", "Right")
VIRTUAL: Final = "virtual"
PCSC: Final = "pcsc"


class Readers(Protocol):
    """Two readers, and cards that go in and out. All calls may come from any thread and block."""

    @property
    def source(self) -> ReaderSource:
        """What the daemon watches."""

    @property
    def shared(self) -> bool:
        """Whether other programs of this machine see them, too."""

    def insert(self, card: CountedCard) -> None:
        """Into the first reader that is free."""

    def pull(self, card: CountedCard) -> None:
        """Out of the reader that it is in, at once; from inside a command, too."""

    def connect(self, card: CountedCard) -> Connection:
        """A connection to a card that is in a reader."""

    def name(self, card: CountedCard) -> str:
        """The reader that the card is in."""

    def side(self, reader: str) -> str:
        """One of SIDES."""


class OwnReaders:
    """Readers of this process: neither hardware nor a service is needed."""

    shared = False

    def __init__(self) -> None:
        self._slots = [SlotReader(f"{side} reader") for side in SIDES]
        self._source = VirtualReaders(self._slots)
        self._lock = threading.Lock()

    @property
    def source(self) -> VirtualReaders:
        """See ``Readers``."""
        return self._source

    def insert(self, card: CountedCard) -> None:
        """See ``Readers``."""
        with self._lock:
            next(one for one in self._slots if one.card is None).insert(card)
        self._source.look()

    def pull(self, card: CountedCard) -> None:
        """See ``Readers``."""
        self._slot(card).remove()
        self._source.look()

    def connect(self, card: CountedCard) -> Connection:
        """See ``Readers``."""
        return self._slot(card).connect()

    def name(self, card: CountedCard) -> str:
        """See ``Readers``."""
        return self._slot(card).name

    def side(self, reader: str) -> str:
        """See ``Readers``."""
        return reader.partition(" ")[0]

    def _slot(self, card: CountedCard) -> SlotReader:
        return next(one for one in self._slots if one.card is card)


class PcscdReaders:
    """The two slots of one virtual reader of ``pcscd``."""

    shared = True

    def __init__(self, pcscd: PrivatePcscd) -> None:
        self._pcscd = pcscd
        self._cards: dict[str, CountedCard] = {}
        self._source = PcscReaders()
        self._lock = threading.Lock()

    @property
    def source(self) -> PcscReaders:
        """See ``Readers``."""
        return self._source

    def insert(self, card: CountedCard) -> None:
        """See ``Readers``. Raises PcscdUnusable."""
        with self._lock:
            reader = next(name for name in self._pcscd.readers if name not in self._cards)
            self._cards[reader] = card
        # One that was pulled a moment ago is still there for pcscd, and the next one would be the same to it.
        self._pcscd.wait_for_card(reader, present=False)
        self._pcscd.insert(card, reader)

    def pull(self, card: CountedCard) -> None:
        """See ``Readers``."""
        reader = self.name(card)
        self._pcscd.pull(reader)
        del self._cards[reader]

    def connect(self, card: CountedCard) -> Connection:
        """See ``Readers``."""
        return pcsc.connect(self.name(card))

    def name(self, card: CountedCard) -> str:
        """See ``Readers``."""
        return next(reader for reader, one in self._cards.items() if one is card)

    def side(self, reader: str) -> str:
        """See ``Readers``."""
        return SIDES[self._pcscd.readers.index(reader)]


@contextmanager
def opened(kind: str, keeper: Keeper) -> Iterator[Readers]:
    """The readers of one of the two kinds, until the end of the block.

    With PCSC this process, and what it starts, reach no other readers than these. Raises PcscdUnusable.
    """
    if kind == VIRTUAL:
        yield OwnReaders()
        return
    pcscd = PrivatePcscd(keeper.folder, "Demo reader")
    os.environ[SOCKET_VARIABLE] = str(pcscd.socket)
    try:
        pcscd.start([keeper.descriptor])
        yield PcscdReaders(pcscd)
    finally:
        pcscd.stop()
