"""Without a request only a card in use is updated: whoever may update, nobody agreed to issue or activate a card."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.model import DeviceState, Disposition, HoldReason, Reason
from cardwright_server.issuance.model import CertificateState
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import as_operator
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station

ACTIVATED = (
    ('algorithm = "rsa2048"', 'algorithm = "p256"'),
    ("self_bind = true", "self_bind = true\nactivation = true"),
)
pytestmark = ON_SQLITE


async def bound(world: SessionWorld, card: VirtualCard) -> UUID:
    return await world.bound(card)


async def failed(world: SessionWorld, card: VirtualCard) -> UUID:
    device, session = await world.bound(card), uuid4()
    request = await world.world.issuance(device)
    requests, issuer = world.world.services.requests, world.world.issuer

    await world.database.transact(lambda unit: requests.start(unit, as_operator(issuer), request.id, session))
    await world.database.transact(
        lambda unit: requests.fail(unit, world.org, request.id, session, retryable=False, consistent=True)
    )
    return device


async def produced(world: SessionWorld, card: VirtualCard) -> UUID:
    device = await world.bound(card)
    assert (await world.issue(card, device)).outcome == sessions_pb2.OUTCOME_DONE
    card.power_off()
    return device


async def in_use(world: SessionWorld, card: VirtualCard) -> UUID:
    device = await produced(world, card)
    async with world.serving(world.office(device), await holder(world, device)) as socket:
        assert (await Station(card).run(socket)).error == ""
    card.power_off()
    return device


async def suspended(world: SessionWorld, card: VirtualCard) -> UUID:
    device, devices = await in_use(world, card), world.world.services.devices
    await world.database.transact(
        lambda unit: devices.suspend(unit, world.world.helper, device, HoldReason.INVESTIGATION)
    )
    return device


async def lost(world: SessionWorld, card: VirtualCard) -> UUID:
    device, devices = await in_use(world, card), world.world.services.devices
    await world.database.transact(
        lambda unit: devices.report_incident(unit, world.world.helper, device, Reason.LOST)
    )
    return device


async def terminated(world: SessionWorld, card: VirtualCard) -> UUID:
    device, devices = await in_use(world, card), world.world.services.devices
    await world.database.transact(
        lambda unit: devices.terminate(unit, world.world.helper, device, Reason.LEFT, Disposition.COLLECTED)
    )
    return device


WAYS = {
    DeviceState.ASSIGNED: bound,
    DeviceState.FAILED: failed,
    DeviceState.PRODUCED: produced,
    DeviceState.SUSPENDED: suspended,
    DeviceState.INVALID: lost,
    DeviceState.TERMINATED: terminated,
}


@pytest.mark.parametrize("state", WAYS)
async def test_nothing_is_written_or_released(
    open_database: Callable[..., Database], tmp_path: Path, state: DeviceState
) -> None:
    world, card = await make_session_world(open_database(), tmp_path, "civ", ACTIVATED), blank()
    way: Callable[[SessionWorld, VirtualCard], Awaitable[UUID]] = WAYS[state]
    device = await way(world, card)
    assert await world.world.state(device) is state
    before = card.snapshot(), await standing(world, device)
    for who in (world.world.issuer, world.world.helper, await holder(world, device)):
        async with world.serving(world.office(device), who) as socket:
            trip = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
        assert (trip.error, trip.preview) == ("CARD_NOT_IN_USE", None)
        assert (card.snapshot(), await standing(world, device)) == before
        assert await world.world.state(device) is state
        card.power_off()
    world.issuing.core.close()


async def holder(world: SessionWorld, device: UUID) -> Principal:
    """Whose card it is, having proved it."""
    found = (await world.world.device(device)).person
    assert found is not None
    person = await world.database.read(lambda unit: world.world.services.people.person(unit, world.org, found))
    return await world.world.proven(person, Method.LDAP_PASSWORD, Method.CARD)


async def standing(world: SessionWorld, device: UUID) -> list[tuple[str, CertificateState]]:
    """The device's certificates and where they stand."""
    return [(one.serial, one.state) for one in await world.certificates_of(device)]
