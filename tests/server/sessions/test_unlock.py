"""A blocked PIN is set anew with a PUK from the vault, and the PUK is another one afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.sessions import Office, Station, faults_of, fresh_card, make_office, secrets_of, serving

NEW_PIN = b"271828"
UNLOCK = sessions_pb2.PURPOSE_UNLOCK


def block(card: VirtualCard) -> None:
    """Spend every try of the PIN, without anything of the program under test."""
    card.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    while card.transmit(bytes.fromhex("00200080083030303030303030")) != b"\x69\x83":
        pass
    card.power_off()


async def issued(database: Database, tmp_path: Path) -> tuple[Office, VirtualCard]:
    office, card = make_office(tmp_path), fresh_card()
    async with serving(database, office) as socket:
        assert (await Station(card).run(socket)).outcome == sessions_pb2.OUTCOME_DONE
    return office, card


async def test_pin_is_set_anew_and_the_puk_rotated(database: Database, tmp_path: Path) -> None:
    office, card = await issued(database, tmp_path)
    old, _ = await secrets_of(office, database)
    block(card)
    async with serving(database, office) as socket:
        trip = await Station(card, pin=NEW_PIN).run(socket, UNLOCK)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert trip.trips == 4
    new, _ = await secrets_of(office, database)
    assert new != old
    assert await faults_of(card, office, database, NEW_PIN) == []


@pytest.mark.parametrize("engine_name", ["sqlite"])
@pytest.mark.parametrize("change", [{"held": True}, {"issued": False}], ids=["on hold", "not issued"])
async def test_no_puk_leaves_for_a_device_that_is_not_in_use(
    change: dict[str, bool], database: Database, tmp_path: Path
) -> None:
    office, card = await issued(database, tmp_path)
    block(card)
    before = card.snapshot()
    for name, value in change.items():
        setattr(office, name, value)
    async with serving(database, office) as socket:
        trip = await Station(card, pin=NEW_PIN).run(socket, UNLOCK)
    assert (trip.error, card.snapshot()) == ("CARD_NOT_PROVEN", before)


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_a_copy_with_another_key_gets_no_puk(database: Database, tmp_path: Path) -> None:
    """Same number, CHUID and certificates; the key in 9E is its own."""
    office, card = await issued(database, tmp_path)
    memory = json.loads(card.snapshot())
    memory["keys"]["9E"] = memory["keys"]["9A"]
    copy = VirtualCard.restore(json.dumps(memory).encode())
    before = copy.snapshot()
    async with serving(database, office) as socket:
        trip = await Station(copy, pin=NEW_PIN, guarded=False).run(socket, UNLOCK)
    assert (trip.error, copy.snapshot()) == ("CARD_NOT_PROVEN", before)


@pytest.mark.parametrize("engine_name", ["sqlite"])
@pytest.mark.parametrize("command", ["24", "2C"], ids=["puk", "pin"])
@pytest.mark.parametrize("effect", ["remove", "remove-after"])
async def test_one_more_session_unlocks_after_a_pull(
    command: str, effect: str, database: Database, tmp_path: Path
) -> None:
    office, card = await issued(database, tmp_path)
    block(card)
    faulty = FaultyCard(card, f"ins={command}:{effect}")
    async with serving(database, office) as socket:
        await Station(faulty, pin=NEW_PIN).run(socket, UNLOCK)
        assert faulty.struck
        card.power_off()
        trip = await Station(card, pin=NEW_PIN).run(socket, UNLOCK)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert await faults_of(card, office, database, NEW_PIN) == []
