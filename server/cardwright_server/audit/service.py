"""What others ask of the audit: find, forget, export, verify, and the anchor to keep elsewhere."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TextIO, TypeAlias
from uuid import UUID

import msgspec

from cardwright_cardops.errors import CardwrightError

from ..store.columns import canonical
from ..store.unit import Database, Unit
from . import store
from .chain import SealedBlock, block_hash, entry_document
from .store import Filter
from .verify import Anchor, Expectations, Fault, Finding, Progress, Report, Verifier, verify

_BLOCKS_AT_ONCE = 100
_LONGEST_LINE = 16 << 20

Details = Mapping[str, tuple[bytes, str]]
Page: TypeAlias = list[tuple[SealedBlock, Details]]


class MalformedExport(CardwrightError):
    """The file is no export of an audit chain."""

    code = "MALFORMED_AUDIT_EXPORT"
    default_advice = "Take a file that cardwright server audit export wrote, whole."


@dataclass(frozen=True, slots=True)
class Found:
    """An entry as auditors read it. ``personal`` is None where there was none or it was erased."""

    document: Mapping[str, Any]
    created_at: datetime
    id: UUID
    block: int | None
    personal: Mapping[str, str] | None

    @property
    def cursor(self) -> tuple[datetime, UUID]:
        """``before`` for the page that follows this entry."""
        return self.created_at, self.id


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    signed: str
    signature: str
    entries: list[dict[str, Any]]
    details: dict[str, tuple[str, str]] = {}


async def find(
    unit: Unit, org: UUID, wanted: Filter, *, before: tuple[datetime, UUID] | None = None, limit: int = 100
) -> Sequence[Found]:
    """A page of an organization's entries, newest first. Authorization is the caller's part."""
    return [
        Found(
            entry_document(row._mapping),
            row.created_at,
            row.id,
            row.block,
            None if row.detail is None else msgspec.json.decode(row.detail, type=dict[str, str]),
        )
        for row in await store.find(unit, org, wanted, before=before, limit=min(limit, 1000))
    ]


async def erase(unit: Unit, org: UUID, person: UUID) -> int:
    """Forget what stands beside the chain about a person. Gives the number of details; the chain stays valid."""
    return await store.erase(unit, org, person)


async def latest_anchor(database: Database, chain: str = "server") -> Anchor | None:
    """The anchor of the newest signed block, None if there is none: print it, mail it, keep it elsewhere."""

    async def work(unit: Unit) -> Anchor | None:
        last = await store.last_block(unit)
        if last is not None and last.signed is None:
            last = await store.block(unit, last.number - 1)
        return None if last is None else Anchor(chain, last.epoch, last.number, block_hash(last.signed))

    return await database.read(work)


async def export(database: Database, out: TextIO, *, details: bool = False) -> int:
    """Write every sealed block as a line of JSON; with ``details``, also what is not erased. Gives their number."""
    count = 0
    async for block, beside in _sealed(database):
        line: dict[str, Any] = {
            "number": block.number,
            "signed": base64.b64encode(block.signed).decode(),
            "signature": base64.b64encode(block.signature).decode(),
            "entries": list(block.entries),
        }
        if details and beside:
            line["details"] = {entry: [key.hex(), text] for entry, (key, text) in beside.items()}
        out.write(canonical(line) + "\n")
        count += 1
    return count


def verify_export(lines: Iterable[str], expected: Expectations) -> Report:
    """Judge an export, line by line. Raises MalformedExport for what is no export."""
    report = verify(_parsed(lines), expected)
    if not report.blocks and report.valid:
        raise MalformedExport("there is no block in it")
    return report


async def verify_database(database: Database, expected: Expectations, *, waiting: timedelta) -> Report:
    """Judge the chain in the database, and what is outside it: entries unsealed for longer than ``waiting``."""
    async for step in judging(database, expected, waiting=waiting):
        if isinstance(step, Report):
            return step
    raise AssertionError("the last step is a report")


async def judging(
    database: Database, expected: Expectations, *, waiting: timedelta
) -> AsyncIterator[Progress | Report]:
    """As ``verify_database``, a page of blocks at a time: how far it is after each, and the report in the end.

    Each page is a read of its own, and is judged in a thread, so a long chain holds up nobody; blocks that are sealed
    meanwhile are judged as well. Whoever stops taking steps stops it.
    """
    verifier = Verifier(expected)
    first = 1 if expected.since is None else expected.since.number
    of = await database.read(partial(store.count_blocks, first=first), timed=False)
    last = first - 1
    async for page in _pages(database, last):
        await asyncio.to_thread(_add, verifier, page)
        last = page[-1][0].number
        yield Progress(verifier.blocks, max(of, verifier.blocks), verifier.entries, not verifier.findings)
    yield await _concluded(database, verifier, last, waiting)


def _add(verifier: Verifier, page: Page) -> None:
    for block, beside in page:
        verifier.add(block, beside)


async def _concluded(database: Database, verifier: Verifier, last: int, waiting: timedelta) -> Report:
    async def outside(unit: Unit) -> tuple[int, int]:
        newest = await store.last_block(unit)
        known = last if newest is None else max(last, newest.number)
        return await store.count_unsealed(unit, unit.now - waiting), await store.count_outside(unit, known)

    unsealed, astray = await database.read(outside)
    if unsealed:
        verifier.findings.append(Finding(Fault.UNSEALED, 0, f"{unsealed} entries wait for longer than {waiting}"))
    if astray:
        verifier.findings.append(Finding(Fault.OUTSIDE, 0, f"{astray} entries are of blocks that do not exist"))
    return verifier.report()


async def _sealed(database: Database) -> AsyncIterator[tuple[SealedBlock, Details]]:
    async for page in _pages(database, 0):
        for block, beside in page:
            yield block, beside


async def _pages(database: Database, last: int) -> AsyncIterator[Page]:
    """Every signed block after that number, some at a time."""
    while True:

        async def page(unit: Unit, after: int = last) -> Page:
            rows = await store.blocks(unit, after, _BLOCKS_AT_ONCE)
            if not rows:
                return []
            span = rows[0].number, rows[-1].number
            entries: dict[int, list[Mapping[str, Any]]] = {}
            of_block: dict[str, int] = {}
            for entry in await store.entries_of(unit, *span):
                entries.setdefault(entry.block, []).append(entry_document(entry._mapping))
                of_block[str(entry.id)] = entry.block
            details: dict[int, dict[str, tuple[bytes, str]]] = {}
            for detail in await store.details_of(unit, *span):
                details.setdefault(of_block[str(detail.id)], {})[str(detail.id)] = (detail.key, detail.detail)
            return [
                (
                    SealedBlock(row.number, row.signed, row.signature, tuple(entries.get(row.number, ()))),
                    details.get(row.number, {}),
                )
                for row in rows
            ]

        found = await database.read(page, timed=False)
        if not found:
            return
        yield found
        last = found[-1][0].number


def _parsed(lines: Iterable[str]) -> Iterator[tuple[SealedBlock, Details]]:
    for number, line in enumerate(lines, 1):
        try:
            if len(line) > _LONGEST_LINE:
                raise ValueError("too long")
            read = msgspec.json.decode(line, type=_Line)
            yield (
                SealedBlock(read.number, _octets(read.signed), _octets(read.signature), tuple(read.entries)),
                {entry: (bytes.fromhex(key), text) for entry, (key, text) in read.details.items()},
            )
        except (msgspec.MsgspecError, ValueError) as error:
            raise MalformedExport(f"line {number} is no block: {error}") from error


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
