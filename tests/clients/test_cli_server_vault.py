"""``cardwright server vault rotate|destroy`` against a server and a vault behind its sockets, both in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cardwright_server.api.system import SystemServicer
from cardwright_server.app import wire
from cardwright_server.authentication.principal import Principal
from cardwright_server.config import load
from cardwright_server.people.model import Role
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.model import MasterPurpose
from cardwright_server.vault.service import VaultService
from tests.support.command_line import Ran
from tests.support.databases import Clock
from tests.support.issuance import ON_SQLITE
from tests.support.operator_line import OperatorLine, operator_line
from tests.support.people import make_operator
from tests.support.vault import PASSPHRASE, make_core
from tests.support.whole import system_of


@dataclass
class Safe:
    """A vault, and who may ask for its keys."""

    line: OperatorLine
    vault: LocalVault
    officer: Principal
    administrator: Principal
    clock: Clock

    async def run(self, *arguments: str, by: Principal | None = None, passphrase: bytes = b"") -> Ran:
        """``server vault``, with the vault's passphrase at a descriptor."""
        reading, writing = os.pipe()
        os.write(writing, (passphrase or PASSPHRASE.reveal()) + b"\n")
        os.close(writing)
        given = ("vault", *arguments, "--passphrase-fd", str(reading))
        return await self.line.run(by or self.officer, *given)

    async def version(self) -> int:
        """That of the PUKs' master."""
        return (await self.vault.status()).masters[MasterPurpose.PUK]


@pytest.fixture
async def safe(open_database: Callable[..., Database], clock: Clock, tmp_path: Path) -> AsyncIterator[Safe]:
    clock.now = datetime.now(UTC)
    database, org = open_database(clock=clock), new_id()
    core = make_core(tmp_path / "keys", lambda: clock.now.timestamp())
    vault, installation = LocalVault(core), load(tmp_path / "data")
    domains = wire(installation, database, vault, org)
    service = VaultService(core)
    await service.start(installation.vault_sockets)
    await domains.watch.refresh()
    system = system_of(domains, installation)
    try:
        async with operator_line(
            database, tmp_path / "operators", lambda calls: [SystemServicer(calls, system, lambda: (0, 0))]
        ) as line:
            officer = await make_operator(database, org, Role.SECURITY_OFFICER)
            yield Safe(line, vault, officer, await make_operator(database, org, Role.ADMINISTRATOR), clock)
    finally:
        await service.close()
        domains.close()
        core.close()


@ON_SQLITE
async def test_a_master_is_rotated_and_the_old_one_destroyed_by_its_name(safe: Safe) -> None:
    ran = await safe.run("rotate", "puk", "--json")
    assert (ran.code, ran.json) == (0, {"master": "puk", "version": 2})
    ran = await safe.run("rotate", "puk")
    assert (ran.code, ran.out, await safe.version()) == (0, "Version 3 of puk is in use.\n", 3)
    early = await safe.run("destroy", "puk", "1", "--confirm", "puk.1", "--json")
    assert (early.code, early.json["error"]["code"]) == (1, "MASTER_SETTLING")
    safe.clock.advance(hours=2)
    ran = await safe.run("destroy", "puk", "1", "--confirm", "puk.1", "--json")
    assert (ran.code, ran.json) == (0, {"master": "puk", "destroyed": 1})
    again = await safe.run("destroy", "puk", "1", "--confirm", "puk.1", "--json")
    assert (again.code, again.json["error"]["code"]) == (1, "MASTER_UNKNOWN")
    assert "Version 2 of puk is destroyed." in (await safe.run("destroy", "puk", "2", "--confirm", "puk.2")).out


@ON_SQLITE
async def test_a_rotation_that_no_server_wrote_down_counts_by_the_vault_s_word(safe: Safe) -> None:
    """The server died before its record, or the passphrase holder rotated at the vault itself."""
    admin = safe.vault.admin(PASSPHRASE)
    assert await admin.rotate_master(MasterPurpose.PUK) == 2
    safe.clock.advance(minutes=59)
    early = await safe.run("destroy", "puk", "1", "--confirm", "puk.1", "--json")
    assert (early.code, early.json["error"]["code"]) == (1, "MASTER_SETTLING")
    # A later rotation says nothing about a version that was old before it.
    assert await admin.rotate_master(MasterPurpose.PUK) == 3
    safe.clock.advance(minutes=2)
    assert (await safe.run("destroy", "puk", "1", "--confirm", "puk.1")).code == 0
    late = await safe.run("destroy", "puk", "2", "--confirm", "puk.2", "--json")
    assert (late.code, late.json["error"]["code"]) == (1, "MASTER_SETTLING")
    assert (await safe.vault.status()).ages[MasterPurpose.PUK].keys() == {2, 3}


@ON_SQLITE
async def test_nothing_is_done_without_the_name_the_right_or_the_passphrase(safe: Safe) -> None:
    assert (await safe.run("rotate", "puk")).code == 0
    safe.clock.advance(hours=2)
    for confirm in ((), ("--confirm", "puk"), ("--confirm", "puk.2"), ("--confirm", "archive.1")):
        ran = await safe.run("destroy", "puk", "1", *confirm)
        assert ran.code == 2
        assert "puk.1" in ran.err
    for wrong in (("rotate", "commit"), ("destroy", "puk", "0", "--confirm", "puk.0"), ("destroy", "puk")):
        assert (await safe.run(*wrong)).code == 2
    for arguments in (("rotate", "puk"), ("destroy", "puk", "1", "--confirm", "puk.1")):
        ran = await safe.run(*arguments, "--json", by=safe.administrator)
        assert (ran.code, ran.json["error"]["code"]) == (1, "ACCESS_DENIED")
        ran = await safe.run(*arguments, "--json", passphrase=b"wrong")
        assert (ran.code, ran.json["error"]["code"]) == (1, "VAULT_UNLOCK_REFUSED")
        ran = await safe.run(*arguments, "--json", passphrase=b"\xff\xfe")
        assert (ran.code, ran.json["error"]["code"]) == (1, "PASSPHRASE_MISSING")
    in_use = await safe.run("destroy", "puk", "2", "--confirm", "puk.2", "--json")
    assert (in_use.code, in_use.json["error"]["code"]) == (1, "MASTER_CURRENT")
    never = await safe.run("destroy", "puk", "7", "--confirm", "puk.7", "--json")
    assert (never.code, never.json["error"]["code"]) == (1, "MASTER_UNKNOWN")
    assert await safe.version() == 2
