"""A card in this process behind the Connection protocol: nothing in between, a few microseconds a command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Protocol, TypeVar

from .atr import offered
from .connection import Interface, Link
from .pcsc_errors import ConnectionOver

T = TypeVar("T")


class DirectCard(Protocol):
    """What is connected: any object that answers APDUs.

    It may also have ``transaction()`` (a context manager) and ``reconnect()``, which are then used.
    """

    @property
    def atr(self) -> bytes:
        """The answer to reset."""

    def transmit(self, command: bytes) -> bytes:
        """One command APDU in, one response APDU out. May raise TransportError."""

    def reset(self) -> object:
        """Reset the card."""


class DirectConnection:
    """A Connection to ``card``. The transmission protocol is the first that its ATR offers."""

    __slots__ = ("_card", "_link", "_lock")

    def __init__(
        self, card: DirectCard, *, reader: str = "Virtual reader", interface: Interface = Interface.CONTACT
    ) -> None:
        self._card: DirectCard = card
        self._lock = threading.Lock()
        self._link = Link(reader, card.atr, offered(card.atr)[0], interface)

    @property
    def link(self) -> Link:
        """Reader, ATR, protocol."""
        return self._link

    def transmit(self, command: bytes) -> bytes:
        """One command APDU to the card, its response APDU back. Raises TransportError."""
        return self._card.transmit(command)

    def perform(self, work: Callable[[], T]) -> T:
        """``work()``; see PcscConnection.perform."""
        return work()

    def transaction(self) -> AbstractContextManager[None]:
        """Nobody else reaches the card inside."""
        shared = getattr(self._card, "transaction", None)
        return shared() if shared is not None else self._alone()

    def reset(self) -> None:
        """Reset the card."""
        self._card.reset()

    def reconnect(self) -> None:
        """Take up the connection again after CardReset; the card's state is unknown. Raises CardRemoved."""
        again = getattr(self._card, "reconnect", None)
        if again is not None:
            again()

    def close(self) -> None:
        """Let the card go as it is."""
        self._card = _Closed(self._link)

    def __enter__(self) -> DirectConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            yield


class _Closed:
    """What a closed connection is connected to."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def atr(self) -> bytes:
        return self._link.atr

    def transmit(self, command: bytes) -> bytes:
        raise ConnectionOver(f"The connection to {self._link.reader} is closed.", reader=self._link.reader, sent=False)

    def reset(self) -> None:
        self.transmit(b"")
