"""Identifiers: UUIDs of version 7 (RFC 9562 section 5.7), so that new rows lie together in an index."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from uuid import UUID

SYSTEM = UUID(int=0)
"""Organization of rows that belong to the installation and to no organization."""

_VERSION = 7 << 76
_VARIANT = 2 << 62


def new_id() -> UUID:
    """A new identifier.

    The order of identifiers is only roughly that of time, because clocks differ between processes: never conclude
    from it which of two rows came first. The twelve bits after the milliseconds are their fraction (RFC 9562
    section 6.2, method 3), the last 62 are random.
    """
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    return UUID(int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | secrets.randbits(62))


def made_at(identifier: UUID) -> datetime:
    """When an identifier of ``new_id`` was made, by the clock of the process that made it. For display only."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)
