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
from urllib.parse import quote_from_bytes

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
_HEX = b"0123456789abcdefABCDEF"


class PinentryUnavailable(CardwrightError):
    """No pinentry could be started, it does not speak Assuan, or the system shows no dialog."""

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
        # What was typed comes through here and is wiped; it is never in octets that cannot be.
        self._received = bytearray(2 * MAX_LINE)
        self._held = 0

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
        typed = self._command("GETPIN", self._entry_seconds)
        try:
            return Secret(typed)
        finally:
            _wipe(typed)

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
        _wipe(self._received)
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

    def _command(self, line: str, seconds: float | None = None) -> bytearray:
        try:
            return self._said(line, seconds)
        except PinentryUnavailable:
            if self._cancelled:
                raise PinentryCancelled("The PIN entry was cancelled.") from None
            raise

    def _said(self, line: str, seconds: float | None) -> bytearray:
        try:
            self._in.write(line.encode() + b"\n")
            self._in.flush()
        except OSError as error:
            raise PinentryUnavailable(f"Pinentry '{self._program}' ended unexpectedly.") from error
        return self._reply(self._reply_seconds if seconds is None else seconds)

    def _reply(self, seconds: float) -> bytearray:
        """Data up to OK, for the caller to wipe. Status lines and comments are passed over."""
        deadline = time.monotonic() + seconds
        data = bytearray()
        for _ in range(MAX_LINES):
            line = self._line(deadline)
            word = bytes(line[:4]).partition(b" ")[0]
            if word == b"OK":
                return data
            if word == b"D":
                before, more = data, _unquoted(line, len(word) + 1)
                data = before + more
                for used in (before, more, line):
                    _wipe(used)
            elif word == b"ERR":
                number = re.match(rb"ERR ([0-9]{1,10})", line)
                code = int(number.group(1)) & 0xFFFF if number else 0
                if code in (_CANCELLED, _CANCELLED_FULLY):
                    raise PinentryCancelled("The PIN entry was cancelled.")
                raise PinentryUnavailable(f"Pinentry '{self._program}' cannot ask for a PIN (error {code}).")
        raise PinentryUnavailable(f"Pinentry '{self._program}' said {MAX_LINES} lines and came to no end.")

    def _line(self, deadline: float) -> bytearray:
        """The next line, without its end. Raises PinentryUnavailable for none by ``deadline`` or an overlong one."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while (end := self._received.find(b"\n", 0, self._held)) < 0:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise PinentryUnavailable(f"Pinentry '{self._program}' did not answer in time.")
                with memoryview(self._received) as room:
                    came = 0 if self._held > MAX_LINE else os.readv(self._out.fileno(), [room[self._held :]])
                if not came:
                    raise PinentryUnavailable(
                        f"Pinentry '{self._program}' ended or said something that is not Assuan."
                    )
                self._held += came
        length = end - 1 if self._received[end - 1 : end] == b"\r" else end
        with memoryview(self._received) as room:
            line = bytearray(room[:length])
            left = self._held - end - 1
            room[:left] = room[end + 1 : self._held]
            room[left : self._held] = bytes(self._held - left)
        self._held = left
        return line


def _wipe(octets: bytearray) -> None:
    octets[:] = bytes(len(octets))


def _unquoted(line: bytearray, begin: int) -> bytearray:
    """What stands from ``begin`` on, with %XX as the octet that it means."""
    made, place = bytearray(len(line)), 0
    with memoryview(line) as octets:
        at = begin
        while at < len(line):
            code = _escaped(octets[at : at + 3])
            made[place] = octets[at] if code is None else code
            at, place = at + (1 if code is None else 3), place + 1
    exact = made[:place]
    _wipe(made)
    return exact


def _escaped(three: memoryview) -> int | None:
    """The octet that these three stand for; None where they are no escape."""
    digits = [_HEX.find(octet) for octet in three[1:]]
    if len(three) < 3 or three[0] != ord("%") or -1 in digits:
        return None
    high, low = (digit if digit < 16 else digit - 6 for digit in digits)
    return high << 4 | low


def _own_seat() -> Seat:
    """The terminal of this process, if it has one."""
    if "TERM" in os.environ and os.isatty(0):
        return Seat(os.ttyname(0), os.environ["TERM"])
    return Seat()
