"""What a command prints: a table for people, JSON for programs, progress for the patient.

Card, reader and file names may hold anything. What people see goes through ``visible``, so that no certificate moves a
cursor, colours a verdict or writes a line of its own; what programs see is JSON that every stream can carry.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import click

from .files import FileUnusable

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""Every listing has it."""

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that are not seen, or that move what is: controls, bidi and other formats, surrogates, lines."""

_NOT_PLAIN_JSON: Final = re.compile("[^\x00-\x7e]")
"""Where ``json.dumps`` leaves something that may have to be escaped; C0 inside strings it escapes itself."""


def visible(text: str) -> str:
    """``text`` with everything that is not seen written out: ``\\x1B`` below U+0100, ``\\u{202E}`` above."""
    return "".join(_shown(one) for one in text)


def _shown(one: str) -> str:
    if unicodedata.category(one) not in _HIDDEN:
        return one
    return f"\\x{ord(one):02X}" if ord(one) < 0x100 else f"\\u{{{ord(one):X}}}"


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line for people. Raises FileUnusable where the stream takes no more, BrokenPipeError."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    _echo(visible(line).encode(encoding, "backslashreplace").decode(encoding), err=err)


def _echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    try:
        click.echo(text, err=err, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileUnusable(
            f"The output cannot be written: {error.strerror}.",
            effect="What was written to a card so far stands.",
            advice="Make room where the output goes, and look at the card with 'cardwright card show'.",
        ) from error


def json_text(value: object, *, indent: int | None = 2) -> str:
    """``value`` as JSON, keys as they come; whatever is not seen is escaped, lone surrogates too."""
    return _NOT_PLAIN_JSON.sub(_escaped, json.dumps(value, indent=indent, ensure_ascii=False))


def _escaped(found: re.Match[str]) -> str:
    one = found.group()
    if unicodedata.category(one) not in _HIDDEN:
        return one
    return json.dumps(one)[1:-1] if one != "\x7f" else "\\u007f"


def show_json(value: object, *, indent: int | None = 2) -> None:
    """Print ``value`` as JSON; ``indent`` None puts it on one line."""
    text = json_text(value, indent=indent)
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    _echo(text if encoding == "utf8" else json.dumps(value, indent=indent))


def show_table(rows: Iterable[Sequence[str]], head: Sequence[str]) -> None:
    """Print columns as wide as their widest cell."""
    table = [[visible(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[index]) for row in table) for index in range(len(head))]
    for row in table:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print one ``name: value`` a line, values aligned."""
    pairs = list(fields)
    width = max((len(name) for name, _ in pairs), default=0) + 1
    for name, value in pairs:
        say(f"{name + ':':<{width}} {value}")


class Progress:
    """Steps on standard error: on a terminal one line that is written over, else one line a step."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, number: int, doing: str) -> None:
        """Show that step ``number`` begins."""
        if self._quiet:
            return
        line = f"step {number}: {doing}"
        if self._terminal:
            _echo(f"\r\x1b[K{visible(line)}", err=True, nl=False)
        else:
            say(line, err=True)

    def end(self) -> None:
        """Leave the line that was written over."""
        if self._terminal and not self._quiet:
            say(err=True)


def hex_text(value: bytes) -> str:
    """Octets as people read them: upper case, no separators."""
    return value.hex().upper()
