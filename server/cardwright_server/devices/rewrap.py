"""Initial secrets that an older version of the master key sealed, sealed anew."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from sqlalchemy import Row

from ..audit.model import SERVER, AuditEntry, Target
from ..store.unit import Database, Unit
from ..vault.model import MasterPurpose, Wrapped
from ..vault.protocol import Vault
from . import store
from .journal import seal_event
from .model import SecretName
from .stock import context_of


class SealedSecrets:
    """``operation.masters.Seals`` of what cards are delivered with."""

    purpose = MasterPurpose.INITIAL_SECRET

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def count(self, unit: Unit, *, version: int | None = None, before: int | None = None) -> int:
        """See ``Seals``."""
        return await store.count_secrets(unit, version=version, before=before)

    async def step(self, version: int, limit: int) -> int:
        """See ``Seals``. The new seal is on the second medium before it counts."""
        found = await self._database.read(lambda unit: store.secrets_before(unit, version, limit), timed=False)
        sealed = []
        for row in found:
            old = Wrapped(MasterPurpose(row.master), row.master_version, row.sealed)
            context = context_of(row.org, row.owner, SecretName(row.name))
            sealed.append((row, await self._vault.rewrap_data(old, context)))
        await self._database.transact(partial(_keep, sealed))
        return len(found)


async def _keep(sealed: list[tuple[Row[Any], Wrapped]], unit: Unit) -> None:
    done = []
    for row, new in sealed:
        if await store.reseal(unit, row.org, row.owner, row.name, new.version, new.data):
            unit.beforehand(seal_event(row.org, row.owner, row.name, new.version, new.data))
            done.append(row.org)
    for org, count in Counter(done).items():
        target = Target("organization", org)
        unit.audit(AuditEntry(org, SERVER, "device.secrets-rewrapped", target, facts={"count": count}))
