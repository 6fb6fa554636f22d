"""``authentication.enrolment.OpenUnlocks`` by the domain of requests."""

from __future__ import annotations

from uuid import UUID

from ..requests.errors import NoSuchRequest
from ..requests.model import RequestKind, RequestState
from ..requests.service import RequestService
from ..store.unit import Unit

_OPEN = frozenset({RequestState.READY, RequestState.EXECUTING, RequestState.RETRYABLE})


class UnlockRequests:
    """What passwords for an emergency are given out for."""

    def __init__(self, requests: RequestService) -> None:
        self._requests = requests

    async def is_open(self, unit: Unit, org: UUID, request: UUID, person: UUID) -> bool:
        """See ``OpenUnlocks``."""
        try:
            found = await self._requests.request(unit, org, request)
        except NoSuchRequest:
            return False
        in_time = found.expires_at is None or found.expires_at > unit.now
        return found.kind is RequestKind.UNLOCK and found.person == person and found.state in _OPEN and in_time
