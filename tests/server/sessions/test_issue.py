"""One person's blank card, issued over a stream and read back."""

from __future__ import annotations

from pathlib import Path

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.unit import Database
from tests.support.sessions import Station, fresh_card, make_office, serving


async def test_a_blank_card_is_issued(database: Database, tmp_path: Path) -> None:
    office = make_office(tmp_path)
    card = fresh_card()
    async with serving(database, office) as socket:
        trip = await Station(card).run(socket)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert trip.trips == 6
