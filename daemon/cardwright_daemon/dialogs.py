"""Which dialog asks a person: pinentry where it is configured or found, else the system's own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from cardwright_cardops.pinentry import Pinentry, PinentryUnavailable, Seat
from cardwright_cardops.secret import Secret

from .config import Pins
from .prompt_macos import MacDialog
from .prompt_windows import WindowsDialog

PINENTRY: Final = "pinentry"


class Dialog(Protocol):
    """One program that shows dialogs, as ``Pinentry``."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def ask(self, *, title: str, description: str, prompt: str, error: str = "") -> Secret:
        """What was typed. Raises PinentryCancelled, PinentryUnavailable."""

    def tell(self, *, title: str, description: str) -> None:
        """Show a message until it is closed. Raises PinentryCancelled, PinentryUnavailable."""

    def cancel(self) -> None:
        """From another thread: close the dialog."""

    def close(self) -> None:
        """End the program."""


Opening = Callable[[Pins, Seat | None], Dialog]
"""What starts the program that asks: how PINs are asked for, and where the person sits."""


def open_dialog(pins: Pins, seat: Seat | None, platform: str = sys.platform) -> Dialog:
    """The program that asks on ``platform``; blocks until it is started. Raises PinentryUnavailable."""
    if platform == "win32":
        if pins.pinentry:
            # Its pipes cannot be waited for with a time limit there, which the exchange with pinentry needs.
            raise PinentryUnavailable(
                "Pinentry is not used on Windows.", advice="Leave pins.pinentry empty; Windows' own dialog asks then."
            )
        return WindowsDialog(pins.seconds)
    if platform == "darwin" and not pins.pinentry and shutil.which(PINENTRY) is None:
        return MacDialog(pins.seconds)
    return Pinentry(pins.pinentry or PINENTRY, entry_seconds=pins.seconds, seat=seat)
