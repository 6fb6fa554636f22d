"""What went over a connection, in a form that can be shown to anyone.

Nothing is blanked out afterwards: an entry holds lengths, the header and the status word, and octets only
where a rule below says that this very command carries public ones. There is no switch for more. Rules apply
while the PIV application is seen to be selected, to the plain interindustry class, and to whole commands:
what a chain carried is shown with its last block, once all of it is known to be one public object.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ..iso7816 import tlv
from ..iso7816.apdu import CLA_CHAINING, CommandAPDU, MalformedApdu
from ..iso7816.status import PRECEDES_DATA, SW
from ..iso7816.tlv import MalformedTlv
from ..piv.containers import CONTAINERS, DATA_TEMPLATE, PIV_CONTAINERS, YUBICO_ATTESTATION, Access
from .connection import Connection, Link, TransportError

T = TypeVar("T")

SELECT: Final = 0xA4
GET_DATA: Final = 0xCB
PUT_DATA: Final = 0xDB
GET_RESPONSE: Final = 0xC0
GENERATE: Final = 0x47

INSTRUCTIONS: Final = {
    0x20: "VERIFY",
    0x24: "CHANGE REFERENCE DATA",
    0x2C: "RESET RETRY COUNTER",
    GENERATE: "GENERATE ASYMMETRIC KEY PAIR",
    0x50: "INITIALIZE UPDATE",
    0x82: "EXTERNAL AUTHENTICATE",
    0x87: "GENERAL AUTHENTICATE",
    SELECT: "SELECT",
    GET_RESPONSE: "GET RESPONSE",
    0xCA: "GET DATA (GlobalPlatform)",
    GET_DATA: "GET DATA",
    0xD8: "PUT KEY",
    PUT_DATA: "PUT DATA",
    0xE2: "STORE DATA",
    0xF6: "MOVE KEY",
    0xF7: "GET METADATA",
    0xF8: "GET SERIAL",
    0xF9: "ATTEST",
    0xFA: "SET PIN RETRIES",
    0xFB: "RESET",
    0xFD: "GET VERSION",
    0xFE: "IMPORT KEY",
    0xFF: "SET MANAGEMENT KEY",
}

PUBLIC_CONTAINERS: Final = frozenset(
    row.tag for row in (*PIV_CONTAINERS, YUBICO_ATTESTATION) if row.contact is Access.ALWAYS
)
"""Containers that anyone with a contact reader may read (SP 800-73-5 part 1 table 2); of Yubico's, the certificate."""

NAMING_CONTAINERS: Final = frozenset(row.tag for row in PIV_CONTAINERS if row.slot is not None)
"""Those of certificates, whose subjects and alternative names say who holds the card."""

_PIV_AID: Final = bytes.fromhex("A000000308")
_ANY_OBJECT: Final = (0x3F, 0xFF)
_PUBLIC_ANSWERS: Final = frozenset((0xF7, 0xF8, 0xF9, 0xFD))
"""Instructions without command data whose answers are public: metadata, serial, attestation, version."""
_BARE: Final = tuple(row.tag for row in PIV_CONTAINERS if row.bare)
_LONGEST_CHAIN: Final = 0x10000


@dataclass(frozen=True, slots=True)
class Entry:
    """One command and its answer.

    ``at`` is time.monotonic() when it was sent, ``seconds`` how long it took. ``header`` is empty for octets
    that are no command APDU. ``lc``, ``le`` and ``answered`` are numbers of octets (``answered`` without the
    status word). ``data`` and ``answer`` are None unless public. ``tag`` names the container asked for or
    written. ``error`` is the code of the error that came instead of an answer; ``sw`` is None then.
    """

    number: int
    at: float
    seconds: float
    instruction: str
    header: bytes
    lc: int
    le: int
    answered: int
    sw: int | None
    tag: int | None = None
    data: bytes | None = None
    answer: bytes | None = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON: octets and numbers of ISO 7816-4 in upper-case hex, times in seconds; nothing for None."""
        shown = {
            "number": self.number,
            "at": round(self.at, 6),
            "seconds": round(self.seconds, 6),
            "instruction": self.instruction,
            "header": _hex(self.header),
            "lc": self.lc,
            "le": self.le,
            "answered": self.answered,
            "sw": None if self.sw is None else f"{self.sw:04X}",
            "tag": None if self.tag is None else f"{self.tag:X}",
            "data": _hex(self.data),
            "answer": _hex(self.answer),
            "error": self.error or None,
        }
        return {key: value for key, value in shown.items() if value is not None}

    def text(self) -> str:
        """One line for a person."""
        tag = "" if self.tag is None else f" {self.tag:X}"
        came = self.error if self.sw is None else f"{self.sw:04X}"
        return (
            f"{self.number:4} {self.seconds * 1000:8.2f} ms  {self.header.hex().upper():8} {self.instruction}{tag}"
            f"  sent {self.lc}, got {self.answered}  {came}"
        )

    @property
    def octets(self) -> int:
        """How many octets it keeps."""
        return len(self.data or b"") + len(self.answer or b"")


class Trace:
    """The last entries of any number of connections, bounded in number and in octets kept.

    ``on_entry`` is called with each entry as it comes, on the thread that sent the command.
    """

    def __init__(
        self,
        most_entries: int = 4096,
        most_octets: int = 4 << 20,
        on_entry: Callable[[Entry], object] | None = None,
        *,
        names: bool = True,
    ) -> None:
        """``names``: whether contents of certificates are shown, which name the holder of the card."""
        self.public = PUBLIC_CONTAINERS if names else PUBLIC_CONTAINERS - NAMING_CONTAINERS
        """Containers whose contents are shown."""
        self._entries: deque[Entry] = deque()
        self._most_entries = most_entries
        self._most_octets = most_octets
        self._octets = 0
        self._on_entry = on_entry
        self._number = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is kept, oldest first."""
        return tuple(self._entries)

    def to_json(self) -> list[dict[str, Any]]:
        """``entries`` as JSON."""
        return [entry.to_json() for entry in self._entries]

    def next_number(self) -> int:
        """Numbers count from 1 and go on when entries fall out."""
        self._number += 1
        return self._number

    def add(self, entry: Entry) -> None:
        """Keep ``entry``; the oldest fall out."""
        self._entries.append(entry)
        self._octets += entry.octets
        while self._entries and (len(self._entries) > self._most_entries or self._octets > self._most_octets):
            self._octets -= self._entries.popleft().octets
        if self._on_entry is not None:
            self._on_entry(entry)


class TracedConnection:
    """A Connection that notes what passes in ``trace`` and changes nothing."""

    __slots__ = ("_connection", "_rules", "_trace")

    def __init__(self, connection: Connection, trace: Trace) -> None:
        self._connection = connection
        self._trace = trace
        self._rules = _Rules(trace.public)

    @property
    def link(self) -> Link:
        """The connection's."""
        return self._connection.link

    def transmit(self, command: bytes) -> bytes:
        """The connection's. Raises TransportError."""
        at = time.monotonic()
        try:
            answer = self._connection.transmit(command)
        except TransportError as error:
            self._note(at, command, b"", error.code)
            raise
        self._note(at, command, answer, "")
        return answer

    def perform(self, work: Callable[[], T]) -> T:
        """The connection's."""
        return self._connection.perform(work)

    def transaction(self) -> AbstractContextManager[None]:
        """The connection's."""
        self._rules.forget()
        return self._connection.transaction()

    def reset(self) -> None:
        """The connection's. Raises TransportError."""
        self._rules.forget()
        self._connection.reset()

    def close(self) -> None:
        """The connection's."""
        self._connection.close()

    def _note(self, at: float, command: bytes, answer: bytes, error: str) -> None:
        number, seconds = self._trace.next_number(), time.monotonic() - at
        sw = answer[-2] << 8 | answer[-1] if len(answer) > 1 else None
        came = max(len(answer) - 2, 0)
        try:
            apdu = CommandAPDU.parse(command)
        except MalformedApdu:
            self._rules.forget()
            entry = Entry(number, at, seconds, "no APDU", b"", len(command), 0, came, sw, error=error)
        else:
            shown = self._rules.judge(apdu, sw)
            entry = Entry(
                number, at, seconds, INSTRUCTIONS.get(apdu.ins, f"INS {apdu.ins:02X}"), apdu.header,
                len(apdu.data), apdu.le, came, sw, shown.tag, shown.data,
                answer[:-2] if shown.answer and sw is not None else None, error,
            )  # fmt: skip
        self._trace.add(entry)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What may be shown of one command: its container's tag, octets it carried, and whether its answer."""

    tag: int | None = None
    data: bytes | None = None
    answer: bool = False


_NOTHING: Final = _Shown()


class _Rules:
    """Which octets are public, from what was seen so far."""

    __slots__ = ("_chain", "_chain_head", "_chain_public", "_chain_tag", "_follows", "_piv", "_public")

    def __init__(self, public: frozenset[int]) -> None:
        self._public = public
        self.forget()

    def forget(self) -> None:
        """Nothing is known of what is selected, nor of what comes next."""
        self._piv = False
        self._follows = _NOTHING  # what GET RESPONSE goes on with
        self._chain_head: tuple[int, int, int] | None = None
        self._chain_public = False
        self._chain_tag: int | None = None
        self._chain = bytearray()

    def judge(self, command: CommandAPDU, sw: int | None) -> _Shown:
        """What may be shown of ``command``, which was answered with ``sw`` (None: with nothing)."""
        shown = self._judge(command)
        follows = sw is not None and sw >> 8 == PRECEDES_DATA
        self._follows = _Shown(shown.tag, None, shown.answer) if follows else _NOTHING
        if command.ins == SELECT:
            chosen = command.cla == 0 and command.p1 == 0x04 and command.data[:5] == _PIV_AID
            self._piv = chosen and (follows or sw == SW.OK)
        if command.cla == CLA_CHAINING and sw != SW.OK:
            self._break_chain()
        return shown

    def _judge(self, command: CommandAPDU) -> _Shown:
        if command.cla == CLA_CHAINING:
            return self._block(command)
        tag = self._chain_tag
        data = self._whole(command)
        if data is None:
            return _Shown(tag)
        if command.cla:
            return _NOTHING
        if command.ins == GET_RESPONSE:
            return self._follows if not data else _NOTHING
        if command.ins == SELECT and command.p1 == 0x04 and len(data) <= 16:
            return _Shown(None, data, True)
        if not self._piv:
            return _NOTHING
        if command.ins in _PUBLIC_ANSWERS and not data:
            return _Shown(None, None, True)
        if command.ins == GENERATE and _is_key_template(data):
            return _Shown(None, data, True)
        if (command.p1, command.p2) != _ANY_OBJECT:
            return _NOTHING
        if command.ins == GET_DATA:
            tag = _asked_for(data)
            return _NOTHING if tag is None else _Shown(tag, data, tag in self._public)
        if command.ins == PUT_DATA:
            tag = _written_to(data)
            return _Shown(tag, data if tag in self._public and _is_one_object(tag, data) else None)
        return _NOTHING

    def _block(self, command: CommandAPDU) -> _Shown:
        """A block that is not the last. Its octets are kept only while they can be part of a public object."""
        head = (command.ins, command.p1, command.p2)
        writes = self._piv and head == (PUT_DATA, *_ANY_OBJECT)
        if self._chain_head != head:
            self._break_chain()
            self._chain_head = head
            self._chain_tag = _written_to(command.data) if writes else None
            self._chain_public = self._chain_tag in self._public
        if self._chain_public:
            self._chain += command.data
            if len(self._chain) > _LONGEST_CHAIN:
                self._chain_public = False
                self._chain.clear()
        return _Shown(self._chain_tag)

    def _whole(self, command: CommandAPDU) -> bytes | None:
        """The data of the command that ends with this block; None when what came before is not public."""
        head, public, chain = self._chain_head, self._chain_public, bytes(self._chain)
        self._break_chain()
        if head != (command.ins, command.p1, command.p2):
            return command.data
        return chain + command.data if public else None

    def _break_chain(self) -> None:
        self._chain_head = None
        self._chain_public = False
        self._chain_tag = None
        self._chain.clear()


def _asked_for(data: bytes) -> int | None:
    """The tag in a tag list of exactly one tag (SP 800-73-5 part 2 section 3.1.2)."""
    if 3 <= len(data) <= 5 and data[0] == 0x5C and data[1] == len(data) - 2:
        return int.from_bytes(data[2:], "big")
    return None


def _written_to(data: bytes | bytearray) -> int | None:
    """The container that PUT DATA names, if it is a known one (SP 800-73-5 part 2 section 3.3.1)."""
    if data[:1] == b"\x5c":
        tag = int.from_bytes(data[2 : 2 + data[1]], "big") if len(data) > 2 and data[1] <= 3 else None
    else:
        tag = next((bare for bare in _BARE if data.startswith(tlv.encode_tag(bare))), None)
    return tag if tag in CONTAINERS else None


def _is_one_object(tag: int | None, data: bytes) -> bool:
    """Whether ``data`` is the container ``tag`` and its template, whole and with nothing after it."""
    try:
        parts = tlv.parse_all(data)
    except MalformedTlv:
        return False
    return [part.tag for part in parts] == ([tag] if tag in _BARE else [0x5C, DATA_TEMPLATE])


def _is_key_template(data: bytes) -> bool:
    """Whether ``data`` is a control reference template AC of one-octet parameters: algorithm and policies."""
    try:
        return all(len(part.value) == 1 for part in tlv.iterate(tlv.parse_one(data, 0xAC).value))
    except MalformedTlv:
        return False


def _hex(octets: bytes | None) -> str | None:
    return None if octets is None else octets.hex().upper()
