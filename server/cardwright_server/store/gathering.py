"""Questions of the same kind that come at the same time are asked together, by one statement."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar

from .errors import StoreError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST: Final = 64
PAUSE: Final = 0.01
"""Seconds from the beginning of one statement to the next, at least: what comes in between shares it."""


class Gathering(Generic[K, V]):
    """Answers to keys. One loop.

    A key that comes alone is asked for at once. Those that come while a statement runs, or shortly after it began, are
    asked for together, ``most`` at a time. ``ask`` gets different keys, and gives what it found. Whoever is cancelled
    harms no other. An error of the database reaches everyone who waited for that statement; any other error reaches
    only whose key it is about, since each is asked for once more by itself.
    """

    def __init__(
        self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], *, most: int = MOST, pause: float = PAUSE
    ) -> None:
        self._ask = ask
        self._most = most
        self._pause = pause
        self._waiting: deque[tuple[K, asyncio.Future[V | None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def get(self, key: K) -> V | None:
        """What was found for a key; None for nothing. Raises what ``ask`` raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[V | None] = loop.create_future()
        self._waiting.append((key, answer))
        if self._task is None:
            # Whose call this happens to be is none of its business.
            self._task = loop.create_task(self._run(), context=Context())
        return await answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if (early := self._next_at - loop.time()) > 0:
                    await asyncio.sleep(early)
                self._next_at = loop.time() + self._pause
                await self._answer(self._taken())
        finally:
            self._task = None
            # Empty, unless the process ends.
            for _, answer in self._waiting:
                answer.cancel()
            self._waiting.clear()

    def _taken(self) -> dict[K, list[asyncio.Future[V | None]]]:
        found: dict[K, list[asyncio.Future[V | None]]] = {}
        while self._waiting and len(found) < self._most:
            key, answer = self._waiting.popleft()
            if not answer.done():
                found.setdefault(key, []).append(answer)
        return found

    async def _answer(self, asked: Mapping[K, list[asyncio.Future[V | None]]]) -> None:
        if not asked:
            return
        try:
            values = await self._ask(list(asked))
        except asyncio.CancelledError:
            for answer in (one for answers in asked.values() for one in answers):
                answer.cancel()
            raise
        except Exception as error:
            if len(asked) > 1 and not isinstance(error, StoreError):
                for key, answers in asked.items():
                    await self._answer({key: answers})
                return
            for answer in (one for answers in asked.values() for one in answers if not one.done()):
                answer.set_exception(error)
            return
        for key, answers in asked.items():
            for answer in answers:
                if not answer.done():
                    answer.set_result(values.get(key))
