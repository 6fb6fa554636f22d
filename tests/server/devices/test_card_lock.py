"""The lock of a card itself: who may order it, what is due for it, the way back, and what a restore knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cardwright_cardops.piv.references import Slot
from cardwright_server.devices.card_lock import require_lockable
from cardwright_server.devices.due import What
from cardwright_server.devices.errors import CardLockUnavailable
from cardwright_server.devices.journal import LockStep, device_event, lock_event, replay
from cardwright_server.devices.lifecycle import Told
from cardwright_server.devices.model import Device, DeviceEvent, DeviceState, Disposition, HoldReason, Reason
from cardwright_server.machine import IllegalTransition
from cardwright_server.people.model import PersonStatus
from cardwright_server.policies.document import read, shipped
from cardwright_server.policies.model import ClearSecrets, DeviceKind, Policy
from cardwright_server.requests.model import Request, RequestKind, RequestState
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.second_medium import JournalEvent, Remembered, Settled
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import World, make_world


@pytest.fixture
async def world(database: Database) -> World:
    return await make_world(database)


async def call(world: World, name: str, *rest: Any, **named: Any) -> Any:
    """The help desk calls a method of the device service, in a unit of its own."""
    method = getattr(world.services.devices, name)
    return await world.database.transact(lambda unit: method(unit, world.helper, *rest, **named))


async def due(world: World, device: UUID) -> list[What]:
    found = await world.database.read(lambda unit: world.services.due.due(unit, world.org, device))
    return [item.what for item in found.what]


async def unlocks(world: World, device: UUID) -> list[Request]:
    return [one for one in await world.open_requests(device) if one.kind is RequestKind.UNLOCK]


async def step(world: World, name: str, device: UUID, *rest: Any) -> None:
    """What a session says of the lock."""
    locks, lifecycle = world.services.lifecycle.locks, world.services.lifecycle

    async def work(unit: Unit) -> None:
        await getattr(locks, name)(unit, *rest, await lifecycle.device(unit, world.org, device), *_session(name))

    await world.database.transact(work)


def _session(name: str) -> tuple[UUID, ...]:
    return () if name == "begin" else (uuid4(),)


async def locked(world: World, device: UUID) -> None:
    """Ordered, and carried out by a session."""
    await call(world, "suspend", device, lock_card=True)
    await step(world, "begin", device)
    await step(world, "done", device, world.helper)


async def told(world: World, device: UUID) -> list[str]:
    """Names of the events about the card itself."""
    statement = select(outbox.c.name).where(outbox.c.subject == device, outbox.c.name.like("device.card-%"))
    rows = await world.database.read(lambda unit: unit.rows(statement.order_by(outbox.c.id)))
    return [row.name for row in rows]


async def test_a_card_is_locked_and_given_back(world: World) -> None:
    device = (await world.issued()).id
    await call(world, "suspend", device, lock_card=True)
    assert await due(world, device) == [What.LOCK]
    assert not (await world.device(device)).card_locked, "nothing was tried yet"
    await step(world, "begin", device)
    assert (await world.device(device)).card_locked and await due(world, device) == [What.LOCK]
    await step(world, "done", device, world.helper)
    assert await due(world, device) == [] and await unlocks(world, device) == []
    back = await call(world, "resume", device)
    assert (back.state, back.card_locked) == (DeviceState.ISSUED, True)
    assert await due(world, device) == [What.UNLOCK, What.REQUEST]
    (request,) = await unlocks(world, device)
    assert (request.state, request.made_by, request.person) == (
        RequestState.READY, world.helper.actor, back.person
    )  # fmt: skip
    assert request.expires_at is not None and request.expires_at - request.created_at == timedelta(days=30)
    await step(world, "over", device, world.helper)
    assert not (await world.device(device)).card_locked
    assert What.UNLOCK not in await due(world, device)
    assert await told(world, device) == ["device.card-locked", "device.card-unlock-due", "device.card-unlocked"]


async def test_an_order_that_was_not_carried_out_is_taken_back_without_a_trace(world: World) -> None:
    device = (await world.issued()).id
    await call(world, "suspend", device, lock_card=True)
    back = await call(world, "resume", device)
    assert (back.card_locked, await due(world, device), await world.open_requests(device)) == (False, [], [])
    # The session that was about to do it comes too late, and says nothing.
    await step(world, "done", device, world.helper)
    assert not (await world.device(device)).card_locked and await told(world, device) == []


async def test_one_that_may_be_locked_is_given_back_as_if_it_were(world: World) -> None:
    device = (await world.issued()).id
    await call(world, "suspend", device, lock_card=True)
    await step(world, "begin", device)
    await call(world, "resume", device)
    assert await due(world, device) == [What.UNLOCK, What.REQUEST]
    # The session that was cut off by that ends after all.
    await step(world, "done", device, world.helper)
    assert (await world.device(device)).card_locked and await due(world, device) == [What.UNLOCK, What.REQUEST]


async def test_it_stays_locked_until_the_last_hold_is_gone(world: World) -> None:
    device = (await world.issued()).id
    await call(world, "suspend", device, HoldReason.INVESTIGATION)
    assert await due(world, device) == []
    await call(world, "suspend", device, HoldReason.INVESTIGATION, lock_card=True)
    assert await due(world, device) == [What.LOCK], "of a device that is held already, too"
    await locked(world, device)
    await call(world, "resume", device)
    assert (await world.state(device), await due(world, device)) == (DeviceState.SUSPENDED, [])
    await call(world, "resume", device, HoldReason.INVESTIGATION)
    assert await due(world, device) == [What.UNLOCK, What.REQUEST]


async def test_it_is_due_again_when_it_is_held_again_before_anybody_opened_it(world: World) -> None:
    device = (await world.issued()).id
    await locked(world, device)
    await call(world, "resume", device)
    (first,) = await unlocks(world, device)
    await call(world, "suspend", device)
    assert await due(world, device) == [] and await unlocks(world, device) == []
    assert (await world.request(first.id)).state is RequestState.CANCELLED
    await call(world, "resume", device)
    (second,) = await unlocks(world, device)
    assert second.id != first.id and (await world.device(device)).card_locked


async def test_an_incident_keeps_the_lock_and_its_end_gives_the_card_back(world: World) -> None:
    device = (await world.issued()).id
    await call(world, "suspend", device, lock_card=True)
    await call(world, "report_incident", device, Reason.FORGOTTEN)
    assert await due(world, device) == [What.LOCK], "whoever has it now"
    await step(world, "begin", device)
    await step(world, "done", device, world.helper)
    (asked,) = await world.open_requests(device)
    requests = world.services.requests
    await world.database.transact(lambda unit: requests.cancel(unit, world.helper, asked.id))
    assert await world.state(device) is DeviceState.SUSPENDED and await unlocks(world, device) == []
    await call(world, "report_incident", device, Reason.FORGOTTEN)
    await call(world, "resume", device)
    (asked,) = await world.open_requests(device)
    await world.database.transact(lambda unit: requests.cancel(unit, world.helper, asked.id))
    assert await world.state(device) is DeviceState.ISSUED
    assert await due(world, device) == [What.UNLOCK, What.REQUEST]


@pytest.mark.parametrize("carried_out", [False, True])
async def test_the_end_forgets_it(world: World, carried_out: bool) -> None:
    device = (await world.issued()).id
    await call(world, "suspend", device, lock_card=True)
    if carried_out:
        await step(world, "begin", device)
    await call(world, "terminate", device, Reason.NOT_NEEDED, Disposition.COLLECTED)
    assert (await world.device(device)).card_locked is False
    assert await due(world, device) == [What.REVOKED]


async def test_the_holder_who_comes_back_gets_the_card_back(world: World) -> None:
    found = await world.issued()
    assert found.person is not None
    person, devices = found.person, world.services.devices

    async def follow(status: PersonStatus) -> None:
        await world.database.transact(lambda unit: devices.follow_person(unit, world.org, person, status))

    await follow(PersonStatus.SUSPENDED)
    await locked(world, found.id)
    await call(world, "resume", found.id)
    assert await unlocks(world, found.id) == []
    await follow(PersonStatus.ACTIVE)
    assert await world.state(found.id) is DeviceState.ISSUED
    (request,) = await unlocks(world, found.id)
    assert request.made_by_kind == "system"


async def test_an_operator_asks_where_the_policy_has_no_way_for_holders(database: Database) -> None:
    world = await make_world(database, "civ", (('unlock = ["self", "assisted", "operator"]', 'unlock = ["operator"]'),))
    device = (await world.issued()).id
    await locked(world, device)
    await call(world, "resume", device)
    assert await due(world, device) == [What.UNLOCK] and await unlocks(world, device) == []


CIV = read(shipped("civ"))


def without_9e(policy: Policy) -> Policy:
    slots = tuple(row for row in policy.card.slots if row.slot is not Slot.CARD_AUTHENTICATION)
    return replace(policy, card=replace(policy.card, slots=slots))


@ON_SQLITE
@pytest.mark.parametrize(
    ("device", "policy", "why"),
    [
        ({"kind": DeviceKind.PKCS11_TOKEN}, CIV, "a pkcs11-token cannot be locked"),
        ({"kind": DeviceKind.PHONE}, CIV, "a phone cannot be locked"),
        ({"issued_at": None}, CIV, "never issued"),
        ({}, None, "never issued"),
        (
            {},
            replace(CIV, card=replace(CIV.card, secrets=replace(CIV.card.secrets, puk=False))),
            "leaves the PUK as it is",
        ),
        ({}, replace(CIV, clear_secrets=ClearSecrets.NEVER), "lets no workstation see a PUK"),
        ({}, read(shipped("piv")), "lets no workstation see a PUK"),
        ({}, replace(CIV, unlock=frozenset()), "opens no way of unlocking"),
        ({}, without_9e(CIV), "opens no way of unlocking"),
    ],
)
async def test_what_could_not_be_undone_is_refused(
    world: World, device: dict[str, Any], policy: Policy | None, why: str
) -> None:
    found = await world.issued()
    require_lockable(found, CIV)
    with pytest.raises(CardLockUnavailable, match=why):
        require_lockable(replace(found, **device), policy)


@ON_SQLITE
async def test_a_refused_order_changes_nothing(open_database: Callable[..., Database]) -> None:
    world = await make_world(open_database(), "piv")
    device = (await world.issued()).id
    with pytest.raises(CardLockUnavailable):
        await call(world, "suspend", device, lock_card=True)
    assert (await world.state(device), await due(world, device)) == (DeviceState.ISSUED, [])
    blank = await world.bound(await world.person())
    with pytest.raises(CardLockUnavailable):
        await call(world, "suspend", blank, lock_card=True)
    with pytest.raises(IllegalTransition):
        await call(world, "suspend", blank)


def held(device: Device, *, lock: bool) -> JournalEvent:
    values = {"state": DeviceState.SUSPENDED}
    return device_event(device, DeviceEvent.SUSPEND, values, HoldReason.OPERATOR, lock=lock)


def given_back(device: Device) -> JournalEvent:
    return device_event(device, DeviceEvent.RESUME, {"state": DeviceState.ISSUED}, HoldReason.OPERATOR)


@ON_SQLITE
@pytest.mark.parametrize(
    ("happened", "state", "card_locked", "left"),
    [
        (["held"], DeviceState.SUSPENDED, False, [What.LOCK]),
        (["held", LockStep.BEGUN], DeviceState.SUSPENDED, True, [What.LOCK]),
        (["held", LockStep.BEGUN, LockStep.DONE], DeviceState.SUSPENDED, True, []),
        (["held", "back"], DeviceState.ISSUED, False, []),
        (["held", LockStep.BEGUN, "back"], DeviceState.ISSUED, True, [What.UNLOCK]),
        (["held", LockStep.BEGUN, LockStep.DONE, "back"], DeviceState.ISSUED, True, [What.UNLOCK]),
        (["held", LockStep.BEGUN, LockStep.DONE, "back", LockStep.OVER], DeviceState.ISSUED, False, []),
    ],
)
async def test_a_restore_knows_what_became_of_the_card(
    open_database: Callable[..., Database],
    clock: Clock,
    happened: list[Any],
    state: DeviceState,
    card_locked: bool,
    left: list[What],
) -> None:
    """The backup is from before the order: what is on the second medium says the rest, however often."""
    world = await make_world(open_database(clock=clock))
    device = await world.issued()
    remembered: list[Remembered] = []
    for what in happened:
        clock.advance(minutes=1)
        device = replace(device, card_locked=card_locked if what == "back" else device.card_locked)
        event = held(device, lock=True) if what == "held" else given_back(device) if what == "back" else None
        event = event or lock_event(device, what)
        remembered.append(Remembered(event, uuid4(), clock(), len(remembered), Settled.TOOK_EFFECT))
    clock.advance(minutes=1)
    for one in (*remembered, *remembered):
        await world.database.transact(lambda unit, it=one: replay(unit, it))  # type: ignore[misc]
    now = await world.device(device.id)
    assert (now.state, now.card_locked, await due(world, device.id)) == (state, card_locked, left)
    nothing = replace(remembered[-1], settled=Settled.ABANDONED)
    assert await world.database.transact(lambda unit: replay(unit, nothing)) is False


@ON_SQLITE
async def test_what_is_due_is_forgotten_where_a_restore_finds_the_end(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    """The backup is from between the order and the end."""
    world = await make_world(open_database(clock=clock))
    device = await world.issued()
    await call(world, "suspend", device.id, lock_card=True)
    clock.advance(minutes=1)
    event = device_event(device, DeviceEvent.TERMINATE, {"state": DeviceState.TERMINATED}, Told().hold)
    remembered = Remembered(event, uuid4(), clock(), 1, Settled.TOOK_EFFECT)
    assert await world.database.transact(lambda unit: replay(unit, remembered))
    assert await due(world, device.id) == []
