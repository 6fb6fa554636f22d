"""What only the machine's administrator decides: one file of root's, which no program of the user can change.

Whoever talks a person into something can make them change a file of their own; this one they cannot.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from .config import MAX_OCTETS, ConfigInvalid

FILE: Final = Path("/etc/cardwright/machine.toml")
_ROOT: Final = 0


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``begin_mandatory``: what the server's policy makes mandatory is begun by itself. PINs are asked for as ever."""

    begin_mandatory: bool = False


NOTHING_ALLOWED: Final = Machine()


def load_machine(path: Path = FILE, *, owner: int = _ROOT) -> Machine:
    """What ``path`` says; nothing is allowed where there is no such file.

    Raises ConfigInvalid, also where file or folder are not ``owner``'s or can be written by others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING_ALLOWED
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}.") from error
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        for name, found in ((path, about), (path.parent, path.parent.lstat())):
            if found.st_uid != owner or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigInvalid(f"{name} can be changed by others than the machine's administrator.")
        if not stat.S_ISREG(about.st_mode):
            raise ConfigInvalid(f"{path} is no file.")
        text = file.read(MAX_OCTETS + 1)
    if len(text) > MAX_OCTETS:
        raise ConfigInvalid(f"{path} is longer than {MAX_OCTETS} octets.")
    try:
        return msgspec.toml.decode(text, type=Machine)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: {error}.") from error
