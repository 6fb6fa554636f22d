"""Commands on the daemon in a process of their own, on a terminal: consent, Ctrl-C, the bar."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.clients.test_cli_daemon import ISSUE
from tests.support.daemon_server import Server
from tests.support.daemons import PATIENCE, Person, Run, running, token

PIN = b"739146"


@dataclass
class Terminal:
    """A terminal with a command on it."""

    process: asyncio.subprocess.Process
    line: int
    said: str = ""
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def read(self) -> None:
        with suppress(OSError):  # the other end is closed
            octets = os.read(self.line, 65536)
            if octets:
                self.said += octets.decode(errors="replace")
                self.more.set()
                return
        asyncio.get_running_loop().remove_reader(self.line)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.said:
                self.more.clear()
                await self.more.wait()

    def type(self, text: str) -> None:
        os.write(self.line, text.encode())

    async def code(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


def terminal(run: Run, *arguments: str) -> AbstractAsyncContextManager[Terminal]:
    """``cardwright`` with these arguments on a terminal of its own."""
    return program(
        "from cardwright_clients.cli.main import main; main()", *arguments,
        CARDWRIGHT_FOLDER=str(run.daemon.socket.parent),
    )  # fmt: skip


@asynccontextmanager
async def program(text: str, *arguments: str, **environment: str) -> AsyncIterator[Terminal]:
    """A Python program on a terminal of its own."""
    mine, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, *arguments,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_own_terminal,
        env=dict(os.environ, TERM="xterm", COLUMNS="100", **environment),
    )  # fmt: skip
    os.close(theirs)
    made = Terminal(process, mine)
    asyncio.get_running_loop().add_reader(mine, made.read)
    try:
        yield made
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(mine)
        os.close(mine)


def _own_terminal() -> None:
    """Make it the one from which Ctrl-C comes."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def test_consent_and_a_bar() -> None:
    server = Server(due_is=ISSUE)
    async with (
        running(token(), link=server, person=Person(PIN, PIN)) as run,
        terminal(run, "update") as screen,
    ):
        await screen.until("Begin with card 12345678? [y/N]: ")
        assert server.batches == 0
        screen.type("y\n")
        await screen.until("card 12345678: The card is issued.")
        assert await screen.code() == 0
    assert "\r\x1b[Kcard 12345678 [" in screen.said and "] 100 % " in screen.said


async def test_ctrl_c_at_the_question() -> None:
    server = Server(due_is=ISSUE)
    async with running(token(), link=server) as run, terminal(run, "update") as screen:
        await screen.until("Begin with card 12345678? [y/N]: ")
        screen.type("\x03")
        assert await screen.code() == 130
        assert server.consented == []


async def test_ctrl_c_closes_the_question_for_the_pin() -> None:
    server, typing = Server(due_is=ISSUE), asyncio.Event()
    person = Person(typing)
    async with running(token(), link=server, person=person) as run, terminal(run, "update", "--yes") as screen:
        await person.waits.wait()
        screen.type("\x03")
        assert await screen.code() == 130
        async with asyncio.timeout(PATIENCE):
            last = await run.daemon.desk.operations.wait(run.daemon.desk.operations.all[-1].id)
    assert last.error is not None and last.error.code == "OPERATION_CANCELLED"
    assert server.consented == []


MISSED = """
import signal, sys, threading
import click
from cardwright_clients.cli.interrupts import interruptible
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
try:
    with interruptible():
        click.confirm("Begin?", err=True)
except click.Abort:
    sys.exit(130)
"""
"""Another thread takes the signal, so no wait of the main thread is interrupted by it: for the program that is a
Ctrl-C between the words of the question and the wait for the answer."""


async def test_ctrl_c_that_interrupts_no_wait() -> None:
    async with program(MISSED) as screen:
        await screen.until("Begin? [y/N]: ")
        screen.type("\x03")
        assert await screen.code() == 130
