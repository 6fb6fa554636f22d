"""The outbox: one order, each consumer each event once, in order, whoever fails, dies or works beside."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select

from cardwright_server.notify.model import DomainEvent
from cardwright_server.notify.outbox import Dispatcher, Patience
from cardwright_server.notify.store import Recorded
from cardwright_server.store.errors import DatabaseBusy
from cardwright_server.store.ids import SYSTEM, new_id
from cardwright_server.store.notify_tables import consumer as consumer_table
from cardwright_server.store.notify_tables import dead_event, mail_template, outbox
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock, statements_of

Opener = Callable[..., Database]


class Collector:
    """Writes a row for each event, in the unit it is given; fails where told."""

    def __init__(self, name: str = "collector", names: frozenset[str] | None = None) -> None:
        self.name = name
        self.names = names
        self.failing: dict[str, Exception] = {}
        self.calls = 0

    async def handle(self, unit: Unit, event: Recorded) -> None:
        self.calls += 1
        row = {
            "org": event.org,
            "name": f"{self.name}-{event.id.hex}",
            "subject": event.name,
            "body": str(event.position),
        }
        await unit.insert(mail_template, row)
        if event.name in self.failing:
            raise self.failing[event.name]


async def emit(database: Database, *names: str) -> None:
    async def work(unit: Unit) -> None:
        for name in names:
            unit.emit(DomainEvent(SYSTEM, name, "device", new_id(), person=new_id(), data={"until": "2027", "n": 1}))

    await database.transact(work)


async def collected(database: Database, name: str = "collector") -> list[tuple[int, str]]:
    query = select(mail_template).where(mail_template.c.name.startswith(name))
    rows = await database.read(lambda unit: unit.rows(query))
    return sorted((int(row.body), row.subject) for row in rows)


async def drain(dispatcher: Dispatcher) -> None:
    while await dispatcher.step():
        pass


async def test_events_reach_each_consumer_once_and_in_order(database: Database) -> None:
    one, two = Collector("one"), Collector("two")
    await emit(database, "a.first")
    await emit(database, "a.second")
    patience = Patience(lease=timedelta(0))
    await drain(Dispatcher(database, [one], patience))
    assert await collected(database, "one") == [(1, "a.first"), (2, "a.second")]
    await emit(database, "a.third")
    await drain(Dispatcher(database, [one, two], patience))
    expected = [(1, "a.first"), (2, "a.second"), (3, "a.third")]
    assert await collected(database, "one") == expected
    assert await collected(database, "two") == expected


async def test_a_consumer_passes_what_does_not_concern_it_in_one_step(database: Database) -> None:
    some, failing = Collector("some", frozenset({"a.kept", "a.late"})), Collector("failing", frozenset({"a.late"}))
    failing.failing["a.late"] = LookupError("no such person")
    await emit(database, *(["a.other"] * 40), "a.kept", *(["a.other"] * 40))
    dispatcher = Dispatcher(database, [some, failing], Patience(lease=timedelta(0)))
    steps = 0
    while await dispatcher.step():
        steps += 1
    assert (steps, await collected(database, "some"), failing.calls) == (2, [(41, "a.kept")], 0)
    await emit(database, "a.other", "a.late", "a.kept")
    await drain(dispatcher)
    # One that failed stays before its event, and is not taken past it by those that do not concern it.
    assert await collected(database, "some") == [(41, "a.kept"), (83, "a.late"), (84, "a.kept")]
    stands = await database.read(lambda unit: unit.rows(select(consumer_table.c.name, consumer_table.c.position)))
    assert {row.name: row.position for row in stands} == {"some": 84, "failing": 81}
    unread = await database.read(lambda unit: unit.rows(select(outbox.c.position).where(outbox.c.read_at.is_(None))))
    assert sorted(row.position for row in unread) == [82, 83, 84]


async def test_consumers_at_the_end_are_not_asked_until_there_is_more(open_database: Opener) -> None:
    database, other = open_database(), open_database()
    collector = Collector()
    dispatcher = Dispatcher(database, [collector], Patience(lease=timedelta(0)))
    await emit(database, "a.first")
    await drain(dispatcher)
    with statements_of(database) as seen:
        assert not await dispatcher.step()
    assert not any("consumer" in one for one in seen)
    # Another process orders what comes then, so that this one places nothing itself.
    await emit(other, "a.second")
    await drain(Dispatcher(other, [], Patience(lease=timedelta(0))))
    await drain(dispatcher)
    assert await collected(database) == [(1, "a.first"), (2, "a.second")]


async def test_an_event_keeps_what_it_was_given(database: Database) -> None:
    seen: list[Recorded] = []

    class Reader:
        name = "reader"
        names = None

        async def handle(self, unit: Unit, event: Recorded) -> None:
            seen.append(event)

    subject, person, correlation = new_id(), new_id(), new_id()
    event = DomainEvent(new_id(), "device.issued", "device", subject, person, {"until": "2027-01-01"}, correlation)
    await database.transact(lambda unit: _emit(unit, event))
    await drain(Dispatcher(database, [Reader()]))
    (got,) = seen
    assert (got.org, got.name, got.subject_kind, got.subject) == (event.org, event.name, "device", subject)
    assert (got.person, got.data, got.correlation, got.position) == (person, {"until": "2027-01-01"}, correlation, 1)


async def _emit(unit: Unit, event: DomainEvent) -> None:
    unit.emit(event)


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)  # SQLite has one writer at a time
async def test_a_transaction_that_commits_late_is_not_passed_over(open_database: Opener) -> None:
    """Its row is older than what a consumer has read already; an order by time or sequence would lose it.

    Units of one process take turns, so the slow one is another process's.
    """
    database, other = open_database(), open_database()
    collector = Collector()
    dispatcher = Dispatcher(database, [collector], Patience(lease=timedelta(0)))
    emitted, may_commit = asyncio.Event(), asyncio.Event()

    async def slow(unit: Unit) -> None:
        unit.emit(DomainEvent(SYSTEM, "a.slow", "device", new_id()))
        await unit._flush()
        unit._events.clear()
        emitted.set()
        await may_commit.wait()

    task = asyncio.create_task(other.transact(slow))
    await emitted.wait()
    await emit(database, "a.fast")
    await drain(dispatcher)
    assert await collected(database) == [(1, "a.fast")]
    may_commit.set()
    await task
    await drain(dispatcher)
    assert await collected(database) == [(1, "a.fast"), (2, "a.slow")]


async def test_several_dispatchers_give_each_event_once(open_database: Opener) -> None:
    databases = [open_database(pool=2) for _ in range(3)]
    await asyncio.gather(*(emit(databases[number % 3], "a.x") for number in range(12)))
    patience = Patience(lease=timedelta(milliseconds=1))  # all believe to hold it, and only the rows' locks decide
    dispatchers = [Dispatcher(database, [Collector()], patience) for database in databases]

    async def work(dispatcher: Dispatcher) -> None:
        while len(await collected(databases[0])) < 12:
            await dispatcher.step()

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(dispatcher) for dispatcher in dispatchers))
    assert [position for position, _ in await collected(databases[0])] == list(range(1, 13))


async def test_what_a_failing_consumer_wrote_is_undone_and_it_tries_again(open_database: Opener, clock: Clock) -> None:
    database = open_database(clock=clock)
    collector = Collector()
    collector.failing["a.first"] = LookupError("no such person")
    dispatcher = Dispatcher(database, [collector])
    await emit(database, "a.first", "a.second")
    await drain(dispatcher)
    await drain(dispatcher)
    assert (collector.calls, await collected(database)) == (1, [])
    row = await database.read(lambda unit: unit.row(select(consumer_table)))
    assert row is not None
    assert (row.failures, row.error) == (1, "LookupError")
    assert clock.now < row.not_before <= clock.now + timedelta(seconds=2)
    clock.advance(seconds=5)
    collector.failing.clear()
    await drain(dispatcher)
    assert await collected(database) == [(1, "a.first"), (2, "a.second")]


async def test_an_event_that_cannot_be_handled_is_put_aside(open_database: Opener, clock: Clock) -> None:
    database = open_database(clock=clock)
    collector, other = Collector(), Collector("other")
    collector.failing["a.poison"] = ZeroDivisionError()
    await emit(database, "a.poison", "a.good")
    dispatcher = Dispatcher(database, [collector, other], Patience(most_failures=3))
    pauses = []
    for _ in range(3):
        before = clock.now
        await drain(dispatcher)
        row = await database.read(
            lambda unit: unit.row(select(consumer_table).where(consumer_table.c.name == "collector"))
        )
        assert row is not None
        pauses.append(row.not_before and row.not_before - before)
        clock.advance(minutes=1)
    assert collector.calls == 4
    assert pauses[0] < pauses[1]
    assert pauses[2] is None
    assert await collected(database) == [(2, "a.good")]
    assert await collected(database, "other") == [(1, "a.poison"), (2, "a.good")]
    (dead,) = await database.read(lambda unit: unit.rows(select(dead_event)))
    assert (dead.consumer, dead.error) == ("collector", "ZeroDivisionError")


async def test_the_database_failing_is_nobodys_failure(database: Database) -> None:
    collector = Collector()
    collector.failing["a.x"] = DatabaseBusy("busy")
    await emit(database, "a.x")
    dispatcher = Dispatcher(database, [collector])
    with pytest.raises(DatabaseBusy):
        await drain(dispatcher)
    rows = await database.read(lambda unit: unit.rows(select(consumer_table)))
    assert [row.failures for row in rows] in ([], [0])


async def test_events_count_as_read_when_all_have_read_them(database: Database) -> None:
    one, two = Collector("one"), Collector("two")
    patience = Patience(lease=timedelta(0))
    await drain(Dispatcher(database, [one, two], patience))
    await emit(database, "a.x", "a.y")
    two.failing = {"a.x": LookupError()}
    await drain(Dispatcher(database, [one, two], patience))

    async def read() -> Counter[bool]:
        rows = await database.read(lambda unit: unit.rows(select(outbox.c.read_at)))
        return Counter(row.read_at is not None for row in rows)

    assert await read() == {False: 2}
    two.failing = {}
    await database.transact(lambda unit: unit.execute(consumer_table.update().values(not_before=None)))
    await drain(Dispatcher(database, [one, two], patience))
    assert await read() == {True: 2}


async def test_running_and_waking(database: Database) -> None:
    collector = Collector()
    dispatcher = Dispatcher(database, [collector], Patience(look=timedelta(hours=1)))
    task = asyncio.create_task(dispatcher.run())

    async def work(unit: Unit) -> UUID:
        unit.emit(DomainEvent(SYSTEM, "a.x", "device", new_id()))
        unit.afterwards(dispatcher.wake)
        return new_id()

    await database.transact(work)
    async with asyncio.timeout(20):
        while not await collected(database):
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("name", ["issued", "device.", ".issued", "Device.issued", "device.ausgestelltß"])
def test_names_of_events_are_domain_and_event(name: str) -> None:
    with pytest.raises(ValueError, match="is no event"):
        DomainEvent(SYSTEM, name, "device", new_id())
