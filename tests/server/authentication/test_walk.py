"""Random walks of a method: what is judged, refused and locked is what a model of a few lines says; on both engines."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import select

from cardwright_server.authentication import counters
from cardwright_server.authentication.counters import LockPolicy
from cardwright_server.authentication.machine import METHOD, MethodEvent, MethodState
from cardwright_server.authentication.model import Method
from cardwright_server.machine import Actor, IllegalTransition
from cardwright_server.store.authentication_tables import attempt_counter
from cardwright_server.store.errors import StaleVersion
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock

STEPS = 60
TIMED = LockPolicy(3, timedelta(minutes=30), timedelta(minutes=20))
HELPED = LockPolicy(4)


@dataclass
class Model:
    """What ought to happen."""

    policy: LockPolicy
    state: MethodState | None = None
    attempts: int = 0
    began: datetime | None = None
    until: datetime | None = None

    def reserve(self, now: datetime) -> bool:
        if self.state is None:
            self.state, self.began = MethodState.ENABLED, now
        elif self.state is MethodState.LOCKED:
            if self.until is None or self.until > now:
                return False
            self.state, self.attempts, self.began = MethodState.ENABLED, 0, now
        elif self.policy.window is not None and self.began is not None and self.began + self.policy.window <= now:
            self.attempts, self.began = 0, now
        if self.attempts == self.policy.limit:
            self.lock(now)
            return False
        self.attempts += 1
        return True

    def lock(self, now: datetime) -> None:
        self.state = MethodState.LOCKED
        self.until = now + self.policy.lock if self.policy.lock is not None else None


@pytest.mark.parametrize("policy", [TIMED, HELPED], ids=["ends by time", "until helped"])
@pytest.mark.parametrize("seed", range(3))
async def test_a_walk(open_database: Callable[..., Database], clock: Clock, policy: LockPolicy, seed: int) -> None:
    """Attempts that are right, wrong, not judged, or lost with their process, mixed with time and with help."""
    chance = random.Random(seed)
    databases = [open_database(clock=clock), open_database(clock=clock)]
    org, subject, method = uuid4(), uuid4(), Method.LDAP_PASSWORD
    model = Model(policy)
    seen = set()
    for _ in range(STEPS):
        database = chance.choice(databases)
        act = chance.choice(["right", "wrong", "wrong", "wrong", "away", "lost", "wait", "help"])
        if act == "wait":
            clock.advance(minutes=chance.choice([1, 10, 20, 30]))
            continue
        if act == "help":
            event, actor = chance.choice([(MethodEvent.UNLOCK, Actor.HELP_DESK), (MethodEvent.RESET, Actor.HELP_DESK)])
            start = model.state or MethodState.ENABLED
            legal = event in METHOD.allowed(start, actor)
            asked = partial(counters.apply, org=org, subject=subject, method=method, event=event, actor=actor)
            if not legal:
                with pytest.raises(IllegalTransition):
                    await database.transact(asked)
                continue
            model.state = await database.transact(asked)
            assert model.state is METHOD.next(start, event, actor).target
            model.attempts, model.began, model.until = 0, clock.now, None
            if model.state is MethodState.RESET_REQUIRED:
                await database.transact(
                    lambda unit: counters.apply(unit, org, subject, method, MethodEvent.SET, Actor.USER)
                )
                model.state = MethodState.ENABLED
            continue
        judged = await database.transact(lambda unit: counters.reserve(unit, org, subject, method, policy, known=True))
        assert judged is model.reserve(clock.now)
        seen.add((act, judged))
        if not judged or act == "lost":
            continue

        async def settle(unit: Unit, act: str = act) -> None:
            if act == "right":
                await counters.succeeded(unit, org, subject, method)
            elif act == "wrong":
                await counters.failed(unit, org, subject, method, policy, known=True)
            else:
                await counters.unjudged(unit, org, subject, method)

        await chance.choice(databases).transact(settle)
        if act == "right":
            model.attempts = 0
        elif act == "away":
            model.attempts -= 1
        elif model.attempts == policy.limit:
            model.lock(clock.now)
        row = await database.read(lambda unit: unit.row(select(attempt_counter)))
        assert row is not None
        assert (row.state, row.attempts) == (model.state, model.attempts)
    assert {("wrong", True), ("wrong", False)} <= seen


@pytest.mark.parametrize("seed", range(3))
async def test_walks_of_many_at_once(open_database: Callable[..., Database], clock: Clock, seed: int) -> None:
    """Three processes guess at once, and a help desk unlocks now and then: no guess more than the limit gives."""
    chance = random.Random(seed)
    databases = [open_database(clock=clock, pool=1) for _ in range(3)]
    org, subject, method = uuid4(), uuid4(), Method.LDAP_PASSWORD
    granted: list[bool] = []
    unlocked: list[MethodState] = []

    async def process(database: Database) -> None:
        for _ in range(8):
            if chance.random() < 0.15:
                try:
                    unlocked.append(
                        await database.transact(
                            lambda unit: counters.apply(unit, org, subject, method, MethodEvent.UNLOCK, Actor.HELP_DESK)
                        )
                    )
                except (IllegalTransition, StaleVersion):
                    continue
                continue
            judged = await database.transact(
                lambda unit: counters.reserve(unit, org, subject, method, HELPED, known=True)
            )
            granted.append(judged)
            await asyncio.sleep(0)
            if judged:
                await database.transact(
                    lambda unit: counters.failed(unit, org, subject, method, HELPED, known=True)
                )

    await asyncio.gather(*map(process, databases))
    assert granted.count(True) <= HELPED.limit * (1 + len(unlocked))
    assert granted.count(True) >= HELPED.limit
    assert set(unlocked) <= {MethodState.ENABLED}
    row = await databases[0].read(lambda unit: unit.row(select(attempt_counter)))
    assert row is not None and row.attempts <= HELPED.limit
    assert row.state in (MethodState.ENABLED, MethodState.LOCKED)
