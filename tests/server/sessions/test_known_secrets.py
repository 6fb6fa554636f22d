"""What a workstation saw of a card's secrets: on record by generation, and worth nothing after the next one (S2)."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.session_tables import card_record, card_session
from cardwright_server.store.unit import Database
from tests.support.people import allow
from tests.support.sessions import Station, a_workstation, fresh_card, make_office, secrets_of, serving


async def knowing(database: Database, kind: str) -> list[tuple[str, UUID]]:
    """(generation and master key, workstation) of every secret of a kind that went over an open channel."""
    joined = card_record.join(card_session, card_session.c.id == card_record.c.session)
    wanted = select(card_record.c.reference, card_session.c.workstation).select_from(joined)
    rows = await database.read(
        lambda unit: unit.rows(wanted.where(card_record.c.kind == kind).order_by(card_record.c.number))
    )
    return [(row.reference, row.workstation) for row in rows if "." in row.reference]


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_it_is_known_which_workstation_saw_which_generation(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    first, second = a_workstation(office.org), a_workstation(office.org)
    async with serving(database, office, allow, first) as socket:
        assert (await Station(card).run(socket)).outcome == sessions_pb2.OUTCOME_DONE
    seen, keys = await secrets_of(office, database)
    assert await knowing(database, "puk") == [("1.1", first.id)]
    assert await knowing(database, "management_key") == [("1.1", first.id)] and len(keys) == 1
    card.power_off()
    async with serving(database, office, allow, second) as socket:
        trip = await Station(card, pin=b"271828").run(socket, sessions_pb2.PURPOSE_UNLOCK)
    assert trip.outcome == sessions_pb2.OUTCOME_DONE
    assert await knowing(database, "puk") == [("1.1", first.id), ("2.1", second.id)]
    # What the first workstation saw opens the card no more.
    card.power_off()
    card.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    refused = card.transmit(bytes.fromhex("002C008010") + seen + b"31415926".ljust(8, b"\xff"))
    assert refused[:1] == b"\x63"
