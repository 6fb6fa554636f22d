"""A PIN from a person through a pinentry program: the Assuan protocol, as small as it can be.

Pinentry grabs the keyboard and keeps the PIN out of our terminal; every text it shows is ours and escaped.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .errors import CardwrightError
from .secret import Secret

MAX_LINE = 1000
"""Octets of one Assuan line, its end included."""

MAX_LINES: Final = 64
"""Lines of one reply: status lines and comments, the data, the end."""

REPLY_SECONDS: Final = 5.0
"""For the greeting and everything that asks nobody."""

ENTRY_SECONDS: Final = 600.0
"""For a person to type a PIN."""

_END_SECONDS: Final = 2.0
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


@dataclass(frozen=True, slots=True)
class Seat:
    """Where the person sits who is asked: a terminal and its type (TERM), an X11 display; all may be empty."""

    tty: str = ""
    tty_type: str = ""
    display: str = ""


class Pinentry:
    """One pinentry process. Use it as a context manager; leaving ends the process."""

    def __init__(
        self,
        program: str = "pinentry",
        *,
        reply_seconds: float = REPLY_SECONDS,
        entry_seconds: float = ENTRY_SECONDS,
        seat: Seat | None = None,
    ) -> None:
        """``reply_seconds`` are for the program to answer, ``entry_seconds`` for a person to.

        ``seat`` is that of this process unless given.
        """
        self._seat = _own_seat() if seat is None else seat
        self._cancelled = False
        environment = dict(os.environ)
        if self._seat.display:
            environment["DISPLAY"] = self._seat.display
        try:
            self._process = subprocess.Popen(
                [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
            )
        except OSError as error:
            raise PinentryUnavailable(f"Pinentry '{program}' cannot be started: {error.strerror}.") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout
        self._program = program
        self._reply_seconds = reply_seconds
        self._entry_seconds = entry_seconds
        self._received = b""

    def __enter__(self) -> Pinentry:
        try:
            self._reply(self._reply_seconds)
            self._options()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, *, title: str, description: str, prompt: str, error: str = "") -> Secret:
        """Show one dialog and return what was typed. Raises PinentryCancelled, PinentryUnavailable.

        ``error`` says what was wrong with the entry before.
        """
        texts = [("SETTITLE", title), ("SETDESC", description), ("SETPROMPT", prompt)]
        if error:
            texts.append(("SETERROR", error))
        for command, text in texts:
            self._command(f"{command} {escape(text)}")
        return Secret(self._command("GETPIN", self._entry_seconds))

    def tell(self, *, title: str, description: str) -> None:
        """Show a message until the person closes it. Raises PinentryCancelled, PinentryUnavailable."""
        for command, text in (("SETTITLE", title), ("SETDESC", description)):
            self._command(f"{command} {escape(text)}")
        self._command("CONFIRM --one-button", self._entry_seconds)

    def cancel(self) -> None:
        """From another thread: close the dialog; what is asked meanwhile ends with PinentryCancelled."""
        self._cancelled = True
        self._process.terminate()

    def close(self) -> None:
        """End the process."""
        self._in.close()
        self._out.close()
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _options(self) -> None:
        if self._seat.tty and self._seat.tty_type:
            self._command(f"OPTION ttyname={escape(self._seat.tty)}")
            self._command(f"OPTION ttytype={escape(self._seat.tty_type)}")

    def _command(self, line: str, seconds: float | None = None) -> bytes:
        try:
            return self._said(line, seconds)
        except PinentryUnavailable:
            if self._cancelled:
                raise PinentryCancelled("The PIN entry was cancelled.") from None
            raise

    def _said(self, line: str, seconds: float | None) -> bytes:
        try:
            self._in.write(line.encode() + b"\n")
            self._in.flush()
        except OSError as error:
            raise PinentryUnavailable(f"Pinentry '{self._program}' ended unexpectedly.") from error
        return self._reply(self._reply_seconds if seconds is None else seconds)

    def _reply(self, seconds: float) -> bytes:
        """Data up to OK. Status lines and comments are passed over."""
        deadline = time.monotonic() + seconds
        data = b""
        for _ in range(MAX_LINES):
            word, _, rest = self._line(deadline).partition(b" ")
            if word == b"OK":
                return data
            if word == b"D":
                data += unquote_to_bytes(rest)
            elif word == b"ERR":
                number = re.match(rb"[0-9]{1,10}", rest)
                code = int(number.group()) & 0xFFFF if number else 0
                if code in (_CANCELLED, _CANCELLED_FULLY):
                    raise PinentryCancelled("The PIN entry was cancelled.")
                raise PinentryUnavailable(f"Pinentry '{self._program}' cannot ask for a PIN (error {code}).")
        raise PinentryUnavailable(f"Pinentry '{self._program}' said {MAX_LINES} lines and came to no end.")

    def _line(self, deadline: float) -> bytes:
        """The next line, without its end. Raises PinentryUnavailable for none by ``deadline`` or an overlong one."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise PinentryUnavailable(f"Pinentry '{self._program}' did not answer in time.")
                more = os.read(self._out.fileno(), MAX_LINE)
                if not more or len(self._received) > MAX_LINE:
                    raise PinentryUnavailable(
                        f"Pinentry '{self._program}' ended or said something that is not Assuan."
                    )
                self._received += more
        line, _, self._received = self._received.partition(b"\n")
        return line.rstrip(b"\r")


def _own_seat() -> Seat:
    """The terminal of this process, if it has one."""
    if "TERM" in os.environ and os.isatty(0):
        return Seat(os.ttyname(0), os.environ["TERM"])
    return Seat()
