"""Units of work: one transaction, with the time of the database, and what must commit together with it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, CursorResult, Executable, Row, Table, func, insert, literal, select
from sqlalchemy import update as sql_update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..audit.model import AuditEntry
from ..audit.rows import rows_of
from ..notify.model import DomainEvent
from .audit_tables import audit_detail, audit_entry
from .columns import UtcTime
from .engine import make_engine, parse_url
from .errors import CommitInDoubt, StaleVersion, StoreError
from .faults import Fault, fault_of, store_error
from .ids import new_id
from .notify_tables import outbox
from .question import Question
from .second_medium import JournalEvent, SecondMedium

T = TypeVar("T")
Clock = Callable[[], datetime]


class Isolation(Enum):
    """How far a transaction that writes is kept apart from others on PostgreSQL. SQLite always serializes."""

    SERIALIZABLE = "SERIALIZABLE"
    """As if one ran after the other. The default; what services decide by reading stays true until commit."""
    READ_COMMITTED = "READ COMMITTED"
    """For claims on queues, which lock the one row they take and decide nothing by others."""


class Unit:
    """One transaction. Made by ``Database``; not used after its work returned."""

    __slots__ = ("_afterwards", "_audit", "_before", "_events", "_now", "_writes", "connection")

    def __init__(self, connection: AsyncConnection, now: datetime | None, *, writes: bool) -> None:
        self.connection = connection
        self._now = now
        self._writes = writes
        self._audit: list[AuditEntry] = []
        self._events: list[DomainEvent] = []
        self._before: list[JournalEvent] = []
        self._afterwards: list[Callable[[], None]] = []

    @property
    def now(self) -> datetime:
        """Time of the database at the beginning of the transaction. Raises RuntimeError in an untimed read."""
        if self._now is None:
            raise RuntimeError("this unit was begun without asking the time; use unit.time in the statement")
        return self._now

    @property
    def time(self) -> ColumnElement[datetime]:
        """The same moment as an expression for a statement; costs no statement of its own."""
        return literal(self._now, UtcTime) if self._now is not None else func.now(type_=UtcTime)

    @property
    def known_time(self) -> datetime | None:
        """The same moment, None in an untimed read: for statements that are made once and say ``now()`` then."""
        return self._now

    @property
    def postgresql(self) -> bool:
        """Whether this is PostgreSQL."""
        return self.connection.dialect.name == "postgresql"

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run one statement; a list of parameters runs it once for each."""
        return await self.connection.execute(statement, parameters)

    async def ask(self, question: Question, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of a question that is asked very often: see ``question``."""
        return await question.ask(self.connection, parameters)

    async def rows(self, statement: Executable) -> Sequence[Row[Any]]:
        """All rows of a statement."""
        return (await self.execute(statement)).all()

    async def row(self, statement: Executable) -> Row[Any] | None:
        """The only row, or None. Raises MultipleResultsFound if there are more."""
        return (await self.execute(statement)).one_or_none()

    async def value(self, statement: Executable) -> Any:
        """The first column of the only row, or None. Raises MultipleResultsFound if there are more rows."""
        return (await self.execute(statement)).scalar_one_or_none()

    async def insert(self, table: Table, values: Mapping[str, Any]) -> UUID:
        """Add a row and give its id. ``id``, ``created_at``, ``changed_at``, ``version`` are filled in if missing."""
        row = self._filled(table, values)
        await self.execute(insert(table).values(row))
        identifier: UUID = row["id"]
        return identifier

    async def insert_many(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows by one statement, filled in like one of ``insert``. All need the same keys."""
        if rows:
            await self.execute(insert(table), [self._filled(table, row) for row in rows])

    async def insert_if_absent(self, table: Table, values: Mapping[str, Any], unique: Sequence[str]) -> Any:
        """Add a row unless one with the same ``unique`` columns is there (they need a unique index of exactly these).

        Gives the new row's primary key, or None if there was one already; the transaction goes on either way.
        """
        row = self._filled(table, values)
        statement = (postgresql if self.postgresql else sqlite).insert(table).values(row)
        key = next(iter(table.primary_key.columns))
        return await self.value(statement.on_conflict_do_nothing(index_elements=list(unique)).returning(key))

    async def update(self, table: Table, identifier: UUID, version: int, values: Mapping[str, Any]) -> int:
        """Change a row that still has ``version``, and give its new version.

        Raises StaleVersion if another transaction changed or removed it since it was read.
        """
        statement = (
            sql_update(table)
            .where(table.c.id == identifier, table.c.version == version)
            .values(**values, changed_at=self.time, version=version + 1)
        )
        if (await self.execute(statement)).rowcount != 1:
            raise StaleVersion(f"the {table.name} {identifier} was changed by another act")
        return version + 1

    def audit(self, entry: AuditEntry) -> None:
        """Record what happened, in this transaction. Personal detail goes beside the chain (``audit.model``)."""
        self._must_write()
        self._audit.append(entry)

    def emit(self, event: DomainEvent) -> None:
        """Tell other parts, in this transaction."""
        self._must_write()
        self._events.append(event)

    def beforehand(self, event: JournalEvent) -> None:
        """Write an event to the second medium, and wait until it is there, before this transaction commits."""
        self._must_write()
        self._before.append(event)

    def afterwards(self, hint: Callable[[], None]) -> None:
        """Call something once, after the commit: a hint for a waiting task. It is lost if the process dies."""
        self._afterwards.append(hint)

    def _must_write(self) -> None:
        if not self._writes:
            raise RuntimeError("a unit that only reads records nothing")

    def _filled(self, table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
        row = dict(values)
        if "id" in table.c:
            row.setdefault("id", new_id())
        for name in ("created_at", "changed_at"):
            if name in table.c and name not in row:
                row[name] = self.now
        if "version" in table.c:
            row.setdefault("version", 1)
        return row

    async def _flush(self) -> None:
        """Write what was collected: at most one statement for each kind of row."""
        entries = [rows_of(entry, self.now) for entry in self._audit]
        await self.insert_many(audit_entry, [row for row, _ in entries])
        await self.insert_many(audit_detail, [detail for _, detail in entries if detail is not None])
        await self.insert_many(outbox, [_event_row(event) for event in self._events])


def _event_row(event: DomainEvent) -> dict[str, Any]:
    return {
        "org": event.org,
        "name": event.name,
        "subject_kind": event.subject_kind,
        "subject": event.subject,
        "person": event.person,
        "data": dict(event.data),
        "correlation": event.correlation,
    }


class Database:
    """The store, made once per process and loop.

    ``url``: see ``engine.parse_url``. ``second_medium`` receives what ``Unit.beforehand`` is given; without one that
    call is an error. ``clock`` replaces the database's time, for tests. ``patience``: seconds to wait for a lock or a
    connection. ``attempts``: how often a unit that collides is begun.
    """

    def __init__(
        self,
        url: str,
        *,
        second_medium: SecondMedium | None = None,
        clock: Clock | None = None,
        pool: int = 10,
        patience: float = 5.0,
        attempts: int = 12,
    ) -> None:
        self.url = parse_url(url)
        self.engine: AsyncEngine = make_engine(self.url, pool=pool, patience=patience)
        self.retries = 0
        """How many units were begun again since the process started."""
        self._medium = second_medium
        self._attempts = attempts
        self._sqlite = self.url.get_backend_name() == "sqlite"
        # SQLite's clock is that of this host: it lives in this process.
        self._clock = clock or (_host_clock if self._sqlite else None)
        # One writer of this process at a time, in order of arrival. SQLite has one lock for all, and waits for it by
        # polling. PostgreSQL judges collisions by pages of an index, and new rows of a table share the last one: of
        # ten card sessions at a time most would begin again until they give up, and all of it on this one processor.
        # What is left to collide with are other processes.
        self._turn = asyncio.Lock()
        self._writers = {
            one: self.engine if self._sqlite else self.engine.execution_options(isolation_level=one.value)
            for one in Isolation
        }
        if self._sqlite:
            self._readers = self._glances = self.engine.execution_options(cardwright_reads=True)
        else:
            self._readers = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._glances = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def second_medium(self) -> SecondMedium | None:
        """What ``Unit.beforehand`` is written to."""
        return self._medium

    async def transact(
        self, work: Callable[[Unit], Awaitable[T]], *, isolation: Isolation = Isolation.SERIALIZABLE
    ) -> T:
        """Run ``work`` in a transaction and commit. ``work`` must be safe to run again: it is, after a collision.

        Raises what ``work`` raises (nothing is recorded then), DatabaseBusy, DatabaseUnavailable, DatabaseFull,
        CommitInDoubt, SecondMediumUnavailable, and SQLAlchemy's errors for mistakes in statements.
        """
        waits = self._sqlite or isolation is Isolation.SERIALIZABLE
        async with self._turn if waits else nullcontext():
            return await self._repeated(self._writers[isolation], work, writes=True, timed=True)

    async def read(self, work: Callable[[Unit], Awaitable[T]], *, timed: bool = True) -> T:
        """Run ``work`` on one snapshot, read only. ``timed=False`` saves PostgreSQL the statement that asks the time.

        Raises what ``work`` raises, DatabaseBusy and DatabaseUnavailable.
        """
        return await self._repeated(self._readers, work, writes=False, timed=timed)

    async def glance(self, work: Callable[[Unit], Awaitable[T]]) -> T:
        """Run ``work``, which only selects, each statement on PostgreSQL by itself: for what is asked very often.

        There is no snapshot, no time asked for, and no BEGIN and ROLLBACK, which would be half of the waiting.
        Raises as ``read``.
        """
        return await self._repeated(self._glances, work, writes=False, timed=False)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    async def _repeated(
        self, engine: AsyncEngine, work: Callable[[Unit], Awaitable[T]], *, writes: bool, timed: bool
    ) -> T:
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        seen: dict[Fault, int] = {}
        limits = {Fault.COLLISION: self._attempts, Fault.GONE: 3, Fault.TAKEN: 2}
        while True:
            try:
                return await self._once(engine, work, writes=writes, timed=timed)
            except (SQLAlchemyError, ConnectionError, TimeoutError) as error:
                if task is not None and task.cancelling() > cancelled:
                    # The connection broke while the unit was being given up: that is not what ended it.
                    raise asyncio.CancelledError from error
                fault = fault_of(error)
                times = seen[fault] = seen.get(fault, 0) + 1
                if times >= limits.get(fault, 1) or (fault is Fault.TAKEN and self._sqlite):
                    ours = store_error(fault, error)
                    if ours is None:
                        raise
                    raise ours from error
            self.retries += 1
            # Full jitter: those that collided once should not meet again.
            await asyncio.sleep(random.uniform(0, min(0.5, 0.002 * 2**times)))

    async def _once(self, engine: AsyncEngine, work: Callable[[Unit], Awaitable[T]], *, writes: bool, timed: bool) -> T:
        async with self._begun(engine) as connection:
            unit = Unit(connection, await self._time(connection, timed=timed), writes=writes)
            result = await work(unit)
            if not writes:
                return result
            await unit._flush()
            await self._commit(unit)
        for hint in unit._afterwards:
            hint()
        return result

    @asynccontextmanager
    async def _begun(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except (OSError, DBAPIError) as error:
                if isinstance(error, DBAPIError) and fault_of(error) is not Fault.OURS:
                    raise
                # No such socket, no such host, refused, not accepting: all the same to the caller.
                raise ConnectionError(str(error)) from error
            await connection.begin()
            yield connection

    async def _time(self, connection: AsyncConnection, *, timed: bool) -> datetime | None:
        if self._clock is not None:
            return self._clock()
        if not timed:
            return None
        return (await connection.execute(select(func.now(type_=UtcTime)))).scalar_one()

    async def _commit(self, unit: Unit) -> None:
        written = None
        if unit._before:
            if self._medium is None:
                raise RuntimeError("there is no second medium for this event")
            written = await self._medium.append(unit._before, unit.now)
        try:
            await unit.connection.commit()
        except (SQLAlchemyError, ConnectionError, TimeoutError) as error:
            fault = fault_of(error)
            if fault is Fault.GONE and not self._sqlite:
                raise CommitInDoubt("the connection was lost during the commit") from error
            if written is not None and self._medium is not None:
                self._medium.settle(written, took_effect=False)
            raise
        if written is not None and self._medium is not None:
            self._medium.settle(written, took_effect=True)


def _host_clock() -> datetime:
    return datetime.now(UTC)


def shifted(by: timedelta) -> Clock:
    """The host's clock, shifted: for tests of leases and expiry."""
    return lambda: datetime.now(UTC) + by


__all__ = ["Clock", "Database", "Isolation", "JournalEvent", "StoreError", "Unit", "shifted"]
