"""What happens, to whoever listens: a line for each listener that never grows beyond its bound.

Every event tells the whole state of its subject, so a newer one takes the place of an older one that was not fetched
yet. Where even that is too much the oldest are dropped, and the listener is told how many: then it lists again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, TypeVar

E = TypeVar("E")

MOST_WAITING: Final = 256


@dataclass(frozen=True, slots=True)
class Delivery(Generic[E]):
    """An event as a listener gets it; ``missed`` counts those before it that were dropped."""

    event: E
    missed: int


class Hub(Generic[E]):
    """Publishes to all listeners. For one event loop."""

    def __init__(self) -> None:
        self._listeners: set[Listener[E]] = set()

    def publish(self, subject: tuple[str, str], event: E) -> None:
        """Tell ``event``, the state of ``subject`` now."""
        for listener in self._listeners:
            listener.put(subject, event)

    def listen(self, most: int = MOST_WAITING) -> Listener[E]:
        """A listener, from now on; a context manager."""
        return Listener(self._listeners, most)

    @property
    def listeners(self) -> int:
        """How many there are."""
        return len(self._listeners)


class Listener(Generic[E]):
    """An async iterator over deliveries. Leaving the context ends it."""

    def __init__(self, among: set[Listener[E]], most: int) -> None:
        self._among = among
        self._most = most
        self._waiting: OrderedDict[tuple[str, str], E] = OrderedDict()
        self._missed = 0
        self._ready = asyncio.Event()

    def __enter__(self) -> Listener[E]:
        self._among.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._among.discard(self)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, subject: tuple[str, str], event: E) -> None:
        """Line ``event`` up."""
        self._waiting.pop(subject, None)
        self._waiting[subject] = event
        while len(self._waiting) > self._most:
            self._waiting.popitem(last=False)
            self._missed += 1
        self._ready.set()

    def __aiter__(self) -> Listener[E]:
        return self

    async def __anext__(self) -> Delivery[E]:
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        _, event = self._waiting.popitem(last=False)
        missed, self._missed = self._missed, 0
        return Delivery(event, missed)
