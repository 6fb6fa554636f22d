"""Questions by the dialogs of Windows. UNTESTED on it: no Windows machine was at hand; tests play the library.

A dialog of CredUI cannot be closed from outside but by ending its process, so each has one of its own: ``credui``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from .credui import ERROR_CANCELLED, Request
from .dialog_program import DialogProgram

# -P: nothing is imported from the folder that the daemon was started in.
COMMAND: Final = (sys.executable, "-P", "-m", "cardwright_daemon.credui")


class WindowsDialog(DialogProgram):
    """One process with a dialog of CredUI, or a message box."""

    name = "dialog of Windows"
    cancelled = ERROR_CANCELLED

    def __init__(self, seconds: float, command: Sequence[str] = COMMAND) -> None:
        """``seconds`` are for a person to answer. Raises PinentryUnavailable."""
        super().__init__(command, seconds)

    def _asking(self, title: str, text: str, prompt: str) -> bytes:
        return msgspec.json.encode(Request(title, text, prompt.rstrip(":")))

    def _telling(self, title: str, text: str) -> bytes:
        return msgspec.json.encode(Request(title, text))
