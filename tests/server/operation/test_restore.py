"""Backup, and restore of an older database beside a world that went on (S11)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.secret import Secret
from cardwright_server.audit import service as audit
from cardwright_server.audit.model import SERVER
from cardwright_server.audit.sealer import Pace, Sealer
from cardwright_server.config import Configuration, Installation
from cardwright_server.issuance import crl, journal, status, store
from cardwright_server.issuance.model import Certificate, CertificateState, Purpose, RevocationReason
from cardwright_server.issuance.ocsp import OcspResponder
from cardwright_server.machine import Actor
from cardwright_server.opening import DataFolderInUse
from cardwright_server.operation import copies, manifest
from cardwright_server.operation import restore as module
from cardwright_server.operation.backup import back_up
from cardwright_server.operation.errors import BackupFailed, BackupUnusable, RestoreRefused, RestoreUnfinished
from cardwright_server.operation.restore import Restored, require_whole, restore
from cardwright_server.store import migrate
from cardwright_server.store.ids import new_id
from cardwright_server.store.second_medium import JournalEvent, JournalKind, SecondMedium, belongs, current_epoch
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.calls import LocalVault, VaultAdmin
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.model import KeyRole, SigningAlgorithm
from cardwright_server.vault.protocol import Vault
from cardwright_server.vault.software import SoftwareBackend
from tests.support.databases import PostgreSql
from tests.support.issuance import ON_SQLITE, World, aside, make_world, new_key, openssl, pem, serving
from tests.support.vault import PASSPHRASE, QUICK

BACKUP_PASSPHRASE = Secret(b"another one, for the safe")


class Site:
    """An installation on disk, its world, and the places that a restore may use afterwards."""

    def __init__(self, folder: Path, url: str, another: Callable[[], str]) -> None:
        self.folder = folder
        self.another = another
        self.installation = self.at(url)
        self.world: World

    def at(self, url: str) -> Installation:
        """The same installation with its database elsewhere."""
        run = self.folder / "run"
        return Installation(
            Configuration(), self.folder, url, self.folder / "second-medium", self.folder / "vault",
            run / "vault", self.folder / "tls", run,
        )  # fmt: skip

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[World]:
        """The world at work, in a new process as it were."""
        medium = SecondMedium(self.installation.second_medium)
        database = Database(self.installation.database, second_medium=medium)
        self.world.database = database
        self.world.core = VaultCore(self.folder / "vault", SoftwareBackend(QUICK), time)
        self.world.vault = LocalVault(self.world.core)
        try:
            yield self.world
        finally:
            await database.close()
            await medium.close()
            self.world.core.close()

    async def begin(self) -> None:
        """Tables, vault and authorities."""
        await migrate.upgrade(self.installation.database)
        medium = SecondMedium(self.installation.second_medium)
        database = Database(self.installation.database, second_medium=medium)
        self.world = await make_world(database, self.folder)
        await self.world.admin.create_key("audit", KeyRole.AUDIT, SigningAlgorithm.P256)
        await self.seal()

    async def seal(self) -> None:
        """Seal what the audit has."""
        epoch = (await self.world.vault.status()).epoch
        sealer = Sealer(self.world.database, self.world.vault, epoch=epoch, pace=Pace(lease=timedelta(0)))
        while await sealer.step():
            pass

    async def back_up(self) -> Path:
        """A backup of now."""
        target = self.folder.parent / "backup"
        await back_up(self.installation, self.world.admin, BACKUP_PASSPHRASE, target)
        return target

    async def stop(self) -> None:
        """Every process ends."""
        await self.world.database.close()
        self.world.core.close()

    def lose_database(self) -> None:
        """It is gone; the next one will be elsewhere."""
        self.installation = self.at(self.another())

    async def restore(self, source: Path, passphrase: Secret = PASSPHRASE, *, forgetting: bool = False) -> Restored:
        """Restore with a vault in this process."""

        @asynccontextmanager
        async def open_vault() -> AsyncIterator[tuple[Vault, VaultAdmin]]:
            core = VaultCore(self.folder / "vault", SoftwareBackend(QUICK), time)
            try:
                vault = LocalVault(core)
                admin = vault.admin(passphrase)
                await admin.unlock()
                yield vault, admin
            finally:
                core.close()

        return await restore(self.installation, source, passphrase, open_vault, forgetting=forgetting)


def time() -> float:
    """Now."""
    return datetime.now(UTC).timestamp()


@pytest.fixture
async def site(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """An installation that was begun, on each engine."""
    server: PostgreSql | None = None if engine_name == "sqlite" else request.getfixturevalue("postgresql")
    made: list[str] = []

    def another() -> str:
        if server is None:
            made.append(f"sqlite:///{tmp_path / 'data' / f'store{len(made)}.db'}")
            return made[-1]
        made.append(server.create())
        return server.url(made[-1])

    (tmp_path / "data").mkdir(mode=0o700)
    begun = Site(tmp_path / "data", another(), another)
    await begun.begin()
    yield begun
    await begun.stop()
    if server is not None:
        for name in made:
            server.drop(name)


async def issued(world: World) -> Certificate:
    """A certificate whose card was read back."""
    made = await world.issue(world.request(new_key()))

    async def release(unit: Unit) -> None:
        await status.release(unit, SERVER, world.org, made.session)  # type: ignore[arg-type]

    await world.do(release)
    return await now(world, made)


async def now(world: World, certificate: Certificate) -> Certificate:
    """As the books have it."""
    found = await world.database.read(lambda unit: store.certificate_by_id(unit, world.org, certificate.id))
    assert found is not None
    return found


async def revoke(world: World, certificate: Certificate) -> None:
    """For good."""

    async def work(unit: Unit) -> None:
        await status.revoke(unit, SERVER, Actor.HELP_DESK, [certificate], RevocationReason.KEY_COMPROMISE)

    await world.do(work)


async def number(world: World) -> int:
    """Number of the last list of the authority for cards."""
    found = await world.database.read(lambda unit: crl.current(unit, world.authorities[Purpose.CARDS].id))
    assert found is not None
    return found.number


async def ask(world: World, serial: str) -> str:
    """What openssl says of a serial number; the responder's answers carry its own signature."""
    root = pem(world.folder, "root", world.authorities[Purpose.ROOT].certificate)
    cards = pem(world.folder, "cards", world.authorities[Purpose.CARDS].certificate)
    async with serving(world.database, OcspResponder(world.database, world.vault)) as base:
        arguments = ("ocsp", "-issuer", cards, "-serial", f"0x{serial}", "-url", f"{base}/ocsp", "-CAfile", root)
        return await aside(_ocsp, *arguments)


def _ocsp(*arguments: str | Path) -> str:
    try:
        return openssl(*arguments)
    except AssertionError as said:
        return str(said)


async def test_restore_of_yesterday_knows_what_happened_since(site: Site) -> None:
    world = site.world
    kept, ended = await issued(world), await issued(world)
    await world.publisher.publish_due(world.database)
    source = await site.back_up()
    told = manifest.read(source)
    newer = await issued(world)
    await revoke(world, ended)
    for _ in range(3):
        await world.publisher.publish_due(world.database, force=True)
    last = await number(world)
    await site.seal()
    anchor = await audit.latest_anchor(world.database)
    await site.stop()
    site.lose_database()

    done = await site.restore(source)

    assert done.replayed > 0
    assert done.journal_epoch == told.journal_epoch + 1 == current_epoch(site.installation.second_medium)
    assert not (site.folder / module.MARK).exists()
    async with site.opened() as world:
        world.admin = world.vault.admin(PASSPHRASE)
        await world.admin.unlock()
        await world.refresh()
        assert (await now(world, ended)).state is CertificateState.REVOKED
        assert (await now(world, newer)).state is CertificateState.GOOD
        assert (await now(world, kept)).state is CertificateState.GOOD
        assert "trylater" in await ask(world, kept.serial)
        await world.publisher.publish_due(world.database)
        assert await number(world) > last
        assert ": good" in await ask(world, kept.serial)
        assert ": good" in await ask(world, newer.serial)
        assert ": revoked" in await ask(world, ended.serial)
        await site.seal()
        after = await audit.latest_anchor(world.database)
        assert anchor is not None and after is not None and after.epoch > anchor.epoch


async def test_vault_that_is_lost_comes_back_too(site: Site) -> None:
    made = await issued(site.world)
    await site.world.publisher.publish_due(site.world.database)
    source = await site.back_up()
    await site.stop()
    site.lose_database()
    shutil.rmtree(site.folder / "vault")

    await site.restore(source, BACKUP_PASSPHRASE)

    async with site.opened() as world:
        world.admin = world.vault.admin(BACKUP_PASSPHRASE)
        await world.admin.unlock()
        await world.refresh()
        assert (await now(world, made)).state is CertificateState.GOOD
        await world.publisher.publish_due(world.database)
        path = world.folder / "list.pem"
        published = await world.database.read(lambda unit: crl.current(unit, world.authorities[Purpose.CARDS].id))
        assert published is not None
        path.write_bytes(x509.load_der_x509_crl(published.crl).public_bytes(Encoding.PEM))
        cards = pem(world.folder, "cards", world.authorities[Purpose.CARDS].certificate)
        assert "verify OK" in openssl("crl", "-in", path, "-CAfile", cards, "-noout")


@ON_SQLITE
async def test_a_second_medium_that_is_not_there_is_not_one_that_remembers_nothing(site: Site) -> None:
    """A disk that is not mounted: nothing is restored before somebody says that it is lost for good."""
    source = await site.back_up()
    await issued(site.world)
    await site.stop()
    site.lose_database()
    medium = site.installation.second_medium
    elsewhere = medium.rename(medium.with_name("elsewhere"))
    for there in (False, True):
        if there:
            medium.mkdir()
        with pytest.raises(RestoreRefused, match="no journal"):
            await site.restore(source)
    require_whole(site.installation)
    medium.rmdir()
    shutil.copytree(elsewhere, medium)
    assert (await site.restore(source)).replayed > 0
    site.lose_database()
    shutil.rmtree(medium)
    done = await site.restore(source, forgetting=True)
    assert (done.events, done.journal_epoch) == (0, 2)
    assert belongs(medium, site.world.org), "what a server may go on with"


@ON_SQLITE
async def test_the_second_medium_of_another_installation_is_not_replayed(site: Site, tmp_path: Path) -> None:
    source = await site.back_up()
    await site.stop()
    site.lose_database()
    medium = site.installation.second_medium
    own = medium.rename(medium.with_name("own"))
    foreign = SecondMedium(medium)
    await foreign.append([JournalEvent(JournalKind.ISSUE, new_id(), new_id())], datetime.now(UTC))
    await foreign.close()
    for forgetting in (False, True):
        with pytest.raises(RestoreRefused, match="another installation"):
            await site.restore(source, forgetting=forgetting)
        with pytest.raises(RestoreUnfinished):
            require_whole(site.installation)
    assert current_epoch(medium) == 1
    shutil.rmtree(medium)
    own.rename(medium)
    assert (await site.restore(source)).events > 0


@ON_SQLITE
async def test_a_vault_that_no_backup_holds_is_missed_before_anything_is_put_back(site: Site) -> None:
    """Keys in an HSM: its vault's folder is put back by hand, and what was refused left nothing."""
    source = await site.back_up()
    await site.stop()
    site.lose_database()
    listed = json.loads((source / manifest.MANIFEST).read_text())
    del listed["files"][manifest.VAULT]
    (source / manifest.MANIFEST).write_text(json.dumps(listed))
    (source / manifest.VAULT).unlink()
    kept = (site.folder / "vault").rename(site.folder / "kept")
    with pytest.raises(RestoreRefused, match="holds no vault"):
        await site.restore(source)
    require_whole(site.installation)
    assert await copies.is_empty(site.installation.database)
    kept.rename(site.folder / "vault")
    await site.restore(source)
    require_whole(site.installation)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    "place", ["copy_in", "copied", "_place_vault", "upgrade", "_replay", "replayed", "raise_epoch", "_settle"]
)
async def test_restore_that_was_killed_goes_on(site: Site, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = site.world
    source = await site.back_up()
    made = await issued(world)
    await world.publisher.publish_due(world.database)
    await site.stop()
    site.lose_database()
    _break(monkeypatch, place)
    with pytest.raises(Killed):
        await site.restore(source)
    with pytest.raises(RestoreUnfinished):
        require_whole(site.installation)
    monkeypatch.undo()

    await site.restore(source)

    require_whole(site.installation)
    async with site.opened() as world:
        assert (await now(world, made)).state is CertificateState.GOOD


def _break(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def dies(real: Callable[..., Any] | None) -> Callable[..., Any]:
        async def work(*arguments: Any) -> None:
            if real is not None:
                await real(*arguments)
            raise Killed

        return work

    def dies_at_once(*_: Any) -> None:
        raise Killed

    match place:
        case "copy_in":
            monkeypatch.setattr(copies, "copy_in", dies(None))
        case "copied":
            monkeypatch.setattr(copies, "copy_in", dies(copies.copy_in))
        case "upgrade":
            monkeypatch.setattr(migrate, "upgrade", dies(None))
        case "_replay" | "_settle":
            monkeypatch.setattr(module, place, dies(None))
        case "replayed":
            monkeypatch.setattr(journal, "numbers_of", dies(None))
        case _:
            monkeypatch.setattr(module, place, dies_at_once)


@ON_SQLITE
async def test_what_is_there_is_never_overwritten(site: Site) -> None:
    source = await site.back_up()
    with pytest.raises(BackupFailed, match="exists already"):
        await site.back_up()
    await site.stop()
    with pytest.raises(RestoreRefused, match="a database already"):
        await site.restore(source)
    site.lose_database()
    descriptor = os.open(site.installation.lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataFolderInUse):
            await site.restore(source)
    finally:
        os.close(descriptor)
    await site.restore(source)
    with pytest.raises(RestoreRefused, match="a database already"):
        await site.restore(source)


@ON_SQLITE
async def test_backup_that_was_altered_is_refused(site: Site, tmp_path: Path) -> None:
    source = await site.back_up()
    files = sorted(path.name for path in source.iterdir())
    assert files == ["manifest.json", "store.db", "vault.backup"]
    assert {path.stat().st_mode & 0o777 for path in source.iterdir()} == {0o600}
    site.lose_database()
    for name in files:
        for change in (_flipped, _cut, _gone):
            copy = tmp_path / "altered"
            shutil.copytree(source, copy)
            change(copy / name)
            with pytest.raises(BackupUnusable):
                await site.restore(copy)
            shutil.rmtree(copy)
    wrong: list[dict[str, Any]] = [{"files": {"../../etc/passwd": "00"}}, {"format": 2}, {"files": {}}, {"more": 1}]
    for document in wrong:
        copy = tmp_path / "altered"
        shutil.copytree(source, copy)
        path = copy / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | document))
        with pytest.raises(BackupUnusable):
            await site.restore(copy)
        shutil.rmtree(copy)
    assert not (site.folder / module.MARK).exists()


def _flipped(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 0x80
    path.write_bytes(octets)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def _gone(path: Path) -> None:
    path.unlink()


@ON_SQLITE
async def test_backup_holds_no_passphrase_and_no_key_in_clear(site: Site) -> None:
    source = await site.back_up()
    everything = b"".join(path.read_bytes() for path in source.iterdir())
    for secret in (PASSPHRASE, BACKUP_PASSPHRASE):
        assert secret.reveal() not in everything
    assert b"PRIVATE KEY" not in everything
