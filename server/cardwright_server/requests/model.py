"""Values of requests, and their machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from ..authentication.authorize import CallTarget
from ..authentication.matrix import Part
from ..devices.model import WITH_CREDENTIALS, DeviceState, Reason
from ..machine import Actor, Machine, Transition


class RequestKind(StrEnum):
    """What can be asked for."""

    ISSUANCE = "issuance"
    REPLACEMENT = "replacement"
    UNLOCK = "unlock"
    UPDATE = "update"
    REISSUE = "re-issue"
    RECYCLE = "recycle"
    TERMINATE = "terminate"
    RECOVERY = "recovery"


class RequestState(StrEnum):
    """Where a request is in its life."""

    PENDING = "pending"
    """Somebody has to approve it."""
    APPROVED = "approved"
    """A replacement that has no card yet."""
    READY = "ready"
    EXECUTING = "executing"
    RETRYABLE = "failed-retryable"
    DONE = "done"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class RequestEvent(StrEnum):
    """What happens to a request."""

    OPEN = "open"
    APPROVE = "approve"
    DENY = "deny"
    PREPARE = "prepare"
    UNPREPARE = "unprepare"
    START = "start"
    INTERRUPT = "interrupt"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"
    SUPERSEDE = "supersede"
    CLOSE = "close"
    """The device that it was about is gone."""


AT_ONCE = frozenset({RequestKind.UNLOCK, RequestKind.UPDATE, RequestKind.REISSUE, RequestKind.RECYCLE})
"""Kinds that nobody approves. Under ``compliance = piv`` a re-issue needs it all the same."""
NEEDS_CARD = frozenset({RequestKind.REPLACEMENT})
"""Kinds that are carried out on another device than they are about."""
MOST_ATTEMPTS = 5

LIFETIMES: Mapping[RequestKind, timedelta | None] = {
    RequestKind.ISSUANCE: timedelta(days=30),
    RequestKind.REPLACEMENT: timedelta(days=30),
    RequestKind.UNLOCK: timedelta(minutes=10),
    RequestKind.UPDATE: None,
    RequestKind.REISSUE: timedelta(days=90),
    RequestKind.RECYCLE: None,
    RequestKind.TERMINATE: timedelta(days=7),
    RequestKind.RECOVERY: timedelta(days=7),
}
"""How long each kind waits, by database time; None: as long as its device."""
GIVEN_BACK = timedelta(days=30)
"""How long a request to unlock waits that giving a locked card back brings about. Nobody is on the telephone then: it
waits for a card that is elsewhere, as an issuance does.
"""

POSSIBLE: Mapping[RequestKind, frozenset[DeviceState]] = {
    RequestKind.ISSUANCE: frozenset({DeviceState.ASSIGNED, DeviceState.FAILED}),
    RequestKind.REPLACEMENT: frozenset({DeviceState.INVALID, DeviceState.ISSUED, DeviceState.SUSPENDED}),
    RequestKind.UNLOCK: frozenset({DeviceState.ISSUED}),
    RequestKind.UPDATE: frozenset({DeviceState.ISSUED}),
    RequestKind.REISSUE: frozenset({DeviceState.ISSUED}),
    RequestKind.RECYCLE: frozenset({DeviceState.FAILED, DeviceState.TERMINATED}),
    RequestKind.TERMINATE: WITH_CREDENTIALS,
    RequestKind.RECOVERY: frozenset({DeviceState.ISSUED}),
}
"""In which states a device may be asked for what."""

_Row = Transition[RequestState, RequestEvent]
_S, _E = RequestState, RequestEvent
_APPROVERS = frozenset({Actor.ISSUANCE, Actor.SECURITY_OFFICER})
_ASKERS = frozenset(
    {Actor.USER, Actor.HELP_DESK, Actor.ISSUANCE, Actor.SECURITY_OFFICER, Actor.SERVICE, Actor.SERVER, Actor.TIMER}
)
_WORKERS = frozenset({Actor.USER, Actor.HELP_DESK, Actor.ISSUANCE, Actor.SECURITY_OFFICER, Actor.SERVICE, Actor.SERVER})
_CANCELLERS = frozenset({Actor.USER, Actor.HELP_DESK, Actor.ISSUANCE, Actor.SERVICE, Actor.SERVER})
_SERVER = frozenset({Actor.SERVER})
_SERVER_OR_TIMER = frozenset({Actor.SERVER, Actor.TIMER})
_TIMER = frozenset({Actor.TIMER})
WAITING = (_S.PENDING, _S.APPROVED, _S.READY, _S.RETRYABLE)
"""Open, and nobody works on it."""

REQUEST = Machine(
    "request",
    RequestState,
    RequestEvent,
    (
        _Row(None, _E.OPEN, _S.READY, _ASKERS, guard="needs_no_approval"),
        _Row(None, _E.OPEN, _S.APPROVED, _ASKERS, guard="maker_may_approve", effects=("prepare_if_complete",)),
        _Row(None, _E.OPEN, _S.PENDING, _ASKERS),
        _Row(
            _S.PENDING,
            _E.APPROVE,
            _S.APPROVED,
            _APPROVERS,
            guard="approver_is_another_person",
            effects=("prepare_if_complete",),
        ),
        _Row(_S.PENDING, _E.DENY, _S.DENIED, _APPROVERS, note="a reported device stays out of use"),
        _Row(_S.APPROVED, _E.PREPARE, _S.READY, _SERVER, note="it has its card"),
        _Row(_S.READY, _E.UNPREPARE, _S.APPROVED, _SERVER, note="its card was unbound"),
        _Row(_S.RETRYABLE, _E.UNPREPARE, _S.APPROVED, _SERVER),
        _Row(_S.READY, _E.START, _S.EXECUTING, _WORKERS, guard="is_in_time"),
        _Row(_S.RETRYABLE, _E.START, _S.EXECUTING, _WORKERS, guard="is_in_time"),
        _Row(_S.EXECUTING, _E.INTERRUPT, _S.READY, _SERVER_OR_TIMER, guard="is_this_session"),
        _Row(_S.EXECUTING, _E.FINISH, _S.DONE, _SERVER, guard="is_this_session"),
        _Row(_S.EXECUTING, _E.FAIL, _S.RETRYABLE, _SERVER_OR_TIMER, guard="may_be_tried_again"),
        _Row(_S.EXECUTING, _E.FAIL, _S.FAILED, _SERVER_OR_TIMER, guard="is_this_session"),
        *(
            _Row(
                state,
                _E.CANCEL,
                _S.CANCELLED,
                _CANCELLERS,
                guard="may_be_cancelled",
                effects=("release_card", "restore_device"),
            )
            for state in WAITING
        ),
        *(
            _Row(state, _E.EXPIRE, _S.EXPIRED, _TIMER, guard="has_lapsed", effects=("release_card",))
            for state in WAITING
        ),
        *(_Row(state, _E.SUPERSEDE, _S.SUPERSEDED, _SERVER, effects=("release_card",)) for state in WAITING),
        *(_Row(state, _E.CLOSE, _S.CANCELLED, _SERVER, note="its device is gone") for state in WAITING),
    ),
)
CLOSED = REQUEST.final
"""States that nothing leaves."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``card`` is the device that a replacement is carried out on; ``strict``: under compliance = piv.

    ``made_by``, ``approved_by`` and ``issued_by`` are actors (``Principal.actor``). ``session`` carries it out now.
    """

    id: UUID
    org: UUID
    kind: RequestKind
    state: RequestState
    device: UUID
    card: UUID | None
    person: UUID | None
    reason: Reason
    temporary: bool
    strict: bool
    made_by: UUID
    made_by_kind: str
    approved_by: UUID | None
    issued_by: UUID | None
    session: UUID | None
    attempts: int
    expires_at: datetime | None
    closed_at: datetime | None
    created_at: datetime
    version: int

    @property
    def worked_on(self) -> UUID | None:
        """The device that it is carried out on; None while a replacement has none."""
        return self.card if self.kind in NEEDS_CARD else self.device

    @property
    def target(self) -> CallTarget:
        """It as authorization sees it."""
        held = {Part.REQUEST: self.made_by, Part.APPROVE: self.approved_by, Part.ISSUE: self.issued_by}
        parts = {part: frozenset({who}) for part, who in held.items() if who is not None}
        return CallTarget(
            self.org, self.person, requested_by=self.made_by, parts=parts, request=self.id, strict=self.strict
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that was asked for, and whether it is new: asking twice gives the one that is there."""

    request: Request
    created: bool
