"""The language of octets in card scripts: one text builds what is sent, or says what an answer has to look like.

``53(70(<certificate>) 71(00) FE())``: octets in hex, ``<name>`` for a value, ``<name[1:3]>`` for a slice of it,
``00*1856`` for an octet repeated, and ``( )`` around what stands behind a BER length, which is computed. Only in
what an answer is compared with: ``..`` for any octet (``..*8`` for eight), ``{}`` for any run of octets, ``{name}``
for one that is kept under that name, ``[ ]`` around what may be absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.tlv import encode_length

MAX_REPEAT: Final = 0x10000
_TOKEN: Final = re.compile(
    r"\s+|(?P<fill>[0-9A-F]{2}\*[0-9]{1,5})|(?P<octet>[0-9A-F]{2})"
    r"|<(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:\[(?P<start>-?[0-9]*):(?P<end>-?[0-9]*)\])?>"
    r"|(?P<any>\.\.(?:\*(?P<times>[0-9]{1,5}))?)|\{(?P<keep>[a-z_][a-z0-9_]*)?(?P<run>\})|(?P<bracket>[()\[\]])"
)


class ScriptMalformed(CardwrightError):
    """A card script that does not say clearly what to do. ``str`` names the script and the place."""

    code = "SCRIPT_MALFORMED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Correct the script; docs/card-scripts.md describes what may stand in one."


class ScriptValueMissing(CardwrightError):
    """A card script uses a value that it was not given and has not read. ``name`` is the value's."""

    code = "SCRIPT_VALUE_MISSING"
    default_effect = "The script stopped; what it did before that step was done."
    default_advice = "Give the value when the script is started, for example the PIN of the card."

    def __init__(self, name: str) -> None:
        super().__init__(f"The script needs a value named {name}.")
        self.name = name


@dataclass(frozen=True, slots=True)
class Octets:
    """Octets as they are; None stands for any one octet."""

    value: bytes | None


@dataclass(frozen=True, slots=True)
class Value:
    """A value by name, or a part of it."""

    name: str
    part: slice

    def of(self, values: Mapping[str, bytes]) -> bytes:
        """The octets. Raises ScriptValueMissing."""
        if self.name not in values:
            raise ScriptValueMissing(self.name)
        return values[self.name][self.part]


@dataclass(frozen=True, slots=True)
class Run:
    """Any number of octets, kept under ``name`` unless that is empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Group:
    """A BER length and what it is the length of; with ``optional`` a part that may be absent, without a length."""

    items: tuple[Item, ...]
    optional: bool = False


Item = Octets | Value | Run | Group


@dataclass(frozen=True, slots=True)
class Template:
    """A text of the language, read."""

    items: tuple[Item, ...]

    def build(self, values: Mapping[str, bytes]) -> bytes:
        """The octets. Raises ScriptValueMissing, MalformedTlv for a content that no length can say."""
        return _build(self.items, values)

    def match(self, data: bytes, values: Mapping[str, bytes]) -> dict[str, bytes] | None:
        """What ``data`` has in the places that are kept; None when it does not fit. Raises ScriptValueMissing."""
        for end, kept in _match(self.items, data, 0, values):
            if end == len(data):
                return kept
        return None

    @property
    def builds(self) -> bool:
        """Whether it says each octet, so that it can be built."""
        return _builds(self.items)


def parse(text: str) -> Template:
    """Read ``text``. Raises ScriptMalformed."""
    stack: list[tuple[str, list[Item]]] = [("", [])]
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise ScriptMalformed(f"{text!r} cannot be read from {text[at : at + 12]!r} on")
        at = token.end()
        bracket = token["bracket"]
        if bracket in ("(", "["):
            stack.append((bracket, []))
        elif bracket:
            opened, items = stack.pop()
            if opened + bracket not in ("()", "[]"):
                raise ScriptMalformed(f"{text!r} closes a bracket that is not open")
            stack[-1][1].append(Group(tuple(items), bracket == "]"))
        else:
            stack[-1][1].extend(_item(token))
    if len(stack) != 1:
        raise ScriptMalformed(f"{text!r} leaves a bracket open")
    return Template(tuple(stack[0][1]))


def _item(token: re.Match[str]) -> Iterator[Item]:
    if token["fill"]:
        octet, _, times = token["fill"].partition("*")
        if int(times) > MAX_REPEAT:
            raise ScriptMalformed(f"{token[0]!r} repeats an octet more than {MAX_REPEAT} times")
        yield Octets(bytes.fromhex(octet) * int(times))
    elif token["octet"]:
        yield Octets(bytes.fromhex(token["octet"]))
    elif token["name"]:
        start, end = (int(limit) if limit else None for limit in (token["start"], token["end"]))
        yield Value(token["name"], slice(start, end))
    elif token["any"]:
        yield from (Octets(None) for _ in range(int(token["times"] or 1)))
    elif token["run"]:
        yield Run(token["keep"] or "")


def _builds(items: tuple[Item, ...]) -> bool:
    for item in items:
        match item:
            case Octets(None) | Run():
                return False
            case Group(inner, optional):
                if optional or not _builds(inner):
                    return False
            case _:
                pass
    return True


def _build(items: tuple[Item, ...], values: Mapping[str, bytes]) -> bytes:
    built = b""
    for item in items:
        match item:
            case Octets(value):
                built += value or b""
            case Value():
                built += item.of(values)
            case Group(inner):
                content = _build(inner, values)
                built += encode_length(len(content)) + content
            case Run():
                raise ScriptMalformed("a run of any octets cannot be built")
    return built


def _match(
    items: tuple[Item, ...], data: bytes, at: int, values: Mapping[str, bytes]
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Every end that ``items`` can have in ``data`` from ``at`` on, each with what is kept; longest runs last."""
    if not items:
        yield at, {}
        return
    first, rest = items[0], items[1:]
    for end, kept in _match_one(first, data, at, values):
        for last, more in _match(rest, data, end, values):
            yield last, kept | more


def _match_one(
    item: Item, data: bytes, at: int, values: Mapping[str, bytes]
) -> Iterator[tuple[int, dict[str, bytes]]]:
    match item:
        case Octets(None):
            if at < len(data):
                yield at + 1, {}
        case Octets() | Value():
            wanted = item.of(values) if isinstance(item, Value) else item.value or b""
            if data.startswith(wanted, at):
                yield at + len(wanted), {}
        case Run(name):
            for end in range(at, len(data) + 1):
                yield end, {name: data[at:end]} if name else {}
        case Group(inner, True):
            yield from _match(inner, data, at, values)
            yield at, {}
        case Group(inner):
            start, end = _length(data, at)
            if start:
                for stop, kept in _match(inner, data[:end], start, values):
                    if stop == end:
                        yield end, kept


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Where the content starts and ends whose BER length is at ``at``; (0, 0) where there is none of it."""
    if at >= len(data):
        return 0, 0
    octets = data[at] & 0x7F if data[at] & 0x80 else 0
    start = at + 1 + octets
    size = int.from_bytes(data[at + 1 : start], "big") if octets else data[at]
    if octets > 3 or data[at] == 0x80 or start + size > len(data):
        return 0, 0
    return start, start + size
