"""Where the persistent state lives: in memory, or in a file that a pulled card leaves whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cardwright_cardops.durable import sync_directory
from cardwright_cardops.errors import CardwrightError

from .state import MAX_FILE, CardState, StateDamaged


class Store(Protocol):
    """Keeps one card. ``commit`` is all or nothing: an interrupted one leaves the state before it."""

    def load(self) -> CardState | None:
        """The state last committed; None before the first. Raises StateDamaged or OSError."""

    def commit(self, state: CardState) -> None:
        """Keep ``state``. Raises OSError when it cannot be kept."""


class MemoryStore:
    """A card that lives as long as this object; cards made on it one after another are one card."""

    def __init__(self, state: CardState | None = None) -> None:
        self._state = state

    def load(self) -> CardState | None:
        """The state itself, not a copy: in memory a command is either executed or not."""
        return self._state

    def commit(self, state: CardState) -> None:
        """Remember ``state``."""
        self._state = state


class StateInUse(CardwrightError):
    """Another process runs the card of this state file. ``path`` is the file."""

    code = "SIM_STATE_IN_USE"
    default_effect = "The virtual card was not started; its file was not changed."
    default_advice = "Stop the other virtual card, or give another state file."

    def __init__(self, path: Path) -> None:
        super().__init__(f"The virtual card in {path} runs already.")
        self.path = path


class FileStore:
    """A card in a JSON file of mode 0600, replaced by rename once per command that changes something."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._release: Callable[[], object] | None = None

    def lock(self) -> None:
        """Keep other processes off the card until ``release`` or the end of this store. Raises StateInUse, OSError.

        The lock is on a file beside it, because the state file itself is replaced; that file stays.
        """
        if self._release is not None:
            return
        path = self.path.resolve()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self.path))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise StateInUse(self.path) from None
        except OSError:
            os.close(handle)
            raise
        self._release = weakref.finalize(self, os.close, handle)

    def release(self) -> None:
        """Let other processes have the card."""
        if self._release is not None:
            self._release()
        self._release = None

    def load(self) -> CardState | None:
        """The card in the file; None when there is no file. Raises StateDamaged or OSError."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return None
        if len(raw) > MAX_FILE:
            raise StateDamaged(f"This is no stored virtual card: it has more than {MAX_FILE} octets.")
        return CardState.decode(raw)

    def commit(self, state: CardState) -> None:
        """Write beside the file, sync, rename, sync the folder. Raises OSError."""
        folder = self.path.parent
        handle, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(state.encode())
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(folder)
