"""Runners: the few lines between a program and an executing end, blocking and async."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, TypeVar

from ..errors import CardwrightError
from .items import Answers, AnyBatch, Program

T = TypeVar("T")
E = TypeVar("E")


class Executor(Protocol):
    """An executing end that blocks: a card in this process or on this workstation."""

    def execute(self, batch: AnyBatch) -> Answers:
        """Execute ``batch``. Raises ItemRefused before anything is sent; all else is in the answers."""

    def end_stage(self) -> None:
        """End the open transaction, if any, dropping every security status. Never raises."""


class Relay(Protocol):
    """An executing end at the other end of a line."""

    async def execute(self, batch: AnyBatch) -> Answers:
        """Send ``batch`` and wait for its answers. Raises CardwrightError when the line is lost."""

    async def end_stage(self) -> None:
        """Tell the other end that the stage is over. Never raises."""


def drive(work: Generator[E, Any, T], serve: Callable[[E], object]) -> T:
    """Serve what ``work`` yields until it ends; its value. A CardwrightError of ``serve`` is thrown into ``work``."""
    try:
        wanted = next(work)
        while True:
            try:
                served = serve(wanted)
            except CardwrightError as error:
                wanted = work.throw(error)
            else:
                wanted = work.send(served)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        work.close()


async def drive_async(work: Generator[E, Any, T], serve: Callable[[E], Awaitable[object]]) -> T:
    """As ``drive``, where serving has to wait."""
    try:
        wanted = next(work)
        while True:
            try:
                served = await serve(wanted)
            except CardwrightError as error:
                wanted = work.throw(error)
            else:
                wanted = work.send(served)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        work.close()


def run(program: Program[T], executor: Executor) -> T:
    """Run ``program`` to its end and return its value; its errors pass through. Ends the stage either way."""
    try:
        return drive(program, executor.execute)
    finally:
        executor.end_stage()


async def run_async(program: Program[T], relay: Relay) -> T:
    """As ``run``, over a line."""
    try:
        return await drive_async(program, relay.execute)
    finally:
        await relay.end_stage()
