"""Objects behind the PIN, which no card tells of: written where the records do not say that they are there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_cardops.check import Level
from cardwright_cardops.piv.containers import PRINTED, unwrap
from cardwright_cardops.piv.objects import Printed
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard, Write
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station

QUICK = ('algorithm = "rsa2048"', 'algorithm = "p256"')
NAMED = ('objects = ["chuid", "ccc",', 'objects = ["chuid", "ccc", "printed",')
DONE, NOTHING_DUE = sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE
pytestmark = ON_SQLITE


@pytest.fixture
async def world(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    made = await make_session_world(open_database(), tmp_path, "civ", (QUICK,))
    made.stations.every = True
    yield made
    made.issuing.core.close()


async def issued(world: SessionWorld, card: VirtualCard) -> UUID:
    device = await world.bound(card)
    assert (await world.issue(card, device)).outcome == DONE
    card.power_off()
    return device


def printed(card: VirtualCard) -> Printed | None:
    """What the card's memory has."""
    raw = {int(tag, 16): one for tag, one in json.loads(card.snapshot())["objects"].items()}.get(PRINTED.tag)
    return None if raw is None else Printed.decode(unwrap(PRINTED.tag, bytes.fromhex(raw)))


def writes(card: VirtualCard) -> list[int]:
    """Tags of the objects that were written since the log was emptied."""
    return [one.number for one in card.log if isinstance(one, Write) and one.kind == "object"]


async def test_a_version_that_adds_one_brings_it_to_cards_in_use(world: SessionWorld) -> None:
    card = blank()
    device = await issued(world, card)
    assert printed(card) is None
    await world.publish(QUICK, NAMED)
    card.log.clear()
    trip = await world.update(card, device)
    assert (trip.error, trip.outcome) == ("", DONE)
    found = printed(card)
    assert found is not None and found.name == "Ada" and found.expiration.year > datetime.now(UTC).year
    assert writes(card) == [PRINTED.tag, 0x5FC106]  # and the Security Object, which covers it
    card.power_off()
    assert (await world.judged(card, Level.BASIC)).good
    card.power_off()
    card.log.clear()
    assert (await world.update(card, device)).outcome == NOTHING_DUE
    assert writes(card) == []


async def test_what_broke_off_before_it_was_written_is_written_by_the_next_session(world: SessionWorld) -> None:
    """What the next batch makes true is on record before it is sent: for what nobody can read that is no proof."""
    card = blank()
    device = await issued(world, card)
    await world.publish(QUICK, NAMED)
    faulty = FaultyCard(card, "ins=DB:remove")
    assert (await world.update(card, device, Station(faulty))).outcome not in (DONE, NOTHING_DUE) and faulty.struck
    assert printed(card) is None
    card.power_off()
    trip = await world.update(card, device)
    assert (trip.error, trip.outcome) == ("", DONE)
    assert printed(card) is not None
    card.power_off()
    assert (await world.update(card, device)).outcome == NOTHING_DUE


async def test_what_was_written_with_the_issuance_is_not_written_again(world: SessionWorld) -> None:
    await world.publish(QUICK, NAMED)
    card = blank()
    device = await issued(world, card)
    assert printed(card) is not None
    card.log.clear()
    assert (await world.update(card, device)).outcome == NOTHING_DUE
    assert writes(card) == []
