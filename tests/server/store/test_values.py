"""Identifiers, column types, and the purge by retention rule."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, String, Table, func, insert, select
from sqlalchemy.exc import StatementError

from cardwright_server.audit.model import SERVER, AuditEntry, Target
from cardwright_server.notify.model import DomainEvent
from cardwright_server.store.audit_tables import audit_detail, audit_entry
from cardwright_server.store.columns import Document, UtcTime, canonical
from cardwright_server.store.ids import SYSTEM, made_at, new_id
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.purge import BATCH, purge
from cardwright_server.store.retention import PERIODS, Retention
from cardwright_server.store.tables import load, rule_of, table
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock


def test_identifiers_are_version_7_and_near_each_other() -> None:
    before = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(2000)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == 2000
    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {UUID(int=2 << 62).variant}
    assert all(before <= one.int >> 80 <= after for one in made)
    assert [one.int >> 64 for one in made] == sorted(one.int >> 64 for one in made)
    assert abs(made_at(made[0]) - datetime.now(UTC)) < timedelta(minutes=1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_equal_documents_have_equal_text(value: object) -> None:
    def shuffled(one: object) -> object:
        if isinstance(one, dict):
            return {key: shuffled(one[key]) for key in reversed(one)}
        return [shuffled(item) for item in one] if isinstance(one, list) else one

    assert canonical(value) == canonical(shuffled(value))


def test_canonical_text() -> None:
    assert canonical({"b": [1, None], "a": UUID(int=1), "ä": True}) == (
        '{"a":"00000000-0000-0000-0000-000000000001","b":[1,null],"ä":true}'
    )
    with pytest.raises(TypeError):
        canonical({"a": object()})


things = Table(
    "things", MetaData(), Column("name", String(9), primary_key=True), Column("at", UtcTime), Column("doc", Document)
)


async def test_times_keep_their_moment_and_order(database: Database) -> None:
    """The same moment in another zone is the same; microseconds count; order is that of time on both engines."""
    base = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    zone = timezone(timedelta(hours=-7))
    times = {
        "b": base,
        "a": base - timedelta(microseconds=1),
        "c": (base + timedelta(seconds=1)).astimezone(zone),
        "d": (base + timedelta(hours=2)).astimezone(zone),
    }
    async with database.engine.begin() as connection:
        await connection.run_sync(things.metadata.create_all)
        await connection.execute(
            insert(things), [{"name": name, "at": at, "doc": {"z": 1, "a": [None]}} for name, at in times.items()]
        )
        rows = (await connection.execute(select(things).order_by(things.c.at))).all()
        assert [(row.name, row.at) for row in rows] == sorted(times.items())
        assert {row.at.tzinfo for row in rows} == {UTC}
        assert rows[0].doc == {"z": 1, "a": [None]}
        later = select(func.count()).select_from(things).where(things.c.at > base)
        assert (await connection.execute(later)).scalar_one() == 2
        with pytest.raises(StatementError, match="needs a zone"):
            await connection.execute(insert(things).values(name="e", at=datetime(2026, 3, 1)))


def test_tables_with_a_period_say_from_when() -> None:
    with pytest.raises(ValueError, match="do not go together"):
        table("x", "no_column", retention=Retention.TRANSIENT)
    with pytest.raises(ValueError, match="do not go together"):
        table("x", "no_period", retention=Retention.PERMANENT, counts_from="created_at")
    with pytest.raises(ValueError, match="is no moment"):
        table("x", "no_moment", Column("a", String(3)), retention=Retention.TRANSIENT, counts_from="a")
    for name in ("no_column", "no_period", "no_moment"):
        load().remove(load().tables[name])


def test_what_holds_personal_detail_is_never_permanent() -> None:
    assert rule_of(audit_detail).retention is Retention.PERSONAL_DETAIL
    assert PERIODS[Retention.PERSONAL_DETAIL] is not None


async def count(database: Database, table: Table) -> int:
    found: int = await database.read(lambda unit: unit.value(select(func.count()).select_from(table)))
    return found


async def test_the_purge_removes_what_is_over_and_nothing_else(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    database = open_database(clock=clock)
    period = PERIODS[Retention.PERSONAL_DETAIL]
    assert period is not None

    async def fill(unit: Unit) -> None:
        for _ in range(3):
            unit.audit(AuditEntry(SYSTEM, SERVER, "a.b", Target("x"), personal={"name": "Ada"}))
        unit.emit(DomainEvent(SYSTEM, "a.b", "x", new_id()))

    await database.transact(fill)
    clock.advance(days=1)
    await database.transact(fill)
    clock.now += period - timedelta(hours=1)
    assert await purge(database) == {"audit_detail": 3}
    assert await purge(database) == {}
    assert await count(database, audit_detail) == 3
    assert await count(database, audit_entry) == 6  # the chain keeps its rows
    assert await count(database, outbox) == 2  # nobody has read them: still open


async def test_the_purge_goes_by_batches(open_database: Callable[..., Database], clock: Clock) -> None:
    database = open_database(clock=clock)
    rows = [{"org": SYSTEM, "key": b"k", "detail": "{}", "person": None} for _ in range(BATCH + 1)]
    await database.transact(lambda unit: unit.insert_many(audit_detail, rows))
    clock.advance(days=100 * 365)
    commits = 0

    from sqlalchemy import event

    def committed(_connection: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.engine.sync_engine, "commit", committed)
    assert await purge(database) == {"audit_detail": BATCH + 1}
    assert commits >= 3
