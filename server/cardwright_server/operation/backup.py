"""Make a backup: the database, the vault sealed under a passphrase of the backup's own, and the configuration.

The second medium is no part of it: it remembers what happened since, and belongs on another disk, kept apart from
every backup. Nor are the passphrase and what is in ``run``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from cardwright_cardops.durable import sync_directory, write_whole
from cardwright_cardops.secret import Secret

from ..audit import service as audit
from ..config import FILE, Installation
from ..opening import open_vault
from ..store import migrate
from ..store.second_medium import current_epoch
from ..store.unit import Database
from ..vault.calls import VaultAdmin
from ..vault.client import AdminClient, VaultClient
from ..vault.errors import VaultUnavailable
from . import copies, manifest
from .errors import BackupFailed
from .manifest import Manifest


async def back_up(installation: Installation, admin: VaultAdmin | None, passphrase: Secret, target: Path) -> Manifest:
    """Write a backup into the new folder ``target``, while servers work. It is there whole or not at all.

    ``admin`` is None for a vault whose keys are in an HSM: those are backed up by the HSM's own means. Raises
    BackupFailed, VaultError, StoreError.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        if target.exists():
            raise BackupFailed(f"{target} exists already")
        partial.mkdir(mode=0o700)
    except OSError as error:
        raise BackupFailed(f"{partial} cannot be made: {error.strerror}") from error
    try:
        made = await _write(installation, admin, passphrase, partial)
        os.rename(partial, target)
        sync_directory(target.parent.absolute())
    except OSError as error:
        raise BackupFailed(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


@asynccontextmanager
async def vault_admin(installation: Installation, passphrase: Secret) -> AsyncIterator[VaultAdmin | None]:
    """For ``back_up``: the vault of the server that runs, else one that is started for this; None with an HSM.

    Raises VaultError.
    """
    section = installation.config.vault
    if section.hsm_module:
        yield None
        return
    running = VaultClient(installation.vault_sockets, uid=section.uid)
    try:
        await running.status()
    except VaultUnavailable:
        async with open_vault(installation, passphrase) as opened:
            yield opened.admin
        return
    finally:
        await running.close()
    admin = AdminClient(installation.vault_sockets, passphrase, uid=section.uid)
    try:
        yield admin
    finally:
        await admin.close()


async def _write(installation: Installation, admin: VaultAdmin | None, passphrase: Secret, folder: Path) -> Manifest:
    sqlite = copies.is_sqlite(installation.database)
    # The database first: a vault that is newer than it knows of nothing that the second medium does not tell as well.
    store = folder / (manifest.SQLITE if sqlite else manifest.POSTGRESQL)
    status = await migrate.status(installation.database)
    anchor = await _anchor(installation.database)
    await copies.copy_out(installation.database, store)
    if admin is not None:
        write_whole(folder / manifest.VAULT, await admin.backup(passphrase))
    written = installation.data / FILE
    if written.exists():
        write_whole(folder / manifest.CONFIGURATION, written.read_bytes())
    made = Manifest(
        format=manifest.FORMAT,
        program=version("cardwright"),
        made_at=datetime.now(UTC),
        engine="sqlite" if sqlite else "postgresql",
        revisions=status.database,
        journal_epoch=current_epoch(installation.second_medium),
        anchor=anchor,
        files={path.name: manifest.digest_of(path) for path in sorted(folder.iterdir())},
    )
    write_whole(folder / manifest.MANIFEST, msgspec.json.format(msgspec.json.encode(made)))
    return made


async def _anchor(url: str) -> str:
    """The end of the audit chain as an auditor keeps it, "" if there is none yet."""
    database = Database(url)
    try:
        anchor = await audit.latest_anchor(database)
    finally:
        await database.close()
    return "" if anchor is None else str(anchor)
