"""Put a backup back, and then everything that happened since it was made (S11).

The backup brings the state of then. The second medium tells what took effect since: certificates, revocations and
holds, archived keys, generations of card secrets, used tokens, ends of devices, workstations and rights. Nobody's proof
of who they are outlives it. Then a new epoch begins, in the journal, the vault and
the audit chain, so that nobody takes the restored branch for the lost one; OCSP answers "try later" until a list
beyond the last published one is out. Each step may be repeated; until the last one is done no server starts.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import msgspec

from cardwright_cardops.durable import sync_directory, write_whole
from cardwright_cardops.secret import Secret

from .. import opening
from ..audit import journal as audit
from ..audit.model import SERVER, AuditEntry, Fact, Target
from ..authentication import journal as authentication
from ..config import FILE, Installation
from ..devices import journal as devices
from ..escrow import journal as escrow
from ..issuance import journal as issuance
from ..issuance.authorities import organization
from ..people import journal as people
from ..requests.restored import close_overtaken
from ..sessions import journal as sessions
from ..store import migrate
from ..store.ids import SYSTEM, new_id
from ..store.second_medium import Remembered, SecondMedium, Settled, belongs, is_begun, raise_epoch, remembered
from ..store.unit import Database, Unit
from ..vault import administration
from ..vault.calls import VaultAdmin
from ..vault.document import KEY_FILE
from ..vault.protocol import Vault
from ..workstations import journal as workstations
from . import copies, manifest
from .errors import RestoreRefused, RestoreUnfinished
from .manifest import Manifest

MARK = "restoring.json"
"""In the data folder as long as a restore is not finished."""
AT_ONCE = 200
"""Events that one transaction replays."""
REPLAYS: tuple[Callable[[Unit, Remembered], Awaitable[bool]], ...] = (
    issuance.replay,
    escrow.replay,
    sessions.replay,
    devices.replay,
    workstations.replay,
    people.replay,
    authentication.replay,
    audit.replay,
)
"""Of every domain that writes to the second medium. Each passes over the events of others."""

OpenVault: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Vault, VaultAdmin]]]


@dataclass(frozen=True, slots=True)
class Restored:
    """``events`` are those that the second medium holds, ``replayed`` those that the backup did not know."""

    made_at: datetime
    events: int
    replayed: int
    vault_epoch: int
    journal_epoch: int


class _Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    backup: str


def require_whole(installation: Installation) -> None:
    """Raise RestoreUnfinished if a restore into this folder did not end."""
    if (installation.data / MARK).exists():
        raise RestoreUnfinished("a restore was begun here and did not end")


async def restore(
    installation: Installation, source: Path, passphrase: Secret, open_vault: OpenVault, *, forgetting: bool = False
) -> Restored:
    """Restore the backup in the folder ``source``. No server may run on this folder or this database.

    What is there is never overwritten: the database must be empty. A vault that is still there is kept, with its newer
    state; otherwise it comes from the backup, under the backup's ``passphrase``. ``open_vault`` gives it, unlocked.
    A second medium without a journal is refused, unless it is lost for good: ``forgetting`` then goes without it.
    Another installation's is always refused.
    Raises BackupUnusable, RestoreRefused, DataFolderInUse, DataFolderUnusable, SecondMediumDamaged, MigrationRefused,
    VaultError, StoreError, OSError.
    """
    found = manifest.read(source)
    if (found.engine == "sqlite") is not copies.is_sqlite(installation.database):
        raise RestoreRefused(
            f"the backup is of {found.engine}, the configuration names another kind of database",
            advice="Restore into the same kind of database as the backup was made of.",
        )
    with opening.own_folder(installation):
        if not forgetting:
            _require_journal(installation)
        _require_vault(installation, found)
        await _load(installation, source, found)
        _place_configuration(installation, source, found)
        _place_vault(installation, source, passphrase)
        await migrate.upgrade(installation.database)
        async with open_vault() as (vault, admin):
            done = await _catch_up(installation, found, vault, admin)
        (installation.data / MARK).unlink()
        sync_directory(installation.data)
    return done


@asynccontextmanager
async def own_vault(installation: Installation, passphrase: Secret) -> AsyncIterator[tuple[Vault, VaultAdmin]]:
    """The installation's vault, unlocked, as ``restore`` wants it. Raises VaultError."""
    async with opening.open_vault(installation, passphrase) as opened:
        assert opened.admin is not None
        yield opened.client, opened.admin


def _require_journal(installation: Installation) -> None:
    """A folder that is not mounted, or another one, looks like one that remembers nothing."""
    if not is_begun(installation.second_medium):
        raise RestoreRefused(
            f"there is no journal in {installation.second_medium}, so what happened since the backup is not known",
            advice="Put the second medium back there, or name its folder in the configuration "
            "(database.second_medium); only if it is lost for good, give --without-second-medium.",
        )


def _require_own(installation: Installation, org: UUID | None) -> None:
    """Whose database it is, is known only when it is there."""
    medium = installation.second_medium
    if org is not None and is_begun(medium) and not belongs(medium, org):
        raise RestoreRefused(
            f"the journal in {medium} is another installation's",
            effect="The database was put back, but nothing that happened since; no server starts on it.",
            advice="Put the right second medium there, or name its folder in the configuration "
            "(database.second_medium), then give the same command again.",
        )


def _require_vault(installation: Installation, found: Manifest) -> None:
    """Seen before anything is put back: an HSM's vault is in no backup of ours."""
    if _vault_is_lost(installation) and manifest.VAULT not in found.files:
        raise RestoreRefused(
            "the backup holds no vault, and there is none here",
            advice="Restore the HSM and the vault's folder by their own means, then try again.",
        )


def _vault_is_lost(installation: Installation) -> bool:
    return installation.vault is not None and not (installation.vault / KEY_FILE).exists()


async def _load(installation: Installation, source: Path, found: Manifest) -> None:
    """The database as it was, unless an earlier attempt put it there already."""
    store = manifest.SQLITE if found.engine == "sqlite" else manifest.POSTGRESQL
    mark, ours = installation.data / MARK, _Mark(found.files[store])
    begun = mark.exists()
    if begun and msgspec.json.decode(mark.read_bytes(), type=_Mark) != ours:
        raise RestoreRefused(
            "a restore of another backup was begun here", advice="Finish it, or begin in an empty place."
        )
    if await copies.is_empty(installation.database):
        write_whole(mark, msgspec.json.encode(ours))
        await copies.copy_in(installation.database, source / store)
    elif not begun:
        raise RestoreRefused(
            "there is a database already", advice="Move it away, or name an empty one in the configuration."
        )


def _place_configuration(installation: Installation, source: Path, found: Manifest) -> None:
    target = installation.data / FILE
    if manifest.CONFIGURATION in found.files and not target.exists():
        write_whole(target, (source / manifest.CONFIGURATION).read_bytes())


def _place_vault(installation: Installation, source: Path, passphrase: Secret) -> None:
    """The vault's file from the backup, where the vault itself is lost."""
    if installation.vault is not None and _vault_is_lost(installation):
        backup = (source / manifest.VAULT).read_bytes()
        administration.restore(installation.vault, backup, passphrase.reveal(), time.time)


async def _catch_up(installation: Installation, found: Manifest, vault: Vault, admin: VaultAdmin) -> Restored:
    medium = SecondMedium(installation.second_medium)
    database = Database(installation.database, second_medium=medium)
    try:
        org = await organization(database)
        _require_own(installation, org)
        events = list(remembered(installation.second_medium))
        replayed = 0
        waiting = iter(events)
        while some := list(islice(waiting, AT_ONCE)):
            replayed += await database.transact(partial(_replay, some))
        numbers = await issuance.numbers_of(vault)
        vault_epoch = await admin.new_epoch()
        journal_epoch = raise_epoch(installation.second_medium, org)
        done = Restored(found.made_at, len(events), replayed, vault_epoch, journal_epoch)
        await database.transact(lambda unit: devices.expose(unit, sessions.exposed(events)))
        await close_overtaken(database)
        await database.transact(partial(_settle, numbers, done))
        return done
    finally:
        await database.close()
        await medium.close()


async def _replay(some: Sequence[Remembered], unit: Unit) -> int:
    """How many of these were not known. What was never committed is not repeated."""
    changed = 0
    for one in some:
        if one.settled is not Settled.ABANDONED:
            changed += any([await replay(unit, one) for replay in REPLAYS])
    return changed


async def _settle(numbers: dict[str, int], done: Restored, unit: Unit) -> None:
    await issuance.raise_floors(unit, numbers)
    await authentication.end_proofs(unit)
    facts: dict[str, Fact] = {
        "backup": done.made_at.isoformat(),
        "events": done.events,
        "replayed": done.replayed,
        "epoch": done.vault_epoch,
        "journal": done.journal_epoch,
    }
    unit.audit(AuditEntry(SYSTEM, SERVER, "system.restore", Target("installation", new_id()), facts=facts))
