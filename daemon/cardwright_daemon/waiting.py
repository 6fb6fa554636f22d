"""Waiting for moments of the calendar, which a timer does not know: suspend stops it, and clocks are set."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

LONGEST: Final = 900.0
"""Seconds after which the clock is looked at again."""


async def sleep_until(moment: datetime) -> None:
    """Until ``moment`` has come."""
    while (left := (moment - datetime.now(UTC)).total_seconds()) > 0:
        await asyncio.sleep(min(left, LONGEST))
