"""Sessions that carry requests out: devices, requests, policies and rights are the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from cardwright_cardops.plan.observe import observe
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.model import DeviceState
from cardwright_server.devices.numbering import Numbering
from cardwright_server.devices.stock import Delivered
from cardwright_server.policies.model import DeviceKind
from cardwright_server.requests.model import RequestState
from cardwright_server.sessions.desk import Desk
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database
from tests.support.lifecycles import World, make_world
from tests.support.people import authorizer
from tests.support.sessions import Office, Station, fresh_card, make_office, reader, serving

CIV = (
    ('objects = ["chuid", "ccc", "security-object", "key-history"]', 'objects = ["chuid", "ccc"]'),
    ('algorithm = "rsa2048"', 'algorithm = "p256"'),
)


@dataclass
class Trusted:
    """Workstations whose word counts."""

    named: set[UUID] = field(default_factory=set)

    def is_trusted(self, workstation: UUID | None) -> bool:
        return workstation in self.named


async def prepared(database: Database, tmp_path: Path) -> tuple[World, Office, Desk, UUID]:
    """A person's bound card 12345678 and the desk that knows of it."""
    world = await make_world(database, "civ", CIV)
    one = Delivered(new_id(), "12345678")
    await database.transact(
        lambda unit: world.free.stock.register(unit, world.issuer, DeviceKind.SMART_CARD, [one])
    )
    person = await world.person()
    await database.transact(lambda unit: world.services.devices.bind(unit, world.issuer, one.id, person.id))
    services = world.services
    desk = Desk(services.lifecycle, services.requests, Numbering(), Trusted(), services.stock, services.due)
    return world, make_office(tmp_path, org=world.org, device=one.id, now=datetime.now(UTC)), desk, one.id


async def test_an_issuance_is_carried_out(open_database: Callable[..., Database], tmp_path: Path) -> None:
    database = open_database()
    world, office, desk, device = await prepared(database, tmp_path)
    card = fresh_card()
    async with serving(database, office, authorizer(), world.issuer, devices=desk) as socket:
        without = await Station(card).run(socket)
        assert (without.error, without.status) == ("SESSION_WITHOUT_REQUEST", "FAILED_PRECONDITION")
        request = await world.issuance(device)
        named = str(request.id)
        refused = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE, request=named)
        assert refused.error == "SESSION_WITHOUT_REQUEST"
        cut = await Station(card).run(socket, request=named, cut=4)
        assert cut.outcome == 0
        card.power_off()
        while (trip := await Station(card).run(socket, request=named)).error == "CARD_IN_SESSION":
            card.power_off()
            await asyncio.sleep(0)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
        assert (await world.request(request.id)).state is RequestState.DONE
        # As for a workstation that lost the server's last word.
        assert (await Station(card).run(socket, request=named)).error == "SESSION_WITHOUT_REQUEST"
        issued = await world.device(device)
        assert issued.state is DeviceState.ISSUED
        assert issued.guid == run(observe(), reader(card)).identity.guid
        assert ("activate", "") in world.credentials.of(device)
        again = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert (again.outcome, again.trips) == (sessions_pb2.OUTCOME_NOTHING_DUE, 1)


async def test_a_session_that_ends_early_lets_go_of_device_and_request(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    database = open_database()
    world, office, desk, device = await prepared(database, tmp_path)
    request = await world.issuance(device)
    async with serving(database, office, authorizer(), world.issuer, devices=desk) as socket:
        trip = await Station(fresh_card(), agrees=False).run(socket, request=str(request.id))
    assert trip.error == "CONSENT_REFUSED"
    left = await world.request(request.id)
    assert left.state is RequestState.READY
    assert (await world.device(device)).session is None


async def test_another_organization_s_operator_is_not_told_that_the_request_exists(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    database = open_database()
    world, office, desk, device = await prepared(database, tmp_path)
    request = await world.issuance(device)
    other = await make_world(database)
    async with serving(database, office, authorizer(), other.issuer, devices=desk) as socket:
        trip = await Station(fresh_card()).run(socket, request=str(request.id))
        nobody = await Station(fresh_card()).run(socket, request=str(new_id()))
    assert (trip.error, trip.status) == (nobody.error, nobody.status) == ("NO_SUCH_REQUEST", "NOT_FOUND")
    assert await world.state(device) is DeviceState.ASSIGNED
