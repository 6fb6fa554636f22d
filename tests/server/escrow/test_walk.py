"""Random walks over offers and keys by several processes at once: no file twice, none too late, every step legal."""

from __future__ import annotations

import asyncio
import random
from collections import Counter as Counted
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from cardwright_cardops.secret import Secret
from cardwright_server.escrow.errors import EscrowError
from cardwright_server.escrow.model import KEY, OFFER, OfferState, Quotas
from cardwright_server.escrow.service import Offered
from cardwright_server.store.escrow_tables import (
    escrow_release,
    escrowed_key,
    escrowed_key_transition,
    pfx_offer,
    pfx_offer_transition,
)
from cardwright_server.store.unit import Database
from tests.support.databases import Clock
from tests.support.escrow import Counter, make_counter, make_keep

ACTS = ("offer", "right", "right", "right", "wrong", "wait", "back", "expire", "card")


@pytest.fixture
async def counter(open_database: Callable[..., Database], clock: Clock, tmp_path: Path) -> Counter:
    made = await make_counter(make_keep(open_database(clock=clock), tmp_path, lambda: clock().timestamp()))
    made.quotas = Quotas(offers_of_person=1000)
    return made


@pytest.mark.parametrize("seed", range(3))
async def test_a_walk(
    counter: Counter,
    open_database: Callable[..., Database],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    chance = random.Random(seed)
    keys = [await counter.keep.new() for _ in range(2)]
    processes = [counter.service(open_database(clock=clock)) for _ in range(3)]
    offers: list[tuple[Offered, Any]] = []
    given: list[tuple[Any, bool]] = []

    async def file(*arguments: Any) -> bytes:  # what a file is made of is tested elsewhere
        return b"file"

    monkeypatch.setattr(counter.keep.vault, "unwrap_for_pfx", file)

    async def act(what: str, service: Any) -> None:
        offered, owner = chance.choice(offers[-4:]) if offers else (None, None)
        if what == "offer":
            who = await counter.proven()
            offers.append((await service.offer_pfx(who, chance.choice(keys).id), who))
        elif what == "card":
            await counter.keep.given(chance.choice(keys), counter.keep.task())
        elif what == "expire":
            await service._database.transact(service.expire)
        elif offered is not None:
            password = offered.password if what == "right" else Secret(b"wrong")
            began = clock()
            await service.claim_pfx(owner, offered.offer, password)
            given.append((offered.offer, what == "right" and began < offered.expires_at))

    for _ in range(25):
        what = [chance.choice(ACTS) for _ in range(3)]
        if "wait" in what or "back" in what:
            clock.advance(minutes=chance.choice([1, 2, 4, 6]) * (-1 if "back" in what else 1))
        acts = [act(one, process) for one, process in zip(what, processes, strict=True)]
        for result in await asyncio.gather(*acts, return_exceptions=True):
            assert result is None or isinstance(result, EscrowError), result

    async def rows(table: Any, *order: Any) -> list[Any]:
        return list(await counter.keep.database.read(lambda unit: unit.rows(select(table).order_by(*order))))

    assert given and all(good for _, good in given)
    assert max(Counted(offer for offer, _ in given).values()) == 1
    states = {row.id: row for row in await rows(pfx_offer)}
    claimed = {one for one, row in states.items() if row.state == OfferState.CLAIMED}
    assert claimed == {offer for offer, _ in given}
    files = [row.offer for row in await rows(escrow_release) if row.way == "file"]
    assert sorted(files) == sorted(claimed)
    assert len([row for row in states.values() if row.state == OfferState.OFFERED]) <= len(keys)
    assert all((row.commitment is None) == (row.state != OfferState.OFFERED) for row in states.values())
    for machine, table, journal in (
        (OFFER, pfx_offer, pfx_offer_transition),
        (KEY, escrowed_key, escrowed_key_transition),
    ):
        steps = await rows(journal, journal.c.subject, journal.c.number)
        for row in await rows(table):
            mine = [one for one in steps if one.subject == row.id]
            assert all(machine.permits(one.source, one.event, one.target) for one in mine)
            assert [one.source for one in mine[1:]] == [one.target for one in mine[:-1]]
            assert mine[-1].target == row.state and mine[-1].number <= row.version
            if table is pfx_offer:
                assert [one.number for one in mine] == list(range(1, row.version + 1))
