"""Machines as tables: what they refuse to be, how a row is chosen, and walks that find broken services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Column, Integer, MetaData, String, Table, Uuid, insert, select, update

from cardwright_server.machine import (
    OPERATORS,
    Actor,
    GuardRefused,
    IllegalTransition,
    Machine,
    Rules,
    Transition,
)
from cardwright_server.store.columns import UtcTime
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import PostgreSql
from tests.support.walks import Fired, Plan, judge, plans, walk


class Door(StrEnum):
    OPEN = "open"
    SHUT = "shut"
    LOCKED = "locked"
    BRICKED_UP = "bricked-up"


class Act(StrEnum):
    BUILD = "build"
    SHUT = "shut"
    OPEN = "open"
    LOCK = "lock"
    BRICK_UP = "brick-up"


USER = frozenset({Actor.USER})
Row = Transition[Door, Act]
ROWS = (
    Row(None, Act.BUILD, Door.OPEN, OPERATORS),
    Row(Door.OPEN, Act.SHUT, Door.SHUT, USER | OPERATORS, effects=("bang",)),
    Row(Door.SHUT, Act.OPEN, Door.OPEN, USER),
    Row(Door.SHUT, Act.LOCK, Door.LOCKED, USER, guard="has_key", effects=("click", "note")),
    Row(Door.SHUT, Act.LOCK, Door.SHUT, USER, note="the bolt | sticks"),
    Row(Door.LOCKED, Act.OPEN, Door.SHUT, OPERATORS, guard="has_key"),
    Row(Door.LOCKED, Act.BRICK_UP, Door.BRICKED_UP, frozenset({Actor.TIMER})),
)
DOOR = Machine("door", Door, Act, ROWS)


def test_rows_are_chosen_by_state_event_and_actor() -> None:
    assert DOOR.next(None, Act.BUILD, Actor.HELP_DESK).target is Door.OPEN
    assert DOOR.next(Door.SHUT, Act.LOCK, Actor.USER).target is Door.LOCKED
    assert DOOR.next(Door.SHUT, Act.LOCK, Actor.USER, lambda _: False).target is Door.SHUT
    assert DOOR.allowed(Door.SHUT, Actor.USER) == {Act.OPEN, Act.LOCK}
    assert DOOR.allowed(Door.SHUT, Actor.TIMER) == frozenset()
    assert DOOR.final == {Door.BRICKED_UP}
    assert DOOR.permits(Door.LOCKED, Act.OPEN, Door.SHUT)
    assert not DOOR.permits(Door.LOCKED, Act.OPEN, Door.OPEN)


def test_what_is_in_no_row_is_illegal_and_says_why() -> None:
    for state in (None, *Door):
        for event in Act:
            for actor in Actor:
                rows = [row for row in ROWS if (row.source, row.event) == (state, event)]
                if any(actor in row.actors for row in rows):
                    continue
                with pytest.raises(IllegalTransition) as refused:
                    DOOR.next(state, event, actor)
                assert refused.value.code == "ILLEGAL_TRANSITION"
                assert ("cannot be done by" in str(refused.value)) is bool(rows)


def test_a_guard_that_does_not_hold_is_named() -> None:
    with pytest.raises(GuardRefused, match="has_key") as refused:
        DOOR.next(Door.LOCKED, Act.OPEN, Actor.HELP_DESK, lambda _: False)
    assert refused.value.guards == ("has_key",)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ((*ROWS, Row(Door.OPEN, Act.OPEN, Door.OPEN, frozenset())), "no actor"),
        ((*ROWS, Row(Door.OPEN, Act.SHUT, Door.LOCKED, USER)), "never be chosen"),
        ((*ROWS, Row(Door.LOCKED, Act.OPEN, Door.OPEN, OPERATORS, guard="has_key")), "never be chosen"),
        (ROWS[:-1], "cannot be reached: bricked-up"),
        (
            (*(row for row in ROWS if row.event is not Act.SHUT), Row(None, Act.BUILD, Door.SHUT, USER)),
            "in no row",
        ),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(rows: tuple[Row, ...], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Machine("door", Door, Act, rows)


def test_the_printed_table() -> None:
    lines = DOOR.markdown().splitlines()
    assert lines[2] == "| (none) | build | help-desk, issuance, security-officer, administrator |  | open |  |  |"
    assert lines[5] == "| shut | lock | user | has_key | locked | click, note |  |"
    assert lines[6] == "| shut | lock | user |  | shut |  | the bolt \\| sticks |"
    assert lines[-1] == "Final: bricked-up."
    assert len(lines) == 2 + len(ROWS) + 2


async def test_rules_run_guards_and_effects_by_name() -> None:
    heard: list[str] = []

    async def has_key(context: str) -> bool:
        return context == "key"

    async def note(context: str) -> None:
        heard.append(f"note {context}")

    rules = Rules(
        DOOR,
        guards={"has_key": has_key},
        effects={"bang": lambda _: heard.append("bang"), "click": lambda _: heard.append("click"), "note": note},
    )
    chosen = await rules.choose(Door.SHUT, Act.LOCK, Actor.USER, "key")
    await rules.perform(chosen, "key")
    assert heard == ["click", "note key"]
    assert (await rules.choose(Door.SHUT, Act.LOCK, Actor.USER, "hairpin")).target is Door.SHUT
    with pytest.raises(GuardRefused):
        await rules.choose(Door.LOCKED, Act.OPEN, Actor.ISSUANCE, "hairpin")
    with pytest.raises(IllegalTransition):
        await rules.choose(Door.LOCKED, Act.OPEN, Actor.USER, "key")


def test_rules_need_exactly_what_the_table_names() -> None:
    effects = dict.fromkeys(("bang", "click", "note"), lambda _: None)
    guards = {"has_key": lambda _: True}
    Rules[Door, Act, None](DOOR, guards=guards, effects=effects)
    with pytest.raises(ValueError, match="guards has_key"):
        Rules[Door, Act, None](DOOR, guards={}, effects=effects)
    with pytest.raises(ValueError, match="effects paint"):
        Rules[Door, Act, None](DOOR, guards=guards, effects=effects | {"paint": lambda _: None})


# A service over a table, once as it should be and twice broken, so that the walk itself is held.

TABLES = MetaData()
door = Table(
    "door",
    TABLES,
    Column("id", Uuid, primary_key=True),
    Column("state", String(20), nullable=False),
    Column("version", Integer, nullable=False),
    Column("changed_at", UtcTime),
)
door_journal = Table(
    "door_journal",
    TABLES,
    Column("door", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("source", String(20)),
    Column("event", String(20), nullable=False),
    Column("actor", String(20), nullable=False),
    Column("target", String(20), nullable=False),
)


class DoorSubject:
    """A door in the database."""

    def __init__(self, clients: Sequence[Database], meeting: asyncio.Barrier | None = None) -> None:
        """With ``meeting``: reads in one transaction, waits for the others, and writes in another one."""
        self.clients = clients
        self.meeting = meeting
        self.id = new_id()

    async def fire(self, client: int, event: Act, actor: Actor) -> Row:
        database = self.clients[client]
        if self.meeting is not None:
            source = await self.state()
            row = DOOR.next(source, event, actor)
            await self.meeting.wait()
            await database.transact(lambda unit: self._write(unit, row, actor))
            return row

        async def work(unit: Unit) -> Row:
            state = await unit.row(select(door.c.state, door.c.version).where(door.c.id == self.id))
            source = None if state is None else Door(state.state)
            row = DOOR.next(source, event, actor)
            if state is None:
                await unit.execute(insert(door).values(id=self.id, state=row.target, version=1))
            else:
                await unit.update(door, self.id, state.version, {"state": row.target})
            await self._note(unit, row, actor)
            return row

        return await database.transact(work)

    async def _write(self, unit: Unit, row: Row, actor: Actor) -> None:
        await unit.execute(update(door).where(door.c.id == self.id).values(state=row.target))
        await self._note(unit, row, actor)

    async def _note(self, unit: Unit, row: Row, actor: Actor) -> None:
        numbers = await unit.rows(select(door_journal.c.number).where(door_journal.c.door == self.id))
        values = {"source": row.source, "event": row.event, "actor": actor, "target": row.target}
        await unit.execute(insert(door_journal).values(door=self.id, number=len(numbers), **values))

    async def state(self) -> Door | None:
        text = await self.clients[0].read(lambda unit: unit.value(select(door.c.state).where(door.c.id == self.id)))
        return None if text is None else Door(text)

    async def journal(self) -> list[Fired[Door, Act]]:
        statement = select(door_journal).where(door_journal.c.door == self.id).order_by(door_journal.c.number)
        rows = await self.clients[0].read(lambda unit: unit.rows(statement))
        return [
            Fired(None if row.source is None else Door(row.source), Act(row.event), Actor(row.actor), Door(row.target))
            for row in rows
        ]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def door_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('doors') / 'doors.db'}"
    server: PostgreSql = request.getfixturevalue("postgresql")
    return server.url(server.create())


@asynccontextmanager
async def clients(url: str) -> AsyncIterator[list[Database]]:
    databases = [Database(url, pool=1) for _ in range(3)]
    async with databases[0].engine.begin() as connection:
        await connection.run_sync(TABLES.create_all)
    yield databases
    for database in databases:
        await database.close()


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans(DOOR))
async def test_walks_over_a_careful_service(door_url: str, plan: Plan[Act]) -> None:
    async with clients(door_url) as databases:
        await walk(DOOR, DoorSubject(databases), plan)


async def test_a_walk_finds_a_service_that_loses_updates(door_url: str) -> None:
    plan = [[(Act.SHUT, Actor.HELP_DESK)]] * 3
    async with clients(door_url) as databases:
        subject = DoorSubject(databases)
        await subject.fire(0, Act.BUILD, Actor.HELP_DESK)
        subject.meeting = asyncio.Barrier(3)
        with pytest.raises(AssertionError, match="an update was lost"):
            await walk(DOOR, subject, plan)
        careful = DoorSubject(databases)
        await careful.fire(0, Act.BUILD, Actor.HELP_DESK)
        assert len(await walk(DOOR, careful, plan)) == 2  # built, and shut by one of three


@pytest.mark.parametrize(
    ("journal", "end", "fault"),
    [
        ([Fired(Door.OPEN, Act.SHUT, Actor.USER, Door.SHUT)], Door.OPEN, "its journal ends"),
        ([Fired(Door.SHUT, Act.OPEN, Actor.USER, Door.OPEN)], Door.OPEN, "an update was lost"),
        ([Fired(Door.OPEN, Act.SHUT, Actor.USER, Door.LOCKED)], Door.LOCKED, "in no row"),
    ],
)
def test_journals_that_are_no_path_are_found(journal: list[Fired[Door, Act]], end: Door, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        judge(DOOR, Door.OPEN, journal, end)


def test_a_journal_by_someone_who_may_not_is_found() -> None:
    with pytest.raises(IllegalTransition):
        judge(DOOR, Door.OPEN, [Fired(Door.OPEN, Act.SHUT, Actor.TIMER, Door.SHUT)], Door.SHUT)
