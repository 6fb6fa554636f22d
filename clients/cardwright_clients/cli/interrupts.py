"""Ctrl-C at a question that is asked while an event loop runs."""

from __future__ import annotations

import io
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class _Typed(io.TextIOBase):
    """The terminal, read by the line. A signal that comes just before a read is noted only after it, which is after
    the next line is typed; so the wait is for the line and for the signal's octet together.
    """

    def __init__(self, terminal: TextIO, signals: socket.socket) -> None:
        self._terminal, self._signals = terminal, signals

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]  # TextIO's own default differs
        select.select([self._terminal.fileno(), self._signals.fileno()], [], [])
        return self._terminal.readline(-1 if size is None else size)

    def isatty(self) -> bool:
        return True


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end a question at once; the event loop would only note it."""
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not in the main thread: nobody types here
        yield
        return
    terminal = sys.stdin
    come, told = socket.socketpair()
    told.setblocking(False)
    awake = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        if terminal is not None and terminal.isatty():
            sys.stdin = _Typed(terminal, come)
        yield
    finally:
        sys.stdin = terminal
        signal.set_wakeup_fd(awake)
        signal.signal(signal.SIGINT, before)
        come.close()
        told.close()
