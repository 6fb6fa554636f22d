"""Units of work on both engines: commit or nothing, repetition after real collisions, time, cost, broken databases."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from cardwright_server.audit.model import SERVER, AuditEntry, Target
from cardwright_server.notify.model import DomainEvent
from cardwright_server.store.audit_tables import audit_detail, audit_entry
from cardwright_server.store.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseUnavailable,
    StaleVersion,
)
from cardwright_server.store.ids import SYSTEM, new_id
from cardwright_server.store.notify_tables import mail_template, outbox
from cardwright_server.store.second_medium import JournalEvent, JournalKind, Settled, remembered
from cardwright_server.store.system_tables import counter
from cardwright_server.store.unit import Database, Isolation, Unit
from tests.support.databases import Clock, PostgreSql, statements_logged, statements_of

Opener = Callable[..., Database]


async def add(unit: Unit, name: str = "welcome", org: UUID = SYSTEM) -> UUID:
    return await unit.insert(mail_template, {"org": org, "name": name, "subject": "s", "body": "b"})


async def names(database: Database) -> list[str]:
    async def work(unit: Unit) -> list[str]:
        return [row.name for row in await unit.rows(select(mail_template.c.name).order_by(mail_template.c.name))]

    return await database.read(work)


def everything(unit: Unit) -> None:
    unit.audit(AuditEntry(SYSTEM, SERVER, "mail.sent", Target("mail"), personal={"to": "Ada"}))
    unit.emit(DomainEvent(SYSTEM, "device.issued", "device", new_id()))
    unit.beforehand(JournalEvent(JournalKind.ISSUE, SYSTEM, new_id()))


async def counts(database: Database) -> tuple[int, ...]:
    async def work(unit: Unit) -> tuple[int, ...]:
        tables = (mail_template, audit_entry, audit_detail, outbox)
        return tuple([await unit.value(select(func.count()).select_from(table)) for table in tables])

    return await database.read(work)


async def test_all_of_a_unit_commits_together(database: Database, tmp_path: Path) -> None:
    async def work(unit: Unit) -> UUID:
        everything(unit)
        return await add(unit)

    made = await database.transact(work)
    row = await database.read(lambda unit: unit.row(select(mail_template).where(mail_template.c.id == made)))
    assert row is not None
    assert (row.version, row.created_at) == (1, row.changed_at)
    assert await counts(database) == (1, 1, 1, 1)
    assert [one.settled for one in remembered(tmp_path / "second-medium")] in (
        [Settled.TOOK_EFFECT],
        [Settled.IN_DOUBT],
    )


async def test_nothing_of_a_unit_that_fails_is_recorded(database: Database, tmp_path: Path) -> None:
    async def work(unit: Unit) -> None:
        everything(unit)
        await add(unit)
        raise LookupError("of the service")

    with pytest.raises(LookupError, match="of the service"):
        await database.transact(work)
    assert await counts(database) == (0, 0, 0, 0)
    assert list(remembered(tmp_path / "second-medium")) == []


async def test_hints_run_once_and_only_after_a_commit(database: Database) -> None:
    hints: list[str] = []

    async def work(unit: Unit) -> None:
        unit.afterwards(lambda: hints.append("committed"))
        await add(unit)

    await database.transact(work)
    with pytest.raises(IntegrityError):
        await database.transact(work)
    assert hints == ["committed"]


async def test_reading_units_cannot_write(database: Database) -> None:
    for record in (
        lambda unit: unit.audit(AuditEntry(SYSTEM, SERVER, "a.b", Target("x"))),
        lambda unit: unit.emit(DomainEvent(SYSTEM, "a.b", "x", new_id())),
        lambda unit: unit.beforehand(JournalEvent(JournalKind.ISSUE, SYSTEM, new_id())),
    ):

        async def work(unit: Unit, record: Callable[[Unit], None] = record) -> None:
            record(unit)

        with pytest.raises(RuntimeError, match="only reads"):
            await database.read(work)


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    async def work(unit: Unit) -> tuple[int, int]:
        before = await unit.value(select(func.count()).select_from(mail_template))
        await database.transact(add)
        return before, await unit.value(select(func.count()).select_from(mail_template))

    assert await database.read(work) == (0, 0)
    assert await names(database) == ["welcome"]


async def test_an_update_of_what_another_changed_is_refused(database: Database) -> None:
    made = await database.transact(add)

    async def rename(unit: Unit) -> int:
        return await unit.update(mail_template, made, 1, {"subject": "new"})

    assert await database.transact(rename) == 2
    with pytest.raises(StaleVersion):
        await database.transact(rename)
    row = await database.read(lambda unit: unit.row(select(mail_template)))
    assert row is not None
    assert (row.version, row.subject) == (2, "new")
    assert row.changed_at >= row.created_at


async def test_insert_if_absent_leaves_the_transaction_usable(database: Database) -> None:
    async def work(unit: Unit) -> tuple[object, object]:
        row = {"org": SYSTEM, "name": "welcome", "subject": "s", "body": "b"}
        first = await unit.insert_if_absent(mail_template, row, ["org", "name"])
        second = await unit.insert_if_absent(mail_template, row, ["org", "name"])
        await add(unit, "other")
        return first, second

    first, second = await database.transact(work)
    assert isinstance(first, UUID)
    assert second is None
    assert await names(database) == ["other", "welcome"]


async def bump(unit: Unit) -> int:
    """Read, decide, write: what would lose updates without isolation."""
    value: int | None = await unit.value(select(counter.c.value).where(counter.c.name == "n"))
    if value is None:
        await unit.execute(counter.insert().values(name="n", value=1))
        return 1
    await unit.execute(update(counter).where(counter.c.name == "n").values(value=value + 1))
    return value + 1


async def test_no_update_of_many_clients_is_lost(open_database: Opener) -> None:
    first, second = open_database(pool=4), open_database(pool=4)

    async def client(database: Database) -> list[int]:
        return [await database.transact(bump) for _ in range(5)]

    results = await asyncio.gather(*(client(database) for database in (first, second) * 3))
    assert sorted(value for values in results for value in values) == list(range(1, 31))


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_serialization_failure_begins_the_unit_again(open_database: Opener) -> None:
    database, other = open_database(), open_database()
    await database.transact(bump)
    runs = 0

    async def work(unit: Unit) -> int:
        nonlocal runs
        runs += 1
        value: int = await unit.value(select(counter.c.value))
        if runs == 1:
            await other.transact(bump)
        await unit.execute(update(counter).values(value=value + 10))
        unit.audit(AuditEntry(SYSTEM, SERVER, "a.b", Target("x")))
        return value + 10

    assert await database.transact(work) == 12
    assert (runs, database.retries) == (2, 1)
    assert (await counts(database))[1] == 1


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_write_skew_of_two_processes_is_a_collision(open_database: Opener) -> None:
    """Two that each count the rows and add one only if there is none: one of them sees the other's."""
    databases = open_database(), open_database()
    arrived = asyncio.Barrier(2)
    first = [True, True]

    def worker(number: int) -> Callable[[Unit], Awaitable[bool]]:
        async def work(unit: Unit) -> bool:
            found = await unit.value(select(func.count()).select_from(mail_template))
            if first[number]:
                first[number] = False
                await arrived.wait()
            if found:
                return False
            await add(unit, f"of-{number}")
            return True

        return work

    results: list[bool] = await asyncio.gather(*(databases[number].transact(worker(number)) for number in (0, 1)))
    assert sorted(results) == [False, True]
    assert len(await names(databases[0])) == 1
    assert sum(database.retries for database in databases) >= 1


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_units_of_one_process_take_turns_and_never_collide(database: Database) -> None:
    """Each reads the last rows of an index and adds one: on PostgreSQL a collision for all but one at a time."""
    inside = 0

    async def work(unit: Unit) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        await unit.value(select(func.count()).select_from(mail_template))
        await add(unit, str(new_id()))
        inside -= 1

    await asyncio.gather(*(database.transact(work) for _ in range(12)))
    assert (len(await names(database)), database.retries) == (12, 0)


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_deadlock_begins_the_unit_again(database: Database) -> None:
    one, two = await database.transact(lambda unit: add(unit, "one")), await database.transact(lambda u: add(u, "two"))
    both_hold = asyncio.Barrier(2)
    meeting = {one: True, two: True}

    def worker(first: UUID, second: UUID) -> Callable[[Unit], Awaitable[None]]:
        async def work(unit: Unit) -> None:
            async def change(identifier: UUID) -> None:
                values = {"body": mail_template.c.body + "+"}
                await unit.execute(update(mail_template).where(mail_template.c.id == identifier).values(values))

            await change(first)
            if meeting[first]:
                meeting[first] = False
                await both_hold.wait()
            await change(second)

        return work

    async def run(first: UUID, second: UUID) -> None:
        await database.transact(worker(first, second), isolation=Isolation.READ_COMMITTED)

    await asyncio.gather(run(one, two), run(two, one))
    bodies = await database.read(lambda unit: unit.rows(select(mail_template.c.body)))
    assert [row.body for row in bodies] == ["b++", "b++"]
    assert database.retries >= 1


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_busy_file_begins_the_unit_again(open_database: Opener, database_url: str) -> None:
    database = open_database(patience=0.01, attempts=200)
    other = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(database.transact(add))
    while database.retries == 0:
        await asyncio.sleep(0)
    assert not waiting.done()
    other.execute("COMMIT")
    await waiting
    other.close()
    assert await names(database) == ["welcome"]


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_file_that_stays_busy_is_an_error_and_the_next_attempt_works(
    open_database: Opener, database_url: str
) -> None:
    database = open_database(patience=0.01, attempts=3)
    other = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusy):
        await database.transact(add)
    assert database.retries == 2
    other.execute("ROLLBACK")
    other.close()
    await database.transact(add)


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_collisions_end_after_the_last_attempt(open_database: Opener) -> None:
    database, other = open_database(attempts=3), open_database()
    await database.transact(bump)
    runs = 0

    async def work(unit: Unit) -> None:
        nonlocal runs
        runs += 1
        value: int = await unit.value(select(counter.c.value))
        await other.transact(bump)
        await unit.execute(update(counter).values(value=value + 10))

    with pytest.raises(DatabaseBusy):
        await database.transact(work)
    assert runs == 3


async def test_a_value_that_is_taken_stays_an_error(database: Database) -> None:
    await database.transact(add)
    with pytest.raises(IntegrityError):
        await database.transact(add)


async def test_mistakes_in_statements_are_not_repeated(database: Database) -> None:
    with pytest.raises(DBAPIError):
        await database.transact(lambda unit: unit.execute(text("SELEKT 1")))
    assert database.retries == 0


async def test_time_is_one_value_per_unit_and_aware(database: Database) -> None:
    async def work(unit: Unit) -> tuple[datetime, datetime, datetime]:
        return unit.now, unit.now, await unit.value(select(unit.time))

    first, second, in_statement = await database.transact(work)
    assert first == second == in_statement
    assert first.tzinfo is UTC
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_time_is_that_of_the_database(database: Database) -> None:
    async def work(unit: Unit) -> tuple[datetime, datetime]:
        return unit.now, await unit.value(text("SELECT transaction_timestamp()"))

    ours, its = await database.transact(work)
    assert ours == its


async def test_a_given_clock_replaces_the_databases(open_database: Opener, clock: Clock) -> None:
    database = open_database(clock=clock)
    await database.transact(add)
    clock.advance(days=400)

    async def work(unit: Unit) -> tuple[datetime, int]:
        old = mail_template.c.created_at < unit.time
        return unit.now, (await unit.execute(delete(mail_template).where(old))).rowcount

    assert await database.transact(work) == (clock.now, 1)


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_what_a_unit_costs_in_the_servers_own_log(
    open_database: Opener, database_url: str, postgresql: PostgreSql
) -> None:
    """SQLAlchemy's count and PostgreSQL's own agree: a timed unit asks for the time, an untimed read does not."""

    async def two(unit: Unit) -> None:
        everything(unit)
        everything(unit)
        await add(unit)

    async def one(unit: Unit) -> None:
        await unit.value(select(func.count()).select_from(mail_template).where(mail_template.c.created_at < unit.time))

    async def nothing(unit: Unit) -> None:
        pass

    name = database_url.split("/")[3].split("?")[0]
    with statements_logged(postgresql, name) as logged:
        database = open_database(pool=1)
        await database.read(nothing, timed=False)  # the first connection asks about the server
        with statements_of(database) as sent:
            await database.read(one, timed=False)
            await database.transact(two)
    begins = [at for at, statement in enumerate(logged) if statement.startswith("BEGIN")]
    last_two = logged[begins[-2] :]
    heads = [" ".join(statement.split()[:3]) for statement in last_two]
    assert heads == [
        "BEGIN ISOLATION LEVEL",
        "SELECT count(*) AS",
        "ROLLBACK;",
        "BEGIN ISOLATION LEVEL",
        "SELECT now() AS",
        "INSERT INTO mail_template",
        "INSERT INTO audit_entry",
        "INSERT INTO audit_entry",
        "INSERT INTO audit_detail",
        "INSERT INTO audit_detail",
        "INSERT INTO outbox",
        "INSERT INTO outbox",
        "COMMIT;",
    ]
    assert len(sent) == 6


async def test_a_database_that_is_gone_is_an_error_and_its_return_is_noticed(
    open_database: Opener, engine_name: str, database_url: str, postgresql: PostgreSql
) -> None:
    database = open_database()
    await database.transact(add)
    if engine_name == "sqlite":
        path = Path(database_url.removeprefix("sqlite:///"))
        await database.close()
        for file in path.parent.glob("store.db-*"):
            file.unlink()
        path.rename(path.with_name("away"))
        path.mkdir()
        with pytest.raises(DatabaseUnavailable):
            await database.transact(lambda unit: add(unit, "lost"))
        path.rmdir()
        path.with_name("away").rename(path)
    else:
        name = database_url.split("/")[3].split("?")[0]
        postgresql.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgresql.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with pytest.raises(DatabaseUnavailable):
            await database.transact(lambda unit: add(unit, "lost"))
        postgresql.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await database.transact(lambda unit: add(unit, "after"))
    assert await names(database) == ["after", "welcome"]


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_connection_cut_in_mid_unit_is_begun_again(
    database: Database, database_url: str, postgresql: PostgreSql
) -> None:
    name = database_url.split("/")[3].split("?")[0]
    runs = 0

    async def work(unit: Unit) -> None:
        nonlocal runs
        runs += 1
        await add(unit)
        if runs == 1:
            cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            await asyncio.to_thread(postgresql.sql, cut)
        await add(unit, "second")

    await database.transact(work)
    assert runs == 2
    assert await names(database) == ["second", "welcome"]


async def test_no_server_at_the_address(tmp_path: Path) -> None:
    database = Database(f"postgresql://cardwright@/x?host={tmp_path}", patience=1)
    with pytest.raises(DatabaseUnavailable):
        await database.transact(add)
    await database.close()


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_full_disk_records_nothing_and_the_next_attempt_works(database: Database, database_url: str) -> None:
    await database.transact(add)
    path = Path(database_url.removeprefix("sqlite:///"))

    async def limit(unit: Unit) -> None:
        pages = await unit.value(text("PRAGMA page_count"))
        await unit.execute(text(f"PRAGMA max_page_count={pages}"))
        await unit.insert(mail_template, {"org": SYSTEM, "name": "big", "subject": "s", "body": "x" * 100_000})

    size = path.stat().st_size
    with pytest.raises(DatabaseFull):
        await database.transact(limit)
    assert await names(database) == ["welcome"]
    assert path.stat().st_size == size
    await database.transact(lambda unit: unit.execute(text("PRAGMA max_page_count=100000")))
    await database.transact(lambda unit: add(unit, "after"))
    assert await names(database) == ["after", "welcome"]


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_the_file_is_its_owners_alone_and_waits_for_the_disk(empty_url: str) -> None:
    database = Database(empty_url)

    async def settings(unit: Unit) -> tuple[object, ...]:
        wanted = ("journal_mode", "synchronous", "foreign_keys")
        return tuple([await unit.value(text(f"PRAGMA {name}")) for name in wanted])

    assert await database.read(settings) == ("wal", 2, 1)
    await database.transact(lambda unit: unit.execute(text("CREATE TABLE x (y)")))
    path = Path(empty_url.removeprefix("sqlite:///"))
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob(f"{path.name}*")}
    assert modes == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm"), 0o600)
    await database.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y"])
def test_addresses_of_no_store_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"SQLite needs|no database for"):
        Database(url)


async def test_the_second_medium_is_not_optional_for_what_needs_it(open_database: Opener) -> None:
    database = open_database(second_medium=None)

    async def work(unit: Unit) -> None:
        await add(unit)
        unit.beforehand(JournalEvent(JournalKind.ISSUE, SYSTEM, new_id()))

    with pytest.raises(RuntimeError, match="no second medium"):
        await database.transact(work)
    assert await names(database) == []


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_unit_that_is_cancelled_while_its_connection_breaks_is_not_begun_again(database: Database) -> None:
    begun, begins = asyncio.Event(), 0

    async def work(unit: Unit) -> None:
        nonlocal begins
        begins += 1
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As when the driver finds the connection gone while it rolls back.
            raise ConnectionError("gone") from None

    task = asyncio.create_task(database.transact(work))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task], timeout=20)
    assert task.cancelled()
    assert begins == 1
