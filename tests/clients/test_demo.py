"""The demo as a stranger runs it: a process of its own, and what it leaves behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cardwright_simulators.reader.pcscd import lacking

PATIENCE = 280
COMMAND = [sys.executable, "-W", "ignore", "-c", "from cardwright_clients.cli.main import main; main()", "demo"]
BOTH = [
    "virtual",
    pytest.param("pcsc", marks=[pytest.mark.pcscd, pytest.mark.skipif(bool(lacking()), reason=lacking())]),
]
on_pcscd = pytest.mark.parametrize("reader", BOTH[1:])


@contextmanager
def demo(folder: Path, *words: str, path: str = "") -> Iterator[subprocess.Popen[str]]:
    """The process. Its output ends when nothing is left that it started: the keeper of its folder has it, too."""
    environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}"} if path else dict(os.environ)
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def left_by(process: subprocess.Popen[str]) -> list[str]:
    """Folders of the demo, and command lines of processes that know them."""
    name = f"cardwright-demo-{process.pid}-"
    found = [str(path) for path in Path("/tmp").glob(f"{name}*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if name in line:
            found.append(line)
    return found


def until(process: subprocess.Popen[str], text: str) -> None:
    """Read what it prints up to a line with ``text``."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    pytest.fail("".join(said))


@pytest.mark.parametrize("reader", BOTH)
def test_demo_does_the_main_job_and_leaves_nothing_behind(tmp_path: Path, reader: str) -> None:
    with demo(tmp_path, "--json", "--reader", reader) as process:
        out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    rows = json.loads(out)["operations"]
    trips = {(row["operation"], row["card"]): row["round_trips"] for row in rows}
    assert [row["operation"] for row in rows] == ["issuance", "issuance", "check", "update", "unlock", "recover"]
    assert {tuple(row) for row in rows} == {
        ("operation", "card", "round_trips", "apdus", "seconds", "card_seconds")
    }
    assert trips["issuance", "20261101"] == trips["issuance", "20261102"] == 5
    assert trips["check", "20261102"] == 1
    assert all(row["apdus"] > 0 and row["seconds"] > 0 for row in rows)
    assert left_by(process) == []
    assert list(tmp_path.iterdir()) == []


@on_pcscd
def test_killed_demo_takes_server_and_pcscd_with_it(tmp_path: Path, reader: str) -> None:
    with demo(tmp_path, "--reader", reader) as process:
        until(process, "'cardwright server run' answers")
        assert len(left_by(process)) >= 3  # its folder, the server, pcscd
        process.kill()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert left_by(process) == []


@on_pcscd
def test_interrupted_demo_cleans_up(tmp_path: Path, reader: str) -> None:
    with demo(tmp_path, "--reader", reader) as process:
        until(process, "A server is founded")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert left_by(process) == []


def put_in_place(folder: Path, name: str, script: str) -> str:
    """A program in ``folder`` that takes another one's place."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(folder)


@on_pcscd
def test_pcscd_that_does_not_start_is_an_error_by_its_code(tmp_path: Path, reader: str) -> None:
    path = put_in_place(tmp_path, "pcscd", "echo 'no luck today' >&2; exit 1")
    with demo(tmp_path, "--reader", reader, path=path) as process:
        out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert out == ""
    assert "PCSCD_UNUSABLE" in error and "no luck today" in error and "packages.txt" in error
    assert left_by(process) == []


@on_pcscd
def test_step_that_fails_stops_everything(tmp_path: Path, reader: str) -> None:
    """pcscd runs by then, and no server can be started."""
    path = put_in_place(tmp_path, "setpriv", 'case "$*" in *pcscd*) exec /usr/bin/setpriv "$@" ;; esac; exit 3')
    with demo(tmp_path, "--reader", reader, path=path) as process:
        out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "A server is founded" in out
    assert "'cardwright server init' failed" in error
    assert left_by(process) == []
