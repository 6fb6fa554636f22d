"""Tasks: whatever a run raises is seen, and followed by another run."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from cardwright_cardops.errors import CardwrightError
from cardwright_server import timers
from cardwright_server.timers import TaskState, Timers

SOON = timedelta(milliseconds=1)


class Trouble(CardwrightError):
    code = "TROUBLE"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(timers, "LONGEST_PAUSE", 0.002)


class Watched:
    """Reports, and an event once there are so many."""

    def __init__(self, wanted: int) -> None:
        self.seen: list[tuple[str, bool, int, str]] = []
        self.enough = asyncio.Event()
        self._wanted = wanted

    def __call__(self, state: TaskState, failed: bool) -> None:
        self.seen.append((state.name, failed, state.failures, state.error))
        if len(self.seen) >= self._wanted:
            self.enough.set()


async def test_a_failing_run_is_counted_and_run_again_until_it_goes_well() -> None:
    errors = [Trouble("no"), KeyError("no"), None, None]
    watched = Watched(4)
    beside = Timers(watched)

    async def work() -> None:
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error

    beside.every("tidy", SOON, work)
    async with asyncio.timeout(20):
        await watched.enough.wait()
    await beside.stop()
    assert watched.seen[:4] == [
        ("tidy", True, 1, "TROUBLE"),
        ("tidy", True, 2, "KeyError"),
        ("tidy", False, 0, ""),
        ("tidy", False, 0, ""),
    ]
    assert beside.states["tidy"].done_at is not None


async def test_what_should_never_end_is_begun_anew_and_does_not_stop_the_others() -> None:
    watched = Watched(6)
    beside, ticks = Timers(watched), 0

    async def ends() -> None:
        raise RuntimeError

    async def tick() -> None:
        nonlocal ticks
        ticks += 1

    beside.forever("loop", ends)
    beside.every("tick", SOON, tick)
    async with asyncio.timeout(20):
        await watched.enough.wait()
    await beside.stop()
    failures = [failures for name, _, failures, _ in watched.seen if name == "loop"]
    assert failures and failures[0] == 1 and ticks > 0
    with pytest.raises(ValueError):
        beside.every("tick", SOON, tick)


async def test_stop_waits_until_they_are_gone() -> None:
    begun, gone = asyncio.Event(), []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.append(True)

    beside = Timers()
    beside.forever("waits", work)
    await begun.wait()
    await beside.stop()
    assert gone == [True]
