"""Units of work."""

from __future__ import annotations

from cardwright_server.store.unit import Database, Unit


async def test_smoke(database: Database) -> None:
    async def work(unit: Unit) -> object:
        return unit.now

    print(await database.transact(work), await database.read(work))
