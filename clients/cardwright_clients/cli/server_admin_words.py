"""Messages of the server as JSON and as words: enums by their names, moments in ISO 8601, what is not set as null."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import click
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from .output import show_fields, show_json, show_table

T = TypeVar("T")
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


def document(message: Message) -> dict[str, object]:
    """Every field of a message. Empty texts, enums that are not given and moments that are not set are None."""
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> object:
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_one(field, one) for one in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _one(field, value)


def _one(field: Any, value: Any) -> object:
    if field.message_type is not None:
        return moment(value) if isinstance(value, Timestamp) else document(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return None if value == 0 else str(value) if named is None else _word(field.enum_type.name, named.name)
    if isinstance(value, bytes):
        return value.hex() or None
    return None if value == "" else value


def moment(value: Timestamp) -> str:
    """ISO 8601, UTC, whole seconds."""
    return f"{value.ToDatetime():%Y-%m-%dT%H:%M:%S}Z"


def choices(enum: Any) -> Mapping[str, int]:
    """Numbers of an enum of the contract by the words of the command line: ``DEVICE_STATE_IN_PRODUCTION`` is
    ``in-production``. Without 0."""
    name = enum.DESCRIPTOR.name
    return {_word(name, member): number for member, number in enum.items() if number}


def chosen(enum: Any, *, only: Iterable[str] = ()) -> click.Choice[str]:
    """The words of an enum as a type of options; ``only`` these."""
    words = choices(enum)
    return click.Choice([word for word in words if not only or word in only])


def numbers(enum: Any, words: Iterable[str]) -> list[Any]:
    """Numbers of words that ``chosen`` let through."""
    known = choices(enum)
    return [known[word] for word in words]


def show_listing(found: Iterable[Message], name: str, columns: Mapping[str, str], *, as_json: bool) -> None:
    """A table of ``columns`` (field by head), or JSON with every field."""
    rows = [document(one) for one in found]
    if as_json:
        show_json({name: rows})
    else:
        show_table([[text(row[column]) for column in columns.values()] for row in rows], list(columns))


def show_one(found: Mapping[str, object], *, as_json: bool) -> None:
    """One thing: ``name: value`` lines, without what is not set, or JSON."""
    if as_json:
        show_json(dict(found))
    else:
        show_fields((name.replace("_", " "), text(value)) for name, value in found.items() if value not in (None, []))


def show_steps(steps: Iterable[Message]) -> None:
    """A history as a table."""
    rows = [document(one) for one in steps]
    names = ("at", "event", "before", "after", "actor", "who")
    show_table([[text(row[name]) for name in names] for row in rows], [name.upper() for name in names])


def text(value: object) -> str:
    """A value for people."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(text(one) for one in value)
        case dict():
            told = {name: one for name, one in value.items() if one not in (None, False, [])}
            return " ".join(name if one is True else text(one) for name, one in told.items())
        case _:
            return str(value)


def _word(enum: str, member: str) -> str:
    prefix = _WORDS.sub("_", enum).upper() + "_"
    return member.removeprefix(prefix).lower().replace("_", "-")
