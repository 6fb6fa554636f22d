"""A PIN from a person through a pinentry program: the Assuan protocol, as small as it can be.

Pinentry grabs the keyboard and keeps the PIN out of our terminal; every text it shows is ours and escaped.
"""

from __future__ import annotations

import os
import subprocess
from types import TracebackType
from typing import IO
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .errors import CardwrightError
from .secret import Secret

MAX_LINE = 1000
"""Octets of one Assuan line, its end included."""

_CANCELLED = 99
_CANCELLED_FULLY = 198


class PinentryUnavailable(CardwrightError):
    """No pinentry could be started, or it does not speak Assuan."""

    code = "PINENTRY_UNAVAILABLE"
    default_effect = "Nothing was sent to the card."
    default_advice = "Install pinentry for your desktop, or run the command on a terminal."


class PinentryCancelled(CardwrightError):
    """The person closed the dialog."""

    code = "PINENTRY_CANCELLED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Start again when you are ready to enter the PIN."


def escape(text: str) -> str:
    """``text`` as the parameter of one Assuan command: no line end, no percent sign, bounded."""
    return quote_from_bytes(text.encode()[:MAX_LINE // 4], safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}~-._")


class Pinentry:
    """One pinentry process. Use it as a context manager; leaving ends the process."""

    def __init__(self, program: str = "pinentry") -> None:
        try:
            self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise PinentryUnavailable(f"Pinentry '{program}' cannot be started: {error.strerror}.") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout
        self._program = program

    def __enter__(self) -> Pinentry:
        try:
            self._reply()
            self._options()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, *, title: str, description: str, prompt: str) -> Secret:
        """Show one dialog and return what was typed. Raises PinentryCancelled, PinentryUnavailable."""
        for command, text in (("SETTITLE", title), ("SETDESC", description), ("SETPROMPT", prompt)):
            self._command(f"{command} {escape(text)}")
        return Secret(self._command("GETPIN"))

    def close(self) -> None:
        """End the process."""
        self._in.close()
        self._out.close()
        self._process.terminate()
        self._process.wait()

    def _options(self) -> None:
        if "TERM" in os.environ and os.isatty(0):
            self._command(f"OPTION ttyname={escape(os.ttyname(0))}")
            self._command(f"OPTION ttytype={escape(os.environ['TERM'])}")

    def _command(self, line: str) -> bytes:
        try:
            self._in.write(line.encode() + b"\n")
            self._in.flush()
        except OSError as error:
            raise PinentryUnavailable(f"Pinentry '{self._program}' ended unexpectedly.") from error
        return self._reply()

    def _reply(self) -> bytes:
        """Data up to OK. Status lines and comments are passed over."""
        data = b""
        while True:
            line = self._out.readline(MAX_LINE + 1)
            if not line.endswith(b"\n"):
                raise PinentryUnavailable(f"Pinentry '{self._program}' ended or said something that is not Assuan.")
            word, _, rest = line.rstrip(b"\r\n").partition(b" ")
            if word == b"OK":
                return data
            if word == b"D":
                data += unquote_to_bytes(rest)
            elif word == b"ERR":
                code = int(rest.split()[0]) & 0xFFFF if rest[:1].isdigit() else 0
                if code in (_CANCELLED, _CANCELLED_FULLY):
                    raise PinentryCancelled("The PIN entry was cancelled.")
                raise PinentryUnavailable(f"Pinentry '{self._program}' cannot ask for a PIN (error {code}).")
