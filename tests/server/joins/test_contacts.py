"""What a PUK's release sees of a card session: only one that goes on, and whether the card proved itself in it."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from cardwright_cardops.plan.records import DEFAULT, Entry, Kind
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.puk_desk import Contact
from cardwright_server.joins.contacts import SessionContacts
from cardwright_server.joins.stations import KnownStations
from cardwright_server.machine import Actor
from cardwright_server.sessions import store
from cardwright_server.sessions.model import CardSession, Purpose, SessionEvent
from cardwright_server.store.session_tables import card_record
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from tests.support.sessions import Station, fresh_card, make_office, serving

ORG, DEVICE, STATION = uuid4(), uuid4(), uuid4()


async def opened(database: Database, purpose: Purpose = Purpose.UNLOCK) -> CardSession:
    values = {
        "device": DEVICE,
        "purpose": purpose,
        "request": None,
        "person": None,
        "actor": uuid4(),
        "workstation": STATION,
        "trusted": 0,
        "software": "test",
        "reader": "test",
        "policy": "civ",
        "life": 1,
        "fascn": "",
    }
    return await database.transact(lambda unit: store.insert(unit, ORG, values))


async def note(database: Database, session: CardSession, *entries: Entry) -> None:
    async def work(unit: Unit) -> None:
        last = (await store.records(unit, ORG, DEVICE)).last
        await store.add_records(unit, session, last, entries)

    await database.transact(work)


async def seen(database: Database, session: UUID, device: UUID = DEVICE) -> Contact | None:
    contacts = SessionContacts(KnownStations())
    return await database.read(lambda unit: contacts.contact(unit, ORG, device, session))


async def test_the_card_proved_itself_once_the_session_goes_on_to_its_puk(database: Database) -> None:
    issuing = await opened(database, Purpose.ISSUE)
    await note(database, issuing, Entry(Kind.PUK, "1.1"), Entry(Kind.PUK_SET, "1.1"))
    assert await seen(database, issuing.id) == Contact(STATION, card_proved=False, trusted=False, puk=(1, 1))
    await database.transact(lambda unit: store.move(unit, issuing, SessionEvent.FAIL, Actor.SERVER, {}))
    assert await seen(database, issuing.id) is None
    session = await opened(database)
    assert await seen(database, session.id) == Contact(STATION, card_proved=False, trusted=False, puk=(1, 1))
    await note(database, session, Entry(Kind.CARD), Entry(Kind.PUK, "2.1"))
    # The card has not confirmed the second one yet.
    assert await seen(database, session.id) == Contact(STATION, card_proved=True, trusted=False, puk=(1, 1))
    await note(database, session, Entry(Kind.PUK_SET, "2.1"))
    assert await seen(database, session.id) == Contact(STATION, card_proved=True, trusted=False, puk=(2, 1))
    assert await seen(database, session.id, uuid4()) is None
    assert await seen(database, uuid4()) is None


async def test_a_puk_of_the_factory_is_none_of_the_vault_s(database: Database) -> None:
    session = await opened(database)
    found = await seen(database, session.id)
    assert found is not None and found.puk is None
    await note(database, session, Entry(Kind.PUK, DEFAULT), Entry(Kind.PUK_SET, DEFAULT))
    found = await seen(database, session.id)
    assert found is not None and found.puk is None


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_a_copy_of_the_card_brings_no_session_as_far(database: Database, tmp_path: Path) -> None:
    """With another key in 9E, the session to unlock records nothing of a PUK."""
    office, card = make_office(tmp_path), fresh_card()
    count = select(func.count()).select_from(card_record).where(card_record.c.kind == Kind.PUK.name.lower())
    async with serving(database, office) as socket:
        assert (await Station(card).run(socket)).outcome == sessions_pb2.OUTCOME_DONE
        memory = json.loads(card.snapshot())
        memory["keys"]["9E"] = memory["keys"]["9A"]
        copy = VirtualCard.restore(json.dumps(memory).encode())
        before = await database.read(lambda unit: unit.value(count))
        trip = await Station(copy, guarded=False).run(socket, sessions_pb2.PURPOSE_UNLOCK)
        assert trip.error == "CARD_NOT_PROVEN"
        assert await database.read(lambda unit: unit.value(count)) == before > 0
        card.power_off()
        trip = await Station(card).run(socket, sessions_pb2.PURPOSE_UNLOCK)
        assert trip.error == ""
        assert await database.read(lambda unit: unit.value(count)) == before + 1
