"""Another authority takes its time over 9A: the holder still proves by the card who they are, and goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.audit.model import SERVER
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.model import DeviceState, Reason
from cardwright_server.issuance.authorities import add_foreign
from cardwright_server.issuance.model import CertificateState, Purpose
from cardwright_server.requests.model import RequestState
from cardwright_server.sessions.credentials import DeviceCredentials
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support import issuance, lifecycles
from tests.support.foreign_authority import Slow
from tests.support.issuance import ON_SQLITE
from tests.support.people import authorizer
from tests.support.session_world import SessionWorld, blank, over
from tests.support.sessions import Station, Trip, a_workstation

LATE = (
    ('algorithm = "rsa2048"', 'algorithm = "p256"'),
    ('profile = "piv-authentication"', 'profile = "smartcard-logon"'),
)
DONE, PENDING = sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_PENDING
PROVE, REISSUE = sessions_pb2.PURPOSE_PROVE, sessions_pb2.PURPOSE_REISSUE
pytestmark = ON_SQLITE


@dataclass
class Here:
    """A card in use whose key in 9A another authority certifies, and its holder's workstation."""

    world: SessionWorld
    authority: Slow
    card: VirtualCard
    device: UUID
    station: Principal

    async def session(self, principal: Principal, purpose: sessions_pb2.Purpose.ValueType, request: str = "") -> Trip:
        async with self.world.serving(self.world.office(self.device), principal) as socket:
            guarded = purpose != PROVE
            trip = await Station(self.card, guarded=guarded).run(socket, purpose, request=request)
        self.card.power_off()
        return trip

    async def proven(self) -> Principal | str:
        """The holder, by the card; or why not."""
        trip = await self.session(self.station, PROVE)
        if trip.outcome != DONE:
            return trip.error
        proof, keeper = UUID(trip.authentication), self.world.authentication
        return await self.world.database.read(lambda unit: keeper.principal_of(unit, self.station, proof))

    async def reissue(self) -> UUID:
        services = self.world.world.services
        opened = await self.world.database.transact(
            lambda unit: services.requests.create_reissue(unit, self.world.world.issuer, self.device)
        )
        return opened.request.id

    async def waits(self) -> UUID:
        """The holder's own re-issue, which waits for the certificate in 9A; its request."""
        request, self.authority.ready = await self.reissue(), False
        holder = await self.proven()
        assert isinstance(holder, Principal)
        trip = await self.session(holder, REISSUE, str(request))
        assert (trip.error, trip.outcome) == ("", PENDING)
        return request


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[Here]:
    database, slow = open_database(), Slow(ready=True)
    world = await lifecycles.make_world(database, "civ", LATE)
    world = replace(world, services=lifecycles.wired(authorizer(), DeviceCredentials()))
    issuing = await issuance.make_world(
        database, tmp_path, org=world.org, backends=(slow,), routes={"smartcard-logon": slow.name}
    )
    await issuing.do(lambda unit: add_foreign(unit, world.org, slow.name, Purpose.CARDS, slow.certificate()))
    made, card = over(world, issuing, tmp_path), blank()
    device = await made.bound(card)
    assert (await made.issue(card, device)).outcome == DONE
    card.power_off()
    yield Here(made, slow, card, device, a_workstation(world.org))
    issuing.core.close()


async def test_the_holder_goes_on_by_the_card_alone(here: Here) -> None:
    request = await here.waits()
    assert (await here.world.world.request(request)).state is RequestState.READY
    # Still not there: proved, asked again, nothing made anew.
    for _ in range(2):
        holder, before = await here.proven(), here.card.snapshot()
        assert isinstance(holder, Principal)
        assert (await here.session(holder, REISSUE, str(request))).outcome == PENDING
        assert here.card.snapshot() == before
    here.authority.ready = True
    holder = await here.proven()
    assert isinstance(holder, Principal)
    assert (await here.session(holder, REISSUE, str(request))).outcome == DONE
    assert (await here.world.world.request(request)).state is RequestState.DONE
    good = [one for one in await here.world.certificates_of(here.device) if one.state is CertificateState.GOOD]
    assert sorted(one.holder.part for one in good) == ["9a", "9c", "9d", "9e"]
    assert isinstance(await here.proven(), Principal)


async def test_what_came_meanwhile_proves_it_too(here: Here) -> None:
    """The server collects it before the card comes again: on hold, and nobody read it back yet."""
    request = await here.waits()
    here.authority.ready = True
    await here.world.issuing.service.collect(here.world.database, SERVER)
    holder = await here.proven()
    assert isinstance(holder, Principal)
    assert (await here.session(holder, REISSUE, str(request))).outcome == DONE


async def test_what_was_declined_proves_nothing(here: Here) -> None:
    await here.waits()
    here.authority.declines = True
    await here.world.issuing.service.collect(here.world.database, SERVER)
    assert await here.proven() == "CARD_NOT_PROVEN"


async def test_the_key_before_it_and_other_cards_prove_nothing(here: Here) -> None:
    old = VirtualCard.restore(here.card.snapshot())
    await here.waits()
    now, here.card = here.card, old
    assert await here.proven() == "CARD_NOT_PROVEN"
    here.card = now
    assert isinstance(await here.proven(), Principal)


async def test_a_card_out_of_use_proves_nothing(here: Here) -> None:
    await here.waits()
    devices, helper = here.world.world.services.devices, here.world.world.helper
    await here.world.database.transact(lambda unit: devices.report_incident(unit, helper, here.device, Reason.LOST))
    assert await here.world.world.state(here.device) is DeviceState.INVALID
    assert await here.proven() == "CARD_NOT_PROVEN"
