"""The sealer with the real vault: its statements verify, it signs no second branch, and openssl agrees."""

from __future__ import annotations

import io
import json
import subprocess
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import delete, update

from cardwright_server.audit.model import SERVER, AuditEntry, Target
from cardwright_server.audit.sealer import Pace, Sealer
from cardwright_server.audit.service import export, latest_anchor, verify_database
from cardwright_server.audit.verify import Expectations, Fault
from cardwright_server.store.audit_tables import audit_block, audit_entry
from cardwright_server.store.ids import SYSTEM, new_id
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.errors import VaultError
from cardwright_server.vault.model import KeyRole, SigningAlgorithm
from tests.support.databases import Clock as DatabaseClock
from tests.support.issuance import ON_SQLITE
from tests.support.vault import PASSPHRASE, Clock, Pki, make_core, public_of

NO_LEASE = Pace(lease=timedelta(0))


@pytest.fixture
async def pki(tmp_path: Path) -> AsyncIterator[Pki]:
    from cardwright_server.vault.calls import LocalVault

    clock = Clock()
    core = make_core(tmp_path / "vault", clock)
    vault = LocalVault(core)
    made = Pki(core, vault, vault.admin(PASSPHRASE), clock)
    await made.key("audit", KeyRole.AUDIT, SigningAlgorithm.P384)
    yield made
    core.close()


async def record(database: Database, entries: int = 2) -> None:
    async def work(unit: Unit) -> None:
        for _ in range(entries):
            unit.audit(AuditEntry(SYSTEM, SERVER, "device.bind", Target("device", new_id()), personal={"n": "Ada"}))

    await database.transact(work)


async def sealed(database: Database, pki: Pki) -> None:
    epoch = (await pki.vault.status()).epoch
    await Sealer(database, pki.vault, epoch=epoch, pace=NO_LEASE).step()


async def expected(pki: Pki, **more: object) -> Expectations:
    return Expectations({"audit": public_of(await pki.vault.public_key("audit"))}, **more)  # type: ignore[arg-type]


async def test_a_chain_of_the_vault_verifies_also_by_openssl(database: Database, pki: Pki, tmp_path: Path) -> None:
    for _ in range(3):
        await record(database)
        await sealed(database, pki)
    report = await verify_database(database, await expected(pki), waiting=timedelta(0))
    assert report.findings == ()
    assert (report.blocks, report.entries) == (3, 6)

    out = io.StringIO()
    await export(database, out)
    key = tmp_path / "key.pem"
    key.write_bytes(
        public_of(await pki.vault.public_key("audit")).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for line in out.getvalue().splitlines():
        block = json.loads(line)
        (tmp_path / "signed").write_bytes(b64decode(block["signed"]))
        (tmp_path / "signature").write_bytes(b64decode(block["signature"]))
        command = ["openssl", "dgst", "-sha384", "-verify", "key.pem", "-signature", "signature", "signed"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert done.stdout == b"Verified OK\n"


async def test_the_vault_signs_no_second_branch_and_goes_on_after_a_declared_restore(
    database: Database, pki: Pki
) -> None:
    for _ in range(3):
        await record(database)
        await sealed(database, pki)
    anchor = await latest_anchor(database)
    assert anchor is not None

    async def back_to_yesterday(unit: Unit) -> None:
        await unit.execute(delete(audit_entry).where(audit_entry.c.block > 1))
        await unit.execute(delete(audit_block).where(audit_block.c.number > 1))

    await database.transact(back_to_yesterday)
    await record(database)
    with pytest.raises(VaultError):
        await sealed(database, pki)

    # Restoring by the book: the vault's epoch is raised, and what was begun in the old one is begun anew.
    await pki.admin.new_epoch()
    epoch = (await pki.vault.status()).epoch
    await Sealer(database, pki.vault, epoch=epoch, pace=NO_LEASE).step()
    report = await verify_database(database, await expected(pki, anchors=[anchor]), waiting=timedelta(0))
    assert {one.fault for one in report.findings} == {Fault.RESTORED}


async def test_a_block_signed_before_a_crash_is_signed_the_same_again(
    open_database: Callable[..., Database], pki: Pki
) -> None:
    database = open_database()
    await record(database)
    await sealed(database, pki)
    forget = update(audit_block).values(signed=None, signature=None)
    await database.transact(lambda unit: unit.execute(forget))
    await record(database)
    await sealed(database, pki)
    await sealed(database, pki)
    report = await verify_database(database, await expected(pki), waiting=timedelta(0))
    assert (report.findings, report.blocks, report.entries) == ((), 2, 4)


@ON_SQLITE
async def test_a_clock_that_is_set_back_stops_no_sealing_and_is_seen(
    open_database: Callable[..., Database], clock: DatabaseClock, pki: Pki
) -> None:
    """To before the last block: the vault's time stands still until it is caught up, so entries look too old."""
    database = open_database(clock=clock)
    clock.now = pki.clock.moment
    await record(database)
    await sealed(database, pki)
    for step in (-timedelta(hours=1), timedelta(minutes=51), timedelta(minutes=10)):
        clock.now += step
        pki.clock.now += step.total_seconds()
        await record(database, 1)
        await sealed(database, pki)
    report = await verify_database(database, await expected(pki, now=clock.now), waiting=timedelta(0))
    assert (report.blocks, report.entries) == (4, 5)
    assert [(one.fault, one.block) for one in report.findings] == [(Fault.LATE, 2)]
