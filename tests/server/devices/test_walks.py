"""Random walks over devices by several clients at once: only what the table allows, and nothing lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings

from cardwright_server.authentication.principal import Principal, server
from cardwright_server.devices import store
from cardwright_server.devices.card_lock import LOCKABLE_STATES
from cardwright_server.devices.consequences import Replacement
from cardwright_server.devices.due import DueList, What
from cardwright_server.devices.errors import DeviceError, TooManyDevices
from cardwright_server.devices.lifecycle import DeviceLifecycle, Told
from cardwright_server.devices.machine import DEVICE
from cardwright_server.devices.model import DeviceEvent, DeviceState, HoldReason, Reason
from cardwright_server.machine import Actor, GuardRefused, IllegalTransition, Transition
from cardwright_server.store.unit import Database, Unit
from tests.support.lifecycles import RecordedCredentials, World, make_world
from tests.support.walks import Fired, Plan, plans, walk


class AgreeingRequests:
    """``DeviceRequests`` by which everything is asked for and approved."""

    async def is_executing(self, unit: Unit, org: UUID, device: UUID, request: UUID, session: UUID) -> bool:
        return True

    async def second_person_agreed(self, unit: Unit, org: UUID, device: UUID, request: UUID | None) -> bool:
        return True

    async def replacement(self, unit: Unit, org: UUID, request: UUID) -> Replacement | None:
        return None

    async def prepared(self, unit: Unit, principal: Principal, request: UUID, device: UUID) -> None:
        raise AssertionError("nothing is replaced here")

    async def open_unlock(
        self, unit: Unit, principal: Principal, device: UUID, person: UUID | None, *, strict: bool
    ) -> None:
        return

    async def close_unlock(self, unit: Unit, principal: Principal, device: UUID) -> None:
        return

    async def close(self, unit: Unit, principal: Principal, device: UUID) -> None:
        return


class DeviceSubject:
    """A device, moved through the service that carries out the machine."""

    def __init__(self, world: World, clients: list[Database], device: UUID, person: UUID, policy: UUID) -> None:
        self.world, self.clients, self.device = world, clients, device
        self.binding = {"person": person, "policy": policy, "policy_number": 1}
        people, policies = world.free.people, world.free.policies
        self.lifecycle = DeviceLifecycle(people, policies, RecordedCredentials(), AgreeingRequests(), DueList())

    async def fire(self, client: int, event: DeviceEvent, actor: Actor) -> Transition[DeviceState, DeviceEvent]:
        database, org = self.clients[client], self.world.org
        seen = await database.read(lambda unit: self.lifecycle.device(unit, org, self.device))
        starts = event in (DeviceEvent.START, DeviceEvent.START_UPDATE)
        # The last client's devices are over before they begin, so that the clock has something to do.
        ends = datetime.now(UTC) + timedelta(days=-1 if client == 2 else 100)
        told = Told(
            reason=Reason.LEFT if event is DeviceEvent.TERMINATE else (Reason.FORGOTTEN, Reason.LOST)[client % 2],
            hold=(HoldReason.OPERATOR, HoldReason.INVESTIGATION)[client % 2],
            request=uuid4(),
            session=uuid4() if starts else seen.session,
            read_back=True,
            consistent=client == 1,
            lock_card=client == 1 and event is DeviceEvent.SUSPEND,
            expires_at=ends,
            activate_by=ends,
            values=dict(self.binding) if event is DeviceEvent.BIND else {},
        )
        try:
            return await database.transact(
                lambda unit: self.lifecycle.move(unit, server(org), self.device, event, actor, told)
            )
        except DeviceError as refused:
            raise GuardRefused(DEVICE.name, event, (refused.code,)) from refused

    async def state(self) -> DeviceState:
        return await self.world.state(self.device)

    async def journal(self) -> list[Fired[DeviceState, DeviceEvent]]:
        rows = await self.clients[0].read(lambda unit: store.history(unit, self.world.org, self.device))
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        return [
            Fired(
                None if row.source is None else DeviceState(row.source),
                DeviceEvent(row.event),
                Actor(row.actor),
                DeviceState(row.target),
            )
            for row in rows
        ]


@pytest.fixture
async def clients(open_database: Callable[..., Database]) -> list[Database]:
    """Three processes' connections."""
    return [open_database(pool=1) for _ in range(3)]


@pytest.fixture
async def world(clients: list[Database]) -> World:
    return await make_world(clients[0], replacing=[("max_devices = 2", "max_devices = 1")])


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(plan=plans(DEVICE, steps=14))
async def test_walks_over_devices(world: World, clients: list[Database], plan: Plan[DeviceEvent]) -> None:
    person, device = await world.person(), await world.stock()
    policy = (await world.database.read(lambda unit: world.free.policies.find(unit, world.issuer, "civ")))[0].policy
    subject = DeviceSubject(world, clients, device, person.id, policy)
    begin = [(DeviceEvent.BIND, Actor.ISSUANCE), (DeviceEvent.START, Actor.ISSUANCE), (DeviceEvent.ISSUE, Actor.SERVER)]
    await walk(DEVICE, subject, [[*begin, *plan[0]], *plan[1:]])
    state = await subject.state()
    holds = await world.database.read(lambda unit: store.holds(unit, device))
    if state in (DeviceState.ISSUED, DeviceState.UPDATING, DeviceState.SUSPENDED):
        assert bool(holds) is (state is DeviceState.SUSPENDED)
    due = await world.database.read(lambda unit: DueList().due(unit, world.org, device))
    told = {one.what for one in due.what} & {What.LOCK, What.UNLOCK}
    assert told <= ({What.LOCK} if state in LOCKABLE_STATES else set()), "no session was here that locked it"
    if state is DeviceState.STOCK:
        assert not holds and (await world.device(device)).person is None


async def test_one_device_is_not_bound_twice_at_once(world: World, clients: list[Database]) -> None:
    device, persons = await world.stock(), [await world.person() for _ in range(3)]

    async def bind(client: int) -> bool:
        try:
            await clients[client].transact(
                lambda unit: world.services.devices.bind(unit, world.issuer, device, persons[client].id)
            )
        except IllegalTransition:
            return False
        return True

    assert sorted(await asyncio.gather(*(bind(client) for client in range(3)))) == [False, False, True]
    assert (await world.device(device)).version == 2


async def test_the_limit_holds_for_several_devices_at_once(world: World, clients: list[Database]) -> None:
    person, devices = await world.person(), [await world.stock() for _ in range(3)]

    async def bind(client: int) -> bool:
        try:
            await clients[client].transact(
                lambda unit: world.services.devices.bind(unit, world.issuer, devices[client], person.id)
            )
        except TooManyDevices:
            return False
        return True

    assert sorted(await asyncio.gather(*(bind(client) for client in range(3)))) == [False, False, True]


async def test_holds_set_at_once_are_all_there(world: World, clients: list[Database]) -> None:
    device = (await world.issued()).id
    reasons = (HoldReason.OPERATOR, HoldReason.INVESTIGATION)

    async def suspend(client: int) -> None:
        await clients[client].transact(
            lambda unit: world.services.devices.suspend(unit, world.helper, device, reasons[client])
        )

    await asyncio.gather(*(suspend(client) for client in range(2)))
    assert await world.database.read(lambda unit: store.holds(unit, device)) == set(reasons)
    assert await world.state(device) is DeviceState.SUSPENDED
