"""Numbers: unique among processes, organizations and lives, and never given twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from cardwright_cardops.piv.objects.fascn import Fascn, MalformedFascn
from cardwright_server.devices import numbering
from cardwright_server.devices.errors import NumbersExhausted
from cardwright_server.devices.numbering import NINES, Issuer, Numbering, NumberKind
from cardwright_server.store.counters import raise_to
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit

FEDERAL = Issuer("7000", "0042")
COUNTER = "fasc-n/7000/0042"


async def test_several_processes_give_different_numbers(open_database: Callable[..., Database]) -> None:
    org, device = new_id(), new_id()

    async def take(database: Database) -> list[Fascn]:
        numbers = Numbering(FEDERAL)
        return [await database.transact(lambda unit: numbers.fascn(unit, org, device)) for _ in range(5)]

    made = await asyncio.gather(*(take(open_database(pool=1)) for _ in range(3)))
    found = [one for some in made for one in some]
    assert sorted(one.credential_number for one in found) == [f"{number:06d}" for number in range(1, 16)]
    assert all(Fascn.decode(one.encode()) == one and one.is_federal for one in found)


async def test_other_organizations_and_restored_numbers(database: Database) -> None:
    numbers = Numbering(FEDERAL)

    async def work(unit: Unit) -> list[str]:
        taken = Fascn("7000", "0042", "000002")
        value = taken.identifier + taken.credential_series
        assert await numbers.reserve(unit, new_id(), new_id(), NumberKind.FASCN, value)
        assert not await numbers.reserve(unit, new_id(), new_id(), NumberKind.FASCN, value)
        return [(await numbers.fascn(unit, new_id(), new_id())).credential_number for _ in range(3)]

    assert await database.transact(work) == ["000001", "000003", "000004"]


async def test_a_series_follows_a_series_until_all_are_used(database: Database) -> None:
    numbers = Numbering(FEDERAL)

    async def at(place: int) -> Fascn:
        await database.transact(lambda unit: raise_to(unit, COUNTER, place - 1))
        return await database.transact(lambda unit: numbers.fascn(unit, new_id(), new_id()))

    assert str(await at(999_999)) == "7000-0042-999999-0-1"
    assert str(await at(1_000_000)) == "7000-0042-000001-1-1"
    assert str(await at(9_999_990)) == "7000-0042-999999-9-1"
    with pytest.raises(NumbersExhausted):
        await at(9_999_991)


async def test_issuers_without_an_agency_code_have_all_nines(database: Database) -> None:
    made = await database.transact(lambda unit: Numbering().fascn(unit, new_id(), new_id()))
    assert made == NINES and not made.is_federal


async def test_card_uuid_of_a_request_stays_the_same(database: Database) -> None:
    numbers, org, device = Numbering(), new_id(), new_id()

    async def give(unit: Unit, since: datetime | None) -> UUID:
        return await numbers.card_uuid(unit, org, device, since=since)

    begin = await database.transact(_now)
    first = await database.transact(lambda unit: give(unit, begin))
    assert await database.transact(lambda unit: give(unit, begin)) == first
    later = await database.transact(_now) + timedelta(seconds=1)
    second = await database.transact(lambda unit: give(unit, later))
    assert second != first, "what an earlier request was given is not given to this one"
    assert await database.transact(lambda unit: give(unit, None)) not in (first, second)


async def _now(unit: Unit) -> datetime:
    return unit.now


async def test_card_uuids_are_random_and_remembered(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = uuid4(), uuid4()
    answers = iter([first, first, second])
    monkeypatch.setattr(numbering, "uuid4", lambda: next(answers))
    numbers, org, device = Numbering(), new_id(), new_id()
    assert await database.transact(lambda unit: numbers.card_uuid(unit, org, device)) == first
    # The generator repeats itself; another card, or the same one in its next life, does not get the number again.
    assert await database.transact(lambda unit: numbers.card_uuid(unit, org, device)) == second


def test_wrong_codes_are_refused_at_the_start() -> None:
    with pytest.raises(MalformedFascn):
        Numbering(Issuer("70000", "0001"))
