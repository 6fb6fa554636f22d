"""Files that commands read and write: bounded on the way in, whole or not at all on the way out."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path

import click

from cardwright_cardops.errors import CardwrightError

MAX_INPUT = 16 << 20


class FileUnusable(CardwrightError):
    """A file that cannot be read or written, or is too large."""

    code = "FILE"
    default_effect = "No card was changed by this."
    default_advice = "Check the path and its permissions."


def read_bounded(path: Path, most: int = MAX_INPUT) -> bytes:
    """The content of ``path``; "-" is standard input. Raises FileUnusable."""
    try:
        if str(path) == "-":
            if sys.stdin is None:
                raise FileUnusable("Standard input is closed.")
            raw = sys.stdin.buffer.read(most + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(most + 1)
    except OSError as error:
        raise FileUnusable(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > most:
        raise FileUnusable(f"{path} has more than {most} octets.")
    return raw


def require_writable(path: Path | None) -> None:
    """Refuse an output that ``write_output`` could not write, before a card is touched for it. Raises FileUnusable."""
    if path is None or str(path) == "-":
        return
    try:
        status = _status(path)
        if status is not None and not os.access(path, os.W_OK):
            raise FileUnusable(f"{path} cannot be written: you may not.")
        if status is None or stat.S_ISREG(status.st_mode):
            descriptor, name = _beside(Path(os.path.realpath(path)), status)
            os.close(descriptor)
            os.unlink(name)
    except OSError as error:
        raise FileUnusable(f"{path} cannot be written: {error.strerror}.") from error


def write_output(path: Path | None, content: bytes, *, private: bool = False) -> None:
    """Write ``content`` to ``path``; None and "-" are standard output. Raises FileUnusable.

    A plain file is written whole or not at all, and keeps its mode if it was there; a new one has what umask leaves, or
    is its owner's alone where it is ``private``.
    Symbolic links are followed. What is no plain file, a FIFO or a device, is written to.
    """
    try:
        if path is None or str(path) == "-":
            click.echo(content, nl=False)
            return
        status = _status(path)
        if status is not None and not stat.S_ISREG(status.st_mode):
            with path.open("wb") as file:
                file.write(content)
            return
        if status is not None and not os.access(path, os.W_OK):
            raise FileUnusable(f"{path} cannot be written: you may not.")
        _replace(Path(os.path.realpath(path)), status, content, 0o600 if private else 0o666)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileUnusable(f"{path or 'Standard output'} cannot be written: {error.strerror}.") from error


def _status(path: Path) -> os.stat_result | None:
    """What stands at ``path`` once links are followed, None for nothing. Raises FileUnusable for a folder, OSError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise FileUnusable(f"{path} cannot be written: it is a folder.")
    return status


def _beside(target: Path, status: os.stat_result | None, mode: int = 0o666) -> tuple[int, Path]:
    """A new empty file in the folder of ``target``, with the mode that ``target`` has or would get (``mode``)."""
    name = target.with_name(f".cardwright-{secrets.token_hex(8)}")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode if status is None else 0o600)
    if status is not None:
        os.fchmod(descriptor, status.st_mode & 0o777)
    return descriptor, name


def _replace(target: Path, status: os.stat_result | None, content: bytes, mode: int) -> None:
    descriptor, name = _beside(target, status, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
