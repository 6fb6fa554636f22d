"""Which requests to unlock are open: for passwords that count for one of them (``authentication.OpenUnlocks``)."""

from __future__ import annotations

from uuid import UUID

from ..store.unit import Unit
from . import store
from .model import CLOSED, RequestKind


class UnlockRequests:
    """``OpenUnlocks`` from the table of requests. Stateless."""

    async def is_open(self, unit: Unit, org: UUID, request: UUID, person: UUID) -> bool:
        """See ``OpenUnlocks``."""
        found = await store.by_id(unit, org, request)
        if found is None or found.kind is not RequestKind.UNLOCK or found.person != person:
            return False
        in_time = found.expires_at is None or found.expires_at > unit.now
        return in_time and found.state not in CLOSED
