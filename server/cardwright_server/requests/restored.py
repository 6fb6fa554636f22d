"""Requests of a restored database that were carried out, or became pointless, after the backup was made (S11).

Requests are not on the second medium; what became of their devices is. Where a device that was to be issued is issued,
or one that was to be updated is gone, the request is closed, with its step and an audit entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final
from uuid import UUID

from ..authentication.principal import server
from ..devices import journal as devices
from ..devices.due import DueList, What
from ..devices.model import DeviceState
from ..machine import Actor
from ..store.unit import Database, Unit
from . import store
from .model import REQUEST, Request, RequestEvent, RequestKind, RequestState
from .record import moved

AT_ONCE: Final = 200
_S, _K = DeviceState, RequestKind
_TO_WRITE: Final = frozenset({_S.ASSIGNED, _S.IN_PRODUCTION, _S.FAILED})
_HELD: Final = frozenset({_S.ISSUED, _S.UPDATING, _S.SUSPENDED, _S.INVALID})
STILL: Final[Mapping[RequestKind, frozenset[DeviceState]]] = {
    _K.ISSUANCE: _TO_WRITE,
    _K.UNLOCK: _HELD,
    _K.UPDATE: _HELD,
    _K.REISSUE: _HELD,
    _K.RECOVERY: _HELD,
    _K.RECYCLE: frozenset({_S.FAILED, _S.TERMINATED}),
    _K.TERMINATE: _HELD | {_S.PRODUCED},
}
"""In which states of its device a request still has something to do. Replacements: see ``_pointless``."""


async def close_overtaken(database: Database) -> int:
    """Close what the devices' states have overtaken; how many. Doing it again finds nothing. Raises StoreError."""
    closed, after = 0, None
    while found := await database.read(partial(store.open_after, after=after, limit=AT_ONCE), timed=False):
        closed += await database.transact(partial(_close, found))
        after = found[-1].id
    return closed


async def _close(found: list[Request], unit: Unit) -> int:
    gone = [one for one in found if await _pointless(unit, one)]
    for request in gone:
        if request.state is RequestState.EXECUTING:
            # The session that carried it out is not there any more.
            left = REQUEST.next(request.state, RequestEvent.INTERRUPT, Actor.SERVER, lambda guard: True)
            request = await moved(unit, server(request.org), request, left, Actor.SERVER, {}, request.session)
        row = REQUEST.next(request.state, RequestEvent.CLOSE, Actor.SERVER)
        await moved(unit, server(request.org), request, row, Actor.SERVER, {})
        await DueList().remove(unit, request.device, What.REQUEST, What.REPLACEMENT)
    return len(gone)


async def _pointless(unit: Unit, request: Request) -> bool:
    if request.kind is RequestKind.REPLACEMENT:
        # Until it has a device nothing is known to have been done for it.
        return request.card is not None and await _state(unit, request.org, request.card) not in _TO_WRITE
    return await _state(unit, request.org, request.device) not in STILL[request.kind]


async def _state(unit: Unit, org: UUID, device: UUID) -> DeviceState | None:
    return await devices.state_of(unit, org, device)
