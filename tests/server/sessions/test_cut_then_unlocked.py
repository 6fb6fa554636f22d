"""An update that was cut when the card had everything is gone on with, whatever was done to the PIN in between."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.model import Method
from cardwright_server.issuance.model import CertificateState
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import PIN, Station, a_workstation

DONE = sessions_pb2.OUTCOME_DONE
NEW_PIN = b"271828"
CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
ALL_WRITTEN = 4
"""The message that would tell the server so."""


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    made = await make_session_world(open_database(), tmp_path, "civ", CURVES)
    yield made
    made.issuing.core.close()


async def unlocked(here: SessionWorld, card: VirtualCard, device: UUID, *, locked: bool) -> None:
    """Its PIN is set anew: the help desk asked for that, or gave it back after it was locked."""
    world, devices, requests = here.world, here.world.services.devices, here.world.services.requests
    office = here.office(UUID(int=0))
    if locked:
        await here.database.transact(lambda unit: devices.suspend(unit, world.helper, device, lock_card=True))
        async with here.serving(office, a_workstation(here.org)) as socket:
            assert (await Station(card).run(socket, sessions_pb2.PURPOSE_LOCK)).outcome == DONE
        card.power_off()
        await here.database.transact(lambda unit: devices.resume(unit, world.helper, device))
    else:
        await here.database.transact(lambda unit: requests.create_unlock(unit, world.helper, device))
    person = (await world.device(device)).person
    assert person is not None
    found = await here.database.read(lambda unit: world.services.people.person(unit, here.org, person))
    async with here.serving(office, await world.proven(found, Method.LDAP_PASSWORD)) as socket:
        trip = await Station(card, pin=NEW_PIN).run(socket, sessions_pb2.PURPOSE_UNLOCK_ASSISTED)
    assert trip.outcome == DONE
    card.power_off()


@ON_SQLITE
@pytest.mark.parametrize("between", ["nothing", "unlock", "lock"])
async def test_what_the_cut_update_made_is_released(here: SessionWorld, between: str) -> None:
    card = blank()
    device = await here.bound(card)
    here.stations.every = True
    assert (await here.issue(card, device)).outcome == DONE
    here.stations.every = False
    lost = json.loads(card.snapshot())
    del lost["objects"]["5FC10A"], lost["keys"]["9C"]
    card = VirtualCard.restore(json.dumps(lost).encode())
    async with here.serving(here.office(UUID(int=0))) as socket:
        trip = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE, cut=ALL_WRITTEN)
    card.power_off()
    assert trip.outcome == 0
    states = {one.state for one in await here.certificates_of(device)}
    assert states == {CertificateState.GOOD, CertificateState.HELD}, "the new one is not released yet"
    if between != "nothing":
        await unlocked(here, card, device, locked=between == "lock")
    pin = PIN if between == "nothing" else NEW_PIN
    assert (await here.update(card, device, Station(card, pin=pin))).outcome == DONE
    signature = [one.state for one in await here.certificates_of(device) if one.holder.part == "9c"]
    assert sorted(signature) == [CertificateState.GOOD, CertificateState.REVOKED]
