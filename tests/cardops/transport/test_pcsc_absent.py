"""No service, a service that refuses, a socket that may not be used: told apart, without any pcscd."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_ASK = """
import os, sys
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.transport.pcsc import connect, readers
if len(sys.argv) > 1:  # after the imports: that user may not be able to read this tree
    os.setgroups([])
    os.setresgid(*[int(sys.argv[1])] * 3)
    os.setresuid(*[int(sys.argv[1])] * 3)
for ask in (readers, lambda: connect("Some Reader")):
    try:
        ask()
    except CardwrightError as error:
        print(error.code, error.sent, bool(error.advice), bool(error.effect))
"""


def ask(path: Path, *uid: str) -> list[str]:
    """What a new process, whose libpcsclite looks for the service at ``path``, is told; as user ``uid`` if given.
    A process, because libpcsclite reads the variable only once."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK, *uid],
        env={**os.environ, "PCSCLITE_CSOCK_NAME": str(path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    path = tmp_path / "pcscd.comm"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path, listener


def test_no_service(tmp_path: Path) -> None:
    assert ask(tmp_path / "absent") == ["PCSC_NOT_RUNNING False True True"] * 2


def test_a_socket_that_a_dead_service_left(tmp_path: Path) -> None:
    path = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert ask(path) == ["PCSC_NOT_RUNNING False True True"] * 2


@pytest.mark.parametrize("answer_after", [0.05, 0])
def test_a_service_that_refuses_as_with_polkit(
    listening: tuple[Path, socket.socket], answer_after: float
) -> None:
    path, listener = listening

    def refuse() -> None:
        while True:
            # pcscd closes the connection of a client that polkit does not let in, and says nothing.
            with listener.accept()[0] as client:
                select.select([client], [], [], answer_after)

    threading.Thread(target=refuse, daemon=True).start()
    assert ask(path) == ["PCSC_ACCESS_DENIED False True True"] * 2


def test_a_socket_whose_permissions_keep_us_out(listening: tuple[Path, socket.socket]) -> None:
    path, _ = listening
    path.chmod(0o600)
    if os.geteuid() != 0:
        path.chmod(0)
        assert ask(path) == ["PCSC_ACCESS_DENIED False True True"] * 2
        return
    for folder in path.parents[:3]:
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    assert ask(path, "65534") == ["PCSC_ACCESS_DENIED False True True"] * 2
