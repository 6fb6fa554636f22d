"""What devices may ask of requests, and have done to them: the part that needs no device to decide."""

from __future__ import annotations

from uuid import UUID

from ..authentication.principal import Principal
from ..devices.consequences import Replacement
from ..devices.due import DueList
from ..devices.model import Reason
from ..machine import Actor
from ..store.unit import Unit
from . import store
from .errors import NoSuchRequest
from .model import GIVEN_BACK, REQUEST, WAITING, RequestEvent, RequestKind, RequestState
from .record import moved, opened, say_what_is_due


class RequestsOfDevice:
    """``devices.consequences.DeviceRequests``. Stateless."""

    async def is_executing(self, unit: Unit, org: UUID, device: UUID, request: UUID, session: UUID) -> bool:
        """See ``DeviceRequests``."""
        found = await store.by_id(unit, org, request)
        return (
            found is not None
            and found.state is RequestState.EXECUTING
            and found.session == session
            and found.worked_on == device
        )

    async def second_person_agreed(self, unit: Unit, org: UUID, device: UUID, request: UUID | None) -> bool:
        """See ``DeviceRequests``."""
        found = None if request is None else await store.by_id(unit, org, request)
        return (
            found is not None
            and found.kind is RequestKind.TERMINATE
            and found.device == device
            and found.state is RequestState.EXECUTING
            and found.approved_by is not None
            and found.approved_by != found.made_by
        )

    async def replacement(self, unit: Unit, org: UUID, request: UUID) -> Replacement | None:
        """See ``DeviceRequests``."""
        found = await store.by_id(unit, org, request)
        if found is None or found.kind is not RequestKind.REPLACEMENT or found.state is not RequestState.APPROVED:
            return None
        if found.person is None or (found.expires_at is not None and found.expires_at <= unit.now):
            return None
        return Replacement(found.device, found.person, found.temporary)

    async def prepared(self, unit: Unit, principal: Principal, request: UUID, device: UUID) -> None:
        """See ``DeviceRequests``. Raises NoSuchRequest, IllegalTransition."""
        found = await store.by_id(unit, principal.org, request)
        if found is None:
            raise NoSuchRequest("there is no such request")
        row = REQUEST.next(found.state, RequestEvent.PREPARE, Actor.SERVER)
        await moved(unit, principal, found, row, Actor.SERVER, {"card": device})

    async def open_unlock(
        self, unit: Unit, principal: Principal, device: UUID, person: UUID | None, *, strict: bool
    ) -> None:
        """See ``DeviceRequests``. Nobody has to approve it, and it waits for a card that is elsewhere."""
        if await store.open_of(unit, principal.org, device, RequestKind.UNLOCK):
            return
        row = REQUEST.next(None, RequestEvent.OPEN, Actor.SERVER, lambda guard: guard == "needs_no_approval")
        values = {
            "kind": RequestKind.UNLOCK,
            "reason": Reason.NONE,
            "temporary": False,
            "strict": strict,
            "expires_at": unit.now + GIVEN_BACK,
            "fingerprint": "",
        }
        await say_what_is_due(unit, DueList(), await opened(unit, principal, device, person, row, Actor.SERVER, values))

    async def close_unlock(self, unit: Unit, principal: Principal, device: UUID) -> None:
        """See ``DeviceRequests``."""
        for found in await store.open_of(unit, principal.org, device, RequestKind.UNLOCK):
            if found.state in WAITING:
                row = REQUEST.next(found.state, RequestEvent.CLOSE, Actor.SERVER)
                await say_what_is_due(unit, DueList(), await moved(unit, principal, found, row, Actor.SERVER, {}))

    async def close(self, unit: Unit, principal: Principal, device: UUID) -> None:
        """See ``DeviceRequests``. A replacement of the device stays open: its holder still needs one."""
        for found in await store.open_of(unit, principal.org, device):
            if found.state in WAITING and found.kind is not RequestKind.REPLACEMENT:
                row = REQUEST.next(found.state, RequestEvent.CLOSE, Actor.SERVER)
                await moved(unit, principal, found, row, Actor.SERVER, {})
        for found in await store.open_for_card(unit, principal.org, device):
            if found.state in (RequestState.READY, RequestState.RETRYABLE):
                row = REQUEST.next(found.state, RequestEvent.UNPREPARE, Actor.SERVER)
                await moved(unit, principal, found, row, Actor.SERVER, {"card": None})
