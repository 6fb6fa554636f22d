"""``cardwright agent`` in a process of its own, on a session bus with a notification service."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cardwright_cardops.program.items import AnyBatch
from cardwright_daemon.link import ports
from tests.clients.test_cli_daemon import ISSUE
from tests.support.daemon_server import Server
from tests.support.daemons import Person, Run, running, token
from tests.support.desktop import Desktop, desktop

PIN = b"739146"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the bus has a socket in it."""
    made = Path(tempfile.mkdtemp(prefix="cw-bus-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def agent(desk: Desktop, run: Run) -> AsyncIterator[asyncio.subprocess.Process]:
    around = dict(os.environ, DBUS_SESSION_BUS_ADDRESS=desk.address)
    around["CARDWRIGHT_FOLDER"] = str(run.daemon.socket.parent)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from cardwright_clients.cli.main import main; main()", "agent", "--spread", "0",
        env=around, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_a_card_is_issued_from_a_notification(folder: Path) -> None:
    seen = asyncio.Event()

    async def unhurried(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 3:  # else the end may overtake what is told of the steps
            await seen.wait()
        return batch

    server = Server(due_is=ISSUE, on_batch=unhurried)
    async with (
        desktop(folder) as desk,
        running(token(), link=server, person=Person(PIN, PIN)) as run,
        agent(desk, run) as process,
    ):
        offer = await desk.until(lambda shown: shown.title == "Card 12345678 can be issued")
        assert list(offer.buttons.values()) == ["Start", "Later", "All steps"]
        assert "It takes about " in offer.text
        server.due_is = replace(ISSUE, items=())
        await desk.press(offer, "Start")
        await desk.until(lambda shown: "Leave the card in." in shown.text)
        seen.set()
        result = await desk.until(lambda shown: shown.text == "The card is issued.")
        assert result.buttons == {}
        assert list(desk.service.open.values()) == [result]
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 130
    assert server.due_is == ports.Due(purpose=ports.Purpose.ISSUE, until=ISSUE.until)


async def test_no_notification_service_is_said_at_once(folder: Path) -> None:
    async with (
        desktop(folder, notifications=False) as desk,
        running(token(), link=Server(due_is=ISSUE)) as run,
        agent(desk, run) as process,
    ):
        _, said = await process.communicate()
        assert process.returncode == 1
    assert b"NOTIFICATIONS_UNAVAILABLE" in said
