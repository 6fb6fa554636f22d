"""An installation on disk whose database is lost, while cards go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cardwright_server.config import Configuration, Installation
from cardwright_server.operation.restore import Restored, restore
from cardwright_server.store.second_medium import SecondMedium
from cardwright_server.store.unit import Database
from cardwright_server.vault.calls import VaultAdmin
from cardwright_server.vault.protocol import Vault
from tests.support.session_world import SessionWorld, over
from tests.support.vault import PASSPHRASE


@dataclass
class Place:
    """An installation on disk whose database may be lost; the vault goes on."""

    folder: Path
    database: str
    another: str
    media: list[SecondMedium] = field(default_factory=list)
    databases: list[Database] = field(default_factory=list)

    @property
    def installation(self) -> Installation:
        run_folder = self.folder / "run"
        return Installation(
            Configuration(), self.folder, self.database, self.folder / "second-medium", self.folder / "vault",
            run_folder / "vault", self.folder / "tls", run_folder,
        )  # fmt: skip

    def opened(self) -> Database:
        """By a new process, as it were."""
        self.media.append(SecondMedium(self.installation.second_medium))
        self.databases.append(Database(self.database, second_medium=self.media[-1]))
        return self.databases[-1]

    async def closed(self) -> None:
        """Every process has ended."""
        for database in self.databases:
            await database.close()
        for medium in self.media:
            await medium.close()

    async def restored(self, world: SessionWorld, source: Path) -> Restored:
        """The database is lost; the backup comes back in another place."""
        await self.closed()
        self.database = self.another

        @asynccontextmanager
        async def open_vault() -> AsyncIterator[tuple[Vault, VaultAdmin]]:
            yield world.issuing.vault, world.issuing.admin

        return await restore(self.installation, source, PASSPHRASE, open_vault)

    def world(self, before: SessionWorld) -> SessionWorld:
        """The same organization over the database that is there now."""
        database = self.opened()
        world, issuing = replace(before.world, database=database), replace(before.issuing, database=database)
        return over(world, issuing, before.folder)
