"""A real pcscd whose socket belongs to root alone, and the command line as somebody else."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
from collections.abc import Iterator

import pytest

from cardwright_cardops.transport import pcsc
from cardwright_clients.cli import card, card_check, pin, readers
from cardwright_clients.cli.main import main
from tests.support.pcscd import SOCKET, Pcscd

USED = (card, card_check, pcsc, pin, readers)
"""Imported here, where their files can still be read."""

pytestmark = [
    pytest.mark.pcscd,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]


@pytest.fixture
def for_root_alone(pcscd: Pcscd) -> Iterator[None]:
    """pcscd's folder can be entered by all, and its socket is root's."""
    folder = SOCKET.parent
    before = folder.stat().st_mode, SOCKET.stat().st_mode
    folder.chmod(0o755)
    SOCKET.chmod(0o700)
    yield
    folder.chmod(before[0] & 0o777)
    SOCKET.chmod(before[1] & 0o777)


def as_nobody(*arguments: str) -> tuple[int, str]:
    """Run the command line as uid nobody in a child that has imported everything; exit code and standard error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.close(reading)
            who = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(who.pw_gid)
            os.setuid(who.pw_uid)
            os.environ.update(HOME="/nonexistent", XDG_RUNTIME_DIR="", XDG_STATE_HOME="")
            said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                try:
                    main(list(arguments))
                except SystemExit as stop:
                    code = stop.code if isinstance(stop.code, int) else 1
            said.seek(0)
            os.write(writing, said.read().encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.mark.parametrize("line", ["readers", "card list", "card show", "pin status", "card check"])
def test_a_socket_that_refuses_is_told_from_a_service_that_is_absent(line: str, for_root_alone: None) -> None:
    code, said = as_nobody(*line.split())
    assert code == (2 if line == "card check" else 1), said
    assert "Error PCSC_ACCESS_DENIED" in said and "org.debian.pcsc-lite.access_pcsc" in said
    assert "not running" not in said and "Traceback" not in said


def test_the_same_user_is_let_in_where_the_socket_is_open(pcscd: Pcscd, for_root_alone: None) -> None:
    SOCKET.chmod(0o777)
    code, said = as_nobody("readers")
    assert code == 0 and pcscd.readers[0] in said, said
