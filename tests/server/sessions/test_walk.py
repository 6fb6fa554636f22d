"""Random walks over a card session's row by several processes at once: only what the table allows, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from cardwright_server.machine import Actor, Transition
from cardwright_server.sessions import store
from cardwright_server.sessions.model import SESSION, Purpose, SessionEvent, SessionState
from cardwright_server.store.session_tables import card_session, card_session_transition
from cardwright_server.store.unit import Database, Unit
from tests.support.walks import Fired, Plan, plans, walk


@dataclass
class SessionSubject:
    """A session, moved by what the ledger moves it by."""

    clients: list[Database]
    org: UUID
    id: UUID

    async def fire(
        self, client: int, event: SessionEvent, actor: Actor
    ) -> Transition[SessionState, SessionEvent]:
        session = await self.clients[client].read(lambda unit: store.get(unit, self.org, self.id))
        row = SESSION.next(session.state, event, actor)
        await self.clients[client].transact(lambda unit: store.move(unit, session, event, actor, {}))
        return row

    async def state(self) -> SessionState:
        return (await self.clients[0].read(lambda unit: store.get(unit, self.org, self.id))).state

    async def journal(self) -> list[Fired[SessionState, SessionEvent]]:
        table = card_session_transition
        statement = select(table).where(table.c.subject == self.id).order_by(table.c.number)
        rows = await self.clients[0].read(lambda unit: unit.rows(statement))
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        return [
            Fired(
                None if row.source is None else SessionState(row.source),
                SessionEvent(row.event),
                Actor(row.actor),
                SessionState(row.target),
            )
            for row in rows
        ]


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(plan=plans(SESSION, steps=10))
async def test_walks_over_sessions(open_database: Callable[..., Database], plan: Plan[SessionEvent]) -> None:
    clients, org = [open_database(pool=1) for _ in range(3)], uuid4()
    values = {
        "device": uuid4(),
        "purpose": Purpose.UPDATE,
        "request": None,
        "person": None,
        "actor": uuid4(),
        "workstation": None,
        "trusted": 0,
        "software": "",
        "reader": "",
        "policy": "civ",
        "life": 1,
        "fascn": "",
    }

    async def begin(unit: Unit) -> UUID:
        return (await store.insert(unit, org, values)).id

    subject = SessionSubject(clients, org, await clients[0].transact(begin))
    journal = await walk(SESSION, subject, [[(SessionEvent.OBSERVE, Actor.SERVER), *plan[0]], *plan[1:]])
    ended = await clients[0].read(
        lambda unit: unit.value(select(card_session.c.ended_at).where(card_session.c.id == subject.id))
    )
    assert (ended is not None) is (journal[-1].target in SESSION.final)
