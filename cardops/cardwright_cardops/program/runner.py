"""Runners: the few lines between a program and an executing end, blocking and async."""

from __future__ import annotations

from typing import Protocol, TypeVar

from ..errors import CardwrightError
from .items import Answers, AnyBatch, Program

T = TypeVar("T")


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


def run(program: Program[T], executor: Executor) -> T:
    """Run ``program`` to its end and return its value; its errors pass through. Ends the stage either way."""
    try:
        batch = next(program)
        while True:
            try:
                answers = executor.execute(batch)
            except CardwrightError as error:
                batch = program.throw(error)
            else:
                batch = program.send(answers)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        program.close()
        executor.end_stage()


async def run_async(program: Program[T], relay: Relay) -> T:
    """As ``run``, over a line."""
    try:
        batch = next(program)
        while True:
            try:
                answers = await relay.execute(batch)
            except CardwrightError as error:
                batch = program.throw(error)
            else:
                batch = program.send(answers)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        program.close()
        await relay.end_stage()
