"""The verifier finds what was done to a chain: edit, cut, restore, fork, another key; and accepts erasure."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from cardwright_server.audit import service
from cardwright_server.audit.chain import block_hash
from cardwright_server.audit.model import AuditEntry, Target, Who
from cardwright_server.audit.sealer import Pace, Sealer
from cardwright_server.audit.service import MalformedExport, export, latest_anchor, verify_database, verify_export
from cardwright_server.audit.store import Filter
from cardwright_server.audit.verify import Anchor, Expectations, Fault, Progress, Report
from cardwright_server.store.audit_tables import audit_block, audit_detail, audit_entry
from cardwright_server.store.ids import SYSTEM, new_id
from cardwright_server.store.unit import Database, Unit
from tests.support import long_chain
from tests.support.audit import Refused, Signer

NOW = timedelta(0)
ADA = new_id()
ORG = new_id()


def entry(number: int) -> AuditEntry:
    who = Who("person", new_id(), ADA, address="10.0.0.7")
    target = Target("device", new_id())
    return AuditEntry(ORG, who, "device.bind", target, facts={"number": number}, personal={"owner": "Ada Lovelace"})


async def grow(database: Database, signer: Signer, blocks: int = 1, *, epoch: int = 0, first: int = 0) -> None:
    """So many blocks of two entries."""
    for block in range(blocks):

        async def work(unit: Unit, block: int = block) -> None:
            unit.audit(entry(first + 2 * block))
            unit.audit(entry(first + 2 * block + 1))

        await database.transact(work)
        await Sealer(database, signer, epoch=epoch, pace=Pace(lease=NOW)).step()


async def judge(database: Database, signer: Signer, *anchors: Anchor, **more: Any) -> Report:
    """The database's verdict, which must be that of its export, too."""
    expected = Expectations(signer.public, anchors, **more)
    report = await verify_database(database, expected, waiting=timedelta(hours=1))
    exported = verify_export(await lines(database), expected)
    in_chain = [one for one in report.findings if one.fault not in (Fault.UNSEALED, Fault.OUTSIDE)]
    assert list(exported.findings) == in_chain
    return report


async def lines(database: Database) -> list[str]:
    out = io.StringIO()
    await export(database, out, details=True)
    return out.getvalue().splitlines()


def faults(report: Report) -> set[tuple[Fault, int]]:
    return {(one.fault, one.block) for one in report.findings}


async def tamper(database: Database, statement: Any) -> None:
    async def work(unit: Unit) -> None:
        assert (await unit.execute(statement)).rowcount > 0

    await database.transact(work)


@pytest.fixture
async def signer() -> Signer:
    return Signer()


@pytest.fixture
async def chain(database: Database, signer: Signer) -> Database:
    """Four blocks of two entries."""
    await grow(database, signer, 4)
    return database


async def in_block(database: Database, number: int) -> Any:
    query = select(audit_entry.c.id).where(audit_entry.c.block == number, audit_entry.c.place == 0)
    return await database.read(lambda unit: unit.value(query))


async def test_an_untouched_chain_is_valid(chain: Database, signer: Signer) -> None:
    anchor = await latest_anchor(chain)
    assert anchor is not None
    report = await judge(chain, signer, anchor, chain="server", now=datetime.now(UTC))
    assert (report.valid, report.blocks, report.entries) == (True, 4, 8)
    assert report.anchor == anchor
    assert Anchor.parse(str(anchor)) == anchor


@pytest.mark.parametrize(
    "change",
    [
        {"action": "device.unbind"},
        {"outcome": "refused"},
        {"who": new_id()},
        {"facts": {"number": 99}},
        {"target": None},
        {"org": SYSTEM},
        {"created_at": datetime.now(UTC) - timedelta(seconds=1)},
        {"commitment": b"\0" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_an_edited_entry_is_found(chain: Database, signer: Signer, change: dict[str, Any]) -> None:
    which = await in_block(chain, 2)
    await tamper(chain, update(audit_entry).where(audit_entry.c.id == which).values(change))
    report = await judge(chain, signer)
    assert (Fault.ENTRIES, 2) in faults(report)
    assert {block for _, block in faults(report)} == {2}


async def test_a_removed_an_added_and_a_moved_entry_are_found(chain: Database, signer: Signer) -> None:
    removed, moved = await in_block(chain, 1), await in_block(chain, 3)
    await tamper(chain, delete(audit_entry).where(audit_entry.c.id == removed))
    await tamper(chain, update(audit_entry).where(audit_entry.c.id == moved).values(block=4, place=7))

    async def add(unit: Unit) -> None:
        row = await unit.row(select(audit_entry).where(audit_entry.c.block == 2, audit_entry.c.place == 0))
        assert row is not None
        await unit.insert(audit_entry, dict(row._mapping) | {"id": new_id(), "place": 2})

    await chain.transact(add)
    assert faults(await judge(chain, signer)) == {(Fault.ENTRIES, number) for number in (1, 2, 3, 4)}


async def test_swapped_entries_are_found(chain: Database, signer: Signer) -> None:
    await tamper(chain, update(audit_entry).where(audit_entry.c.block == 2).values(place=audit_entry.c.place + 10))
    swapped = update(audit_entry).where(audit_entry.c.block == 2).values(place=31 - audit_entry.c.place)
    await tamper(chain, swapped)
    assert faults(await judge(chain, signer)) == {(Fault.ENTRIES, 2)}


async def test_a_removed_block_is_found(chain: Database, signer: Signer) -> None:
    await tamper(chain, delete(audit_block).where(audit_block.c.number == 2))
    report = await judge(chain, signer)
    assert faults(report) == {(Fault.GAP, 3), (Fault.OUTSIDE, 0)}


async def test_a_cut_tail_is_found_by_an_anchor_and_by_silence(chain: Database, signer: Signer) -> None:
    anchor = await latest_anchor(chain)
    assert anchor is not None
    await tamper(chain, delete(audit_entry).where(audit_entry.c.block > 2))
    await tamper(chain, delete(audit_block).where(audit_block.c.number > 2))
    assert (await judge(chain, signer)).valid  # without anchor and clock nothing can be seen
    assert faults(await judge(chain, signer, anchor)) == {(Fault.CUT, 4)}
    later = datetime.now(UTC) + timedelta(minutes=6)
    assert faults(await judge(chain, signer, now=later)) == {(Fault.SILENT, 2)}


async def test_everything_cut_is_found(chain: Database, signer: Signer) -> None:
    anchor = await latest_anchor(chain)
    assert anchor is not None
    await tamper(chain, delete(audit_entry))
    await tamper(chain, delete(audit_block))
    assert faults(await judge(chain, signer, anchor, now=datetime.now(UTC))) == {(Fault.CUT, 4), (Fault.SILENT, 0)}


async def test_yesterday_restored_is_found_when_it_goes_on(chain: Database, signer: Signer) -> None:
    """Someone with the database and a forgetful signer goes on from block 2: anchors of what was lost tell."""
    anchor = await latest_anchor(chain)
    assert anchor is not None
    await tamper(chain, delete(audit_entry).where(audit_entry.c.block > 2))
    await tamper(chain, delete(audit_block).where(audit_block.c.number > 2))
    signer.strict = False
    await grow(chain, signer, 3, first=100)
    assert (await judge(chain, signer)).valid
    assert faults(await judge(chain, signer, anchor)) == {(Fault.REWRITTEN, 4)}


async def test_a_strict_vault_does_not_go_on_from_yesterday(chain: Database, signer: Signer) -> None:
    await tamper(chain, delete(audit_entry).where(audit_entry.c.block > 2))
    await tamper(chain, delete(audit_block).where(audit_block.c.number > 2))
    with pytest.raises(Refused, match="the chain goes on with block 5"):
        await grow(chain, signer, 1)


async def test_a_declared_restore_says_what_was_lost(chain: Database, signer: Signer) -> None:
    anchor = await latest_anchor(chain)
    assert anchor is not None
    await tamper(chain, delete(audit_entry).where(audit_entry.c.block > 2))
    await tamper(chain, delete(audit_block).where(audit_block.c.number > 2))
    await grow(chain, signer, 3, epoch=1)
    assert (await judge(chain, signer)).valid
    assert faults(await judge(chain, signer, anchor)) == {(Fault.RESTORED, 4)}


async def test_a_fork_is_found(chain: Database, signer: Signer, open_database: Callable[..., Database]) -> None:
    """Block 3 of another branch, genuinely signed, in place of ours."""
    ours = await lines(chain)
    await tamper(chain, delete(audit_entry).where(audit_entry.c.block > 1))
    await tamper(chain, delete(audit_block).where(audit_block.c.number > 1))
    signer.strict = False
    await grow(chain, signer, 3, first=50)
    theirs = await lines(chain)
    mixed = [*ours[:2], theirs[2], ours[3]]
    report = verify_export(mixed, Expectations(signer.public))
    assert faults(report) == {(Fault.FORK, 3), (Fault.FORK, 4)}


async def test_an_edit_signed_again_with_another_key_is_found(chain: Database, signer: Signer) -> None:
    """A thief of the database edits block 2 and seals everything after it anew, with a key of the same name."""
    thief = Signer(signer.name, strict=False)
    which = await in_block(chain, 2)
    await tamper(chain, update(audit_entry).where(audit_entry.c.id == which).values(action="device.nothing"))
    await tamper(chain, delete(audit_block).where(audit_block.c.number > 1))
    await tamper(chain, update(audit_entry).where(audit_entry.c.block > 1).values(block=None, place=None))
    await Sealer(chain, thief, pace=Pace(lease=NOW)).step()
    assert (await judge(chain, thief)).findings[0].block == 1
    assert faults(await judge(chain, signer)) == {(Fault.SIGNATURE, 2)}
    other = Signer("other", strict=False)
    assert faults(await judge(chain, other)) == {(Fault.SIGNATURE, 1), (Fault.SIGNATURE, 2)}


async def test_with_the_key_stolen_too_an_anchor_still_tells(chain: Database, signer: Signer) -> None:
    anchor = await latest_anchor(chain)
    assert anchor is not None
    signer.strict = False
    which = await in_block(chain, 2)
    await tamper(chain, update(audit_entry).where(audit_entry.c.id == which).values(action="device.nothing"))
    await tamper(chain, delete(audit_block).where(audit_block.c.number > 1))
    await tamper(chain, update(audit_entry).where(audit_entry.c.block > 1).values(block=None, place=None))
    for _ in range(3):
        await Sealer(chain, signer, pace=Pace(lease=NOW, most=2)).step()
    assert (await judge(chain, signer)).valid
    assert faults(await judge(chain, signer, anchor)) == {(Fault.REWRITTEN, 4)}


@pytest.mark.parametrize("column", ["signed", "signature"])
async def test_an_altered_statement_or_signature_is_found(chain: Database, signer: Signer, column: str) -> None:
    row = await chain.read(lambda unit: unit.row(select(audit_block).where(audit_block.c.number == 2)))
    assert row is not None
    octets = bytearray(row._mapping[column])
    octets[len(octets) // 2] ^= 1
    await tamper(chain, update(audit_block).where(audit_block.c.number == 2).values({column: bytes(octets)}))
    assert (Fault.SIGNATURE, 2) in faults(await judge(chain, signer))


async def test_entries_outside_the_chain_are_found(chain: Database, signer: Signer) -> None:
    old = datetime.now(UTC) - timedelta(days=2)
    which = await in_block(chain, 4)
    await tamper(chain, update(audit_entry).where(audit_entry.c.id == which).values(block=9))
    await chain.transact(lambda unit: _insert_old(unit, old))
    assert faults(await judge(chain, signer)) == {(Fault.ENTRIES, 4), (Fault.OUTSIDE, 0), (Fault.UNSEALED, 0)}


async def _insert_old(unit: Unit, at: datetime) -> None:
    unit.audit(entry(0))
    await unit._flush()
    unit._audit.clear()
    await unit.execute(update(audit_entry).where(audit_entry.c.block.is_(None)).values(created_at=at))


async def test_an_entry_made_up_afterwards_is_found(chain: Database, signer: Signer) -> None:
    await chain.transact(lambda unit: _insert_old(unit, datetime.now(UTC) - timedelta(days=2)))
    await Sealer(chain, signer).step()
    assert faults(await judge(chain, signer)) == {(Fault.LATE, 5)}


async def test_erased_detail_leaves_the_chain_valid_and_no_trace(chain: Database, signer: Signer) -> None:
    before = "".join(await lines(chain))
    assert "Ada Lovelace" in before
    assert await chain.transact(lambda unit: service.erase(unit, SYSTEM, ADA)) == 0  # not of another organization
    assert await chain.transact(lambda unit: service.erase(unit, ORG, ADA)) == 8
    assert (await judge(chain, signer)).valid
    assert "Ada" not in "".join(await lines(chain))
    assert "10.0.0.7" not in "".join(await lines(chain))
    assert await chain.read(lambda unit: unit.value(select(func.count()).select_from(audit_detail))) == 0


async def test_detail_about_a_person_goes_with_them(database: Database) -> None:
    bob, who, device = new_id(), Who("operator", new_id()), Target("device", new_id())

    async def work(unit: Unit) -> None:
        unit.audit(AuditEntry(ORG, who, "person.edit", Target("person", bob), personal={"n": "B"}))
        unit.audit(AuditEntry(ORG, who, "device.bind", device, personal={"n": "B"}, about=bob))
        unit.audit(AuditEntry(ORG, who, "device.bind", device, personal={"n": "C"}))

    await database.transact(work)
    assert await database.transact(lambda unit: service.erase(unit, ORG, bob)) == 2


async def test_altered_detail_is_found(chain: Database, signer: Signer) -> None:
    which = await in_block(chain, 3)
    forged = '{"owner":"Eve"}'
    await tamper(chain, update(audit_detail).where(audit_detail.c.id == which).values(detail=forged))
    assert faults(await judge(chain, signer)) == {(Fault.DETAIL, 3)}


async def test_the_chain_holds_no_personal_detail(chain: Database) -> None:
    out = io.StringIO()
    assert await export(chain, out) == 4
    assert "Ada" not in out.getvalue()
    assert "10.0.0.7" not in out.getvalue()


async def test_equal_details_have_unequal_commitments(chain: Database) -> None:
    rows = await chain.read(lambda unit: unit.rows(select(audit_entry.c.commitment)))
    assert len({row.commitment for row in rows}) == 8


@given(st.text(max_size=300))
def test_what_is_no_export_is_refused(line: str) -> None:
    with pytest.raises(MalformedExport):
        verify_export([line], Expectations({}))


def test_an_export_without_a_block_is_not_called_good() -> None:
    with pytest.raises(MalformedExport):
        verify_export([], Expectations({}))


async def test_blocks_of_an_export_with_unknown_fields_are_refused(chain: Database, signer: Signer) -> None:
    first = json.loads((await lines(chain))[0])
    with pytest.raises(MalformedExport):
        verify_export([json.dumps(first | {"more": 1})], Expectations(signer.public))
    with pytest.raises(MalformedExport):
        verify_export([json.dumps(first | {"signed": "not base64!"})], Expectations(signer.public))


HASH = "00" * 32


@pytest.mark.parametrize("line", ["", "x", "server:0:1:00", f"server:a:1:{HASH}", f":0:1:{HASH}", f"s:-1:1:{HASH}"])
def test_what_is_no_anchor_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        Anchor.parse(line)


async def test_finding_entries_by_page_and_filter(chain: Database) -> None:
    async def page(wanted: Filter, before: Any = None) -> list[service.Found]:
        return list(await chain.read(lambda unit: service.find(unit, ORG, wanted, before=before, limit=3)))

    seen: list[int] = []
    cursor = None
    while found := await page(Filter(action="device."), cursor):
        seen += [one.document["facts"]["number"] for one in found]
        cursor = found[-1].cursor
    assert sorted(seen) == list(range(8))
    assert [number // 2 for number in seen] == [3, 3, 2, 2, 1, 1, 0, 0]
    assert found == []
    (first, *_) = await page(Filter(person=ADA))
    assert first.personal == {"owner": "Ada Lovelace", "address": "10.0.0.7"}
    assert await page(Filter(action="device.unbind")) == []
    assert await page(Filter(action="device._")) == []
    assert await page(Filter(since=datetime.now(UTC) + timedelta(hours=1))) == []
    others = await chain.read(lambda unit: service.find(unit, SYSTEM, Filter()))
    assert list(others) == []


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_a_long_chain_is_judged_a_page_at_a_time_and_from_an_anchor_on(database: Database) -> None:
    signer = Signer()
    await long_chain.grow(database, signer, 1050, 1)
    expected = Expectations(signer.public)
    steps = [step async for step in service.judging(database, expected, waiting=timedelta(hours=1))]
    *progress, report = steps
    assert isinstance(report, Report) and report.valid and (report.blocks, report.entries) == (1050, 1050)
    assert [(one.blocks, one.of) for one in progress if isinstance(one, Progress)] == [
        (min(1050, 100 * page), 1050) for page in range(1, 12)
    ]

    async def since(anchor: Anchor, *anchors: Anchor) -> Report:
        more = Expectations(signer.public, anchors, since=anchor)
        return await verify_database(database, more, waiting=timedelta(hours=1))

    middle = await anchor_of(database, 1000)
    later = await since(middle)
    assert (later.valid, later.blocks, later.anchor) == (True, 51, report.anchor)
    # What is before it was judged earlier; what it says itself has to be so.
    assert (await since(middle, await anchor_of(database, 7))).valid
    other = Anchor(middle.chain, middle.epoch, middle.number, bytes(32))
    assert faults(await since(other)) == {(Fault.REWRITTEN, 1000)}
    assert faults(await since(middle, Anchor(middle.chain, 0, 2000, bytes(32)))) == {(Fault.CUT, 2000)}
    await tamper(database, update(audit_entry).where(audit_entry.c.block == 1010).values(action="device.terminate"))
    assert faults(await since(middle)) == {(Fault.ENTRIES, 1010)}
    await tamper(database, delete(audit_block).where(audit_block.c.number == 1020))
    assert {one.fault for one in (await since(middle)).findings} == {Fault.ENTRIES, Fault.GAP, Fault.OUTSIDE}
    await tamper(database, delete(audit_block).where(audit_block.c.number >= 1000))
    assert (Fault.CUT, 1000) in faults(await since(middle))
    assert await verdict_when_stopped(database, expected) == 100


async def anchor_of(database: Database, number: int) -> Anchor:
    row = await database.read(lambda unit: unit.row(select(audit_block).where(audit_block.c.number == number)))
    assert row is not None
    return Anchor("server", row.epoch, number, block_hash(row.signed))


async def verdict_when_stopped(database: Database, expected: Expectations) -> int:
    """Blocks that were judged when whoever asked had enough after one page."""
    async for step in service.judging(database, expected, waiting=timedelta(hours=1)):
        assert isinstance(step, Progress)
        return step.blocks
    return 0
