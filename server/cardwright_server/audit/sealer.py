"""The sealer: one process of several puts committed entries in order, into blocks, and has the blocks signed.

A block's content is committed before it is signed, so that a sealer that dies in between leaves a block which the
next one has signed as it is; the vault gives the same statement for the last block again, and none for another.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row

from cardwright_cardops.errors import CardwrightError

from ..store.lease import acquire, new_holder
from ..store.unit import Database, Isolation, Unit
from ..vault.model import AuditBlock
from . import store
from .chain import FIRST, block_hash, entry_document, root_of
from .signer import Signer

LEASE = "audit-sealer"


@dataclass(frozen=True, slots=True)
class Pace:
    """How the sealer works. ``look``: between looks for entries; ``heartbeat``: an empty block when nothing happened.

    A tail that was cut is noticed without an anchor once the heartbeat is overdue.
    """

    look: timedelta = timedelta(seconds=0.5)
    heartbeat: timedelta = timedelta(seconds=30)
    lease: timedelta = timedelta(seconds=10)
    most: int = 1000
    """Entries in a block."""


class Sealer:
    """Seals one chain. Every process runs one; the lease lets one of them work.

    ``chain`` names the installation's chain to the vault, ``epoch`` is the vault's (``VaultStatus.epoch``).
    """

    def __init__(
        self, database: Database, signer: Signer, *, chain: str = "server", epoch: int = 0, pace: Pace | None = None
    ) -> None:
        self._database = database
        self._signer = signer
        self._chain = chain
        self._epoch = epoch
        self._pace = pace or Pace()
        self._holder = new_holder()
        self._wake = asyncio.Event()
        self.failures = 0
        """Rounds that failed since the last one that did not: what an alarm watches."""
        self.error: CardwrightError | None = None
        """Why the last round failed."""

    def wake(self) -> None:
        """A hint that there is something to seal: ``unit.afterwards(sealer.wake)``."""
        self._wake.set()

    async def run(self) -> None:
        """Seal until cancelled. Failures (vault locked, database gone) are counted, and tried again."""
        while True:
            try:
                while await self.step():
                    pass
                self.failures, self.error = 0, None
            except CardwrightError as error:
                if self.error is None:
                    structlog.get_logger().warning("task-failed", action="audit-sealer", code=error.code)
                self.failures += 1
                self.error = error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.look.total_seconds()):
                    await self._wake.wait()
            self._wake.clear()

    async def step(self) -> bool:
        """Seal one block if there is need and the lease is ours. Whether more may be waiting.

        Raises VaultError and StoreError; what was begun is finished by a later step.
        """
        prepared = await self._database.transact(self._prepare, isolation=Isolation.READ_COMMITTED)
        if prepared is None:
            return False
        block, full = prepared
        done = await self._signer.sign_audit_block(block)

        async def keep(unit: Unit) -> None:
            await store.keep_signature(unit, block.sequence, done.signed, done.signature)

        await self._database.transact(keep, isolation=Isolation.READ_COMMITTED)
        return full

    async def _prepare(self, unit: Unit) -> tuple[AuditBlock, bool] | None:
        if await acquire(unit, LEASE, self._holder, self._pace.lease) is None:
            return None
        last = await store.last_block(unit)
        if last is not None and last.signed is None:
            if last.epoch < self._epoch:
                # Begun before a restore was declared; the vault signs nothing of an old epoch any more.
                await store.move_to_epoch(unit, last.number, self._epoch)
                last = await store.block(unit, last.number)
                assert last is not None
            return self._block(last), True
        entries = await store.unsealed(unit, self._pace.most)
        if not entries and last is not None and not self._due(last.prepared_at, unit.now):
            return None
        number: int = 1 if last is None else last.number + 1
        values = {
            "number": number,
            "epoch": self._epoch,
            "previous": FIRST if last is None else block_hash(last.signed),
            "root": root_of(entry_document(row._mapping) for row in entries),
            "entries": len(entries),
            "prepared_at": unit.now,
        }
        await store.prepare(unit, values, [row.id for row in entries])
        made = await store.block(unit, number)
        assert made is not None
        return self._block(made), len(entries) == self._pace.most

    def _due(self, last: datetime, now: datetime) -> bool:
        # A clock that was set back must not silence the heartbeat.
        return abs(now - last) >= self._pace.heartbeat

    def _block(self, row: Row[Any]) -> AuditBlock:
        return AuditBlock(self._chain, row.epoch, row.number, row.previous, row.root, row.entries)
