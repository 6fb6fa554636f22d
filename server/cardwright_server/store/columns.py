"""Column types that mean the same on both engines, and the canonical text of JSON documents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator, TypeEngine


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC with microseconds; always aware in Python, whatever the engine keeps.

    PostgreSQL keeps ``timestamptz``; SQLite keeps text of fixed width, so that its order is that of time.
    Binding a time without zone raises ValueError: it would mean another moment on each engine.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """``timestamptz`` where there is one."""
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; without zone for SQLite."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time for the database needs a zone")
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC, aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Document(TypeDecorator[Any]):
    """A small JSON document as canonical text (``canonical``). In Python: dicts, lists, str, int, float, bool, None."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To canonical text."""
        return None if value is None else canonical(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """To Python values."""
        return None if value is None else msgspec.json.decode(value)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. UUIDs and times become strings.

    Raises TypeError for what JSON cannot say.
    """
    return msgspec.json.encode(value, order="sorted").decode()
