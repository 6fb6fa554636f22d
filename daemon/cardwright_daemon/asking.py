"""Asking a person while their card or token is in: taking it out closes the dialog."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from cardwright_cardops.errors import CardwrightError

T = TypeVar("T")


class Removable(Protocol):
    """A card or token."""

    async def left(self) -> CardwrightError:
        """Wait until it is taken out; the error that whoever waits for its person ends with."""


async def while_in(device: Removable, asking: Awaitable[T]) -> T:
    """What ``asking`` gives; it is cancelled when ``device`` is taken out. Raises as ``asking``, and that it left."""
    task = asyncio.ensure_future(asking)
    left = asyncio.ensure_future(device.left())
    both: set[asyncio.Future[Any]] = {task, left}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise left.result()
        return task.result()
    finally:
        left.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
