"""Pinentry programs: one that works, and those that are none, never answer or never stop."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.pinentry import Pinentry, PinentryCancelled, PinentryUnavailable, _unquoted


def program(folder: Path, getpin: str) -> str:
    """A pinentry in shell that answers GETPIN with ``getpin`` (printf)."""
    file = folder / "pinentry"
    file.write_text(
        "#!/bin/sh\necho 'OK hello'\nwhile read -r word rest; do\n"
        f"  case $word in GETPIN) printf '{getpin}';; *) echo OK;; esac\ndone\n"
    )
    file.chmod(0o755)
    return str(file)


def ask(name: str) -> bytes:
    with Pinentry(name, reply_seconds=2.0, entry_seconds=0.3) as entry:
        return entry.ask(title="t", description="d", prompt="p").reveal()


def test_what_was_typed_comes_back(tmp_path: Path) -> None:
    assert ask(program(tmp_path, r"# hint\nS status\nD 12%%2534\nOK\n")) == b"12%34"


def test_nothing_of_it_stays_in_what_was_read(tmp_path: Path) -> None:
    with Pinentry(program(tmp_path, r"D 95173046\nOK\nleft over")) as entry:
        assert entry.ask(title="t", description="d", prompt="p").reveal() == b"95173046"
        assert bytes(entry._received).strip(b"\0") == b"left over"
    assert not any(entry._received)


@given(st.binary(max_size=40))
def test_what_is_escaped_is_read_as_urllib_reads_it(octets: bytes) -> None:
    for text in (octets, b"%" + octets, quote_from_bytes(octets).encode(), octets.hex("%").encode()):
        assert _unquoted(bytearray(b"D " + text), 2) == unquote_to_bytes(text)


def test_a_closed_dialog_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(PinentryCancelled):
        ask(program(tmp_path, r"ERR 83886179 cancelled\n"))


@pytest.mark.parametrize("getpin", [r"ERR 5x\n", r"ERR\n", "", "D 1234"])
def test_answers_that_are_none_end_with_a_code(getpin: str, tmp_path: Path) -> None:
    with pytest.raises(PinentryUnavailable):
        ask(program(tmp_path, getpin))


@pytest.mark.parametrize("name", ["/usr/bin/yes", "/bin/true", "/bin/cat", "/absent", "/dev/null"])
def test_programs_that_are_no_pinentry_end_in_time(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(PinentryUnavailable), Pinentry(name, reply_seconds=0.3):
        pass
    assert time.monotonic() - start < 5
