"""Where the workstation daemon and its clients meet: a folder of the user's own, and the socket in it.

The folder belongs to the user and to nobody else (mode 0700): the kernel keeps other users out, and nobody can put a
socket of theirs where clients look for the daemon.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from .errors import CardwrightError

SOCKET: Final = "daemon.sock"
VARIABLE: Final = "CARDWRIGHT_FOLDER"
"""Environment variable that names another folder."""
MAX_PATH: Final = 100
"""Octets of the path of a socket; the kernel takes 107, and longer names stand beside ours."""


class FolderUnsafe(CardwrightError):
    """The folder of the daemon's socket belongs to another user, is open to others, or is no folder."""

    code = "SOCKET_FOLDER_UNSAFE"
    default_effect = "Nothing was sent to any card."
    default_advice = "Remove the folder, or name one of your own with CARDWRIGHT_FOLDER."


def default_folder() -> Path:
    """The folder: ``CARDWRIGHT_FOLDER``, else below ``XDG_RUNTIME_DIR``, else below ``XDG_STATE_HOME``."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "cardwright"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "cardwright/run"


def has_folder(folder: Path) -> bool:
    """Whether anything is called ``folder``. Raises FolderUnsafe where this user may not even see that."""
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise FolderUnsafe(f"{folder} cannot be looked at: {error.strerror}.") from error
    return True


def require_own(folder: Path) -> None:
    """Raise FolderUnsafe unless ``folder`` is a folder of this user's that nobody else can enter."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise FolderUnsafe(f"{folder} cannot be looked at: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode):
        raise FolderUnsafe(f"{folder} is no folder.")
    if found.st_uid != os.geteuid():
        raise FolderUnsafe(f"{folder} belongs to another user.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise FolderUnsafe(f"{folder} is open to other users.")
    if len(os.fsencode(folder / SOCKET)) > MAX_PATH:
        raise FolderUnsafe(f"The path {folder} is too long for a socket.")
