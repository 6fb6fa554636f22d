"""Attempts are counted before they are judged, so that neither a crash nor a crowd gives more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from ..machine import Actor
from ..store.unit import Unit
from . import store
from .errors import MethodLocked
from .machine import METHOD, MethodEvent, MethodState
from .model import Method


@dataclass(frozen=True, slots=True)
class LockPolicy:
    """When a method locks: ``limit`` failures, within ``window`` if there is one.

    ``lock``: how long; None: until someone helps. For a directory's password the limit and window must be tighter
    than the directory's own, so that nobody can lock a person out of the directory through us.
    """

    limit: int
    window: timedelta | None = None
    lock: timedelta | None = None


POLICIES: Mapping[Method, LockPolicy] = {
    Method.LDAP_PASSWORD: LockPolicy(3, timedelta(minutes=30), timedelta(minutes=30)),
    Method.INITIAL_PASSWORD: LockPolicy(5),
    Method.SECURITY_ANSWERS: LockPolicy(3),
    Method.EMERGENCY_PASSWORD: LockPolicy(3),
}
"""Of each method that can be tried; a card counts by itself."""

STRANGER = timedelta(days=1)
"""How long attempts on a login that nobody has are remembered."""


async def reserve(unit: Unit, org: UUID, subject: UUID, method: Method, policy: LockPolicy, *, known: bool) -> bool:
    """Count an attempt that is about to be judged. False: the method is locked, nothing may be judged.

    A lock that is due but was never recorded, because a process died, is recorded now.
    """
    row = await store.counter(unit, org, subject, method)
    if row is None:
        start = METHOD.next(None, MethodEvent.BEGIN, Actor.SERVER).target
        idle = unit.now + (policy.window or STRANGER)
        await store.insert_counter(unit, org, subject, method, start, idle_at=idle)
        return True
    state, attempts, began = MethodState(row.state), row.attempts, row.window_began_at
    if state is MethodState.LOCKED:
        if row.locked_until is None or row.locked_until > unit.now:
            return False
        state = METHOD.next(state, MethodEvent.RECOVER, Actor.TIMER).target
        attempts, began = 0, unit.now
    elif policy.window is not None and began + policy.window <= unit.now:
        attempts, began = 0, unit.now
    if attempts >= policy.limit:
        await _lock(unit, row.id, row.version, policy, known=known)
        return False
    await store.update_counter(
        unit,
        row.id,
        row.version,
        {
            "state": state,
            "attempts": attempts + 1,
            "window_began_at": began,
            "locked_until": None,
            "idle_at": unit.now + (policy.window or STRANGER) if policy.window or not known else None,
        },
    )
    return True


async def succeeded(unit: Unit, org: UUID, subject: UUID, method: Method) -> None:
    """The attempt was good: nothing is counted any more."""
    row = await store.counter(unit, org, subject, method)
    if row is not None and row.state != MethodState.LOCKED:
        await store.update_counter(unit, row.id, row.version, {"attempts": 0, "idle_at": unit.now})


async def failed(unit: Unit, org: UUID, subject: UUID, method: Method, policy: LockPolicy, *, known: bool) -> bool:
    """The attempt was bad; whether that locked the method."""
    row = await store.counter(unit, org, subject, method)
    if row is None or row.state == MethodState.LOCKED:
        return False
    if row.attempts >= policy.limit:
        await _lock(unit, row.id, row.version, policy, known=known)
        return True
    if row.attempts == 0:
        # Somebody else's success in between must not give this one away for nothing.
        await store.update_counter(unit, row.id, row.version, {"attempts": 1, "idle_at": None if known else unit.now})
    return False


async def unjudged(unit: Unit, org: UUID, subject: UUID, method: Method) -> None:
    """The attempt came to no judgement (the directory was away): it is taken back."""
    row = await store.counter(unit, org, subject, method)
    if row is not None and row.attempts > 0:
        await store.update_counter(unit, row.id, row.version, {"attempts": row.attempts - 1})


async def apply(unit: Unit, org: UUID, subject: UUID, method: Method, event: MethodEvent, actor: Actor) -> MethodState:
    """Someone acts on a person's method: unlock, reset, set, give. Raises IllegalTransition."""
    row = await store.counter(unit, org, subject, method)
    if row is None:
        start = METHOD.next(None, MethodEvent.BEGIN, Actor.SERVER).target
        target = METHOD.next(start, event, actor).target
        await store.insert_counter(unit, org, subject, method, target, attempts=0, idle_at=None)
        return target
    target = METHOD.next(MethodState(row.state), event, actor).target
    changed = {"state": target, "attempts": 0, "locked_until": None, "window_began_at": unit.now, "idle_at": None}
    await store.update_counter(unit, row.id, row.version, changed)
    return target


def locked(method: Method, policy: LockPolicy) -> MethodLocked:
    """The error for a locked method; the same whether or not the login exists."""
    return MethodLocked(f"{method} is locked after too many failures", policy.lock)


async def _lock(unit: Unit, identifier: UUID, version: int, policy: LockPolicy, *, known: bool) -> None:
    target = METHOD.next(MethodState.ENABLED, MethodEvent.EXHAUST, Actor.SERVER).target
    until = unit.now + policy.lock if policy.lock is not None else None
    idle = until if until is not None else None if known else unit.now + STRANGER
    values = {"state": target, "locked_until": until, "idle_at": idle}
    await store.update_counter(unit, identifier, version, values)
