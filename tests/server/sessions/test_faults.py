"""Whatever is cut or killed, the next session reaches the goal; the judge looks at the card's memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.sessions.ledger import LEASE
from cardwright_server.store.second_medium import SecondMedium
from cardwright_server.store.unit import Database
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.databases import Clock
from tests.support.mortal import Mortal
from tests.support.sessions import Station, Trip, faults_of, fresh_card, make_office, serving

MESSAGES = 6
COMMITS = 5
OPEN = Callable[..., Database]
sqlite_only = pytest.mark.parametrize("engine_name", ["sqlite"])


@sqlite_only
@pytest.mark.parametrize("message", range(1, MESSAGES))
async def test_line_cut_at_every_message(message: int, database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    async with serving(database, office) as socket:
        cut = await Station(card).run(socket, cut=message)
        assert cut.outcome == 0
        card.power_off()
        trip = await _settled(Station(card), socket)
        assert trip.outcome == sessions_pb2.OUTCOME_DONE
        assert await faults_of(card, office, database) == []
        again = await Station(card).run(socket)
    assert again.outcome == sessions_pb2.OUTCOME_NOTHING_DUE


async def _settled(station: Station, socket: str) -> Trip:
    """A session once the one that was cut has let go of the card: the server learns of the cut by itself."""
    while (trip := await station.run(socket)).error == "CARD_IN_SESSION":
        station.card.power_off()  # type: ignore[attr-defined]
    return trip


@sqlite_only
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, COMMITS + 1))
async def test_server_killed_at_every_commit(
    commit: int, after: bool, database_url: str, clock: Clock, tmp_path: Path
) -> None:
    office, card = make_office(tmp_path), fresh_card()
    clock.now = office.now
    media = [SecondMedium(tmp_path / "second-medium") for _ in range(2)]
    mortal = Mortal(database_url, clock=clock, second_medium=media[0])
    mortal.fatal, mortal.after = commit, after
    async with serving(mortal, office) as socket:
        killed = await Station(card).run(socket)
    assert killed.outcome == 0
    await mortal.close()
    card.power_off()
    database = Database(database_url, clock=clock, second_medium=media[1])
    async with serving(database, office) as socket:
        if (commit, after) not in ((1, False), (COMMITS, True)):
            early = await Station(card).run(socket)
            assert early.error == "CARD_IN_SESSION"
        clock.advance(seconds=LEASE.total_seconds() + 1)
        trip = await Station(card).run(socket)
        nothing = commit == COMMITS and after
        assert (trip.error, trip.outcome) == (
            "",
            sessions_pb2.OUTCOME_NOTHING_DUE if nothing else sessions_pb2.OUTCOME_DONE,
        )
        assert await faults_of(card, office, database) == []
    await database.close()
    for medium in media:
        await medium.close()


@sqlite_only
@pytest.mark.parametrize("fault", ["apdu={0}+:remove", "apdu={0}:remove-after,apdu={1}+:remove"], ids=["not", "lost"])
@pytest.mark.parametrize("number", range(14, 59, 4))
async def test_card_pulled_at_an_apdu(number: int, fault: str, database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    faulty = FaultyCard(card, fault.format(number, number + 1))
    async with serving(database, office) as socket:
        await Station(faulty).run(socket)
        assert faulty.struck
        card.power_off()
        trip = await Station(card).run(socket)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert await faults_of(card, office, database) == []


def test_lease_ends_within_a_minute() -> None:
    assert timedelta(minutes=1) >= LEASE
