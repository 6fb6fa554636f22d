"""Where the command line gets PINs, PUKs and keys from: a file descriptor, pinentry, or the terminal.

Never from the command line itself, and never from the environment.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.pinentry import Pinentry
from cardwright_cardops.piv.pins import NoPin, reference_name
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.secret import Secret

from .output import visible

F = TypeVar("F", bound=Callable[..., Any])

MAX_LINE = 128
MAX_VALUE = 8
"""Octets of a PIN or PUK (SP 800-73-5 part 2 section 2.4.3)."""


class BadPin(CardwrightError):
    """A new PIN or PUK that no card, or not this one, would take."""

    code = "PIN_FORMAT"
    default_effect = "Nothing was sent to the card."
    default_advice = "A PIN has 6 to 8 digits, a PUK 8 characters."


class MismatchedPins(CardwrightError):
    """The two entries of a new PIN differ."""

    code = "PIN_MISMATCH"
    default_effect = "Nothing was sent to the card."
    default_advice = "Start again and type the same value twice."


class SecretsDescriptor:
    """Lines of a file descriptor, handed out one after another. Each line is one secret."""

    def __init__(self, descriptor: int) -> None:
        try:
            self._file = os.fdopen(descriptor, "rb", closefd=False)
        except OSError as error:
            raise _unreadable(descriptor, error) from error
        self._descriptor = descriptor
        self._number = 0

    def next(self, what: str) -> Secret:
        """The next line. Raises NoPin at the end or for an overlong line."""
        self._number += 1
        try:
            line = self._file.readline(MAX_LINE + 1)
        except OSError as error:
            raise _unreadable(self._descriptor, error) from error
        value = line.rstrip(b"\r\n")
        if not value or len(line) > MAX_LINE:
            raise NoPin(f"Line {self._number} of --secrets-fd should be the {what}; it is missing or too long.")
        return Secret(value)


def _unreadable(descriptor: int, error: OSError) -> NoPin:
    return NoPin(f"File descriptor {descriptor} cannot be read: {error.strerror or 'it is write-only'}.")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to a person."""

    what: str
    act: str
    tries: int | None = None

    @property
    def sentence(self) -> str:
        """The question with the act named and the tries left."""
        left = "" if self.tries is None else f" ({self.tries} {'try' if self.tries == 1 else 'tries'} left)"
        return visible(f"{self.what} to {self.act}{left}")


Ask = Callable[[Asked], Secret]


class Terminal:
    """Questions on the terminal, without echo."""

    def __call__(self, asked: Asked) -> Secret:
        value = click.prompt(asked.sentence, hide_input=True, err=True)
        return Secret(str(value).encode("utf-8", "surrogateescape"))


class PinentryPrompt:
    """Questions through a pinentry program."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, asked: Asked) -> Secret:
        with Pinentry(self._program) as entry:
            return entry.ask(title="cardwright", description=f"{asked.sentence}.", prompt=f"{asked.what}:")


class SecretSource:
    """All secrets of one command. ``act`` says what they are for: "change the PIN of card 1234"."""

    def __init__(self, *, descriptor: int | None, pinentry: str | None, act: str) -> None:
        self._act = act
        self._lines = SecretsDescriptor(descriptor) if descriptor is not None else None
        self._ask: Ask | None = _way_to_ask(pinentry)

    def _get(self, asked: Asked) -> Secret:
        if self._lines is not None:
            return self._lines.next(asked.what)
        if self._ask is None:
            raise NoPin(
                f"The {asked.what} is needed, and there is no terminal to ask on.",
                advice="Run the command on a terminal, or give --secrets-fd or --pinentry.",
            )
        return self._ask(asked)

    def current(self, reference: int, tries: int | None = None) -> Secret:
        """The value that is set now. Raises NoPin, and BadPin for what no card can hold."""
        name = f"current {reference_name(reference)}"
        value = self._get(Asked(name, self._act, tries))
        if not 1 <= len(value.reveal()) <= MAX_VALUE:
            raise BadPin(f"The {name} has at most {MAX_VALUE} characters, and at least one.")
        return value

    def new(self, reference: int) -> Secret:
        """A value to set: asked twice where a person types it. Raises NoPin, BadPin, MismatchedPins."""
        name = f"new {reference_name(reference)}"
        value = self._get(Asked(name, self._act))
        check_new(reference, value)
        if self._lines is None and self._get(Asked(f"{name} once more", self._act)) != value:
            raise MismatchedPins(f"The two entries of the {name} differ.")
        return value

    def password(self, what: str) -> Secret:
        """A password that is no PIN. Raises NoPin."""
        return self._get(Asked(what, self._act))

    def management_key(self) -> bytes:
        """A management key in hex. Raises NoPin, BadPin."""
        text = self._get(Asked("management key (hex)", self._act)).reveal()
        try:
            return bytes.fromhex(text.decode("ascii").strip())
        except ValueError:
            raise BadPin(
                "The management key is not hexadecimal.", advice="Give 32, 48 or 64 hexadecimal digits."
            ) from None


class AskedPins:
    """The custodian of key items: each value is asked for once and kept for the command."""

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        self._current: dict[int, Secret] = {}
        self._new: dict[int, Secret] = {}

    def current_pin(self, reference: int, tries: int | None) -> Secret:
        """The PIN that is set now; once a new one was given without asking for the old, it is the new one."""
        if reference not in self._current and reference in self._new:
            return self._new[reference]
        if reference not in self._current:
            self._current[reference] = self._source.current(reference, tries)
        return self._current[reference]

    def new_pin(self, reference: int) -> Secret:
        """The PIN to set."""
        if reference not in self._new:
            self._new[reference] = self._source.new(reference)
        return self._new[reference]


def check_new(reference: int, value: Secret) -> None:
    """Refuse a new PIN that is not 6 to 8 digits, or a PUK that is not 8 octets (SP 800-73-5 part 2 2.4.3).

    Raises BadPin. Of values that are set already only the length is checked: the card knows best.
    """
    raw = value.reveal()
    if reference == PinReference.PUK:
        if len(raw) != 8:
            raise BadPin("A PUK has exactly 8 characters.")
    elif not (6 <= len(raw) <= 8 and raw.isdigit()):
        raise BadPin("A PIN has 6 to 8 digits and nothing else.")


def on_terminal() -> bool:
    """Whether there is somebody to ask; standard input may be closed."""
    return sys.stdin is not None and sys.stdin.isatty()


def _way_to_ask(pinentry: str | None) -> Ask | None:
    if pinentry is not None:
        return PinentryPrompt(pinentry)
    if on_terminal():
        return Terminal()
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        found = shutil.which("pinentry")
        return PinentryPrompt(found) if found else None
    return None


def _require_open(context: click.Context, parameter: click.Parameter, descriptor: int | None) -> int | None:
    """Refuse a descriptor that nobody opened, before the connection to a card takes its number. Raises NoPin."""
    if descriptor is not None:
        try:
            os.fstat(descriptor)
        except OSError as error:
            raise _unreadable(descriptor, error) from error
    return descriptor


def secret_options(function: F) -> F:
    """The options that say where secrets come from: ``secrets_fd`` and ``pinentry``."""
    descriptor = click.option(
        "--secrets-fd", type=click.IntRange(0, 0x7FFFFFFF), metavar="N", callback=_require_open,
        help="Read secrets from file descriptor N, one a line.",
    )  # fmt: skip
    program = click.option("--pinentry", metavar="PROGRAM", help="Ask through this pinentry program.")
    return descriptor(program(function))
