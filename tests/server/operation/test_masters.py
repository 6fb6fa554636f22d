"""After a rotation everything sealed is sealed anew, whatever stops it on the way; only then the old master goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret
from cardwright_server.devices.model import SecretName
from cardwright_server.devices.rewrap import SealedSecrets
from cardwright_server.devices.stock import SecretSealer, context_of
from cardwright_server.escrow.model import Archived
from cardwright_server.escrow.rewrap import SealedKeys
from cardwright_server.operation import masters
from cardwright_server.operation.masters import MasterInUse, Masters
from cardwright_server.operation.restore import REPLAYS
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.devices_tables import device_secret
from cardwright_server.store.escrow_tables import escrowed_key
from cardwright_server.store.second_medium import SecondMedium, remembered
from cardwright_server.store.unit import Database
from cardwright_server.vault.errors import VaultError, VaultQuota
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import Authorization, LockState, MasterPurpose, VaultStatus, Wrapped
from tests.support.escrow import Keep, make_keep
from tests.support.mortal import Killed, Mortal
from tests.support.vault import PASSPHRASE

BEHALF = Authorization("test", "test")
ARCHIVE, INITIAL = MasterPurpose.ARCHIVE, MasterPurpose.INITIAL_SECRET
SECRETS = 3


class Scene:
    """Three archived keys, one without a certificate, and three secrets of cards, by the first masters."""

    def __init__(self, keep: Keep, keys: list[Archived], owners: list[object]) -> None:
        self.keep, self.keys, self.owners = keep, keys, owners

    def masters(self, database: Database | None = None) -> Masters:
        there, vault = database or self.keep.database, self.keep.vault
        return Masters(there, vault, (SealedKeys(there, vault), SealedSecrets(there, vault)))

    async def rotate(self) -> None:
        admin = self.keep.vault.admin(PASSPHRASE)
        assert [await admin.rotate_master(purpose) for purpose in (ARCHIVE, INITIAL)] == [2, 2]

    async def destroy(self) -> None:
        admin = self.keep.vault.admin(PASSPHRASE)
        for purpose in (ARCHIVE, INITIAL):
            await self.keep.database.transact(lambda unit, p=purpose: self.masters().require_unused(unit, p, 1))  # type: ignore[misc]
            await admin.destroy_master(purpose, 1)

    async def opened(self) -> int:
        """How many keys and secrets open."""
        for key in self.keys:
            now = await self.keep.archive.archived(self.keep.org, key.fingerprint)
            assert now == replace(key, wrapped=now.wrapped, version=now.version)
            assert await self.keep.vault.unwrap_for_card(now.wrapped, now.context, BEHALF)
        rows = await self.keep.database.read(lambda unit: unit.rows(select(device_secret)))
        for row in rows:
            sealed = Wrapped(MasterPurpose(row.master), row.master_version, row.sealed)
            context = context_of(row.org, row.owner, SecretName(row.name))
            assert (await self.keep.vault.open_data(sealed, context, BEHALF)).reveal() == b"12345670"
        return len(self.keys) + len(rows)

    async def versions(self) -> set[int]:
        async def read(unit: object) -> set[int]:
            keys = await unit.rows(select(escrowed_key.c.master))  # type: ignore[attr-defined]
            secrets = await unit.rows(select(device_secret.c.master_version))  # type: ignore[attr-defined]
            return {row[0] for row in (*keys, *secrets)}

        return await self.keep.database.read(read)


async def make_scene(database: Database, folder: Path) -> Scene:
    keep = make_keep(database, folder)
    made = [await keep.new(certified=number > 0) for number in range(3)]
    keys = [await keep.archive.archived(keep.org, one.fingerprint) for one in made]
    owners, sealer = [uuid4() for _ in range(SECRETS)], SecretSealer(keep.vault)
    for owner in owners:
        (sealed,) = await sealer.seal(keep.org, owner, {SecretName.PUK: Secret(b"12345670")})
        values = {
            "org": keep.org, "owner": owner, "name": sealed.name, "master": sealed.wrapped.key.value,
            "master_version": sealed.wrapped.version, "sealed": sealed.wrapped.data,
        }  # fmt: skip
        await database.transact(lambda unit, v=values: unit.insert(device_secret, v))  # type: ignore[misc]
    return Scene(keep, keys, list(owners))


@pytest.mark.parametrize(
    ("ages", "version", "code"),
    [
        ({1: 9000.0, 2: 3600.0}, 1, ""),
        ({1: 9000.0, 2: 3599.5}, 1, "MASTER_SETTLING"),
        ({1: 9000.0, 2: 9000.0, 3: 1.0}, 1, ""),
        ({1: 9000.0, 2: 9000.0, 3: 1.0}, 2, "MASTER_SETTLING"),
        ({1: 9000.0, 3: 9000.0}, 2, "MASTER_UNKNOWN"),
        ({1: 9000.0, 2: 9000.0}, 2, "MASTER_CURRENT"),
        ({1: 9000.0, 2: 9000.0}, 3, "MASTER_UNKNOWN"),
        (None, 1, "MASTER_SETTLING"),
    ],
)
def test_which_version_is_old_enough(ages: dict[int, float] | None, version: int, code: str) -> None:
    known = {} if ages is None else {ARCHIVE: ages}
    status = VaultStatus(LockState.UNLOCKED, "software", "id", 0, b"", ages=known)
    assert refusal(status, version) == code
    assert refusal(VaultStatus(LockState.LOCKED, "software", "id", 0, b""), version) == "VAULT_LOCKED"


def refusal(status: VaultStatus, version: int) -> str:
    try:
        masters.require_old(status, ARCHIVE, version)
    except CardwrightError as error:
        assert not isinstance(error, masters.MasterSettling) or 1 <= error.retry_after <= 3600
        return error.code
    return ""


async def test_nothing_is_destroyed_before_all_is_sealed_anew(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masters, "AT_ONCE", 2)
    scene = await make_scene(database, tmp_path)
    await scene.masters().run()
    assert await scene.versions() == {1}
    await scene.rotate()
    with pytest.raises(MasterInUse) as refused:
        await scene.destroy()
    assert (refused.value.code, refused.value.left) == ("MASTER_IN_USE", 3)
    here = scene.masters()
    left = []
    while sum((await here.look()).values()):
        left.append(dict(here.left))
        assert await here.step()
    assert left == [{ARCHIVE: 3, INITIAL: 3}, {ARCHIVE: 1, INITIAL: 1}]
    await scene.destroy()
    assert await scene.opened() == 6
    facts = await database.read(
        lambda unit: unit.rows(select(audit_entry.c.action, audit_entry.c.facts).order_by(audit_entry.c.id))
    )
    assert [row.facts["count"] for row in facts if row.action == "escrow.rewrapped"] == [2, 1]
    # Under the old master nothing opens any more.
    with pytest.raises(VaultError):
        await scene.keep.vault.unwrap_for_card(scene.keys[0].wrapped, scene.keys[0].context, BEHALF)


async def test_a_server_that_dies_on_the_way_is_followed_by_another(
    open_database: Callable[..., Database], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after every commit; the next one goes on, and the last may destroy the old masters."""
    monkeypatch.setattr(masters, "AT_ONCE", 2)
    scene = await make_scene(open_database(), tmp_path)
    await scene.rotate()
    for after in (False, True):
        medium = SecondMedium(tmp_path / "second-medium")
        mortal = Mortal(database_url, second_medium=medium)
        mortal.fatal, mortal.after = 1, after
        with pytest.raises(Killed):
            await scene.masters(mortal).run()
        await mortal.close()
        await medium.close()
        assert await scene.opened() == 6
    assert await scene.versions() == {1, 2}
    await scene.masters().run()
    assert await scene.versions() == {2}
    await scene.destroy()
    assert await scene.opened() == 6


async def test_a_restored_database_gets_the_seals_of_the_master_that_is_left(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    database = open_database()
    scene = await make_scene(database, tmp_path)
    before = await database.read(lambda unit: unit.rows(select(escrowed_key)))
    secrets = await database.read(lambda unit: unit.rows(select(device_secret)))
    await scene.rotate()
    await scene.masters().run()
    await scene.destroy()
    # As the backup had them.
    for row in before:
        old = {"master": row.master, "wrapped": row.wrapped}
        await database.transact(
            lambda unit, r=row, o=old: unit.execute(escrowed_key.update().where(escrowed_key.c.id == r.id).values(o))  # type: ignore[misc]
        )
    for row in secrets:
        was = {"master_version": row.master_version, "sealed": row.sealed}
        await database.transact(
            lambda unit, r=row, w=was: unit.execute(device_secret.update().where(device_secret.c.id == r.id).values(w))  # type: ignore[misc]
        )
    assert await scene.versions() == {1}
    events = list(remembered(tmp_path / "second-medium"))
    for again in (True, False):
        done = [await database.transact(lambda unit, o=one, r=r: r(unit, o)) for one in events for r in REPLAYS]  # type: ignore[misc]
        assert any(done) is again
    assert await scene.versions() == {2}
    assert await scene.opened() == 6


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_the_vaults_quota_only_delays_it(database: Database, tmp_path: Path) -> None:
    scene = await make_scene(database, tmp_path)
    core = scene.keep.vault._core
    await scene.rotate()
    assert core.document is not None
    usual, core.document.limits["data.seal"] = core.document.limits["data.seal"], Limit(SECRETS, SECRETS)
    with pytest.raises(VaultQuota):
        await scene.masters().run()
    core.document.limits["data.seal"] = usual
    await scene.masters().run()
    assert await scene.versions() == {2}
    assert await scene.opened() == 6
