"""Requests: who asks and who approves, when they end, and that each is carried out once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings

from cardwright_server.authentication.authorize import Permission
from cardwright_server.authentication.errors import AccessDenied, AuthorizationError, NotYourOwn, ProofRequired
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import server
from cardwright_server.devices.lifecycle import Told
from cardwright_server.devices.model import DeviceState, HoldReason, Reason
from cardwright_server.machine import Actor, GuardRefused, IllegalTransition, Transition
from cardwright_server.people.model import Role
from cardwright_server.requests import store
from cardwright_server.requests.book import Wanted
from cardwright_server.requests.errors import IdempotencyConflict, NoSuchRequest, RequestNotPossible, UnlockClosed
from cardwright_server.requests.model import (
    LIFETIMES,
    POSSIBLE,
    REQUEST,
    Request,
    RequestEvent,
    RequestKind,
    RequestState,
)
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock
from tests.support.lifecycles import World, as_operator, make_world
from tests.support.people import make_operator
from tests.support.walks import Fired, Plan, plans, walk


@pytest.fixture
async def world(database: Database) -> World:
    return await make_world(database)


async def ask(world: World, name: str, *rest: Any, **named: Any) -> Any:
    """Call a method of the request service in a unit of its own."""
    method = getattr(world.services.requests, name)
    return await world.database.transact(lambda unit: method(unit, *rest, **named))


async def steps_of(world: World, request: UUID) -> list[tuple[str, str]]:
    rows = await world.database.read(lambda unit: store.history(unit, world.org, request))
    return [(row.event, row.target) for row in rows]


async def test_makers_who_may_approve_need_nobody_else(world: World) -> None:
    device = await world.bound(await world.person())
    opened = await ask(world, "create_issuance", world.issuer, device)
    assert opened.created and opened.request.state is RequestState.READY
    assert opened.request.approved_by == world.issuer.actor
    assert await steps_of(world, opened.request.id) == [("open", "approved"), ("prepare", "ready")]


async def test_nobody_approves_their_own(world: World) -> None:
    device = await world.issued()
    opened = await ask(world, "create_termination", world.helper, device.id, Reason.LEFT)
    assert opened.request.state is RequestState.PENDING
    same_person = await make_operator(
        world.database, world.org, Role.SECURITY_OFFICER, Role.ISSUANCE, person=world.helper.person
    )
    for who in (world.helper, same_person):
        with pytest.raises(AuthorizationError):
            await ask(world, "approve", who, opened.request.id)
    holder = await make_operator(world.database, world.org, Role.ISSUANCE, person=device.person)
    with pytest.raises(NotYourOwn):
        await ask(world, "approve", holder, opened.request.id)
    approved = await ask(world, "approve", world.second, opened.request.id)
    assert (approved.state, approved.approved_by) == (RequestState.READY, world.second.actor)
    assert (await ask(world, "approve", world.second, opened.request.id)).version == approved.version
    with pytest.raises(IllegalTransition):
        await ask(world, "deny", world.officer, opened.request.id)


async def test_rights_and_other_organizations(world: World) -> None:
    device = await world.issued()
    opened = await ask(world, "create_update", world.helper, device.id)
    assert device.person is not None
    auditor = await make_operator(world.database, world.org, Role.AUDITOR)
    stranger = await make_operator(world.database, new_id(), Role.ISSUANCE, Role.HELP_DESK)
    for name in ("create_update", "create_issuance", "create_reissue", "create_unlock", "create_recovery"):
        with pytest.raises(AccessDenied):
            await ask(world, name, auditor, device.id)
    for name in ("approve", "deny", "cancel", "get"):
        with pytest.raises(NoSuchRequest):
            await ask(world, name, stranger, opened.request.id)
    assert await ask(world, "find", stranger) == []
    assert opened.request.id in [one.id for one in await ask(world, "find", auditor, device=device.id)]
    other = await world.proven(await world.person(), Method.CARD)
    with pytest.raises(AccessDenied):
        await ask(world, "get", other, opened.request.id)
    assert await ask(world, "find", other) == []


async def test_asking_twice_gives_what_is_there(world: World) -> None:
    device = (await world.issued()).id
    first = await ask(world, "create_update", world.helper, device, key="a")
    assert first.created
    for who, key in ((world.helper, "a"), (world.helper, "b"), (world.issuer, "")):
        again = await ask(world, "create_update", who, device, key=key)
        assert (again.request.id, again.created) == (first.request.id, False)
    with pytest.raises(IdempotencyConflict):
        await ask(world, "create_unlock", world.helper, device, key="a")
    await ask(world, "cancel", world.helper, first.request.id)
    closed = await ask(world, "create_update", world.helper, device, key="a")
    assert (closed.request.id, closed.request.state, closed.created) == (
        first.request.id,
        RequestState.CANCELLED,
        False,
    )
    fresh = await ask(world, "create_update", world.helper, device, key="c")
    assert fresh.created and fresh.request.id != first.request.id
    assert len(await ask(world, "find", world.helper, device=device, states=[RequestState.CANCELLED])) == 1


async def test_unlocking_is_as_the_policy_says_and_lasts_ten_minutes(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    world = await make_world(
        open_database(clock=clock), "developer", replacing=[('unlock = ["self", "operator"]', 'unlock = ["self"]')]
    )
    person = await world.person()
    device = (await world.issued(person)).id
    with pytest.raises(UnlockClosed):
        await ask(world, "create_unlock", world.helper, device)
    owner = await world.proven(person, Method.LDAP_PASSWORD)
    opened = await ask(world, "create_unlock", owner, device)
    assert opened.request.state is RequestState.READY
    clock.advance(minutes=9, seconds=59)
    assert await ask(world, "expire") == 0
    clock.advance(seconds=1)
    permission = Permission(owner, own=person.id)
    with pytest.raises(GuardRefused, match="is_in_time"):
        await ask(world, "start", permission, opened.request.id, uuid4())
    assert await ask(world, "expire") == 1
    assert (await world.request(opened.request.id)).state is RequestState.EXPIRED
    assert await ask(world, "expire") == 0


async def test_under_piv_no_password_unlocks(database: Database) -> None:
    world = await make_world(database, "piv")
    person = await world.person()
    device = (await world.issued(person)).id
    owner = await world.proven(person, Method.LDAP_PASSWORD)
    with pytest.raises(ProofRequired, match="FIPS 201-3"):
        await ask(world, "create_unlock", owner, device)
    assert (await ask(world, "create_unlock", world.helper, device)).request.state is RequestState.READY


async def test_denied_and_lapsed_replacements_restore_nothing(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    world = await make_world(open_database(clock=clock))
    person = await world.person()
    device = (await world.issued(person)).id
    owner = await world.proven(person, Method.LDAP_PASSWORD)
    await world.database.transact(lambda unit: world.services.devices.report_incident(unit, owner, device, Reason.LOST))
    (first,) = await world.open_requests(device)
    await ask(world, "deny", world.second, first.id)
    assert await world.state(device) is DeviceState.INVALID
    opened = await ask(world, "create_replacement", world.issuer, device)
    card = await world.bound(person, opened.request.id)
    clock.advance(days=30)
    assert await ask(world, "expire") == 1
    assert await world.state(device) is DeviceState.INVALID
    assert await world.state(card) is DeviceState.STOCK


async def test_what_makes_no_sense_is_refused(world: World) -> None:
    stock = await world.stock()
    device = (await world.issued()).id
    free = world.free.requests
    for name in ("create_issuance", "create_unlock", "create_update", "create_reissue", "create_recovery"):
        create = getattr(free, name)
        with pytest.raises((RequestNotPossible, UnlockClosed)):
            await world.database.transact(lambda unit: create(unit, world.issuer, stock))  # noqa: B023
    with pytest.raises(RequestNotPossible):
        await ask(world, "create_issuance", world.issuer, device)
    with pytest.raises(RequestNotPossible):
        await ask(world, "create_replacement", world.issuer, device, Reason.LOST)
    with pytest.raises(RequestNotPossible):
        await ask(world, "create_recycle", world.issuer, device)


async def started(world: World, request: Request, session: UUID) -> Request:
    found: Request = await ask(world, "start", as_operator(world.issuer), request.id, session)
    return found


async def test_an_interrupted_session_is_gone_on_with(world: World) -> None:
    device = await world.bound(await world.person())
    request, first, second = await world.issuance(device), uuid4(), uuid4()
    await started(world, request, first)
    assert (await started(world, request, first)).attempts == 1  # repeated after a commit in doubt
    with pytest.raises(IllegalTransition):
        await started(world, request, second)
    with pytest.raises((IllegalTransition, GuardRefused)):
        await ask(world, "interrupt", world.org, request.id, second)
    with pytest.raises((IllegalTransition, GuardRefused)):
        await ask(world, "cancel", world.helper, request.id)
    await ask(world, "interrupt", world.org, request.id, first)
    assert await world.state(device) is DeviceState.IN_PRODUCTION
    assert world.credentials.of(device) == []
    assert (await started(world, request, second)).attempts == 2
    with pytest.raises(GuardRefused):
        await ask(world, "finish", world.org, request.id, first, Told(read_back=True))
    with pytest.raises(GuardRefused, match="read_back"):
        await ask(world, "finish", world.org, request.id, second, Told(read_back=False))
    await ask(world, "finish", world.org, request.id, second, Told(read_back=True))
    again = await ask(world, "finish", world.org, request.id, second, Told(read_back=True))
    assert again.state is RequestState.DONE
    assert world.credentials.of(device) == [("activate", "")]


async def test_failures_are_tried_again_a_few_times(world: World) -> None:
    device = (await world.issued()).id
    request = (await ask(world, "create_update", world.helper, device)).request
    for attempt in range(1, 6):
        session = uuid4()
        await started(world, request, session)
        assert await world.state(device) is DeviceState.UPDATING
        failed = await ask(world, "fail", world.org, request.id, session, retryable=True, consistent=True)
        assert await world.state(device) is DeviceState.ISSUED
        assert failed.state is (RequestState.RETRYABLE if attempt < 5 else RequestState.FAILED)


async def test_a_card_that_is_neither_old_nor_new_is_out_of_use(world: World) -> None:
    device = (await world.issued()).id
    request, session = (await ask(world, "create_update", world.helper, device)).request, uuid4()
    await started(world, request, session)
    await ask(world, "fail", world.org, request.id, session, retryable=False, consistent=False)
    ended = await world.device(device)
    assert (ended.state, ended.reason) == (DeviceState.INVALID, Reason.FAILED)
    assert world.credentials.of(device)[-2:] == [("revoke-new", ""), ("hold", "failed")]


async def test_a_device_suspended_in_mid_session_is_not_released_by_it(world: World) -> None:
    device = (await world.issued()).id
    request, session = (await ask(world, "create_update", world.helper, device)).request, uuid4()
    await started(world, request, session)
    await world.database.transact(
        lambda unit: world.services.devices.suspend(unit, world.helper, device, HoldReason.INVESTIGATION)
    )
    with pytest.raises(IllegalTransition):
        await ask(world, "finish", world.org, request.id, session, Told(read_back=True))
    await ask(world, "fail", world.org, request.id, session, retryable=False, consistent=True)
    assert await world.state(device) is DeviceState.SUSPENDED
    assert (await world.request(request.id)).state is RequestState.FAILED


async def at_once(
    open_database: Callable[..., Database], work: Callable[[int, Unit], Any], clients: int = 3
) -> list[Any]:
    """Run a unit in each of several processes at once; errors of the domain are results."""
    databases = [open_database(pool=1) for _ in range(clients)]

    async def one(client: int) -> Any:
        try:
            return await databases[client].transact(lambda unit: work(client, unit))
        except (IllegalTransition, GuardRefused) as refused:
            return refused

    return await asyncio.gather(*(one(client) for client in range(clients)))


async def test_several_approve_at_once(world: World, open_database: Callable[..., Database]) -> None:
    device = (await world.issued()).id
    opened = await ask(world, "create_termination", world.helper, device, Reason.LEFT)
    who = [world.issuer, world.second, world.officer]
    results = await at_once(
        open_database, lambda client, unit: world.services.requests.approve(unit, who[client], opened.request.id)
    )
    assert sum(isinstance(one, Request) for one in results) == 1
    assert [event for event, _ in await steps_of(world, opened.request.id)] == ["open", "approve", "prepare"]


async def test_one_request_is_carried_out_by_one_session(world: World, open_database: Callable[..., Database]) -> None:
    device = await world.bound(await world.person())
    request = await world.issuance(device)
    sessions = [uuid4() for _ in range(3)]
    permission = as_operator(world.issuer)
    results = await at_once(
        open_database,
        lambda client, unit: world.services.requests.start(unit, permission, request.id, sessions[client]),
    )
    (winner,) = [one.session for one in results if isinstance(one, Request)]
    assert winner is not None and (await world.device(device)).session == winner
    done = await at_once(
        open_database,
        lambda _, unit: world.services.requests.finish(unit, world.org, request.id, winner, Told(read_back=True)),
    )
    assert [one.state for one in done] == [RequestState.DONE] * 3
    events = [event for event, _ in await steps_of(world, request.id)]
    assert (events.count("start"), events.count("finish")) == (1, 1)
    assert (await world.device(device)).version == 4


async def test_cancelling_and_starting_at_once(world: World, open_database: Callable[..., Database]) -> None:
    device = await world.bound(await world.person())
    request = await world.issuance(device)
    permission = as_operator(world.issuer)

    async def work(client: int, unit: Unit) -> Request:
        if client == 0:
            return await world.services.requests.start(unit, permission, request.id, uuid4())
        return await world.services.requests.cancel(unit, world.helper, request.id)

    results = await at_once(open_database, work, 2)
    (winner,) = [one for one in results if isinstance(one, Request)]
    in_production = winner.state is RequestState.EXECUTING
    assert await world.state(device) is (DeviceState.IN_PRODUCTION if in_production else DeviceState.ASSIGNED)


async def test_asking_at_once_makes_one_request(world: World, open_database: Callable[..., Database]) -> None:
    device = (await world.issued()).id
    results = await at_once(
        open_database,
        lambda client, unit: world.services.requests.create_update(unit, world.helper, device, key=f"key {client}"),
    )
    assert len({one.request.id for one in results}) == 1
    assert sum(one.created for one in results) == 1


class RequestSubject:
    """A request, moved through the service that carries out the machine."""

    def __init__(self, world: World, clients: list[Database], request: UUID) -> None:
        self.world, self.clients, self.request = world, clients, request

    async def fire(self, client: int, event: RequestEvent, actor: Actor) -> Transition[RequestState, RequestEvent]:
        book, org = self.world.services.book, self.world.org

        async def work(unit: Unit) -> Transition[RequestState, RequestEvent]:
            found = await book.request(unit, org, self.request)
            session = uuid4() if event is RequestEvent.START else found.session
            principal = (self.world.issuer, self.world.second, self.world.helper)[client]
            now = await book.move(unit, principal, found, event, actor, session=session, retryable=client != 1)
            rows = REQUEST.candidates(found.state, event, actor)
            reached = {RequestState.APPROVED, RequestState.READY} if event is RequestEvent.APPROVE else {now.state}
            (row,) = {row for row in rows if row.target in reached}
            return row

        return await self.clients[client].transact(work)

    async def state(self) -> RequestState:
        return (await self.world.request(self.request)).state

    async def journal(self) -> list[Fired[RequestState, RequestEvent]]:
        rows = await self.clients[0].read(lambda unit: store.history(unit, self.world.org, self.request))
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        return [
            Fired(
                None if row.source is None else RequestState(row.source),
                RequestEvent(row.event),
                Actor(row.actor),
                RequestState(row.target),
            )
            for row in rows
        ]


@pytest.fixture
def clients(open_database: Callable[..., Database]) -> list[Database]:
    return [open_database(pool=1) for _ in range(3)]


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(plan=plans(REQUEST, steps=10))
async def test_walks_over_requests(world: World, clients: list[Database], plan: Plan[RequestEvent]) -> None:
    """Of a replacement that nobody approved yet, so that nothing follows by itself from a step."""
    device = await world.device(await world.bound(await world.person()))
    wanted = Wanted(RequestKind.REPLACEMENT, device, Reason.LOST)
    made = await world.database.transact(
        lambda unit: world.services.book.open(unit, server(world.org), Actor.SERVER, wanted)
    )
    assert made.state is RequestState.PENDING
    subject = RequestSubject(world, clients, made.id)
    begin = [(RequestEvent.APPROVE, Actor.ISSUANCE), (RequestEvent.PREPARE, Actor.SERVER)]
    await walk(REQUEST, subject, [[*begin, *plan[0]], *plan[1:]])
    ended = await world.request(made.id)
    assert (ended.closed_at is not None) is (ended.state in REQUEST.final)
    starts = [one for one in await subject.journal() if one.event is RequestEvent.START]
    assert ended.attempts == len(starts)


def test_tables_know_every_kind() -> None:
    assert set(LIFETIMES) == set(POSSIBLE) == set(RequestKind)
