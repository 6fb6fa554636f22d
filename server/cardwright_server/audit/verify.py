"""The verifier: offline, from blocks and keys alone, with anchors that were kept elsewhere.

It trusts the public keys and the anchors it is given, and nothing that comes with the blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from .chain import FIRST, SealedBlock, Statement, block_hash, root_of
from .rows import commitment

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
FORMAT = "cardwright.audit-block.1"
MOST_FINDINGS = 1000
"""Kept of one judgement: a chain may be wrong in every block."""


class Fault(StrEnum):
    """What may be wrong with a chain."""

    SIGNATURE = "signature"
    """A block is not signed by a key that is trusted: made or changed by someone without the vault."""
    ENTRIES = "entries"
    """Entries of a block are not those that were sealed: changed, removed, added or moved."""
    GAP = "gap"
    """A block is missing."""
    FORK = "fork"
    """A block does not follow the one before it."""
    CUT = "cut"
    """The chain ends before an anchor: its tail was cut, or an older database was put back."""
    REWRITTEN = "rewritten"
    """At an anchor the chain has another block: it was restored or forked, and went on differently."""
    RESTORED = "restored"
    """A new epoch began before an anchor of the old one: blocks up to that anchor were lost by a declared restore."""
    SILENT = "silent"
    """The last block is older than the heartbeat allows: sealing stopped, or the tail was cut."""
    DETAIL = "detail"
    """Personal detail is not what the chain is committed to."""
    UNSEALED = "unsealed"
    """Entries wait for longer than the sealer takes."""
    OUTSIDE = "outside"
    """Entries say that they are in a block that does not exist."""
    LATE = "late"
    """An entry is much older than its block: it was made up afterwards, or sealing had stopped."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, at a block's number (0: the chain as a whole), in words."""

    fault: Fault
    block: int
    text: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """What someone else keeps of a chain: its name, and the hash of one block."""

    chain: str
    epoch: int
    number: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.chain}:{self.epoch}:{self.number}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """From the text that ``str`` gives. Raises ValueError."""
        chain, epoch, number, digest = text.strip().rsplit(":", 3)
        if not chain or not (epoch + number).isascii() or not (epoch.isdigit() and number.isdigit()):
            raise ValueError(f"{text!r} is no anchor")
        octets = bytes.fromhex(digest)
        if len(octets) != 32:
            raise ValueError(f"{text!r} is no anchor: its hash has {len(octets)} octets")
        return cls(chain, int(epoch), int(number), octets)


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the verifier is told from elsewhere.

    ``now`` and ``silence``: by when the last block must be; ``now=None`` judges an old export. ``late``: how much
    older than its block an entry may be. ``chain``: its name, None for whichever it is. ``since``: an anchor whose
    block comes first; what is before it was judged earlier, and anchors before it are passed over.
    """

    keys: Mapping[str, PublicKey]
    anchors: Sequence[Anchor] = ()
    chain: str | None = None
    now: datetime | None = None
    silence: timedelta = timedelta(minutes=5)
    late: timedelta = timedelta(minutes=10)
    since: Anchor | None = None

    @property
    def judged_by(self) -> tuple[Anchor, ...]:
        """The anchors that count."""
        if self.since is None:
            return tuple(self.anchors)
        return (self.since, *(one for one in self.anchors if one.number >= self.since.number))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a judgement is: so many blocks of so many, with so many entries, and whether all was well so far."""

    blocks: int
    of: int
    entries: int
    valid: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What came out. ``anchor``: of the last block that is in order, to be kept elsewhere."""

    blocks: int
    entries: int
    findings: tuple[Finding, ...]
    anchor: Anchor | None

    @property
    def valid(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


@dataclass(slots=True)
class Verifier:
    """Takes the blocks of one chain, in order, from its first or ``Expectations.since`` on; then ``report``."""

    expected: Expectations
    findings: list[Finding] = field(default_factory=list)
    _blocks: int = 0
    _entries: int = 0
    _previous: bytes = FIRST
    _last: Statement | None = None
    _anchor: Anchor | None = None
    _hashes: dict[int, bytes] = field(default_factory=dict)
    _ends: dict[int, int] = field(default_factory=dict)
    _wanted: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self._wanted = frozenset([one.number for one in self.expected.judged_by])

    @property
    def blocks(self) -> int:
        """Judged so far."""
        return self._blocks

    @property
    def entries(self) -> int:
        """In them."""
        return self._entries

    def add(self, block: SealedBlock, details: Mapping[str, tuple[bytes, str]] | None = None) -> None:
        """Judge the next block. ``details``: by entry id, key and text of personal detail that is still there."""
        self._blocks += 1
        self._entries += len(block.entries)
        statement = self._statement(block)
        if statement is None:
            return
        since = self.expected.since
        first = 1 if since is None else since.number
        expected = first if self._last is None else self._last.sequence + 1
        if statement.sequence != expected or block.number != statement.sequence:
            missing = f"block {expected} is missing" if statement.sequence > expected else "blocks are out of order"
            self._find(Fault.GAP, block.number, missing)
        elif bytes.fromhex(statement.previous) != self._previous and not (self._last is None and since is not None):
            self._find(Fault.FORK, block.number, "it does not follow the block before it")
        if self._last is not None and (statement.chain, statement.epoch) < (self._last.chain, self._last.epoch):
            self._find(Fault.FORK, block.number, "it is of another chain, or of an older epoch than the one before it")
        self._judge_entries(block, statement, details or {})
        digest = block_hash(block.signed)
        if statement.sequence in self._wanted:
            self._hashes[statement.sequence] = digest
        self._ends[statement.epoch] = statement.sequence
        self._previous, self._last = digest, statement
        if not self.findings:
            self._anchor = Anchor(statement.chain, statement.epoch, statement.sequence, digest)

    def report(self) -> Report:
        """Judge the whole. Call it once, at the end."""
        for anchor in self.expected.judged_by:
            self._judge_anchor(anchor)
        chain = self.expected.chain
        if self._last is not None and chain is not None and self._last.chain != chain:
            self._find(Fault.FORK, 0, f"this is the chain {self._last.chain}, not {chain}")
        if self.expected.now is not None:
            self._judge_silence(self.expected.now)
        return Report(self._blocks, self._entries, tuple(self.findings), self._anchor)

    def _statement(self, block: SealedBlock) -> Statement | None:
        try:
            statement = msgspec.json.decode(block.signed, type=Statement)
            well_formed = len(bytes.fromhex(statement.previous)) == len(bytes.fromhex(statement.root)) == 32
        except (msgspec.MsgspecError, ValueError):
            well_formed = False
        if not well_formed or statement.format != FORMAT:
            self._find(Fault.SIGNATURE, block.number, "what was signed is no statement about a block")
            return None
        key = self.expected.keys.get(statement.key)
        if key is None:
            self._find(Fault.SIGNATURE, block.number, f"it names the key {statement.key!r}, which is not trusted")
        elif not _signed(key, block.signature, block.signed):
            self._find(Fault.SIGNATURE, block.number, "its signature is not by the key that it names")
        return statement

    def _judge_entries(
        self, block: SealedBlock, statement: Statement, details: Mapping[str, tuple[bytes, str]]
    ) -> None:
        if len(block.entries) != statement.entries or root_of(block.entries) != bytes.fromhex(statement.root):
            told = f"{statement.entries} were sealed, {len(block.entries)} are here"
            same = len(block.entries) == statement.entries
            self._find(Fault.ENTRIES, block.number, "an entry was changed or moved" if same else told)
        sealed = datetime.fromtimestamp(statement.at / 1000, UTC)
        for entry in block.entries:
            if (made := _moment(entry)) is None or sealed - made > self.expected.late:
                self._find(Fault.LATE, block.number, f"entry {entry.get('id')} is much older than its block")
            detail = details.get(str(entry.get("id")))
            if detail is not None and commitment(*detail).hex() != entry.get("commitment"):
                self._find(Fault.DETAIL, block.number, f"the detail of entry {entry.get('id')} was changed")

    def _judge_anchor(self, anchor: Anchor) -> None:
        found = self._hashes.get(anchor.number)
        last = self._last
        if last is None or anchor.number > last.sequence or found != anchor.hash:
            if last is not None and last.epoch > anchor.epoch and self._ends.get(anchor.epoch, 0) < anchor.number:
                text = f"epoch {anchor.epoch} was at block {anchor.number}; what was after the restored state is lost"
                self._find(Fault.RESTORED, anchor.number, text)
            elif last is None or anchor.number > last.sequence:
                end = 0 if last is None else last.sequence
                self._find(Fault.CUT, anchor.number, f"the chain ends at block {end}, before an anchor")
            else:
                self._find(Fault.REWRITTEN, anchor.number, "it is another block than the anchor's")
        elif last.chain != anchor.chain:
            self._find(Fault.FORK, anchor.number, f"the anchor is of the chain {anchor.chain}")

    def _judge_silence(self, now: datetime) -> None:
        if self._last is None:
            self._find(Fault.SILENT, 0, "there is no block at all")
            return
        at = datetime.fromtimestamp(self._last.at / 1000, UTC)
        if now - at > self.expected.silence:
            self._find(Fault.SILENT, self._last.sequence, f"the last block is of {at:%Y-%m-%d %H:%M:%S} UTC")

    def _find(self, fault: Fault, block: int, text: str) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(fault, block, text))


def verify(blocks: Iterable[tuple[SealedBlock, Mapping[str, tuple[bytes, str]]]], expected: Expectations) -> Report:
    """Judge a chain from its first block on, with the personal detail that is still there."""
    verifier = Verifier(expected)
    for block, details in blocks:
        verifier.add(block, details)
    return verifier.report()


def _signed(key: PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            digest = hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA256()
            key.verify(signature, data, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def _moment(entry: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(entry.get("created_at")))
    except ValueError:
        return None
