"""Archived keys that an older version of the master key sealed, sealed anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from uuid import UUID

from ..audit.model import SERVER, AuditEntry, Target
from ..store.errors import StaleVersion
from ..store.unit import Database, Unit
from ..vault.model import MasterPurpose, Wrapped
from ..vault.protocol import Vault
from . import store
from .journal import archive_event
from .model import Archived


class SealedKeys:
    """``operation.masters.Seals`` of the archive."""

    purpose = MasterPurpose.ARCHIVE

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def count(self, unit: Unit, *, version: int | None = None, before: int | None = None) -> int:
        """See ``Seals``."""
        return await store.count_sealed(unit, version=version, before=before)

    async def step(self, version: int, limit: int) -> int:
        """See ``Seals``. The new seal is on the second medium before it counts."""
        found = await self._database.read(lambda unit: store.sealed_before(unit, version, limit), timed=False)
        sealed = {key.id: await self._vault.rewrap(key.wrapped, key.context) for key in found}
        try:
            await self._database.transact(partial(_keep, found, sealed))
        except StaleVersion:
            return 1  # one was given out or certified meanwhile: it is read again
        return len(found)


async def _keep(found: list[Archived], sealed: Mapping[UUID, Wrapped], unit: Unit) -> None:
    for key in found:
        new = sealed[key.id]
        await store.update_key(unit, key, {"master": new.version, "wrapped": new.data})
        kept = await store.key_by_id(unit, key.org, key.id)
        assert kept is not None
        unit.beforehand(archive_event(kept, rewrapped=True))
    for org, count in Counter(key.org for key in found).items():
        target = Target("organization", org)
        unit.audit(AuditEntry(org, SERVER, "escrow.rewrapped", target, facts={"count": count}))
