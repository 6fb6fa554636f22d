"""The connection pool, set up so that SQLite and PostgreSQL promise the same.

Both: a transaction that writes is serializable and durable when commit returns; one that reads sees one snapshot.
SQLite gets there by WAL with one writer at a time (BEGIN IMMEDIATE), PostgreSQL by SERIALIZABLE and repetition.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def parse_url(text: str) -> URL:
    """The address of a database: ``sqlite:///path`` or ``postgresql://user@host/name``, with our driver filled in.

    Raises ValueError for another kind, and for SQLite without a file: a store that forgets is none.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        # Without the text: a password may stand in it.
        raise ValueError("url is none like postgresql://user@host/name or sqlite:///path") from error
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise ValueError(f"{backend} is no database for the store; use sqlite or postgresql")
    if backend == "sqlite" and (not url.database or url.database == ":memory:"):
        raise ValueError("SQLite needs the path of a file")
    return url.set(drivername=DRIVERS[backend])


def make_engine(url: URL, *, pool: int, patience: float, foreign_keys: bool = True) -> AsyncEngine:
    """An engine for an address of ``parse_url``. ``patience``: seconds to wait for locks and for a connection."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, pool, patience, foreign_keys)
    return _postgresql(url, pool, patience)


class _Connection(sqlite3.Connection):
    """Lets go of its locks when it is closed.

    SQLite closes a connection only when its last statement is gone, and rolls back only then (sqlite3_close_v2). A
    unit that is cancelled leaves its statement in the frames of the error: for as long as that is being handled,
    nobody could write, not even whoever handles it.
    """

    def close(self) -> None:
        # One that is closed already, or broken: it is closed anyway, and SQLite undoes what was begun.
        with suppress(sqlite3.Error):
            if self.in_transaction:
                self.rollback()
        super().close()


def _sqlite(url: URL, pool: int, patience: float, foreign_keys: bool) -> AsyncEngine:
    assert url.database is not None
    # isolation_level=None: the driver begins nothing by itself, _begin does.
    arguments = {"timeout": patience, "isolation_level": None, "factory": _Connection}
    engine = create_async_engine(url, pool_size=pool, max_overflow=0, pool_timeout=patience, connect_args=arguments)
    path = Path(url.database)

    @event.listens_for(engine.sync_engine, "do_connect")
    def _private_file(*_: object) -> None:
        # SQLite would make the file with the permissions of any other; its -wal and -shm take after it.
        if path.parent.is_dir() and not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # NORMAL could forget the last commits when the power fails: records must be there before effects.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("cardwright_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL, pool: int, patience: float) -> AsyncEngine:
    milliseconds = str(round(patience * 1000))
    settings = {
        "application_name": "cardwright",
        "timezone": "UTC",
        "lock_timeout": milliseconds,
        "statement_timeout": str(round(patience * 6000)),
        "idle_in_transaction_session_timeout": str(round(patience * 12000)),
        # Every plan here is short; compiling one costs more than it saves.
        "jit": "off",
    }
    arguments: dict[str, Any] = {"server_settings": settings, "timeout": patience, "command_timeout": patience * 8}
    return create_async_engine(url, pool_size=pool, max_overflow=0, pool_timeout=patience, connect_args=arguments)
