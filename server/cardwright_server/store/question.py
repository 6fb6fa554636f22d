"""Questions that are asked so often that the way through SQLAlchemy costs more than the answer.

They are made by SQLAlchemy all the same, once; on PostgreSQL the driver itself gets the text and the values. SQLite is
not asked that often, and goes the usual way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import ColumnElement, Select, any_, bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .faults import Fault, fault_of

Among = Callable[[ColumnElement[Any], str], ColumnElement[bool]]
"""That a column is one of the list which the parameter of this name is."""


class Question:
    """One SELECT whose only parameters are those that are named when it is asked. Made once, kept for good.

    ``make`` gets an ``Among``. Columns are of types that both drivers give alike by themselves: UUID, text, whole
    numbers, octets, times. A document is asked for as text.
    """

    def __init__(self, make: Callable[[Among], Select[Any]]) -> None:
        self._make = make

    async def ask(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows. Raises DBAPIError, TimeoutError."""
        if connection.dialect.name != "postgresql":
            result = await connection.execute(self._usual, parameters)
            return cast("Sequence[Sequence[Any]]", result.all())
        text, names = self._compiled
        driver: Any = (await connection.get_raw_connection()).driver_connection
        try:
            rows: Sequence[Sequence[Any]] = await driver.fetch(text, *(parameters[name] for name in names))
        except (TimeoutError, asyncio.CancelledError):
            # What the line still carries belongs to nobody.
            await connection.invalidate()
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            # The server may say why before it hangs up, and the driver notice the end before it says that it is closed;
            # what the driver refuses to send at all is a ValueError besides.
            ended = driver.is_closed() or not isinstance(error, asyncpg.PostgresError | ValueError)
            meant = DBAPIError(text, None, error, connection_invalidated=ended)
            if fault_of(meant) is Fault.GONE:
                await connection.invalidate(error)
            raise meant from error
        return rows

    @cached_property
    def _usual(self) -> Select[Any]:
        return self._make(lambda column, name: column.in_(bindparam(name, expanding=True)))

    @cached_property
    def _compiled(self) -> tuple[str, tuple[str, ...]]:
        """Text, and the names of its parameters in order."""
        statement = self._make(_any_of)
        compiled = statement.compile(dialect=asyncpg_dialect())  # type: ignore[no-untyped-call]
        # In one line, as it is to stand in the database's log.
        return " ".join(str(compiled).split()), tuple(compiled.positiontup or ())


def _any_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    return column == any_(bindparam(name, type_=postgresql.ARRAY(column.type)))
