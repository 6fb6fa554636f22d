"""Under ``compliance = piv`` certificates of a lost or stolen card are revoked in time, whatever else is waited for."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.journal import device_event, replay
from cardwright_server.devices.model import Device, DeviceEvent, DeviceState, HoldReason, Reason
from cardwright_server.people.model import Role
from cardwright_server.requests.model import Request, RequestKind, RequestState
from cardwright_server.store.second_medium import Remembered, Settled
from cardwright_server.store.unit import Database
from tests.support.databases import Clock
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import World, make_world
from tests.support.people import make_operator


async def report(world: World, who: Principal, device: UUID, reason: Reason) -> None:
    await world.database.transact(
        lambda unit: world.services.devices.report_incident(unit, who, device, reason)
    )


async def replacement_of(world: World, device: Device) -> Request:
    (found,) = [one for one in await world.open_requests(device.id) if one.kind is RequestKind.REPLACEMENT]
    return found


async def test_what_was_lost_under_piv_is_revoked_within_18_hours(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    """Whether or not somebody approves a replacement; a later report gives no more time, and taking it back ends it."""
    world = await make_world(open_database(clock=clock), "piv")
    lost, back, forgotten = [await world.issued() for _ in range(3)]
    for device, reason in ((lost, Reason.LOST), (back, Reason.STOLEN), (forgotten, Reason.FORGOTTEN)):
        await report(world, world.helper, device.id, reason)

    async def expire() -> int:
        return await world.database.transact(lambda unit: world.services.devices.expire(unit))

    clock.advance(hours=16, minutes=50)
    helper = await make_operator(world.database, world.org, Role.HELP_DESK)
    await report(world, helper, lost.id, Reason.STOLEN)
    replacement = await replacement_of(world, back)
    await world.database.transact(lambda unit: world.services.requests.cancel(unit, helper, replacement.id))
    assert await expire() == 0
    clock.advance(minutes=15)
    assert await expire() == 1
    ended = await world.device(lost.id)
    assert (ended.state, ended.reason, ended.disposition) == (DeviceState.TERMINATED, Reason.STOLEN, "lost")
    assert world.credentials.of(lost.id)[-1][0] == "revoke"
    assert [await world.state(one.id) for one in (back, forgotten)] == [DeviceState.ISSUED, DeviceState.INVALID]
    assert (await replacement_of(world, lost)).state is RequestState.PENDING, "its holder still needs another one"
    clock.advance(hours=20)
    assert await expire() == 0


@ON_SQLITE
async def test_a_restore_gives_no_more_time_to_revoke(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    """The report is on the second medium; what was due is not, and a policy that is not strict still waits."""
    database = open_database(clock=clock)
    for policy, left in (("piv", DeviceState.TERMINATED), ("civ", DeviceState.INVALID)):
        world = await make_world(database, policy)
        device = await world.issued()
        clock.advance(minutes=1)
        values = {"state": DeviceState.INVALID, "reason": Reason.LOST}
        event = device_event(device, DeviceEvent.REPORT_INCIDENT, values, HoldReason.OPERATOR)
        remembered = Remembered(event, uuid4(), clock(), 1, Settled.TOOK_EFFECT)
        assert await database.transact(lambda unit, it=remembered: replay(unit, it))  # type: ignore[misc]
        for hours, state in ((16, DeviceState.INVALID), (2, left)):
            clock.advance(hours=hours)
            await database.transact(lambda unit, here=world: here.services.devices.expire(unit))  # type: ignore[misc]
            assert await world.state(device.id) is state
        assert await database.transact(world.services.devices.expire) == 0


@ON_SQLITE
async def test_what_was_lost_under_civ_waits_for_its_replacement(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    world = await make_world(open_database(clock=clock))
    device = await world.issued()
    await report(world, world.helper, device.id, Reason.LOST)
    clock.advance(hours=40)
    assert await world.database.transact(lambda unit: world.services.devices.expire(unit)) == 0
    assert await world.state(device.id) is DeviceState.INVALID
