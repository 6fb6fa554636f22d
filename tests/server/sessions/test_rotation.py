"""A PUK that a user's workstation saw is changed again at the next trusted station (S2)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.plan.records import Kind
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.due import DueList, What
from cardwright_server.sessions import store
from cardwright_server.sessions.due import CardName, DueChecks
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.unit import Database
from cardwright_server.vault.model import Authorization, PukPurpose, VaultCard
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.issuance import ON_SQLITE
from tests.support.people import allow
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip, a_workstation, reader

NEW_PIN = b"271828"
QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
UNLOCK = sessions_pb2.PURPOSE_UNLOCK_ASSISTED


class Scene:
    """A card that was issued at a trusted station; ``user`` is at another one."""

    def __init__(self, world: SessionWorld, card: VirtualCard, device: UUID) -> None:
        self.world, self.card, self.device = world, card, device

    async def session(
        self, purpose: Any, *, trusted: bool, request: str = "", pin: bytes = NEW_PIN, card: Any = None
    ) -> Trip:
        self.world.stations.every = trusted
        async with self.world.serving(self.world.office(self.device), self.caller) as socket:
            station = Station(card or self.card, pin=pin)
            trip = await station.run(socket, purpose, request=request)
        self.card.power_off()
        return trip

    @property
    def caller(self) -> Principal:
        return self.world.world.issuer

    async def unlock(self, *, trusted: bool) -> Trip:
        people = self.world.world
        opened = await self.world.database.transact(
            lambda unit: people.services.requests.create_unlock(unit, people.helper, self.device)
        )
        self.world.stations.every = trusted
        async with self.world.serving(self.world.office(self.device), people.helper) as socket:
            trip = await Station(self.card, pin=NEW_PIN).run(socket, UNLOCK, request=str(opened.request.id))
        self.card.power_off()
        return trip

    async def due(self) -> list[Any]:
        found = await self.world.database.read(lambda unit: DueList().due(unit, self.world.org, self.device))
        return [one for one in found.what if one.what is What.SECRETS]

    @property
    def puk(self) -> bytes:
        return bytes.fromhex(json.loads(self.card.snapshot())["references"]["81"]["value"])

    async def generations(self) -> list[str]:
        journal = await self.world.database.read(
            lambda unit: store.records(unit, self.world.org, self.device)
        )
        return [row.reference for row in journal.entries if row.kind is Kind.PUK and "." in row.reference]

    async def value(self, name: str) -> bytes:
        generation, master = map(int, name.split("."))
        card = VaultCard(str(self.world.org), str(self.device), generation, master)
        vault = self.world.issuing.vault
        return (await vault.puk(card, PukPurpose.SET, Authorization("test", "test"))).reveal()

    async def shown(self) -> list[dict[str, Any]]:
        async def read(unit: Any) -> Any:
            wanted = select(audit_entry.c.facts).where(audit_entry.c.action == "device.secret-shown")
            return [row.facts for row in await unit.rows(wanted.order_by(audit_entry.c.id))]

        return [one for one in await self.world.database.read(read) if one["secret"] == "puk"]


@pytest.fixture
async def scene(open_database: Callable[..., Database], tmp_path: Path) -> Scene:
    world = await make_session_world(open_database(), tmp_path, "civ", QUICK)
    card = blank()
    device = await world.bound(card)
    world.stations.every = True
    assert (await world.issue(card, device)).error == ""
    card.power_off()
    return Scene(world, card, device)


async def test_next_trusted_station_changes_it_once_more(scene: Scene) -> None:
    assert await scene.due() == []
    assert (await scene.unlock(trusted=False)).error == ""
    (due,) = await scene.due()
    seen = scene.puk
    assert due.detail["puk"] == (await scene.generations())[-1]
    # A station of a user does nothing about it.
    trip = await scene.session(sessions_pb2.PURPOSE_UPDATE, trusted=False)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_NOTHING_DUE)
    assert scene.puk == seen
    # A trusted one does, with the guard's consent, and nothing else of the card changes.
    before = json.loads(scene.card.snapshot())
    trip = await scene.session(sessions_pb2.PURPOSE_UPDATE, trusted=True)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert trip.preview is not None
    assert [step.WhichOneof("kind") for step in trip.preview.plan.steps] == ["set_puk"]
    after = json.loads(scene.card.snapshot())
    assert scene.puk not in (seen, b"") and scene.puk == await scene.value((await scene.generations())[-1])
    before["references"]["81"] = after["references"]["81"]
    assert {name: after[name] for name in ("keys", "objects", "references", "management")} == {
        name: before[name] for name in ("keys", "objects", "references", "management")
    }
    assert await scene.due() == []
    trip = await scene.session(sessions_pb2.PURPOSE_UPDATE, trusted=True)
    assert trip.outcome == sessions_pb2.OUTCOME_NOTHING_DUE
    # Who knows which generation is on record.
    generations = await scene.generations()
    assert [one["generation"] for one in await scene.shown()] == generations
    assert [one["trusted"] for one in await scene.shown()] == [True, False, True]
    scene.world.issuing.core.close()


@ON_SQLITE
@pytest.mark.parametrize("effect", ["remove", "remove-after"])
async def test_a_card_that_is_pulled_at_the_change_gets_it_at_the_next_contact(scene: Scene, effect: str) -> None:
    assert (await scene.unlock(trusted=False)).error == ""
    seen = scene.puk
    faulty = FaultyCard(scene.card, f"ins=24:{effect}")
    await scene.session(sessions_pb2.PURPOSE_UPDATE, trusted=True, card=faulty)
    assert faulty.struck
    assert len(await scene.due()) == 1
    trip = await scene.session(sessions_pb2.PURPOSE_UPDATE, trusted=True)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert scene.puk != seen and scene.puk == await scene.value((await scene.generations())[-1])
    assert await scene.due() == []
    references = json.loads(scene.card.snapshot())["references"]
    assert references["81"]["tries"] == references["81"]["maximum"]
    scene.world.issuing.core.close()


@ON_SQLITE
async def test_a_copy_of_the_card_gets_no_puk_with_an_update(scene: Scene) -> None:
    assert (await scene.unlock(trusted=False)).error == ""
    memory = json.loads(scene.card.snapshot())
    memory["keys"]["9E"] = memory["keys"]["9A"]
    copy = VirtualCard.restore(json.dumps(memory).encode())
    before = copy.snapshot()
    scene.world.stations.every = True
    async with scene.world.serving(scene.world.office(scene.device), scene.caller) as socket:
        trip = await Station(copy, guarded=False).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert trip.error != "" and trip.outcome == 0
    assert copy.snapshot() == before
    scene.world.issuing.core.close()


@ON_SQLITE
async def test_an_unlock_at_a_trusted_station_leaves_nothing_due(scene: Scene) -> None:
    assert (await scene.unlock(trusted=False)).error == ""
    assert len(await scene.due()) == 1
    assert (await scene.unlock(trusted=True)).error == ""
    assert await scene.due() == []
    scene.world.issuing.core.close()


async def test_only_a_trusted_station_hears_that_it_is_due(scene: Scene) -> None:
    assert (await scene.unlock(trusted=False)).error == ""
    world, card = scene.world, CardName(UUID(bytes=guid_of(scene.card)))
    checks = DueChecks(world.database, allow, DueList(), world.world.services.requests, world.stations)
    station = a_workstation(world.org)
    answers = {}
    for trusted in (False, True):
        world.stations.every = trusted
        answers[trusted] = (await checks.check(station, card)).due
    assert answers == {False: False, True: True}
    world.issuing.core.close()


def guid_of(card: VirtualCard) -> bytes:
    """The card UUID, as the card shows it."""
    guid = run(observe(EVERYTHING), reader(card)).identity.guid
    assert guid is not None
    return guid.bytes

