"""A long audit chain in a database, made by inserting its rows: as the sealer would have made it, in less time."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from cardwright_server.audit.chain import FIRST, block_hash, entry_document, root_of
from cardwright_server.audit.model import SERVER, AuditEntry, Target
from cardwright_server.audit.rows import rows_of
from cardwright_server.store.audit_tables import audit_block, audit_entry
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.model import AuditBlock
from tests.support.audit import Signer

ORG = UUID(int=1)
AT_ONCE = 200


async def grow(database: Database, signer: Signer, blocks: int, entries: int) -> None:
    """A chain of so many blocks with so many entries each, where there is none yet."""
    previous = FIRST
    for first in range(1, blocks + 1, AT_ONCE):
        rows: list[dict[str, Any]] = []
        sealed: list[dict[str, Any]] = []
        now = datetime.now(UTC).replace(microsecond=0)
        for number in range(first, min(first + AT_ONCE, blocks + 1)):
            mine = [_entry(now, number, place) for place in range(entries)]
            root = root_of(map(entry_document, mine))
            made = await signer.sign_audit_block(
                AuditBlock(chain="server", epoch=0, sequence=number, previous=previous, root=root, entries=entries)
            )
            sealed.append(
                {
                    "number": number, "epoch": 0, "previous": previous, "root": root, "entries": entries,
                    "prepared_at": now, "signed": made.signed, "signature": made.signature,
                }
            )  # fmt: skip
            previous, rows = block_hash(made.signed), rows + mine

        async def keep(unit: Unit, rows: Any = rows, sealed: Any = sealed) -> None:
            await unit.execute(insert(audit_block), sealed)
            await unit.execute(insert(audit_entry), rows)

        await database.transact(keep)


def _entry(now: datetime, number: int, place: int) -> dict[str, Any]:
    facts = {"before": "issued", "after": "updating", "reason": "none", "request": secrets.token_hex(16)}
    entry = AuditEntry(ORG, SERVER, "device.update", Target("device", new_id()), facts=facts)
    row, _ = rows_of(entry, now)
    return {**row, "block": number, "place": place}
