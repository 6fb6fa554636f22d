"""One dialog in a program of the system: the request goes to its standard input, one line comes back.

The line is "+" and what was typed, or "!" and the system's number for why there is nothing. What is shown and what is
typed are in no argument and no environment, which other users could read. The program is killed to close its dialog.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from io import RawIOBase
from types import TracebackType
from typing import IO, ClassVar, Final, Self, cast

from cardwright_cardops.pinentry import PinentryCancelled, PinentryUnavailable
from cardwright_cardops.secret import Secret

MAX_ANSWER: Final = 2048
"""Octets of the line that comes back."""
MAX_TEXT: Final = 1000
"""Characters of one text that is shown; CREDUI_MAX_MESSAGE_LENGTH is 1024."""

_ADVICE: Final = "Log in on the desktop of this machine, or install pinentry and name it in pins.pinentry."


class DialogProgram(ABC):
    """One process that shows one dialog. Use it as a context manager; leaving ends the process."""

    name: ClassVar[str]
    """What to call the dialog in errors."""
    cancelled: ClassVar[int]
    """The system's number for a dialog that the person closed."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        """``seconds`` are for a person to answer. Raises PinentryUnavailable."""
        self._seconds = seconds
        self._stopped = ""
        flags = 0
        if sys.platform == "win32":
            # Without it a daemon that has no console would show one for each question.
            flags = subprocess.CREATE_NO_WINDOW
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                creationflags=flags,
            )  # fmt: skip
        except OSError as error:
            raise self._unavailable(f"cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        # Unbuffered pipes are raw, whatever subprocess is typed as.
        self._out = cast(RawIOBase, self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def _asking(self, title: str, text: str, prompt: str) -> bytes:
        """The request for a dialog with a hidden entry."""

    @abstractmethod
    def _telling(self, title: str, text: str) -> bytes:
        """The request for a dialog with one button."""

    def ask(self, *, title: str, description: str, prompt: str, error: str = "") -> Secret:
        """Show the dialog and return what was typed. Raises PinentryCancelled, PinentryUnavailable.

        ``error`` says what was wrong with the entry before.
        """
        text = f"{error}\n\n{description}" if error else description
        return self._show(self._asking(title, text[:MAX_TEXT], prompt))

    def tell(self, *, title: str, description: str) -> None:
        """Show a message until the person closes it. Raises PinentryCancelled, PinentryUnavailable."""
        self._show(self._telling(title, description[:MAX_TEXT])).wipe()

    def cancel(self) -> None:
        """From another thread: close the dialog; what is asked meanwhile ends with PinentryCancelled."""
        self._stop("cancelled")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()

    def _stop(self, why: str) -> None:
        self._stopped = self._stopped or why
        self._process.kill()

    def _show(self, request: bytes) -> Secret:
        # Pipes of Windows cannot be selected on, so a timer ends the reading by ending the program.
        limit = threading.Timer(self._seconds, self._stop, ("late",))
        limit.daemon = True
        limit.start()
        line = bytearray(MAX_ANSWER)
        try:
            try:
                self._in.write(request)
                self._in.close()
                held = self._read(line)
            except OSError as error:
                raise self._unavailable("ended unexpectedly") from error
            return self._answer(line, held)
        finally:
            limit.cancel()
            line[:] = bytes(len(line))

    def _read(self, line: bytearray) -> int:
        """Fill ``line`` until the program ends or it is full; how many octets came."""
        held = 0
        with memoryview(line) as room:
            while held < len(line) and (came := self._out.readinto(room[held:])):
                held += came
        return held

    def _answer(self, line: bytearray, held: int) -> Secret:
        end = line.find(b"\n", 0, held)
        if end > 0 and end == held - 1:
            if line[0] == ord("+"):
                typed = line[1:end]
                try:
                    return Secret(typed)
                finally:
                    typed[:] = bytes(len(typed))
            said = re.fullmatch(rb"!(-?[0-9]{1,10})", line[:end])
            if said and int(said.group(1)) == self.cancelled:
                raise PinentryCancelled("The PIN entry was cancelled.")
            if said:
                raise self._unavailable(f"cannot ask for a PIN (error {int(said.group(1))})")
        if self._stopped == "cancelled":
            raise PinentryCancelled("The PIN entry was cancelled.")
        raise self._unavailable("was not answered in time" if self._stopped else "ended without an answer")

    def _unavailable(self, what: str) -> PinentryUnavailable:
        return PinentryUnavailable(f"The {self.name} {what}.", advice=_ADVICE)
