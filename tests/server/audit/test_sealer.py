"""Sealing: every committed entry once, by one of several, within a second, also after a crash, also when idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from cardwright_server.audit.model import AuditEntry, Outcome, Target, Who
from cardwright_server.audit.sealer import Pace, Sealer
from cardwright_server.audit.service import latest_anchor, verify_database
from cardwright_server.audit.verify import Expectations
from cardwright_server.store.audit_tables import audit_block, audit_entry
from cardwright_server.store.ids import SYSTEM, new_id
from cardwright_server.store.unit import Database, Unit
from tests.support.audit import Refused, Signer
from tests.support.databases import Clock

Opener = Callable[..., Database]


def entry(number: int = 0) -> AuditEntry:
    who = Who("operator", new_id(), new_id(), ("card",), "portal", "10.0.0.7")
    return AuditEntry(
        SYSTEM,
        who,
        "device.bind",
        Target("device", new_id()),
        Outcome.DONE,
        facts={"from": "stock", "number": number, "forced": False, "reason": None},
        personal={"owner": "Ada Lovelace", "note": "Grüße"},
    )


async def record(database: Database, *entries: AuditEntry) -> None:
    async def work(unit: Unit) -> None:
        for one in entries:
            unit.audit(one)

    await database.transact(work)


async def valid(database: Database, signer: Signer) -> int:
    """Number of sealed entries of a chain that must be in order."""
    report = await verify_database(database, Expectations(signer.public), waiting=timedelta(0))
    assert report.findings == ()
    assert report.anchor == await latest_anchor(database)
    return report.entries


async def test_entries_are_sealed_in_order_and_verify(database: Database) -> None:
    signer = Signer()
    sealer = Sealer(database, signer)
    await record(database, entry(1), entry(2))
    await record(database, entry(3))
    assert await sealer.step() is False
    await record(database, entry(4))
    await sealer.step()
    rows = await database.read(
        lambda unit: unit.rows(select(audit_entry).order_by(audit_entry.c.block, audit_entry.c.place))
    )
    assert [(row.block, row.place) for row in rows] == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert sorted(row.facts["number"] for row in rows[:2]) == [1, 2]
    assert [row.facts["number"] for row in rows[2:]] == [3, 4]
    assert await valid(database, signer) == 4


async def test_big_backlogs_are_sealed_by_blocks(database: Database) -> None:
    signer = Signer()
    sealer = Sealer(database, signer, pace=Pace(most=10))
    await record(database, *(entry(number) for number in range(25)))
    assert [await sealer.step() for _ in range(3)] == [True, True, False]
    assert [block.entries for block in signer.signed] == [10, 10, 5]
    assert await valid(database, signer) == 25


async def test_idle_chains_beat(open_database: Opener, clock: Clock) -> None:
    database = open_database(clock=clock)
    signer = Signer()
    sealer = Sealer(database, signer, pace=Pace(heartbeat=timedelta(seconds=30)))
    await sealer.step()
    clock.advance(seconds=29)
    await sealer.step()
    assert len(signer.signed) == 1
    clock.advance(seconds=1)
    await sealer.step()
    clock.advance(days=-1)
    await sealer.step()
    assert [block.entries for block in signer.signed] == [0, 0, 0]
    assert await valid(database, signer) == 0


async def test_one_of_several_sealers_works(open_database: Opener) -> None:
    signer = Signer()
    sealers = [Sealer(open_database(pool=2), signer) for _ in range(4)]
    database = open_database()
    await record(database, *(entry(number) for number in range(20)))
    await asyncio.gather(*(sealer.step() for sealer in sealers))
    assert [block.entries for block in signer.signed] == [20]
    assert await valid(database, signer) == 20


async def test_writers_and_sealers_side_by_side_lose_and_double_nothing(open_database: Opener) -> None:
    signer = Signer()
    database = open_database()
    # Leases so short that both believe to hold it: the locks and the vault must keep them apart.
    pace = Pace(look=timedelta(milliseconds=5), heartbeat=timedelta(hours=1), lease=timedelta(milliseconds=1))
    running = [asyncio.create_task(Sealer(open_database(pool=2), signer, pace=pace).run()) for _ in range(2)]
    await asyncio.gather(*(record(database, entry(number), entry(number)) for number in range(30)))

    async def waiting(unit: Unit) -> int:
        return len(await unit.rows(select(audit_entry.c.id).where(audit_entry.c.block.is_(None))))

    async with asyncio.timeout(30):
        while await database.read(waiting):
            await asyncio.sleep(0)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await asyncio.sleep(0.002)
    last = Sealer(database, signer)
    async with asyncio.timeout(30):
        # What was cancelled between fixing a block and keeping its signature is finished.
        while (await verify_database(database, Expectations(signer.public), waiting=timedelta(0))).findings:
            await last.step()
    assert await valid(database, signer) == 60


async def test_sealed_within_a_second_of_the_commit_when_idle_before(database: Database) -> None:
    signer = Signer()
    sealer = Sealer(database, signer)
    task = asyncio.create_task(sealer.run())
    async with asyncio.timeout(10):
        while not signer.signed:
            await asyncio.sleep(0)
    await record(database, entry())
    committed = datetime.now(UTC)
    async with asyncio.timeout(10):
        while len(signer.signed) < 2:
            await asyncio.sleep(0)
    assert datetime.now(UTC) - committed < timedelta(seconds=5)  # half a second, and room for a busy machine
    assert Pace().look <= timedelta(seconds=0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("dies", ["before the signature", "after the signature"])
async def test_a_block_that_was_begun_is_finished_as_it_was(open_database: Opener, dies: str) -> None:
    """A sealer dies between fixing a block and keeping its signature; the next one finishes the same block."""
    signer = Signer()
    database = open_database()

    class Dying:
        async def sign_audit_block(self, block: object) -> object:
            if dies == "after the signature":
                await signer.sign_audit_block(block)  # type: ignore[arg-type]
            raise Refused("the process was killed")

    await record(database, entry(1))
    with pytest.raises(Refused):
        await Sealer(database, Dying(), pace=Pace(lease=timedelta(0))).step()  # type: ignore[arg-type]
    await record(database, entry(2))
    successor = Sealer(database, signer)
    assert await successor.step() is True
    assert await successor.step() is False
    assert [block.entries for block in signer.signed] == [1, 1]
    assert await valid(database, signer) == 2


async def test_a_locked_vault_is_counted_and_loses_nothing(database: Database) -> None:
    signer = Signer()
    signer.locked = True
    sealer = Sealer(database, signer, pace=Pace(look=timedelta(milliseconds=1)))
    await record(database, entry(1))
    with capture_logs() as logged:
        task = asyncio.create_task(sealer.run())
        async with asyncio.timeout(20):
            while sealer.failures < 3:
                await asyncio.sleep(0)
    assert [(one["event"], one["action"]) for one in logged] == [("task-failed", "audit-sealer")]
    async with asyncio.timeout(20):
        await record(database, entry(2))
        signer.locked = False
        while len(signer.signed) < 2 or sealer.failures:
            await asyncio.sleep(0)
    assert sealer.error is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await valid(database, signer) == 2


async def test_a_wake_is_a_hint(database: Database) -> None:
    signer = Signer()
    sealer = Sealer(database, signer, pace=Pace(look=timedelta(hours=1)))
    task = asyncio.create_task(sealer.run())
    async with asyncio.timeout(20):
        while not signer.signed:
            await asyncio.sleep(0)

        async def work(unit: Unit) -> None:
            unit.audit(entry())
            unit.afterwards(sealer.wake)

        await database.transact(work)
        while len(signer.signed) < 2:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_new_epoch_goes_on_from_the_restored_state(database: Database) -> None:
    signer = Signer()
    await record(database, entry(1))
    await Sealer(database, signer, epoch=0, pace=Pace(lease=timedelta(0))).step()
    await record(database, entry(2))
    await Sealer(database, signer, epoch=1).step()
    assert [(block.epoch, block.sequence) for block in signer.signed] == [(0, 1), (1, 2)]
    assert await valid(database, signer) == 2
    rows = await database.read(lambda unit: unit.rows(select(audit_block.c.epoch).order_by(audit_block.c.number)))
    assert [row.epoch for row in rows] == [0, 1]
