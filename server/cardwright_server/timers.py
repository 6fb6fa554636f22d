"""Tasks that run beside the calls: again and again, or for ever. None of them can end the process or end unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from .limits import backoff, jittered

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class TaskState:
    """How a task stands. ``failures``: since its last run that ended well; ``error``: the code of the last one."""

    name: str
    done_at: datetime | None = None
    failures: int = 0
    error: str = ""


Report = Callable[[TaskState, bool], None]
"""Told at the end of each run, and whether it failed."""


class Timers:
    """The tasks of a process. Whatever a run raises is logged, counted and followed by another run."""

    def __init__(self, report: Report = lambda state, failed: None) -> None:
        self.states: dict[str, TaskState] = {}
        self._report = report
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, name: str, pause: timedelta, work: Callable[[], Awaitable[object]]) -> None:
        """Run ``work`` now and then again, with about ``pause`` in between."""
        self._start(self._repeat(self._state(name), pause.total_seconds(), work))

    def forever(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Run ``work``, which is not meant to end, and begin it anew where it does."""
        self._start(self._hold(self._state(name), work))

    async def stop(self) -> None:
        """Cancel all, and wait until they are gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _state(self, name: str) -> TaskState:
        if name in self.states:
            raise ValueError(f"there is a task {name} already")
        return self.states.setdefault(name, TaskState(name))

    def _start(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _repeat(self, state: TaskState, pause: float, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            if await self._once(state, work):
                await asyncio.sleep(jittered(pause, 0.1))
            else:
                await asyncio.sleep(min(pause, self._pause(state)))

    async def _hold(self, state: TaskState, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            await self._once(state, work)
            if asyncio.get_running_loop().time() - began > LONGEST_PAUSE:
                state.failures = min(state.failures, 1)  # it went well for long: begin with short pauses again
            await asyncio.sleep(self._pause(state))

    async def _once(self, state: TaskState, work: Callable[[], Awaitable[object]]) -> bool:
        try:
            await work()
        except Exception as error:
            state.failures += 1
            state.error = str(getattr(error, "code", type(error).__name__))
            structlog.get_logger().warning("task-failed", action=state.name, attempts=state.failures, exc_info=True)
            self._report(state, True)
            return False
        state.done_at, state.failures, state.error = datetime.now(UTC), 0, ""
        self._report(state, False)
        return True

    @staticmethod
    def _pause(state: TaskState) -> float:
        return backoff(max(1, state.failures), first=FIRST_PAUSE, longest=LONGEST_PAUSE)
