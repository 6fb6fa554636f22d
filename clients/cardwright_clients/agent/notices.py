"""Notices on the desktop, one for each subject; the next on a subject takes the place of the one before."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from desktop_notifier import Button, Capability, DesktopNotifier, Icon, Notification, Urgency

from cardwright_cardops.errors import CardwrightError

_MARKUP: Final = str.maketrans({"<": "(", ">": ")", "&": "+"})
"""Desktops may read texts as markup, and do not all say so."""
_FOR_GOOD: Final = 0
"""Seconds that a notice with buttons stays: until somebody closes it."""


class NotificationsUnavailable(CardwrightError):
    """There is no desktop here that shows notifications."""

    code = "NOTIFICATIONS_UNAVAILABLE"
    default_effect = "Nothing was sent to any card; the daemon goes on without the agent."
    default_advice = "Start the agent in a desktop session, or use 'cardwright update --watch' on a terminal."


@dataclass(frozen=True, slots=True)
class Notice:
    """What is shown. ``buttons`` are the words on them."""

    title: str
    text: str
    buttons: tuple[str, ...] = ()
    urgent: bool = False


Pressed = Callable[[str], None]


class Notices(Protocol):
    """Somewhere to show notices."""

    async def show(self, subject: str, notice: Notice, pressed: Pressed | None = None) -> None:
        """Show it in the place of an earlier one; ``pressed`` gets the word on the button, on the loop."""

    async def clear(self, subject: str) -> None:
        """Take the notice of a subject away."""


def plain(text: str) -> str:
    """A text without control characters and without what could be markup."""
    seen = "".join(" " if unicodedata.category(one).startswith("C") else one for one in text)
    return seen.translate(_MARKUP)


class DesktopNotices:
    """Notices of this desktop."""

    def __init__(self) -> None:
        self._notifier = DesktopNotifier(app_name="cardwright", app_icon=Icon(name="contact-new"))
        self._shown: dict[str, str] = {}
        self._alone = asyncio.Lock()

    async def require(self) -> bool:
        """Whether notices can have buttons here. Raises NotificationsUnavailable."""
        try:
            return Capability.BUTTONS in await self._notifier.get_capabilities()
        except Exception as error:  # what it raises depends on the platform and on what is missing
            raise NotificationsUnavailable(f"No notification service answers ({type(error).__name__}).") from error

    async def show(self, subject: str, notice: Notice, pressed: Pressed | None = None) -> None:
        """See ``Notices``."""
        buttons = [
            Button(word, on_pressed=partial(self._pressed, subject, word, pressed), identifier=word)
            for word in notice.buttons
        ]
        made = Notification(
            title=plain(notice.title),
            message=plain(notice.text),
            urgency=Urgency.Critical if notice.urgent else Urgency.Normal,
            buttons=tuple(buttons),
            on_dismissed=lambda: self._forget(subject, made.identifier),
            timeout=_FOR_GOOD if buttons else -1,
        )
        async with self._alone:
            await self._clear(subject)
            await self._notifier.send_notification(made)
            self._shown[subject] = made.identifier

    async def clear(self, subject: str) -> None:
        """See ``Notices``."""
        async with self._alone:
            await self._clear(subject)

    async def _clear(self, subject: str) -> None:
        shown = self._shown.pop(subject, None)
        if shown is not None and shown in await self._notifier.get_current_notifications():
            await self._notifier.clear(shown)

    def _pressed(self, subject: str, word: str, pressed: Pressed | None) -> None:
        self._shown.pop(subject, None)
        if pressed is not None:
            pressed(word)

    def _forget(self, subject: str, shown: str) -> None:
        if self._shown.get(subject) == shown:
            del self._shown[subject]
