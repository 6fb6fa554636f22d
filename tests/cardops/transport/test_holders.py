"""Which programs are named when a card is busy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cardwright_cardops.transport.holders import Holder, busy, holders

linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc of Linux")


def process(root: Path, pid: int, name: str, maps: str, service: str | None = None) -> None:
    """``service``: the socket in its environment; ours unless given."""
    folder = root / str(pid)
    folder.mkdir()
    socket = os.environ.get("PCSCLITE_CSOCK_NAME", "") if service is None else service
    environ = f"PATH=/bin\0PCSCLITE_CSOCK_NAME={socket}\0" if socket else "PATH=/bin\0"
    (folder / "environ").write_text(environ)
    (folder / "maps").write_text(maps)
    (folder / "comm").write_text(name + "\n")


def test_those_known_to_cling_come_first(tmp_path: Path) -> None:
    used = "7f00-7f01 r-xp 0 00:00 1 /usr/lib/libpcsclite.so.1.0.0\n"
    process(tmp_path, 20, "firefox", used)
    process(tmp_path, 30, "scdaemon", used)
    process(tmp_path, 40, "bash", "7f00-7f01 r-xp 0 00:00 1 /usr/lib/libc.so.6\n")
    process(tmp_path, os.getpid(), "ourselves", used)
    (tmp_path / "50").mkdir()
    (tmp_path / "self").mkdir()
    assert holders(tmp_path) == (Holder(30, "scdaemon"), Holder(20, "firefox"))


def test_those_of_another_service_are_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = "7f00-7f01 r-xp 0 00:00 1 /usr/lib/libpcsclite.so.1.0.0\n"
    process(tmp_path, 20, "usual", used, service="")
    process(tmp_path, 30, "other", used, service="/tmp/other")
    monkeypatch.delenv("PCSCLITE_CSOCK_NAME", raising=False)
    assert holders(tmp_path) == (Holder(20, "usual"),)
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", "/tmp/other")
    assert holders(tmp_path) == (Holder(30, "other"),)


def test_no_proc_names_nobody(tmp_path: Path) -> None:
    assert holders(tmp_path / "absent") == ()


@linux
def test_a_process_that_uses_pcsc_is_named_in_the_error() -> None:
    script = "import ctypes; ctypes.CDLL('libpcsclite.so.1'); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        assert other.pid in {holder.pid for holder in holders()}
        error = busy("Another program has the card.", "R")
        assert f"(pid {other.pid})" in str(error)
        assert any(f"(pid {other.pid})" in name for name in error.holders)
        assert (error.code, error.reader, error.sent) == ("CARD_BUSY", "R", False) and error.advice
        other.communicate(b"\n")
