"""Migrations: up, down and status, on both engines, while the database holds data.

Several processes may start at once: a row of ``schema_lock`` lets one of them migrate, the others then find nothing
to do. Everything happens in one transaction, so a migration that fails leaves the database as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from .columns import Document, UtcTime
from .engine import make_engine, parse_url
from .errors import MigrationRefused, SchemaMismatch
from .faults import Fault, fault_of, store_error
from .tables import load

SCRIPTS = Path(__file__).with_name("migrations")
LOCK = "schema_lock"
_PATIENCE = 600.0
"""Seconds that a process waits for another one that migrates."""


@dataclass(frozen=True, slots=True)
class Status:
    """Revisions in the database and of this program; empty: never migrated."""

    database: tuple[str, ...]
    program: tuple[str, ...]
    unknown: tuple[str, ...]
    """Revisions of the database that this program does not know: it is too old for it."""

    @property
    def current(self) -> bool:
        """Whether they agree."""
        return set(self.database) == set(self.program)


async def upgrade(url: str, revision: str = "heads") -> Status:
    """Bring the tables to ``revision`` (default: the newest of every domain). Raises MigrationRefused, StoreError."""
    return await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> Status:
    """Bring the tables back: ``<domain>@base``, ``base`` for all, or a revision. Data of dropped tables is lost.

    Raises MigrationRefused, StoreError.
    """
    return await _run(url, lambda config: command.downgrade(config, revision))


async def status(url: str) -> Status:
    """Where the database stands. Changes nothing. Raises StoreError."""
    return await _run(url, None)


async def require_current(url: str) -> None:
    """Raise SchemaMismatch unless the database is of this program's revisions; StoreError if it cannot be asked."""
    found = await status(url)
    if found.unknown:
        raise SchemaMismatch(f"the database was migrated by a newer program: {', '.join(found.unknown)}")
    if not found.database:
        raise SchemaMismatch(
            "the database has no tables",
            advice="Begin by 'cardwright server init', or bring an installation back by 'cardwright server restore'.",
        )
    if not found.current:
        missing = sorted(set(found.program) - set(found.database))
        raise SchemaMismatch(f"the database lacks the revisions {', '.join(missing)}")


def config() -> Config:
    """Alembic's configuration, without a connection."""
    made = Config()
    made.set_main_option("script_location", str(SCRIPTS))
    return made


def options(connection: Connection) -> dict[str, Any]:
    """Options for Alembic's context, the same for migrating and for comparing."""
    return {
        "target_metadata": load(),
        "render_as_batch": connection.dialect.name == "sqlite",
        "transactional_ddl": True,
        "transaction_per_migration": False,
        "compare_type": _compare_type,
        "include_name": lambda name, kind, _: not (kind == "table" and name == LOCK),
    }


def differences(connection: Connection) -> list[Any]:
    """What differs between the tables of the database and those of the program; empty if nothing."""
    found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options(connection)), load())
    return found


def _compare_type(_context: Any, _column: Any, _metadata_column: Any, inspected: Any, wanted: Any) -> bool | None:
    # Decorated types look like what they decorate; let Alembic compare all others.
    if isinstance(wanted, UtcTime | Document):
        kind = "TIMESTAMP" if isinstance(wanted, UtcTime) else "TEXT"
        return not (str(inspected).upper().startswith((kind, "DATETIME")) if kind != "TEXT" else str(inspected) == kind)
    return None


async def _run(url: str, act: Callable[[Config], None] | None) -> Status:
    # Alembic rebuilds SQLite tables by copying; with foreign keys enforced, dropping the old one would delete rows.
    engine = make_engine(parse_url(url), pool=1, patience=_PATIENCE, foreign_keys=False)
    try:
        return await _begun_until_alone(engine, act)
    except CommandError as error:
        raise MigrationRefused(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        ours = store_error(Fault.GONE if isinstance(error, OSError) else fault_of(error), error)
        if ours is None:
            raise
        raise ours from error
    finally:
        await engine.dispose()


async def _begun_until_alone(engine: AsyncEngine, act: Callable[[Config], None] | None) -> Status:
    # "IF NOT EXISTS" does not keep PostgreSQL from colliding with another session that makes the same table.
    for attempt in range(10):
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(_within, act)
        except DBAPIError as error:
            if fault_of(error) not in (Fault.TAKEN, Fault.COLLISION) or attempt == 9:
                raise
    raise AssertionError("the loop ends by return or raise")


def _within(connection: Connection, act: Callable[[Config], None] | None) -> Status:
    if act is not None:
        _lock(connection)
        settings = config()
        settings.attributes["connection"] = connection
        act(settings)
        _check_references(connection)
    return _status(connection)


def _lock(connection: Connection) -> None:
    # Any of several starters may make the table; the row's lock is what keeps all but one waiting.
    if connection.dialect.name == "sqlite":
        return  # BEGIN IMMEDIATE has locked the file already.
    connection.execute(text(f"CREATE TABLE IF NOT EXISTS {LOCK} (id integer PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {LOCK} VALUES (1) ON CONFLICT DO NOTHING"))
    connection.execute(text(f"SELECT id FROM {LOCK} FOR UPDATE"))


def _check_references(connection: Connection) -> None:
    if connection.dialect.name == "sqlite" and (lost := connection.execute(text("PRAGMA foreign_key_check")).all()):
        raise MigrationRefused(f"after the migration, rows of {lost[0][0]} would point to rows that are gone")


def _status(connection: Connection) -> Status:
    scripts = ScriptDirectory.from_config(config())
    database = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    return Status(
        tuple(sorted(database)),
        tuple(sorted(scripts.get_heads())),
        tuple(sorted(revision for revision in database if revision not in known)),
    )
