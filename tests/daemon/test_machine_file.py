"""The file of the machine's administrator, as the daemon's process reads it: at its own path, which is root's.

The process gets an /etc of its own, laid over that of the machine, which is not changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cardwright_cardops.workstation import SOCKET
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemon_process import Typing
from tests.support.daemons import PATIENCE, client_of, short_folder

UNSHARED = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
LAID_OVER = 'mount -t overlay overlay -o lowerdir="$0":/etc /etc && exec "$@"'
PROGRAM = """
from datetime import UTC, datetime, timedelta
from cardwright_daemon import app, start
from cardwright_daemon.link.ports import Due, DueItem, Purpose
from tests.support.daemon_server import Server
from tests.support.daemons import Bench, token

bench, now = Bench(1), datetime.now(UTC)
bench.slots[0].insert(token())
mandatory = Due((DueItem("request", now),), purpose=Purpose.ISSUE, mandatory_from=now - timedelta(days=1))
server = Server(due_is=mandatory)
app.PcscReaders, app.link_of = (lambda: bench.source), (lambda config: server)
start.main()
"""
"""The daemon as it starts itself, with readers and a server that are in its process."""


@dataclass
class Started:
    """A daemon's process, and where it is found."""

    process: subprocess.Popen[str]
    place: Path

    @property
    def ready(self) -> bool:
        """Whether it answers calls; waits for that, or its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().startswith("ready ")


@contextmanager
def started(machine: str | None, mode: int = 0o644) -> Iterator[Started]:
    """A daemon in whose /etc/cardwright/machine.toml is ``machine``; None: no such file."""
    folder = short_folder()
    place = folder.parent
    etc = place / "etc" / "cardwright"
    etc.mkdir(parents=True)
    etc.chmod(0o755)
    if machine is not None:
        (etc / "machine.toml").write_text(machine)
        (etc / "machine.toml").chmod(mode)
    typing = Typing(place)
    typing.types(new=b"739146")
    configured = place / "daemon.toml"
    configured.write_text(
        f"folder = {json.dumps(str(folder))}\n[pins]\npinentry = {json.dumps(str(typing.program))}\n"
        "[updates]\nspread = 0\n"
    )
    whole = [*UNSHARED, "sh", "-c", LAID_OVER, str(etc.parent)]
    if subprocess.run([*whole, "true"], capture_output=True).returncode != 0:
        shutil.rmtree(place)
        pytest.skip("this machine lets nobody lay a folder over /etc (unshare, overlay)")
    process = subprocess.Popen(
        [*whole, sys.executable, "-c", PROGRAM, "--config", str(configured)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Started(process, folder)
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(place)


async def test_what_is_mandatory_begins_by_itself_where_the_file_allows_it() -> None:
    with started("begin_mandatory = true\n") as daemon:
        assert await asyncio.to_thread(lambda: daemon.ready)
        async with client_of(daemon.place / SOCKET) as client:
            ended: list[pb.Operation] = []
            async with asyncio.timeout(PATIENCE):
                while not ended:
                    listed = await client.operations.ListOperations(pb.ListOperationsRequest())
                    ended = [one for one in listed.operations if one.unasked and one.HasField("ended_at")]
    done = ended[0]
    assert (done.kind, done.phase) == (pb.OPERATION_KIND_ISSUE, pb.OPERATION_PHASE_DONE)


async def test_nothing_begins_by_itself_where_there_is_no_file() -> None:
    with started(None) as daemon:
        assert await asyncio.to_thread(lambda: daemon.ready)
        async with client_of(daemon.place / SOCKET) as client:
            card = (await client.card()).id
            due = (await client.updates.GetDue(pb.GetDueRequest(card=card))).due
            listed = await client.operations.ListOperations(pb.ListOperationsRequest())
    assert due.HasField("mandatory_from") and not due.HasField("begins_at")
    assert not any(one.unasked for one in listed.operations)


def test_a_file_that_others_could_write_keeps_the_daemon_from_starting() -> None:
    with started("begin_mandatory = true\n", mode=0o666) as daemon:
        assert not daemon.ready
        _, said = daemon.process.communicate(timeout=60)
    assert daemon.process.returncode == 1
    assert said.startswith("Error DAEMON_CONFIG_INVALID: /etc/cardwright/machine.toml can be changed by others")
