"""How a step of a request is written down: the row, the step, the audit, the event for others, and what is due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.principal import Principal
from ..devices.due import DueList, What
from ..machine import Actor, Transition
from ..notify.model import DomainEvent
from ..store.unit import Unit
from . import store
from .model import CLOSED, Request, RequestEvent, RequestKind, RequestState

Step = Transition[RequestState, RequestEvent]
ASKED = frozenset(
    {RequestKind.UPDATE, RequestKind.REISSUE, RequestKind.RECOVERY, RequestKind.UNLOCK, RequestKind.RECYCLE}
)
"""Kinds that are carried out on a card that somebody has already."""
CARRIED_OUT = frozenset({RequestState.READY, RequestState.EXECUTING, RequestState.RETRYABLE})
"""States in which a session may work on a request, or does."""


async def moved(
    unit: Unit,
    principal: Principal,
    request: Request,
    row: Step,
    actor: Actor,
    values: Mapping[str, Any],
    session: UUID | None = None,
) -> Request:
    """Change a request's row by one step, and record it. Gives the request as it is now. Raises StaleVersion."""
    closed = {"closed_at": unit.now} if row.target in CLOSED else {}
    number = await store.update(unit, request, {"state": row.target, **closed, **values})
    await noted(unit, principal, request, row, actor, number, session)
    found = await store.by_id(unit, request.org, request.id)
    assert found is not None
    return found


async def opened(
    unit: Unit,
    principal: Principal,
    device: UUID,
    person: UUID | None,
    row: Step,
    actor: Actor,
    values: Mapping[str, Any],
) -> Request:
    """Write down a new request of a principal's about a device, and record it."""
    said = {
        "state": row.target,
        "device": device,
        "person": person,
        "made_by": principal.actor,
        "made_by_kind": principal.kind,
        "attempts": 0,
        **values,
    }
    made = await store.by_id(unit, principal.org, await store.insert(unit, principal.org, said))
    assert made is not None
    await noted(unit, principal, made, row, actor, made.version, None)
    return made


async def noted(
    unit: Unit, principal: Principal, request: Request, row: Step, actor: Actor, number: int, session: UUID | None
) -> None:
    """Record one step of a request, whose row says so already."""
    step = {
        "source": row.source,
        "event": row.event,
        "target": row.target,
        "actor": actor,
        "who": principal.actor,
        "session": session,
        "reason": request.reason,
    }
    await store.note_step(unit, request.org, request.id, number, step)
    facts: dict[str, Fact] = {
        "kind": request.kind,
        "before": row.source,
        "after": row.target,
        "actor": actor,
        "reason": request.reason,
        "device": str(request.device),
        "temporary": request.temporary,
    }
    action = f"request.{row.event}"
    target = Target("request", request.id)
    unit.audit(AuditEntry(request.org, principal.who, action, target, facts=facts, session=session))
    unit.emit(DomainEvent(request.org, action, "request", request.id, request.person, dict(facts)))


async def say_what_is_due(unit: Unit, due: DueList, request: Request) -> None:
    """Workstations are told of what was asked for and can be done now: the oldest of it, but first a new PIN, without
    which the holder can prove nothing for the rest.
    """
    if request.kind not in ASKED:
        return
    found = await store.open_of(unit, request.org, request.device)
    waiting = [one for one in found if one.kind in ASKED and one.state in CARRIED_OUT]
    if not waiting:
        await due.remove(unit, request.device, What.REQUEST)
        return
    first = min(waiting, key=lambda one: (one.kind is not RequestKind.UNLOCK, one.id))
    detail = {"request": str(first.id), "kind": first.kind.value}
    await due.put(unit, request.org, request.device, What.REQUEST, first.created_at, detail=detail)
