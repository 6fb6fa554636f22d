"""The socket: nobody else's, only one daemon's, and none the worse for a daemon that was killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

from cardwright_cardops.workstation import FolderUnsafe, default_folder
from cardwright_daemon.app import Daemon
from cardwright_daemon.socket import DaemonRunning
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemons import client_of, config, running, short_folder

NOBODY = 65534
ROOT = os.geteuid() == 0

CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    one.settimeout(5)
    try:
        one.connect(sys.argv[1])
        one.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes.fromhex("000000040000000000"))
        print("answered" if one.recv(1) else "closed")
    except OSError as error:
        print(type(error).__name__)
"""
"""What a stranger gets at a socket: an answer, a closed line, or an error."""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    shutil.rmtree(made.parent, ignore_errors=True)


def stranger(path: Path, uid: int | None = NOBODY) -> str:
    """What a process of another user gets at ``path``; with None one of this user."""
    as_user = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    command = [*as_user, "/usr/bin/env", "python3", "-c", CONNECT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd="/")
    return done.stdout.strip()


async def test_w1_another_user_does_not_reach_the_daemon(folder: Path) -> None:
    """As root with a second real uid; as anyone else by the modes alone, which the kernel enforces."""
    async with Daemon(config(folder)) as daemon:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        assert await asyncio.to_thread(stranger, daemon.socket, None) == "answered"
        if not ROOT:
            return
        folder.parent.chmod(0o755)
        for name in ("daemon.sock", "grpc.sock"):
            assert await asyncio.to_thread(stranger, folder / name) == "PermissionError"
        # Even where the folder and the socket stand open, the kernel says who calls.
        folder.chmod(0o755)
        daemon.socket.chmod(0o666)
        assert await asyncio.to_thread(stranger, daemon.socket) in ("closed", "ConnectionResetError", "BrokenPipeError")
        assert await asyncio.to_thread(stranger, folder / "grpc.sock") == "PermissionError"
        assert daemon.desk.refused == 1
        assert await asyncio.to_thread(stranger, daemon.socket, None) == "answered"
        folder.chmod(0o700)


@pytest.mark.parametrize("what", ["open", "link", "file", "foreign"])
async def test_w1_a_folder_that_is_not_ours_alone_is_refused(what: str, folder: Path) -> None:
    if what == "open":
        folder.mkdir(mode=0o700)
        folder.chmod(0o750)
    elif what == "link":
        (folder.parent / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(folder.parent / "elsewhere")
    elif what == "file":
        folder.write_text("")
    elif ROOT:
        folder.mkdir(mode=0o700)
        os.chown(folder, NOBODY, NOBODY)
    else:
        folder = Path("/")
    with pytest.raises(FolderUnsafe):
        async with Daemon(config(folder)):
            pass


async def test_a_second_daemon_is_refused_and_the_first_goes_on(folder: Path) -> None:
    async with Daemon(config(folder)) as daemon:
        with pytest.raises(DaemonRunning):
            async with Daemon(config(folder)):
                pass
        async with client_of(daemon.socket) as client:
            assert (await client.cards.ListReaders(pb.ListReadersRequest())).readers == []


async def test_health_and_reflection_answer() -> None:
    async with running() as run:
        health = health_pb2_grpc.HealthStub(run.client.channel)
        for name in ("", "cardwright.agent.v1.CardService", "cardwright.agent.v1.WorkstationService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        names = await asyncio.to_thread(_reflected, run.daemon.socket)
    assert {name for name in names if name.startswith("cardwright.")} == {
        f"cardwright.agent.v1.{part}Service"
        for part in ("Card", "Pin", "Operation", "Update", "Escrow", "Workstation")
    }


def _reflected(path: Path) -> set[str]:
    import grpc

    with grpc.insecure_channel(f"unix:{path}") as channel:
        return set(ProtoReflectionDescriptorDatabase(channel).get_services())


def start(folder: Path) -> subprocess.Popen[str]:
    """A daemon in a process of its own, ready for calls."""
    settings = folder.parent / "daemon.toml"
    settings.write_text(f'folder = "{folder}"\npcsc = false\n')
    command = [sys.executable, "-m", "cardwright_daemon", "--config", str(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"ready {folder}/daemon.sock\n"
    return process


def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
    process.send_signal(number)
    code = process.wait(20)
    assert process.stdout is not None
    process.stdout.close()
    return code


async def test_a_killed_daemon_leaves_a_stale_socket_that_the_next_one_replaces(folder: Path) -> None:
    first = start(folder)
    assert end(first, signal.SIGKILL) == -signal.SIGKILL
    assert (folder / "daemon.sock").is_socket()
    second = start(folder)
    async with client_of(folder / "daemon.sock") as client:
        report = await client.workstation.GetReport(pb.GetReportRequest())
    assert report.hardened
    assert end(second, signal.SIGTERM) == 0
    assert {path.name for path in folder.iterdir()} == {"daemon.lock"}


def test_the_process_gives_no_core_and_no_debugger_gets_in(folder: Path) -> None:
    process = start(folder)
    try:
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]
        # What the kernel gives to root is not the user's any more: the process is not dumpable.
        status = Path(f"/proc/{process.pid}/environ").stat()
        assert status.st_uid == 0
    finally:
        end(process, signal.SIGTERM)


def test_the_place_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARDWRIGHT_FOLDER", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.local/state/cardwright/run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_folder() == Path("/run/user/7/cardwright")
    monkeypatch.setenv("CARDWRIGHT_FOLDER", "/elsewhere")
    assert default_folder() == Path("/elsewhere")


async def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderUnsafe):
        async with Daemon(config(tmp_path / ("x" * 120))):
            pass


async def test_a_caller_that_says_nothing_holds_nobody_up() -> None:
    async with running() as run:
        silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        try:
            for one in silent:
                one.connect(str(run.daemon.socket))
            assert len((await run.client.cards.ListReaders(pb.ListReadersRequest())).readers) == 2
        finally:
            for one in silent:
                one.close()
