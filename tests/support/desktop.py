"""A desktop without a screen: a session bus of our own, and a notification service on it that remembers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusDict, DBusInt32, DBusSignature, DBusStr, DBusUInt32
from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

from tests.support.daemons import PATIENCE

NAME = "org.freedesktop.Notifications"
Strings = Annotated[list[str], DBusSignature("as")]
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""


@dataclass(frozen=True)
class Shown:
    """A notification."""

    id: int
    title: str
    text: str
    buttons: dict[str, str]
    """Words by the keys of their actions."""


class Service(ServiceInterface):
    """Desktop Notifications Specification 1.2, what we need of it."""

    def __init__(self, news: asyncio.Event) -> None:
        super().__init__(NAME)
        self.open: dict[int, Shown] = {}
        self.all: list[Shown] = []
        self._news = news

    @dbus_method()
    def Notify(
        self,
        app_name: DBusStr,
        replaces_id: DBusUInt32,
        app_icon: DBusStr,
        summary: DBusStr,
        body: DBusStr,
        actions: Strings,
        hints: DBusDict,
        expire_timeout: DBusInt32,
    ) -> DBusUInt32:
        made = Shown(len(self.all) + 1, summary, body, dict(zip(actions[::2], actions[1::2], strict=True)))
        made.buttons.pop("default", None)
        self.open[made.id] = made
        self.all.append(made)
        self._news.set()
        return made.id

    @dbus_method()
    def CloseNotification(self, id: DBusUInt32) -> Annotated[None, DBusSignature("")]:
        if self.open.pop(id, None) is not None:
            self.NotificationClosed(id, 3)
            self._news.set()

    @dbus_method()
    def GetCapabilities(self) -> Strings:
        return ["actions", "body"]

    @dbus_method()
    def GetServerInformation(self) -> Annotated[tuple[str, str, str, str], DBusSignature("ssss")]:
        return "tests", "cardwright", "1", "1.2"

    @dbus_signal()
    def ActionInvoked(self, id: int, action: str) -> Annotated[tuple[int, str], DBusSignature("us")]:
        return id, action

    @dbus_signal()
    def NotificationClosed(self, id: int, reason: int) -> Annotated[tuple[int, int], DBusSignature("uu")]:
        return id, reason


@dataclass
class Desktop:
    """The bus's ``address``, and what is shown."""

    address: str
    service: Service
    news: asyncio.Event = field(repr=False)

    async def until(self, wanted: Callable[[Shown], Any]) -> Shown:
        """The open notification that is as wanted, once there is one."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self.news.clear()
                for one in self.service.open.values():
                    if wanted(one):
                        return one
                await self.news.wait()

    async def press(self, shown: Shown, word: str) -> None:
        """Press a button until something else is shown; the notification is closed by that, as desktops do it.

        A program knows its notification only once it has read our answer, so the first press may come too soon.
        """
        (key,) = (key for key, text in shown.buttons.items() if text == word)
        del self.service.open[shown.id]
        before = len(self.service.all)
        async with asyncio.timeout(PATIENCE):
            while len(self.service.all) == before:
                self.service.ActionInvoked(shown.id, key)
                self.news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self.news.wait()


@asynccontextmanager
async def desktop(folder: Path, *, notifications: bool = True) -> AsyncIterator[Desktop]:
    """A bus in ``folder``, with a notification service unless told otherwise."""
    socket, config = folder / "bus", folder / "bus.conf"
    config.write_text(_CONFIG.format(socket=socket))
    process = await asyncio.create_subprocess_exec(
        "dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        news = asyncio.Event()
        service = Service(news)
        bus = await MessageBus(address).connect()
        try:
            if notifications:
                bus.export("/org/freedesktop/Notifications", service)
                await bus.request_name(NAME)
            yield Desktop(address, service, news)
        finally:
            bus.disconnect()
    finally:
        process.terminate()
        await process.wait()
