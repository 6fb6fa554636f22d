"""Strict, bounded reading of what calls carry: ids, moments, choices, texts, pages. One error for all of it."""

from __future__ import annotations

import base64
import binascii
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

T = TypeVar("T")

DEFAULT_PAGE: Final = 50
MOST_ON_PAGE: Final = 200
LONGEST_TOKEN: Final = 4000
LONGEST_TEXT: Final = 1000
LONGEST_SECRET: Final = 1000
MOST_ROWS: Final = 200
"""Entries of any repeated field, unless its reader says otherwise."""


class RequestMalformed(CardwrightError):
    """The message of a call is not one of this contract, or one of its fields is empty, too long or of another form.

    It names the field, and never repeats what stood in it.
    """

    code = "REQUEST_MALFORMED"
    default_effect = "Nothing was done, and nothing recorded."
    default_advice = "Correct the field that is named; a program that is older or newer than the server is updated."


def identifier(text: str, name: str) -> UUID:
    """A UUID in its canonical form: lower case, with hyphens. Raises RequestMalformed."""
    try:
        made = UUID(text)
    except ValueError:
        raise RequestMalformed(f"{name} is no UUID.") from None
    if str(made) != text:
        raise RequestMalformed(f"{name} is no UUID in its canonical form.")
    return made


def optional_identifier(text: str, name: str) -> UUID | None:
    """As ``identifier``, or None for an empty field."""
    return identifier(text, name) if text else None


def identifiers(texts: Sequence[str], name: str, most: int = MOST_ROWS) -> tuple[UUID, ...]:
    """UUIDs, each once. Raises RequestMalformed."""
    at_most(texts, most, name)
    found = tuple(identifier(text, name) for text in texts)
    if len(set(found)) != len(found):
        raise RequestMalformed(f"{name} names something twice.")
    return found


def at_most(rows: Sequence[object] | Mapping[Any, Any], most: int, name: str) -> None:
    """Raise RequestMalformed where a repeated field has too many entries."""
    if len(rows) > most:
        raise RequestMalformed(f"{name} has more than {most} entries.")


def choice(table: Mapping[int, T], number: int, name: str) -> T:
    """What an enum's number stands for; 0 is "not given". Raises RequestMalformed."""
    if number not in table:
        raise RequestMalformed(
            f"{name} is not given." if number == 0 else f"{name} has a value that is not known here."
        )
    return table[number]


def optional_choice(table: Mapping[int, T], number: int, name: str) -> T | None:
    """As ``choice``, or None for an enum that is not given."""
    return choice(table, number, name) if number else None


def line(text: str, name: str, most: int = LONGEST_TEXT, *, least: int = 0) -> str:
    """A text without line breaks and other control characters; one that is given has something to see.

    Raises RequestMalformed.
    """
    if not least <= len(text) <= most:
        raise RequestMalformed(f"{name} has {least} to {most} characters.")
    if any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in text):
        raise RequestMalformed(f"{name} has control characters.")
    if text and all(letter.isspace() or unicodedata.category(letter) == "Cf" for letter in text):
        raise RequestMalformed(f"{name} is blank.")
    return text


def block(text: str, name: str, most: int) -> str:
    """A text that may have several lines. Raises RequestMalformed."""
    if len(text) > most:
        raise RequestMalformed(f"{name} is longer than {most} characters.")
    return text


def octets(value: bytes, name: str, least: int, most: int) -> bytes:
    """Octets of a length within limits. Raises RequestMalformed."""
    if not least <= len(value) <= most:
        raise RequestMalformed(f"{name} has {least} to {most} octets.")
    return value


def secret(value: str | bytes, name: str, most: int = LONGEST_SECRET) -> Secret:
    """Something that is never shown; text as UTF-8. Raises RequestMalformed."""
    raw = value.encode() if isinstance(value, str) else value
    if len(raw) > most:
        raise RequestMalformed(f"{name} is longer than {most} octets.")
    return Secret(raw)


def moment(value: Timestamp, name: str) -> datetime:
    """A moment, UTC. Raises RequestMalformed for what is no Timestamp (years 1 to 9999)."""
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise RequestMalformed(f"{name} is no moment.") from None


def stamp(value: datetime) -> Timestamp:
    """A moment as messages carry it."""
    made = Timestamp()
    made.FromDatetime(value)
    return made


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a listing is wanted: at most ``size``, from beyond ``after``.

    ``after`` holds the sort keys of the last entry that was shown; empty at the beginning.
    """

    size: int
    after: tuple[str, ...] = ()

    @property
    def asked(self) -> int:
        """How many to read: one more, to see whether anything follows."""
        return self.size + 1

    def cut(self, found: Sequence[T]) -> tuple[Sequence[T], T | None]:
        """What is shown of what was read, and its last entry if more follows."""
        if len(found) <= self.size:
            return found, None
        return found[: self.size], found[self.size - 1]


def page(size: int, token: str, keys: int = 1) -> Page:
    """A page by the two fields of a listing; ``keys``: how many sort keys a token holds. Raises RequestMalformed."""
    if size > MOST_ON_PAGE:
        raise RequestMalformed(f"page_size is at most {MOST_ON_PAGE}.")
    if not token:
        return Page(size or DEFAULT_PAGE)
    try:
        if len(token) > LONGEST_TOKEN:
            raise ValueError
        after = msgspec.json.decode(base64.b64decode(token, altchars=b"-_", validate=True), type=tuple[str, ...])
        if len(after) != keys:
            raise ValueError
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise RequestMalformed("page_token is none that this listing gave.") from None
    return Page(size or DEFAULT_PAGE, after)


def page_token(*keys: str) -> str:
    """The token of the page that follows an entry with these sort keys."""
    return base64.urlsafe_b64encode(msgspec.json.encode(keys)).decode("ascii")
