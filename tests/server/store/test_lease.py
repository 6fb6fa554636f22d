"""Leases and counters: one holder at a time, by the database's time; no number twice, no gap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from cardwright_server.store import counters
from cardwright_server.store.lease import Lease, acquire, new_holder, release
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock

Opener = Callable[..., Database]
LENGTH = timedelta(seconds=10)


async def test_one_of_many_gets_the_lease(database: Database) -> None:
    holders = [new_holder() for _ in range(8)]

    async def get(holder: UUID) -> Lease | None:
        return await database.transact(lambda unit: acquire(unit, "seal", holder, LENGTH))

    got = await asyncio.gather(*(get(holder) for holder in holders))
    (held,) = [one for one in got if one is not None]
    assert held.holder in holders
    assert held.fence == 1


async def test_a_lease_is_renewed_released_and_taken_over(open_database: Opener, clock: Clock) -> None:
    database = open_database(clock=clock)
    first, second = new_holder(), new_holder()

    async def get(holder: UUID) -> Lease | None:
        return await database.transact(lambda unit: acquire(unit, "seal", holder, LENGTH))

    held = await get(first)
    assert held is not None
    clock.advance(seconds=9)
    assert await get(second) is None
    renewed = await get(first)
    assert renewed is not None
    assert (renewed.fence, renewed.until) == (1, clock.now + LENGTH)
    clock.advance(seconds=10)
    taken = await get(second)
    assert taken is not None
    assert taken.fence == 2
    assert await get(first) is None
    await database.transact(lambda unit: release(unit, renewed))  # an old lease gives nothing back
    assert await get(first) is None
    await database.transact(lambda unit: release(unit, taken))
    again = await get(first)
    assert again is not None
    assert again.fence == 3


async def test_a_lease_from_before_the_clock_was_set_back_stands_in_nobodys_way(
    open_database: Opener, clock: Clock
) -> None:
    database = open_database(clock=clock)
    first, second = new_holder(), new_holder()

    async def get(holder: UUID) -> Lease | None:
        return await database.transact(lambda unit: acquire(unit, "seal", holder, LENGTH))

    held = await get(first)
    assert held is not None
    clock.now -= LENGTH  # as a clock that is corrected a little: its holder lives, and will renew it
    assert await get(second) is None
    clock.advance(seconds=-1)
    taken = await get(second)
    assert taken is not None
    assert (taken.fence, taken.until) == (2, clock.now + LENGTH)
    assert await get(first) is None


async def test_counters_give_each_number_once(database: Database) -> None:
    async def work(unit: Unit) -> int:
        return await counters.take(unit, "crl", 3)

    async def failing(unit: Unit) -> int:
        await counters.take(unit, "crl")
        raise LookupError

    results = await asyncio.gather(
        *(database.transact(work) for _ in range(8)), database.transact(failing), return_exceptions=True
    )
    numbers = [one for one in results if isinstance(one, int)]
    assert sorted(numbers) == [1, 4, 7, 10, 13, 16, 19, 22]


async def test_counters_are_raised_but_never_lowered(database: Database) -> None:
    async def work(unit: Unit) -> list[int]:
        values = [await counters.current(unit, "crl"), await counters.raise_to(unit, "crl", 7)]
        return [*values, await counters.raise_to(unit, "crl", 3), await counters.take(unit, "crl")]

    assert await database.transact(work) == [0, 7, 7, 8]
