"""What happens to devices: every rule of binding, suspension, incident, replacement and the end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cardwright_server.authentication.errors import AccessDenied, AuthorizationError, NotYourOwn, ProofRequired
from cardwright_server.authentication.model import Method
from cardwright_server.devices.errors import (
    BadDevice,
    DeviceRestoreRefused,
    KindNotAllowed,
    NoSuchDevice,
    NoSuchHold,
    PersonNotActive,
    SecondPersonRequired,
    SelfBindingClosed,
    TooManyDevices,
)
from cardwright_server.devices.lifecycle import Told
from cardwright_server.devices.model import CRL_REASONS, Device, DeviceState, Disposition, HoldReason, Reason
from cardwright_server.machine import GuardRefused, IllegalTransition
from cardwright_server.people.model import PersonStatus, Role
from cardwright_server.policies.errors import NoPolicyForPerson
from cardwright_server.policies.model import DeviceKind
from cardwright_server.requests.errors import NoSuchRequest
from cardwright_server.requests.model import Request, RequestKind, RequestState
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database
from tests.support.databases import Clock
from tests.support.lifecycles import World, as_operator, make_world
from tests.support.people import make_operator, make_person


@pytest.fixture
async def world(database: Database) -> World:
    return await make_world(database)


async def call(world: World, name: str, principal: Any, *rest: Any, **named: Any) -> Any:
    """Call a method of the device service in a unit of its own."""
    method = getattr(world.services.devices, name)
    return await world.database.transact(lambda unit: method(unit, principal, *rest, **named))


async def ask(world: World, name: str, principal: Any, *rest: Any, **named: Any) -> Any:
    """Call a method of the request service in a unit of its own."""
    method = getattr(world.services.requests, name)
    return await world.database.transact(lambda unit: method(unit, principal, *rest, **named))


async def replacement_of(world: World, device: UUID) -> Request:
    (found,) = [one for one in await world.open_requests(device) if one.kind is RequestKind.REPLACEMENT]
    return found


async def replaced(world: World, device: Device) -> Device:
    """Approve what an incident asked for, bind a card for it, and issue it."""
    request = await replacement_of(world, device.id)
    if request.state is RequestState.PENDING:
        request = await ask(world, "approve", world.second, request.id)
    person = await world.database.read(lambda unit: world.free.people.person(unit, world.org, device.person))  # type: ignore[arg-type]
    await world.bound(person, request.id)
    return await world.carried_out(request.id)


async def test_from_stock_to_use(world: World) -> None:
    person = await world.person()
    device = await world.stock()
    assert await world.state(device) is DeviceState.STOCK
    bound = await call(world, "bind", world.issuer, device, person.id)
    assert (bound.state, bound.person, bound.policy_number) == (DeviceState.ASSIGNED, person.id, 1)
    made = await world.carried_out((await world.issuance(device)).id)
    assert made.state is DeviceState.ISSUED and made.issued_at is not None and made.session is None
    assert world.credentials.of(device) == [("activate", "")]
    steps = await world.database.read(lambda unit: world.services.devices.history(unit, world.helper, device))
    assert [(step.number, step.source, step.target) for step in steps] == [
        (1, None, "stock"),
        (2, "stock", "assigned"),
        (3, "assigned", "in-production"),
        (4, "in-production", "issued"),
    ]


async def test_produced_devices_wait_for_their_holder(world: World) -> None:
    person = await world.person()
    device = await world.bound(person)
    made = await world.carried_out((await world.issuance(device)).id, produce=True)
    assert made.state is DeviceState.PRODUCED
    assert world.credentials.of(device) == []
    with pytest.raises(AccessDenied):
        await call(world, "activate", world.issuer, device)
    owner = await world.proven(person, Method.LDAP_PASSWORD)
    assert (await call(world, "activate", owner, device)).state is DeviceState.ISSUED
    assert world.credentials.of(device) == [("activate", "")]


async def test_who_may_get_a_device(world: World) -> None:
    gone = await world.person()
    await world.database.transact(
        lambda unit: world.free.people.set_status(unit, world.issuer, gone.id, PersonStatus.SUSPENDED)
    )
    with pytest.raises(PersonNotActive):
        await call(world, "bind", world.issuer, await world.stock(), gone.id)
    stranger = await make_person(world.database, world.org, "nobody")
    with pytest.raises(NoPolicyForPerson):
        await call(world, "bind", world.issuer, await world.stock(), stranger.id)
    person = await world.person()
    with pytest.raises(NoPolicyForPerson):
        await call(world, "bind", world.issuer, await world.stock(DeviceKind.PHONE), person.id)
    for _ in range(2):
        await world.bound(person)
    with pytest.raises(TooManyDevices):
        await world.bound(person)
    device = await world.bound(await world.person())
    with pytest.raises(IllegalTransition):
        await call(world, "bind", world.issuer, device, (await world.person()).id)
    with pytest.raises(NoSuchDevice):
        await call(world, "bind", world.issuer, uuid4(), person.id)


async def test_the_kind_is_looked_at_when_a_replacement_is_bound(world: World) -> None:
    old = await world.issued()
    await call(world, "report_incident", world.issuer, old.id, Reason.LOST)
    request = await replacement_of(world, old.id)
    phone = await world.stock(DeviceKind.PHONE)
    with pytest.raises(KindNotAllowed):
        await call(world, "bind", world.issuer, phone, old.person, replacement=request.id)


async def test_persons_bind_for_themselves_only_where_the_policy_lets(database: Database) -> None:
    world = await make_world(database)
    person, other = await world.person(), await world.person()
    owner = await world.proven(person, Method.INITIAL_PASSWORD)
    device = await world.stock()
    with pytest.raises(AccessDenied):
        await call(world, "bind", owner, device, other.id)
    assert (await call(world, "bind", owner, device, person.id)).person == person.id
    closed = await make_world(database, replacing=[("self_bind = true", "self_bind = false")])
    owner = await closed.proven(await closed.person(), Method.INITIAL_PASSWORD)
    with pytest.raises(SelfBindingClosed):
        await call(closed, "bind", owner, await closed.stock(), owner.person)


async def test_operators_do_not_act_on_their_own_devices_nor_elsewhere(world: World) -> None:
    person = await world.person()
    device = await world.issued(person)
    own = await make_operator(world.database, world.org, Role.HELP_DESK, Role.ISSUANCE, person=person.id)
    for name, rest in (
        ("suspend", ()),
        ("resume", ()),
        ("terminate", (Reason.NOT_NEEDED, Disposition.COLLECTED)),
        ("recycle", ()),
    ):
        with pytest.raises(NotYourOwn):
            await call(world, name, own, device.id, *rest)
    foreign = await make_operator(world.database, new_id(), Role.HELP_DESK, Role.ISSUANCE)
    calls: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("get", ()),
        ("suspend", ()),
        ("report_incident", (Reason.LOST,)),
        ("terminate", (Reason.NOT_NEEDED, Disposition.COLLECTED)),
        ("unbind", ()),
        ("dispose", ()),
    )
    for name, rest in calls:
        with pytest.raises(NoSuchDevice):
            await call(world, name, foreign, device.id, *rest)
    assert await world.database.read(lambda unit: world.services.devices.find(unit, foreign)) == []
    owner = await world.proven(person, Method.CARD)
    found = await world.database.read(lambda unit: world.services.devices.find(unit, owner))
    assert [one.id for one in found] == [device.id]


async def test_holds_are_a_set_and_each_is_lifted_by_itself(world: World) -> None:
    device = (await world.issued()).id
    start = len(world.credentials.of(device))
    await call(world, "suspend", world.helper, device, HoldReason.OPERATOR, remark="asked by phone")
    await call(world, "suspend", world.helper, device, HoldReason.INVESTIGATION)
    await call(world, "suspend", world.helper, device, HoldReason.INVESTIGATION)
    assert await world.state(device) is DeviceState.SUSPENDED
    assert (await call(world, "resume", world.helper, device, HoldReason.OPERATOR)).state is DeviceState.SUSPENDED
    with pytest.raises(NoSuchHold):
        await call(world, "resume", world.helper, device, HoldReason.OPERATOR)
    assert await world.database.read(lambda unit: world.services.devices.holds(unit, world.helper, device)) == {
        HoldReason.INVESTIGATION
    }
    assert (await call(world, "resume", world.helper, device, HoldReason.INVESTIGATION)).state is DeviceState.ISSUED
    assert world.credentials.of(device)[start:] == [
        ("hold", "operator"),
        ("hold", "investigation"),
        ("hold", "investigation"),
        ("release", ""),
    ]
    with pytest.raises(IllegalTransition):
        await call(world, "resume", world.helper, device, HoldReason.OPERATOR)


async def test_the_holds_of_the_server_are_lifted_by_the_server(world: World) -> None:
    device = await world.issued()

    async def follow(status: PersonStatus) -> DeviceState:
        assert device.person is not None
        person = device.person
        await world.database.transact(
            lambda unit: world.services.devices.follow_person(unit, world.org, person, status)
        )
        return await world.state(device.id)

    assert await follow(PersonStatus.SUSPENDED) is DeviceState.SUSPENDED
    await call(world, "suspend", world.helper, device.id, HoldReason.OPERATOR)
    with pytest.raises(NoSuchHold):
        await call(world, "resume", world.helper, device.id, HoldReason.PERSON)
    assert await follow(PersonStatus.SUSPENDED) is DeviceState.SUSPENDED
    assert await follow(PersonStatus.ACTIVE) is DeviceState.SUSPENDED
    assert await follow(PersonStatus.ACTIVE) is DeviceState.SUSPENDED
    assert (await call(world, "resume", world.helper, device.id)).state is DeviceState.ISSUED


@pytest.mark.parametrize("incident", [Reason.FORGOTTEN, Reason.DAMAGED, Reason.LOST, Reason.STOLEN])
async def test_an_incident_holds_and_asks_for_a_replacement_and_cancelling_restores(
    world: World, incident: Reason
) -> None:
    person = await world.person()
    device = await world.issued(person)
    start = len(world.credentials.of(device.id))
    owner = await world.proven(person, Method.LDAP_PASSWORD)
    reported = await call(world, "report_incident", owner, device.id, incident)
    assert (reported.state, reported.reason) == (DeviceState.INVALID, incident)
    request = await replacement_of(world, device.id)
    assert (request.state, request.temporary) == (RequestState.PENDING, incident is Reason.FORGOTTEN)
    assert world.credentials.of(device.id)[start:] == [("hold", incident.value)]
    if incident is Reason.STOLEN:
        with pytest.raises(GuardRefused):
            await ask(world, "cancel", owner, request.id)
        await ask(world, "cancel", world.helper, request.id)
    else:
        await ask(world, "cancel", owner, request.id)
    assert (await world.request(request.id)).state is RequestState.CANCELLED
    back = await world.device(device.id)
    assert (back.state, back.reason) == (DeviceState.ISSUED, Reason.NONE)
    assert world.credentials.of(device.id)[start:] == [("hold", incident.value), ("release", "")]


async def test_cancelling_unbinds_the_replacement_and_keeps_older_holds(world: World) -> None:
    device = await world.issued()
    await call(world, "suspend", world.helper, device.id)
    await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    request = await replacement_of(world, device.id)
    assert request.state is RequestState.APPROVED  # an issuer asked, who may approve
    person = await world.database.read(lambda unit: world.free.people.person(unit, world.org, device.person))  # type: ignore[arg-type]
    card = await world.bound(person, request.id)
    assert (await world.request(request.id)).state is RequestState.READY
    await ask(world, "cancel", world.helper, request.id)
    assert await world.state(card) is DeviceState.STOCK
    assert (await world.device(card)).person is None
    assert await world.state(device.id) is DeviceState.SUSPENDED
    assert ("release", "") not in world.credentials.of(device.id)
    await call(world, "resume", world.helper, device.id)
    assert await world.state(device.id) is DeviceState.ISSUED


async def test_a_temporary_device_stands_in_and_gives_back(world: World) -> None:
    device = await world.issued()
    await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    temporary = await replaced(world, device)
    assert (temporary.temporary, temporary.replaces) == (True, device.id)
    assert await world.state(device.id) is DeviceState.INVALID
    await call(world, "terminate", world.helper, temporary.id, Reason.RETURNED, Disposition.COLLECTED)
    assert await world.state(temporary.id) is DeviceState.TERMINATED
    assert await world.state(device.id) is DeviceState.ISSUED
    assert world.credentials.of(device.id)[-1] == ("release", "")
    assert world.credentials.of(temporary.id)[-1] == ("revoke", "cessationOfOperation cessationOfOperation")


@pytest.mark.parametrize(
    ("incident", "revoked"),
    [
        (Reason.LOST, "keyCompromise superseded"),
        (Reason.STOLEN, "keyCompromise superseded"),
        (Reason.DAMAGED, "superseded superseded"),
    ],
)
async def test_a_permanent_replacement_ends_all_that_is_invalid(world: World, incident: Reason, revoked: str) -> None:
    person = await world.person()
    first, second = await world.issued(person), await world.issued(person)
    await call(world, "report_incident", world.issuer, first.id, Reason.FORGOTTEN)
    temporary = await replaced(world, first)
    await call(world, "report_incident", world.issuer, second.id, incident)
    new = await replaced(world, second)
    assert (new.state, new.temporary) == (DeviceState.ISSUED, False)
    for old in (first, second, temporary):
        assert await world.state(old.id) is DeviceState.TERMINATED
    assert world.credentials.of(second.id)[-1] == ("revoke", revoked)
    assert (await world.device(second.id)).reason is incident
    assert await world.open_requests(second.id) == []


async def test_forgotten_turns_out_to_be_lost(world: World) -> None:
    device = await world.issued()
    await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    first = await replacement_of(world, device.id)
    temporary = await replaced(world, device)
    await call(world, "report_incident", world.issuer, device.id, Reason.LOST)
    second = await replacement_of(world, device.id)
    assert (first.temporary, second.temporary) == (True, False)
    with pytest.raises(GuardRefused):
        await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    new = await replaced(world, device)
    assert await world.state(device.id) is DeviceState.TERMINATED
    assert await world.state(temporary.id) is DeviceState.TERMINATED
    assert await world.state(new.id) is DeviceState.ISSUED


async def test_an_open_temporary_replacement_is_superseded(world: World) -> None:
    device = await world.issued()
    await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    first = await replacement_of(world, device.id)
    await call(world, "report_incident", world.issuer, device.id, Reason.STOLEN)
    assert (await world.request(first.id)).state is RequestState.SUPERSEDED
    assert not (await replacement_of(world, device.id)).temporary


async def test_a_device_does_not_come_back_while_its_stand_in_is_used(world: World) -> None:
    device = await world.issued()
    await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    await replaced(world, device)
    opened = await ask(world, "create_replacement", world.issuer, device.id)
    with pytest.raises(DeviceRestoreRefused):
        await ask(world, "cancel", world.helper, opened.request.id)


async def test_a_planned_replacement_leaves_the_old_device_in_use_until_then(world: World) -> None:
    device = await world.issued()
    opened = await ask(world, "create_replacement", world.issuer, device.id, Reason.RENEWED)
    assert opened.request.state is RequestState.APPROVED
    assert await world.state(device.id) is DeviceState.ISSUED
    new = await replaced(world, device)
    old = await world.device(device.id)
    assert (old.state, old.reason) == (DeviceState.TERMINATED, Reason.RENEWED)
    assert new.state is DeviceState.ISSUED


async def test_a_failed_production_is_tried_again_or_wiped(world: World) -> None:
    device = await world.bound(await world.person())
    request, session = await world.issuance(device), uuid4()
    permission = as_operator(world.issuer)
    await world.database.transact(lambda unit: world.services.requests.start(unit, permission, request.id, session))
    await world.database.transact(
        lambda unit: world.services.requests.fail(
            unit, world.org, request.id, session, retryable=True, consistent=False
        )
    )
    assert await world.state(device) is DeviceState.FAILED
    assert world.credentials.of(device) == [("revoke-new", "")]
    assert (await world.carried_out(request.id)).state is DeviceState.ISSUED
    other = await world.bound(await world.person())
    request = await world.issuance(other)
    await world.database.transact(lambda unit: world.services.requests.start(unit, permission, request.id, session))
    await world.database.transact(
        lambda unit: world.services.requests.fail(
            unit, world.org, request.id, session, retryable=False, consistent=False
        )
    )
    assert (await world.request(request.id)).state is RequestState.FAILED
    assert (await call(world, "recycle", world.issuer, other)).state is DeviceState.STOCK


async def test_the_end_and_a_new_life(world: World) -> None:
    device = (await world.issued()).id
    with pytest.raises(BadDevice):
        await call(world, "terminate", world.helper, device, Reason.EXPIRED, Disposition.COLLECTED)
    ended = await call(world, "terminate", world.helper, device, Reason.LEFT, Disposition.COLLECTED)
    assert (ended.state, ended.disposition) == (DeviceState.TERMINATED, "collected")
    again = await call(world, "recycle", world.issuer, device)
    assert (again.state, again.reason, again.life) == (DeviceState.STOCK, Reason.RECYCLED, 2)
    assert (again.person, again.policy, again.guid, again.expires_at) == (None, None, None, None)
    assert (await call(world, "dispose", world.issuer, device)).state is DeviceState.DISPOSED
    with pytest.raises(IllegalTransition):
        await call(world, "recycle", world.issuer, device)


async def test_what_is_not_used_again(world: World) -> None:
    lost, broken = (await world.issued()).id, (await world.issued()).id
    await call(world, "terminate", world.helper, lost, Reason.LOST, Disposition.LOST)
    await call(world, "terminate", world.helper, broken, Reason.DAMAGED, Disposition.DESTROYED)
    for device in (lost, broken):
        with pytest.raises(GuardRefused, match="may_be_used_again"):
            await call(world, "recycle", world.issuer, device)
    assert (await call(world, "recycle", world.issuer, lost, found=True)).state is DeviceState.STOCK
    with pytest.raises(GuardRefused):
        await call(world, "recycle", world.issuer, broken, found=True)


async def test_a_second_person_agrees_to_terminations_under_piv(database: Database) -> None:
    world = await make_world(database, "piv")
    other = await make_operator(database, world.org, Role.HELP_DESK, hardware=True)
    device = (await world.issued()).id
    end = (Reason.LEFT, Disposition.COLLECTED)
    with pytest.raises(SecondPersonRequired):
        await call(world, "terminate", world.helper, device, *end)
    opened = await ask(world, "create_termination", world.helper, device, Reason.LEFT)
    assert opened.request.state is RequestState.PENDING
    with pytest.raises((SecondPersonRequired, IllegalTransition)):
        await call(world, "terminate", world.helper, device, *end, request=opened.request.id)
    with pytest.raises(AuthorizationError):
        await ask(world, "approve", world.helper, opened.request.id)
    await ask(world, "approve", world.officer, opened.request.id)
    unrelated = (await world.issued()).id
    with pytest.raises(NoSuchRequest):  # it is about another device
        await call(world, "terminate", other, unrelated, *end, request=opened.request.id)
    await call(world, "terminate", other, device, *end, request=opened.request.id)
    assert await world.state(device) is DeviceState.TERMINATED
    assert (await world.request(opened.request.id)).state is RequestState.DONE


async def test_issuing_under_piv_takes_three_persons_and_no_password(database: Database) -> None:
    world = await make_world(database, "piv")
    person = await world.person()
    device = await world.bound(person)
    opened = await ask(world, "create_issuance", world.issuer, device)
    assert (opened.request.state, opened.request.strict) == (RequestState.PENDING, True)
    with pytest.raises(AuthorizationError):
        await ask(world, "approve", world.issuer, opened.request.id)
    assert (await ask(world, "approve", world.second, opened.request.id)).state is RequestState.READY
    owner = await world.proven(person, Method.LDAP_PASSWORD)
    produced = await world.carried_out(opened.request.id, produce=True)
    with pytest.raises(ProofRequired, match="FIPS 201-3"):
        await call(world, "activate", owner, produced.id)


async def test_people_who_leave_take_everything_with_them(world: World) -> None:
    person = await world.person()
    device = await world.issued(person)
    waiting = await world.bound(person)
    await world.issuance(waiting)
    await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    temporary = await replaced(world, device)
    for _ in range(2):
        await world.database.transact(
            lambda unit: world.services.devices.follow_person(unit, world.org, person.id, PersonStatus.LEFT)
        )
    assert await world.state(waiting) is DeviceState.STOCK
    for one in (device, temporary):
        assert await world.state(one.id) is DeviceState.TERMINATED
        assert world.credentials.of(one.id)[-1] == ("revoke", "cessationOfOperation cessationOfOperation")
        assert await world.open_requests(one.id) == []
    assert await world.open_requests(waiting) == []


async def test_replacements_count_once_they_are_in_use(database: Database) -> None:
    world = await make_world(database, replacing=[("max_devices = 2", "max_devices = 1")])
    person = await world.person()
    device = await world.issued(person)
    await call(world, "report_incident", world.issuer, device.id, Reason.LOST)
    with pytest.raises(TooManyDevices):
        await world.bound(person)  # what is lost is replaced, not added to
    await replaced(world, device)
    with pytest.raises(TooManyDevices):
        await world.bound(person)


async def test_nothing_comes_into_use_for_a_person_who_is_suspended(world: World) -> None:
    person = await world.person()
    device = await world.bound(person)
    request, session = await world.issuance(device), uuid4()
    permission = as_operator(world.issuer)

    async def status(now: PersonStatus) -> None:
        await world.database.transact(lambda unit: world.free.people.set_status(unit, world.issuer, person.id, now))
        await world.database.transact(
            lambda unit: world.services.devices.follow_person(unit, world.org, person.id, now)
        )

    await status(PersonStatus.SUSPENDED)
    with pytest.raises(PersonNotActive):
        await ask(world, "start", permission, request.id, session)
    await status(PersonStatus.ACTIVE)
    await ask(world, "start", permission, request.id, session)
    await status(PersonStatus.SUSPENDED)
    with pytest.raises(PersonNotActive):
        await ask(world, "finish", world.org, request.id, session, Told(read_back=True))
    assert await world.state(device) is DeviceState.IN_PRODUCTION
    assert world.credentials.of(device) == []


async def test_devices_end_no_later_than_the_policy_says(open_database: Any, clock: Clock) -> None:
    world = await make_world(open_database(clock=clock))
    device = await world.issued(days=10_000)
    assert device.expires_at == clock.now + timedelta(days=1826)
    await call(world, "report_incident", world.issuer, device.id, Reason.FORGOTTEN)
    assert (await replaced(world, device)).expires_at == clock.now + timedelta(days=14)


async def test_time_ends_devices(open_database: Any, clock: Clock) -> None:
    world = await make_world(open_database(clock=clock))
    permanent = await world.issued(days=100)
    forgotten = await world.issued(days=1000)
    await call(world, "report_incident", world.issuer, forgotten.id, Reason.FORGOTTEN)
    request = await replacement_of(world, forgotten.id)
    person = await world.database.read(lambda unit: world.free.people.person(unit, world.org, forgotten.person))  # type: ignore[arg-type]
    await world.bound(person, request.id)
    temporary = await world.carried_out(request.id, days=2)
    produced = await world.bound(await world.person())
    await world.carried_out((await world.issuance(produced)).id, produce=True)

    async def expire() -> int:
        return await world.database.transact(lambda unit: world.services.devices.expire(unit))

    assert await expire() == 0
    clock.advance(days=2)
    assert await expire() == 1
    assert await world.state(temporary.id) is DeviceState.TERMINATED
    assert await world.state(forgotten.id) is DeviceState.ISSUED
    clock.advance(days=28, seconds=1)
    assert await expire() == 1
    lapsed = await world.device(produced)
    assert (lapsed.state, lapsed.reason) == (DeviceState.TERMINATED, Reason.NOT_ACTIVATED)
    clock.advance(days=80)
    assert await expire() == 1
    ended = await world.device(permanent.id)
    assert (ended.state, ended.reason) == (DeviceState.INVALID, Reason.EXPIRED)
    assert world.credentials.of(permanent.id)[-1] == ("hold", "expired")
    assert await expire() == 0


def test_every_reason_that_ends_a_device_has_reasons_for_its_certificates() -> None:
    assert set(CRL_REASONS) == set(Reason) - {Reason.NONE}
