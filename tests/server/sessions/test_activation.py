"""Cards that are written by one and activated by another: no certificate is good before their holder has them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.due import What
from cardwright_server.devices.model import DeviceState, Reason
from cardwright_server.issuance.model import UNRELEASED, CertificateState
from cardwright_server.people.model import Person
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.databases import Clock
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip

WAITING = (
    ('clear_secrets = "any"', 'clear_secrets = "any"\nactivation = true'),
    ('algorithm = "rsa2048"', 'algorithm = "p256"'),
)


async def run(world: SessionWorld, card: VirtualCard, device: UUID, who: Principal, request: str = "") -> Trip:
    """A session to issue the card, by whom."""
    async with world.serving(world.office(device), who) as socket:
        return await Station(card).run(socket, request=request)


async def holder_of(world: SessionWorld, person: Person) -> Principal:
    return await world.world.proven(person, Method.INITIAL_PASSWORD)


async def states(world: SessionWorld, device: UUID) -> set[tuple[CertificateState, frozenset[str]]]:
    return {(one.state, one.holds) for one in await world.certificates_of(device)}


async def due_of(world: SessionWorld, device: UUID) -> list[What]:
    found = await world.database.read(lambda unit: world.world.services.due.due(unit, world.org, device))
    return [one.what for one in found.what]


async def test_a_written_card_is_good_for_nothing_until_its_holder_activates_it(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path, "civ", WAITING), blank()
    world.stations.every = True
    person = await world.person()
    device = await world.bound(card, person)
    assert (await world.issue(card, device)).outcome == sessions_pb2.OUTCOME_DONE
    written = await world.world.device(device)
    assert (written.state, written.issued_at) == (DeviceState.PRODUCED, None)
    assert written.activate_by is not None and written.expires_at is not None
    assert await states(world, device) == {(CertificateState.HELD, frozenset({UNRELEASED}))}
    assert await due_of(world, device) == [What.ACTIVATION]

    before = card.snapshot()
    other = await holder_of(world, await world.person("bob"))
    assert (await run(world, card, device, world.world.issuer)).error == "SESSION_WITHOUT_REQUEST"
    assert (await run(world, card, device, other)).error == "ACCESS_DENIED"
    assert await world.world.state(device) is DeviceState.PRODUCED

    trip = await run(world, card, device, await holder_of(world, person))
    assert (trip.error, trip.outcome, "preview" in trip.messages) == ("", sessions_pb2.OUTCOME_DONE, False)
    assert card.snapshot() == before, "it was written already"
    active = await world.world.device(device)
    assert (active.state, active.activate_by) == (DeviceState.ISSUED, None)
    assert (active.issued_at is not None, active.expires_at) == (True, written.expires_at)
    assert await states(world, device) == {(CertificateState.GOOD, frozenset())}
    assert await due_of(world, device) == []
    world.issuing.core.close()


@ON_SQLITE
async def test_who_writes_their_own_card_need_not_activate_it(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path, "civ", WAITING), blank()
    person = await world.person()
    device = await world.bound(card, person)
    request = await world.world.issuance(device)
    assert (await run(world, card, device, await holder_of(world, person), str(request.id))).error == ""
    assert await world.world.state(device) is DeviceState.ISSUED
    assert await states(world, device) == {(CertificateState.GOOD, frozenset())}
    world.issuing.core.close()


@ON_SQLITE
async def test_a_card_that_nobody_activates_ends(
    open_database: Callable[..., Database], clock: Clock, tmp_path: Path
) -> None:
    clock.now = datetime.now(UTC)
    world, card = await make_session_world(open_database(clock=clock), tmp_path, "civ", WAITING), blank()
    person = await world.person()
    device = await world.bound(card, person)
    await world.issue(card, device)
    clock.advance(days=31)
    assert await world.database.transact(lambda unit: world.world.services.devices.expire(unit)) == 1
    ended = await world.world.device(device)
    assert (ended.state, ended.reason) == (DeviceState.TERMINATED, Reason.NOT_ACTIVATED)
    assert {state for state, _ in await states(world, device)} == {CertificateState.REVOKED}
    again = await holder_of(world, person)
    assert (await run(world, card, device, again)).error != ""
    world.issuing.core.close()
