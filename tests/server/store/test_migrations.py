"""Migrations on both engines: up, down, with data, by several at once; and the tables that they make are the code's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection, PrimaryKeyConstraint, Table, UniqueConstraint, inspect, select, text
from sqlalchemy import types as sql

from cardwright_server.store import migrate
from cardwright_server.store.columns import Document, UtcTime
from cardwright_server.store.errors import DatabaseUnavailable, MigrationRefused, SchemaMismatch
from cardwright_server.store.ids import SYSTEM, new_id
from cardwright_server.store.notify_tables import mail_template
from cardwright_server.store.retention import PERIODS
from cardwright_server.store.session_tables import card_session, card_session_transition
from cardwright_server.store.tables import load, rule_of
from cardwright_server.store.unit import Database


def sample(table: Table) -> dict[str, Any]:
    """A row that every column accepts, so far as its type tells."""

    def value(type_: Any) -> Any:
        if isinstance(type_, UtcTime):
            return datetime(2026, 3, 1, tzinfo=UTC)
        if isinstance(type_, Document):
            return {"a": 1}
        if isinstance(type_, sql.Uuid):
            return new_id()
        if isinstance(type_, sql.LargeBinary):
            return b"\x01"
        if isinstance(type_, sql.Boolean):
            return True
        if isinstance(type_, sql.Integer):
            return 1
        return "x"

    return {column.name: value(column.type) for column in table.columns if not column.foreign_keys}


async def names_of_tables(url: str) -> set[str]:
    database = Database(url)
    async with database.engine.begin() as connection:
        names = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
    await database.close()
    return names - {"alembic_version", migrate.LOCK}


@pytest.fixture
async def migrated(empty_url: str) -> AsyncIterator[Database]:
    await migrate.upgrade(empty_url)
    database = Database(empty_url)
    yield database
    await database.close()


async def test_migrated_tables_are_those_of_the_code(migrated: Database) -> None:
    async with migrated.engine.begin() as connection:
        assert await connection.run_sync(migrate.differences) == []


async def test_a_difference_is_seen(migrated: Database) -> None:
    def removed(connection: Connection) -> list[str]:
        found = migrate.differences(connection)
        return [one[3].name for one in found if isinstance(one, tuple) and one[0] == "remove_column"]

    async with migrated.engine.begin() as connection:
        assert "extra" not in await connection.run_sync(removed)
        await connection.execute(text("ALTER TABLE mail_template ADD COLUMN extra integer"))
        assert "extra" in await connection.run_sync(removed)


async def test_up_down_and_up_again(empty_url: str) -> None:
    assert await names_of_tables(empty_url) == set()
    status = await migrate.upgrade(empty_url)
    assert status.current
    made = await names_of_tables(empty_url)
    assert made >= {"audit_entry", "mail", "lease"}
    status = await migrate.downgrade(empty_url, "base")
    assert status.database == ()
    assert await names_of_tables(empty_url) == set()
    assert (await migrate.upgrade(empty_url)).current
    assert await names_of_tables(empty_url) == made


def revisions() -> list[str]:
    scripts = ScriptDirectory.from_config(migrate.config()).walk_revisions()
    return sorted(script.revision for script in scripts)


async def test_each_revision_goes_down_and_up_and_leaves_the_data_of_others(migrated: Database, empty_url: str) -> None:
    """With a row in every table that needs no other: what the revision does not own is unchanged afterwards."""
    present = await names_of_tables(empty_url)
    plain = [
        table
        for table in load().sorted_tables
        if table.name in present and not table.foreign_keys and _accepts_samples(table)
    ]
    rows = {table.name: sample(table) for table in plain}

    async def fill(unit: Any) -> None:
        for table in plain:
            await unit.execute(table.delete())
            await unit.execute(table.insert().values(rows[table.name]))

    async def look(unit: Any) -> dict[str, Any]:
        return {table.name: [dict(row._mapping) for row in await unit.rows(select(table))] for table in plain}

    for revision in revisions():
        await migrated.transact(fill)
        domain, _, number = revision.rpartition("_")
        await migrate.downgrade(empty_url, f"{domain}@base" if number == "0001" else f"{revision}@-1")
        assert (await migrate.upgrade(empty_url)).current
        await migrated.close()  # prepared statements know the tables that were
        found = await migrated.read(look)
        others = [table.name for table in plain if table.info["domain"] != domain]
        assert {name: found[name] for name in others} == {name: [rows[name]] for name in others}
        assert len(others) >= 5


async def test_sessions_keep_their_steps_on_the_way_down_and_up(migrated: Database, empty_url: str) -> None:
    """The column of the proof goes and comes back empty; the session and what refers to it stay."""
    session = sample(card_session)
    step = sample(card_session_transition) | {"subject": session["id"]}

    async def fill(unit: Any) -> None:
        await unit.execute(card_session.insert().values(session))
        await unit.execute(card_session_transition.insert().values(step))

    async def look(unit: Any) -> list[dict[str, Any]]:
        tables = (card_session, card_session_transition)
        return [dict(row._mapping) for table in tables for row in await unit.rows(select(table))]

    await migrated.transact(fill)
    await migrated.close()
    await migrate.downgrade(empty_url, "sessions@sessions_0002")

    def columns(connection: Connection) -> set[str]:
        return {one["name"] for one in inspect(connection).get_columns("card_session")}

    async with migrated.engine.begin() as connection:
        assert set(card_session.columns.keys()) - await connection.run_sync(columns) == {"proof"}
    await migrated.close()
    assert (await migrate.upgrade(empty_url)).current
    assert await migrated.read(look) == [session | {"proof": None}, step]


def _accepts_samples(table: Table) -> bool:
    checks = [one for one in table.constraints if isinstance(one, CheckConstraint)]
    return all(str(one.sqltext) == "version > 0" for one in checks)


async def test_several_that_start_at_once_migrate_once(empty_url: str) -> None:
    results = await asyncio.gather(*(migrate.upgrade(empty_url) for _ in range(4)))
    assert all(status.current for status in results)
    assert await names_of_tables(empty_url) >= {"audit_entry", "mail", "lease"}


async def test_work_goes_on_while_a_migration_finds_nothing_to_do(migrated: Database, empty_url: str) -> None:

    async def add(name: str) -> None:
        row = {"org": SYSTEM, "name": name, "subject": "s", "body": "b"}
        await migrated.transact(lambda unit: unit.insert(mail_template, row))

    await asyncio.gather(migrate.upgrade(empty_url), *(add(name) for name in ("a", "b", "c")))
    assert len(await migrated.read(lambda unit: unit.rows(select(mail_template)))) == 3


async def test_status_and_the_refusal_to_start(empty_url: str) -> None:
    before = await migrate.status(empty_url)
    assert (before.database, before.current) == ((), False)
    assert "store_0001" in before.program
    with pytest.raises(SchemaMismatch, match="has no tables"):
        await migrate.require_current(empty_url)
    await migrate.upgrade(empty_url)
    await migrate.require_current(empty_url)
    database = Database(empty_url)
    async with database.engine.begin() as connection:
        last = max((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars())
        await connection.execute(text("DELETE FROM alembic_version WHERE version_num = :last"), {"last": last})
    with pytest.raises(SchemaMismatch, match=f"lacks the revisions .*{last}"):
        await migrate.require_current(empty_url)
    async with database.engine.begin() as connection:
        await connection.execute(text("INSERT INTO alembic_version VALUES ('devices_9999')"))
    await database.close()
    with pytest.raises(SchemaMismatch, match="newer program: devices_9999"):
        await migrate.require_current(empty_url)


async def test_a_revision_that_is_not_known_changes_nothing(empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    with pytest.raises(MigrationRefused):
        await migrate.upgrade(empty_url, "devices_9999")
    await migrate.require_current(empty_url)


async def test_a_database_that_is_not_there() -> None:
    with pytest.raises(DatabaseUnavailable):
        await migrate.status("sqlite:////no/such/folder/x.db")


def test_every_table_keeps_the_conventions() -> None:
    """An organization, unless it is the installation's own; a retention rule; a domain; a key; times with a zone."""
    tables = load().tables.values()
    wrong = [
        f"{table.name}: {fault}"
        for table in tables
        for fault, present in {
            "no retention": "retention" in table.info and rule_of(table).retention in PERIODS,
            "no domain": "domain" in table.info,
            "no org": "org" in table.c or table.info.get("installation", False),
            "no key": len(table.primary_key.columns) >= 1,
            "id is not its key": "id" not in table.c or table.primary_key.columns.keys() == ["id"],
            "a time without zone": not any(type(column.type) is sql.DateTime for column in table.columns),
            "changed without version": ("changed_at" in table.c) == ("version" in table.c),
        }.items()
        if not present
    ]
    assert wrong == []
    assert len(tables) >= 10


def test_every_foreign_key_has_an_index_and_stays_within_its_domain() -> None:
    """Deleting a parent looks for children; a domain never reaches into another one's tables."""
    bad = []
    for table in load().tables.values():
        keys = (one for one in table.constraints if isinstance(one, UniqueConstraint | PrimaryKeyConstraint))
        indexed = {one.columns.keys()[0] for one in (*table.indexes, *keys) if one.columns}
        for key in table.foreign_keys:
            if key.column.table.info["domain"] != table.info["domain"]:
                bad.append(f"{table.name}.{key.parent.name} leaves its domain")
            if key.parent.name not in indexed:
                bad.append(f"{table.name}.{key.parent.name} has no index")
    assert bad == []
