"""Strict, bounded reading of protobuf messages: the limits, the two errors, and small checks of one value each.

``wire`` builds on it. Nothing here knows a message of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from .errors import CardwrightError
from .iso7816.apdu import MAX_EXTENDED, MAX_EXTENDED_LE
from .secret import Secret

M = TypeVar("M", bound=Message)
K = TypeVar("K")

MAX_MESSAGE: Final = 1 << 20
"""Octets of one encoded message."""
MAX_ITEMS: Final = 512
"""Items of one batch, and groups of one batch."""
MAX_ACCEPT: Final = 64
"""Expected status words of one item."""
MAX_APDUS: Final = 512
"""Wrapped APDUs of one sealed item."""
MAX_APDU_OCTETS: Final = MAX_EXTENDED + 9
"""Octets of one wrapped APDU: the longest extended form."""
MAX_ANSWER_OCTETS: Final = MAX_EXTENDED_LE
"""Octets of the data of one answer."""
MAX_NAME_OCTETS: Final = 2048
"""Octets of the subject of a request."""
MAX_TEXT: Final = 600
"""Characters of any one text."""
MAX_DOCUMENT_TEXT: Final = 1 << 14
"""Characters of any one text of an inventory or plan: a public key of 4096 bits, a long subject."""
MAX_CODE: Final = 64
"""Characters of an error code or of a stage."""
NONCE_OCTETS: Final = (8, 64)
"""Least and most octets of a verifier's nonce (RFC 3163 section 3; our own limit)."""
PUK_OCTETS: Final = 8
DIGEST_OCTETS: Final = 32

_PIN_REFERENCES: Final = (0x80, 0x00)
_BLOCKED_REFERENCES: Final = (0x80, 0x81)
_NUMBER: Final = re.compile(r"[0-9A-F]{2,6}")
_NUMBERS: Final = frozenset(("slot", "tag", "algorithm", "announced"))
"""Fields of documents that hold a number in hexadecimal, spelled in one way only."""
_NONE_WHEN_EMPTY: Final = frozenset(("retired_counts",))
"""Repeated fields whose absence a document calls null."""


class WireUnsupported(CardwrightError):
    """A message with a field, a kind or a value that this version does not know, or that has no wire form."""

    code = "WIRE_UNSUPPORTED"
    default_effect = "Nothing of it was sent to the card."
    default_advice = "One side of the line is too old for the other; update it."


class WireMalformed(CardwrightError):
    """A message that breaks its own rules: something is missing, too long or out of range."""

    code = "WIRE_MALFORMED"
    default_effect = "Nothing of it was sent to the card."
    default_advice = "The other side of the line is defective or hostile; do not use it before it is examined."


def parse(raw: bytes, kind: type[M]) -> M:
    """The message of ``kind`` in ``raw``. Raises WireMalformed."""
    if len(raw) > MAX_MESSAGE:
        raise WireMalformed(f"A message of {len(raw)} octets is longer than {MAX_MESSAGE}.")
    message = kind()
    try:
        message.ParseFromString(raw)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise WireMalformed(f"These octets are no {kind.DESCRIPTOR.name}.") from None
    return message


def key_of(table: Mapping[K, int], number: int, what: str) -> K:
    """The key of ``number`` in a table of enum numbers; 0 is "not given". Raises WireMalformed, WireUnsupported."""
    for key, known in table.items():
        if known == number:
            return key
    if number == 0:
        raise WireMalformed(f"A message does not give its {what}.")
    raise WireUnsupported(f"There is no {what} {number} in this version.")


def refuse_unknown(message: Message) -> None:
    """Raise WireUnsupported where a field that is not known here stands anywhere in ``message``."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if len(UnknownFieldSet(one)):
            raise WireUnsupported(f"A {one.DESCRIPTOR.name} has a field that this version does not know.")
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else (value,))


def require(message: Message, *names: str) -> None:
    """Raise WireMalformed where one of these fields is not set."""
    for name in names:
        if not message.HasField(name):
            raise WireMalformed(f"A {message.DESCRIPTOR.name} does not give its {name}.")


def pin_reference(number: int) -> int:
    """Application PIN or Global PIN. Raises WireMalformed."""
    if number not in _PIN_REFERENCES:
        raise WireMalformed("There is no such PIN reference.")
    return number


def blocked_reference(number: int) -> int:
    """Application PIN or PUK. Raises WireMalformed."""
    if number not in _BLOCKED_REFERENCES:
        raise WireMalformed("There is no such reference to block.")
    return number


def puk(value: bytes) -> Secret:
    """A PUK. Raises WireMalformed."""
    return Secret(octets(value, "PUK", PUK_OCTETS, PUK_OCTETS))


def nonce(value: bytes) -> bytes:
    """A verifier's nonce. Raises WireMalformed."""
    return octets(value, "nonce", *NONCE_OCTETS)


def octet(number: int, what: str) -> int:
    """A number of one octet. Raises WireMalformed."""
    if number > 0xFF:
        raise WireMalformed(f"The {what} is more than one octet.")
    return number


def word(number: int) -> int:
    """A status word. Raises WireMalformed."""
    if not 0x6000 <= number <= 0x9FFF:
        raise WireMalformed("A status word is out of range.")
    return number


def octets(value: bytes, what: str, least: int, most: int) -> bytes:
    """Octets of a length within limits. Raises WireMalformed."""
    if not least <= len(value) <= most:
        raise WireMalformed(f"The {what} has {len(value)} octets; {least} to {most} are allowed.")
    return value


def text(value: str, what: str, most: int = MAX_TEXT) -> str:
    """A text of one line without control characters. Raises WireMalformed."""
    if len(value) > most or not value.isprintable():
        raise WireMalformed(f"The {what} is too long or has control characters.")
    return value


def clean(value: str) -> str:
    """What ``text`` accepts of any text: cut, blanks for control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in value[:MAX_TEXT])


def at_most(number: int, most: int, what: str) -> None:
    """Raise WireMalformed where there are too many."""
    if number > most:
        raise WireMalformed(f"There are {number} {what}; {most} are allowed.")


def at_least_one(number: int, what: str) -> None:
    """Raise WireMalformed where there are none."""
    if not number:
        raise WireMalformed(f"There are no {what}.")


# Some messages have the fields of a JSON document, so one pair of functions carries those over.


def filled(message: M, document: Mapping[str, Any]) -> M:
    """``message`` with the values of ``document``; None is not set. Every name of the document is a field."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            part = getattr(message, name)
            part.SetInParent()
            filled(part, value)
        elif value and isinstance(value, list) and isinstance(value[0], Mapping):
            for one in value:
                filled(getattr(message, name).add(), one)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        elif value is not None:
            setattr(message, name, value)
    return message


def document_of(message: Message) -> dict[str, Any]:
    """The document of a message; None for what is not set. Raises WireMalformed for what is too long or too many."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            at_most(len(value), MAX_ITEMS, field.name)
            rows = [_plain(one, field.name) for one in value]
            document[field.name] = rows or (None if field.name in _NONE_WHEN_EMPTY else [])
        elif field.has_presence and not message.HasField(field.name):
            document[field.name] = None
        else:
            document[field.name] = _plain(value, field.name)
    return document


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Message):
        return document_of(value)
    if isinstance(value, str) and len(value) > MAX_DOCUMENT_TEXT:
        raise WireMalformed("A text is too long.")
    if name in _NUMBERS and _NUMBER.fullmatch(value) is None:
        raise WireMalformed(f"A {name} is no number in hexadecimal.")
    return value
