"""What an item means: the strict reading of commands, one row for each instruction.

A command that is not exactly of the form that the standard or its vendor gives has no meaning here and is refused
(``Deny``). Nothing is decided yet: ``rules`` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from ..iso7816.apdu import CommandAPDU
from ..iso7816.tlv import MalformedTlv, encode_tag, iterate, parse_one, parse_unique
from ..program.items import Block, Prove, SetPin, SetPuk, SignIn, SignRequest, Unblock, UseKey, VerifyPin
from . import constants as c
from .keys import ALGORITHMS, Unreadable, fingerprint, imported_key
from .verdict import Deny, Rule


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT of an application."""

    aid: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """GET DATA of one container."""

    tag: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A question that changes nothing: state of a PIN, metadata of ``reference``, serial, version."""

    ins: int
    reference: int = 0


@dataclass(frozen=True, slots=True)
class Forget:
    """VERIFY with P1=FF: drop the PIN status."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A step of management-key authentication; ``answers`` where the host's answer is in it."""

    algorithm: int
    answers: bool


@dataclass(frozen=True, slots=True)
class Generate:
    """GENERATE ASYMMETRIC KEY PAIR."""

    slot: int
    algorithm: int
    pin_policy: int
    touch_policy: int


@dataclass(frozen=True, slots=True)
class Import:
    """IMPORT ASYMMETRIC KEY. ``key`` is the fingerprint of its public half."""

    slot: int
    algorithm: int
    pin_policy: int
    touch_policy: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Put:
    """PUT DATA. ``content`` is what goes inside 53, or the whole of 7E and 7F61."""

    tag: int
    content: bytes

    def __repr__(self) -> str:
        return f"Put({self.tag:X}, {len(self.content)} octets)"


@dataclass(frozen=True, slots=True)
class Manager:
    """SET MANAGEMENT KEY. ``factory``: to the value that every card is delivered with."""

    algorithm: int
    touch: bool
    factory: bool


@dataclass(frozen=True, slots=True)
class Move:
    """MOVE KEY; ``target`` None deletes."""

    source: int
    target: int | None


@dataclass(frozen=True, slots=True)
class Retries:
    """SET PIN RETRIES."""

    pin: int
    puk: int


@dataclass(frozen=True, slots=True)
class ResetAll:
    """RESET of the application."""


@dataclass(frozen=True, slots=True)
class Statement:
    """ATTEST: a statement on the slot's key, signed by the attestation key."""

    slot: int


@dataclass(frozen=True, slots=True)
class Channel:
    """INITIALIZE UPDATE, or EXTERNAL AUTHENTICATE where ``answers``."""

    answers: bool


@dataclass(frozen=True, slots=True)
class Sealed:
    """A wrapped command, of which only the header can be read."""

    ins: int
    p1: int
    p2: int


CommandIntent: TypeAlias = (
    Select
    | Read
    | Ask
    | Forget
    | Authenticate
    | Generate
    | Import
    | Put
    | Manager
    | Move
    | Retries
    | ResetAll
    | Statement
    | Channel
    | Sealed
)
KeyIntent: TypeAlias = VerifyPin | SetPin | Unblock | SetPuk | Block | Prove | SignRequest | SignIn | UseKey
Intent: TypeAlias = CommandIntent | KeyIntent


def meaning_of(command: CommandAPDU) -> CommandIntent | Deny:
    """What ``command`` means, Deny where it means nothing that the guard knows."""
    reader = _READERS.get((command.cla, command.ins))
    if reader is None:
        return Deny(Rule.ITEM, f"the guard has no rule for instruction {command.ins:02X} of class {command.cla:02X}")
    try:
        meaning = reader(command)
    except (MalformedTlv, Unreadable, ValueError, KeyError, IndexError):
        meaning = None
    if meaning is None:
        return Deny(Rule.ITEM, f"parameters or data of instruction {command.ins:02X} are not of the known form")
    return meaning


def _select(command: CommandAPDU) -> CommandIntent | None:
    return Select(command.data) if (command.p1, command.p2) == (0x04, 0x00) else None


def _get_data(command: CommandAPDU) -> CommandIntent | None:
    if (command.p1, command.p2) != (0x3F, 0xFF):
        return None
    asked = parse_one(command.data, 0x5C).value
    tag = int.from_bytes(asked, "big")
    return Read(tag) if encode_tag(tag) == asked else None


def _verify(command: CommandAPDU) -> CommandIntent | None:
    if command.data or command.p2 not in c.PIN_REFERENCES:
        return None
    if command.p1 == 0xFF:
        return Forget()
    return Ask(command.ins, command.p2) if command.p1 == 0x00 else None


def _metadata(command: CommandAPDU) -> CommandIntent | None:
    known = command.p2 in c.SLOTS or command.p2 in (c.PIN, c.PUK, c.MANAGEMENT_KEY)
    return Ask(command.ins, command.p2) if command.p1 == 0 and not command.data and known else None


def _question(command: CommandAPDU) -> CommandIntent | None:
    return Ask(command.ins) if (command.p1, command.p2, command.data) == (0, 0, b"") else None


def _authenticate(command: CommandAPDU) -> CommandIntent | None:
    # Every other key of GENERAL AUTHENTICATE is a private key, and that is a key item's business.
    if command.p2 != c.MANAGEMENT_KEY or command.p1 not in c.BLOCK_OCTETS:
        return None
    parts = parse_unique(parse_one(command.data, 0x7C).value)
    sizes = {tag: len(value) for tag, value in parts.items()}
    block = c.BLOCK_OCTETS[command.p1]
    if sizes in ({0x80: 0}, {0x81: 0}):
        return Authenticate(command.p1, answers=False)
    if sizes in ({0x82: block}, {0x80: block, 0x81: block}, {0x80: block, 0x81: block, 0x82: 0}):
        return Authenticate(command.p1, answers=True)
    return None


def _generate(command: CommandAPDU) -> CommandIntent | None:
    parts = parse_unique(parse_one(command.data, 0xAC).value)
    if command.p1 != 0 or command.p2 not in c.SLOTS or not {0x80} <= parts.keys() <= {0x80, 0xAA, 0xAB}:
        return None
    return Generate(command.p2, _algorithm(_one(parts[0x80])), *_policies(parts))


def _import(command: CommandAPDU) -> CommandIntent | None:
    algorithm = _algorithm(command.p1)
    parts = parse_unique(command.data)
    if command.p2 not in c.SLOTS or not parts.keys() <= {*range(0x01, 0x09), 0xAA, 0xAB}:
        return None
    return Import(command.p2, algorithm, *_policies(parts), fingerprint(imported_key(algorithm, parts)))


def _put_data(command: CommandAPDU) -> CommandIntent | None:
    if (command.p1, command.p2) != (0x3F, 0xFF):
        return None
    objects = tuple(iterate(command.data))
    if len(objects) == 1 and objects[0].tag in c.BARE:
        return Put(objects[0].tag, command.data)
    if [item.tag for item in objects] != [0x5C, 0x53]:
        return None
    tag = int.from_bytes(objects[0].value, "big")
    return Put(tag, objects[1].value) if encode_tag(tag) == objects[0].value and tag not in c.BARE else None


def _set_management_key(command: CommandAPDU) -> CommandIntent | None:
    algorithm, reference, size = command.data[:3]
    key = command.data[3:]
    fits = size == len(key) == c.MANAGEMENT_KEY_OCTETS[algorithm] and reference == c.MANAGEMENT_KEY
    if not fits or command.p1 != 0xFF or command.p2 not in (0xFF, 0xFE):
        return None
    return Manager(algorithm, command.p2 == 0xFE, key == (c.FACTORY_MANAGEMENT_KEY * 2)[: len(key)])


def _move(command: CommandAPDU) -> CommandIntent | None:
    if command.data or command.p2 not in c.SLOTS:
        return None
    if command.p1 == 0xFF:
        return Move(command.p2, None)
    return Move(command.p2, command.p1) if command.p1 in c.SLOTS and command.p1 != command.p2 else None


def _retries(command: CommandAPDU) -> CommandIntent | None:
    return Retries(command.p1, command.p2) if command.p1 and command.p2 and not command.data else None


def _reset(command: CommandAPDU) -> CommandIntent | None:
    return ResetAll() if (command.p1, command.p2, command.data) == (0, 0, b"") else None


def _attest(command: CommandAPDU) -> CommandIntent | None:
    return Statement(command.p1) if command.p1 in c.SLOTS and command.p2 == 0 and not command.data else None


def _initialize_update(command: CommandAPDU) -> CommandIntent | None:
    return Channel(answers=False) if command.p2 == 0 and len(command.data) in (8, 16) else None


def _external_authenticate(command: CommandAPDU) -> CommandIntent | None:
    return Channel(answers=True) if command.p2 == 0 and len(command.data) in (16, 32) else None


def _one(value: bytes) -> int:
    (octet,) = value
    return octet


def _algorithm(number: int) -> int:
    if number not in ALGORITHMS:
        raise Unreadable("no such algorithm")
    return number


def _policies(parts: dict[int, bytes]) -> tuple[int, int]:
    return _one(parts.get(0xAA, b"\x00")), _one(parts.get(0xAB, b"\x00"))


_READERS: Final[Mapping[tuple[int, int], Callable[[CommandAPDU], CommandIntent | None]]] = MappingProxyType(
    {
        (0x00, 0xA4): _select,
        (0x00, 0xCB): _get_data,
        (0x00, 0x20): _verify,
        (0x00, 0xF7): _metadata,
        (0x00, 0xF8): _question,
        (0x00, 0xFD): _question,
        (0x00, 0x87): _authenticate,
        (0x00, 0x47): _generate,
        (0x00, 0xFE): _import,
        (0x00, 0xDB): _put_data,
        (0x00, 0xFF): _set_management_key,
        (0x00, 0xF6): _move,
        (0x00, 0xFA): _retries,
        (0x00, 0xFB): _reset,
        (0x00, 0xF9): _attest,
        (0x80, 0x50): _initialize_update,
        (0x84, 0x82): _external_authenticate,
    }
)
"""The table: what has no row here is refused."""
