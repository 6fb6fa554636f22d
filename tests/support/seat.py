"""Somebody at a workstation: a daemon in this process, and the command line on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import click
import pytest

from cardwright_clients.cli import daemon_consent, daemon_line, daemon_proof, output, update
from cardwright_clients.sdk import DaemonClient
from cardwright_clients.sdk.values import Card
from cardwright_simulators.reader.slot import Card as SlotCard
from tests.support.command_line import Desk, Ran
from tests.support.daemons import PATIENCE, Run, running


@dataclass
class Seat:
    """A workstation. ``daemon`` is a client of its daemon; ``asked`` what the command line asked on its terminal."""

    run: Run
    daemon: DaemonClient
    monkeypatch: pytest.MonkeyPatch
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    working: list[concurrent.futures.Future[Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Hear what the command line prints."""
        real = output._echo

        def echo(text: str, **options: Any) -> None:
            real(text, **options)
            self.said.append(text)
            self.loop.call_soon_threadsafe(self._more.set)

        self.monkeypatch.setattr(output, "_echo", echo)

    async def until_said(self, text: str) -> None:
        """Until the command line has printed something with ``text`` in it."""
        async with asyncio.timeout(PATIENCE):
            while not any(text in one for one in self.said):
                self._more.clear()
                await self._more.wait()

    async def cli(self, *arguments: str, secrets: str | None = None) -> Ran:
        """One command line; its loop is this one, for gRPC wants one in a process."""
        desk = Desk()
        desk.direct = None  # type: ignore[assignment]
        return await asyncio.to_thread(desk.run, *arguments, secrets=secrets)

    async def done(self, *arguments: str) -> Ran:
        """One that must end well."""
        ran = await self.cli(*arguments)
        assert ran.code == 0, ran.err + ran.out
        return ran

    def interrupt(self) -> None:
        """Ctrl-C."""
        for one in self.working:
            one.cancel()

    def terminal(self, *answers: object) -> None:
        """From now on there is a terminal; questions get these answers in turn. None: Ctrl-C."""
        waiting = list(answers)

        def answer(text: str, **options: Any) -> Any:
            self.asked.append(text)
            given = waiting.pop(0)
            if given is None or (given is False and options.get("abort")):
                raise click.Abort
            return given

        for module in (update, daemon_consent, daemon_proof):
            self.monkeypatch.setattr(module, "on_terminal", lambda: True)
        self.monkeypatch.setattr(click, "confirm", answer)
        self.monkeypatch.setattr(click, "prompt", answer)

    async def card(self, number: int = 0) -> Card:
        """The card in a reader."""
        name = f"Virtual reader {number:02}"
        return next(card for card in await self.daemon.settled_cards() if card.reader == name)

    def _work(self, work: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        self.working.append(future)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise KeyboardInterrupt from None


@asynccontextmanager
async def seated(monkeypatch: pytest.MonkeyPatch, *cards: SlotCard, **options: Any) -> AsyncIterator[Seat]:
    """A workstation with these cards; ``options`` are those of ``running``."""
    async with running(*cards, **options) as run:
        monkeypatch.setenv("CARDWRIGHT_FOLDER", str(run.daemon.socket.parent))
        async with DaemonClient() as daemon:
            seat = Seat(run, daemon, monkeypatch)
            monkeypatch.setattr(daemon_line, "run", seat._work)
            yield seat
