"""What happens to requests: the machine's rows carried out, with their guards and effects.

Nothing here asks who may: services do, and say in which part (``actor``) the caller acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from ..authentication.principal import Principal, server
from ..devices.due import DueList
from ..devices.lifecycle import DeviceLifecycle, Told
from ..devices.model import INCIDENTS, Device, DeviceEvent, DeviceState, Reason
from ..machine import Actor, Rules
from ..store.unit import Unit
from . import store
from .errors import NoSuchRequest
from .model import (
    AT_ONCE,
    LIFETIMES,
    MOST_ATTEMPTS,
    NEEDS_CARD,
    REQUEST,
    Request,
    RequestEvent,
    RequestKind,
    RequestState,
)
from .record import moved, opened, say_what_is_due


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, before it is a request. ``approves``: the maker may approve such requests, too."""

    kind: RequestKind
    device: Device
    reason: Reason = Reason.NONE
    temporary: bool = False
    strict: bool = False
    approves: bool = False
    key: str | None = None
    fingerprint: str = ""


@dataclass(slots=True)
class _Move:
    unit: Unit
    principal: Principal
    actor: Actor
    event: RequestEvent
    request: Request | None = None
    wanted: Wanted | None = None
    session: UUID | None = None
    retryable: bool = True
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def of(self) -> Request:
        """The request; there is one in every row but the first."""
        assert self.request is not None
        return self.request


class RequestBook:
    """Carries out events of requests. Stateless."""

    def __init__(
        self,
        lifecycle: DeviceLifecycle,
        due: DueList,
        lifetimes: Mapping[RequestKind, timedelta | None] = LIFETIMES,
    ) -> None:
        self._lifecycle = lifecycle
        self._due = due
        self._lifetimes = dict(lifetimes)
        self._rules: Rules[RequestState, RequestEvent, _Move] = Rules(
            REQUEST,
            guards={
                "needs_no_approval": self._needs_no_approval,
                "maker_may_approve": lambda move: move.wanted is not None and self._maker_may_approve(move.wanted),
                "approver_is_another_person": lambda move: move.principal.actor != move.of.made_by,
                "is_in_time": lambda move: move.of.expires_at is None or move.of.expires_at > move.unit.now,
                "has_lapsed": lambda move: move.of.expires_at is not None and move.of.expires_at <= move.unit.now,
                "is_this_session": lambda move: move.session is not None and move.session == move.of.session,
                "may_be_tried_again": lambda move: (
                    move.retryable
                    and move.session is not None
                    and move.session == move.of.session
                    and move.of.attempts < MOST_ATTEMPTS
                ),
                "may_be_cancelled": self._may_be_cancelled,
            },
            effects={
                "prepare_if_complete": self._prepare_if_complete,
                "release_card": self._release_card,
                "restore_device": self._restore_device,
            },
        )

    async def request(self, unit: Unit, org: UUID, identifier: UUID) -> Request:
        """A request of an organization. Raises NoSuchRequest."""
        found = await store.by_id(unit, org, identifier)
        if found is None:
            raise NoSuchRequest("there is no such request")
        return found

    async def open(self, unit: Unit, principal: Principal, actor: Actor, wanted: Wanted) -> Request:
        """Write down a new request, and approve it if its maker may. Raises IllegalTransition."""
        move = _Move(unit, principal, actor, RequestEvent.OPEN, wanted=wanted)
        row = await self._rules.choose(None, RequestEvent.OPEN, actor, move)
        lifetime = self._lifetimes[wanted.kind]
        approved = row.target is RequestState.APPROVED
        values = {
            "kind": wanted.kind,
            "reason": wanted.reason,
            "temporary": wanted.temporary,
            "strict": wanted.strict,
            "approved_by": principal.actor if approved else None,
            "expires_at": None if lifetime is None else unit.now + lifetime,
            "idempotency_key": wanted.key,
            "fingerprint": wanted.fingerprint,
        }
        made = await opened(unit, principal, wanted.device.id, wanted.device.person, row, actor, values)
        move.request = made
        await self._rules.perform(row, move)
        await say_what_is_due(unit, self._due, made)
        return await self.request(unit, principal.org, made.id)

    async def move(
        self,
        unit: Unit,
        principal: Principal,
        request: Request,
        event: RequestEvent,
        actor: Actor,
        *,
        session: UUID | None = None,
        retryable: bool = True,
        values: Mapping[str, Any] | None = None,
    ) -> Request:
        """Carry out an event. ``session`` is the one that says so, where one works on it.

        Raises IllegalTransition, GuardRefused, StaleVersion, and what devices refuse when a request is cancelled.
        """
        move = _Move(unit, principal, actor, event, request, session=session, retryable=retryable)
        row = await self._rules.choose(request.state, event, actor, move)
        changed = dict(values or {})
        if event is RequestEvent.START:
            changed |= {"session": session, "attempts": request.attempts + 1}
        if event is RequestEvent.UNPREPARE:
            changed |= {"card": None}
        now = await moved(unit, principal, request, row, actor, changed, session)
        move.request = now
        await self._rules.perform(row, move)
        await say_what_is_due(unit, self._due, now)
        return await self.request(unit, request.org, request.id)

    @staticmethod
    def _needs_no_approval(move: _Move) -> bool:
        wanted = move.wanted
        return (
            wanted is not None and wanted.kind in AT_ONCE and not (wanted.strict and wanted.kind is RequestKind.REISSUE)
        )

    @staticmethod
    def _maker_may_approve(wanted: Wanted) -> bool:
        return wanted.approves and not wanted.strict

    @staticmethod
    def _may_be_cancelled(move: _Move) -> bool:
        if move.actor is not Actor.USER:
            return True
        return move.of.kind is RequestKind.REPLACEMENT and move.of.reason is not Reason.STOLEN

    async def _prepare_if_complete(self, move: _Move) -> None:
        if move.of.kind not in NEEDS_CARD:
            move.request = await self.move(move.unit, server(move.of.org), move.of, RequestEvent.PREPARE, Actor.SERVER)

    async def _release_card(self, move: _Move) -> None:
        if move.of.worked_on is None:
            return
        itself = server(move.of.org)
        card = await self._lifecycle.device(move.unit, move.of.org, move.of.worked_on)
        match card.state:
            case DeviceState.ASSIGNED if move.of.card is not None:
                await self._lifecycle.move(move.unit, itself, card.id, DeviceEvent.UNBIND, Actor.SERVER)
            case DeviceState.IN_PRODUCTION:
                # A session began and was interrupted: what is on the card has to be wiped by someone who has it.
                await self._lifecycle.move(move.unit, itself, card.id, DeviceEvent.FAIL, Actor.SERVER)

    async def _restore_device(self, move: _Move) -> None:
        if move.of.kind is not RequestKind.REPLACEMENT:
            return
        device = await self._lifecycle.device(move.unit, move.of.org, move.of.device)
        if device.state is not DeviceState.INVALID or device.reason not in INCIDENTS:
            return
        if device.expires_at is not None and device.expires_at <= move.unit.now:
            return
        told = Told(request=move.of.id)
        await self._lifecycle.move(move.unit, move.principal, device.id, DeviceEvent.RESTORE, move.actor, told)
