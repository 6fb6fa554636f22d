"""Operations of the daemon as they go: a bar on a terminal, else a line a step."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.values import Card, Operation, Outcome, Phase
from ..sdk.words import ended
from .output import say, visible

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient

WIDTH: Final = 24
_MOMENT: Final = 2.0


class Bar:
    """Progress of several operations on standard error. ``quiet`` shows nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._now: dict[str, Operation] = {}
        self._drawn = False

    def __call__(self, name: str, operation: Operation) -> None:
        """Show how the operation on the card called ``name`` stands."""
        before = self._now.get(name)
        self._now[name] = operation
        if self._quiet:
            return
        if not self._terminal:
            if operation.words and (before is None or before.words != operation.words):
                say(f"{name}: {operation.percentage} %, {operation.words}", err=True)
        elif any(one.phase is Phase.PROMPTING for one in self._now.values()):
            self.end()  # the dialog may be on this very terminal
        else:
            self._draw()

    def _draw(self) -> None:
        parts = []
        for name, one in self._now.items():
            done = WIDTH * one.percentage // 100
            parts.append(f"{name} [{'#' * done}{'.' * (WIDTH - done)}] {one.percentage:3} % {one.words}")
        line = visible("   ".join(parts))[: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)
        self._drawn = True

    def end(self) -> None:
        """Leave the line that is written over."""
        if self._drawn:
            say(err=True)
            self._drawn = False


async def to_the_end(
    daemon: DaemonClient, operations: Sequence[tuple[Card, Operation]], *, quiet: bool = False
) -> tuple[Operation, ...]:
    """Follow operations and show how they go; each as it ended, or as the last one did in which the daemon went on."""
    bar = Bar(quiet=quiet)

    async def one(card: Card, operation: Operation) -> Operation:
        last = operation
        following: Operation | None = operation
        while following is not None:
            async with aclosing(daemon.follow(following.id)) as states:
                async for last in states:
                    bar(card.name, last)
            if not last.continues:
                break
            if last.error is not None and not quiet:
                bar.end()
                say(f"{card.name}: {last.error.message} The daemon tries again.", err=True)
            following = await daemon.gone_on_with(last)
        return last

    try:
        return tuple(await asyncio.gather(*(one(card, operation) for card, operation in operations)))
    finally:
        bar.end()


@asynccontextmanager
async def cancelling(daemon: DaemonClient, cards: Sequence[Card]) -> AsyncIterator[None]:
    """Interrupted, cancel what goes on with these cards where that can be; what writes to a card goes on.

    So does what broke off: consent covers it, and the daemon tries again by itself.
    """
    try:
        yield
    except asyncio.CancelledError:
        names = {card.id for card in cards}
        try:
            async with asyncio.timeout(_MOMENT):
                for operation in await daemon.operations():
                    if operation.card in names and not operation.over:
                        await daemon.cancel(operation.id)
        except (CardwrightError, TimeoutError):
            say("What is being written to the card is finished by the daemon.", err=True)
        raise


def why_not_done(operation: Operation) -> CardwrightError | None:
    """Why what was agreed to is not done; None where it is."""
    if operation.error is None and operation.outcome is Outcome.SHOWN_AGAIN:
        from cardwright_cardops.plan.init import PlanChanged

        return PlanChanged(ended(operation))
    return operation.error


def require_done(operation: Operation) -> Operation:
    """An operation that ended well. Raises why it did not."""
    if (error := why_not_done(operation)) is not None:
        raise error
    return operation
