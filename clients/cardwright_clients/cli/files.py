"""Files that commands read and write: bounded on the way in, whole or not at all on the way out."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from cardwright_cardops.errors import CardwrightError

MAX_INPUT = 16 << 20


class FileUnusable(CardwrightError):
    """A file that cannot be read or written, or is too large."""

    code = "FILE"
    default_effect = "Nothing on the card was changed by this."
    default_advice = "Check the path and its permissions."


def read_bounded(path: Path, most: int = MAX_INPUT) -> bytes:
    """The content of ``path``; "-" is standard input. Raises FileUnusable."""
    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(most + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(most + 1)
    except OSError as error:
        raise FileUnusable(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > most:
        raise FileUnusable(f"{path} has more than {most} octets.")
    return raw


def write_output(path: Path | None, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all; None and "-" are standard output. Raises FileUnusable."""
    if path is None or str(path) == "-":
        click.echo(content, nl=False)
        return
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise FileUnusable(f"{path} cannot be written: {error.strerror}.") from error
