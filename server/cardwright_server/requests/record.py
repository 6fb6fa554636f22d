"""How a step of a request is written down: the row, the step, the audit, and the event for others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.principal import Principal
from ..machine import Actor, Transition
from ..notify.model import DomainEvent
from ..store.unit import Unit
from . import store
from .model import CLOSED, Request, RequestEvent, RequestState

Step = Transition[RequestState, RequestEvent]


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
