"""What workstations are told of cards: whether something is due, what if the card proves itself, and hints to ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.due import What
from cardwright_server.devices.model import Disposition, Reason
from cardwright_server.notify.model import DomainEvent
from cardwright_server.notify.outbox import Dispatcher
from cardwright_server.sessions.hints import Hints
from cardwright_server.store.second_medium import SecondMedium
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from tests.support.databases import PostgreSql, statements_logged, statements_of
from tests.support.due_questions import asked, proof_of, put
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import a_workstation, reason_of


@dataclass
class Revoking:
    """``Streams`` whose workstations can be revoked."""

    event: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def stream(self, workstation: UUID) -> Iterator[asyncio.Event]:
        yield self.event


@asynccontextmanager
async def stub(
    world: SessionWorld, caller: Principal | None = None, streams: Any = None, database: Database | None = None
) -> AsyncIterator[Any]:
    """A client that the server takes for a workstation of the organization."""
    principal = caller or a_workstation(world.org)
    serving = world.serving(world.office(uuid4()), principal, streams=streams, database=database)
    async with serving as socket, grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        yield sessions_pb2_grpc.SessionServiceStub(channel)


async def issued(world: SessionWorld, card: VirtualCard) -> tuple[UUID, UUID]:
    """Id of the device and UUID of its card."""
    device = await world.bound(card)
    assert (await world.issue(card, device)).error == ""
    guid = (await world.world.device(device)).guid
    assert guid is not None
    return device, guid


async def _by(act: Callable[..., Awaitable[Any]], operator: Principal, device: UUID, unit: Unit) -> None:
    await act(unit, operator, device)


async def due_rows(world: SessionWorld, device: UUID) -> list[What]:
    """What stands on the list of a device."""
    found = await world.database.read(lambda unit: world.world.services.due.due(unit, world.org, device))
    return [one.what for one in found.what]


async def test_a_card_learns_what_is_due_only_if_it_proves_itself(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device, guid = await issued(world, card)
    other_device = await world.bound(other := blank(serial=2), await world.person("bob"))
    await world.issue(other, other_device)
    now = datetime.now(UTC)
    async with stub(world) as server:
        assert await server.Due(asked(guid)) == sessions_pb2.DueResponse(due=False)
        await put(world, device, What.RENEWAL, -1, 20)
        await put(world, device, What.POLICY, 5)
        assert await server.Due(asked(guid)) == sessions_pb2.DueResponse(due=True)
        told = await server.Due(asked(guid, proof_of(card, guid, now), number=1))
        assert (told.due, told.proven, told.policy_changed, told.policy_number) == (True, True, False, 1)
        assert [(one.kind, one.seconds > 0) for one in told.items] == [(sessions_pb2.DUE_KIND_RENEWAL, True)]
        (item,) = told.items
        assert item.ends_at.ToDatetime() - item.mandatory_from.ToDatetime() == timedelta(days=7)
        assert timedelta(days=4) < told.until.ToDatetime(UTC) - now < timedelta(days=6)
        assert (await server.Due(asked(guid, proof_of(card, guid, now), number=0))).policy_changed
        await put(world, device, What.ACTIVATION, -1)
        first = (await server.Due(asked(guid, proof_of(card, guid, datetime.now(UTC))))).items[0]
        assert (first.kind, first.purpose) == (sessions_pb2.DUE_KIND_ACTIVATION, sessions_pb2.PURPOSE_ISSUE)
        await world.database.transact(lambda unit: world.world.services.due.remove(unit, device, What.ACTIVATION))
        await put(world, device, What.POLICY, -1, mandatory_after_days=14)
        policy = (await server.Due(asked(guid, proof_of(card, guid, now)))).items[0]
        assert policy.kind == sessions_pb2.DUE_KIND_POLICY
        assert policy.mandatory_from.ToDatetime() - policy.since.ToDatetime() == timedelta(days=14)
        for lie in (
            proof_of(other, guid, now),
            proof_of(card, guid, now - timedelta(minutes=3)),
            proof_of(card, uuid4(), now),
            b"nonsense",
        ):
            assert await server.Due(asked(guid, lie)) == sessions_pb2.DueResponse(due=True)
    world.issuing.core.close()


@ON_SQLITE
async def test_cards_of_others_and_unknown_ones_are_not_told_apart(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    _, guid = await issued(world, card)
    seen = []
    for caller, name in ((None, uuid4()), (a_workstation(uuid4()), guid)):
        async with stub(world, caller) as server:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await server.Due(asked(name))
            seen.append((refusal.value.code(), refusal.value.details(), reason_of(refusal.value)))
    assert seen[0] == seen[1]
    assert seen[0][0] is grpc.StatusCode.NOT_FOUND
    async with stub(world, world.world.issuer) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await server.Due(asked(guid))
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
    world.issuing.core.close()


@ON_SQLITE
async def test_the_holder_of_a_revoked_card_is_told_and_nothing_begins_by_itself(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """Until it is back in stock; and who sees only its number, on a card that was wiped elsewhere, is told nothing."""
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device, guid = await issued(world, card)
    services, home = world.world.services, world.world
    await put(world, device, What.RENEWAL, -1, 20)
    async with stub(world) as server:
        await world.database.transact(
            lambda unit: services.devices.terminate(
                unit, home.helper, device, Reason.LEFT, Disposition.NOT_COLLECTED
            )
        )
        assert await server.Due(asked(guid)) == sessions_pb2.DueResponse(due=True)
        (item,) = (await server.Due(asked(guid, proof_of(card, guid, datetime.now(UTC))))).items
        assert (item.kind, item.HasField("mandatory_from")) == (sessions_pb2.DUE_KIND_REVOKED, False)
        assert await server.Due(asked("", serial=str(card.serial))) == sessions_pb2.DueResponse(due=False)
        await world.database.transact(lambda unit: services.devices.recycle(unit, home.issuer, device))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await server.Due(asked(guid))
        assert reason_of(refusal.value) == "NO_SUCH_DEVICE"
    assert await due_rows(world, device) == []
    world.issuing.core.close()


@ON_SQLITE
async def test_that_a_card_is_suspended_is_told_to_that_card_alone(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device, guid = await issued(world, card)
    home, devices = world.world, world.world.services.devices
    async with stub(world) as server:
        lost = partial(devices.report_incident, incident=Reason.LOST)
        for act, suspended in ((devices.suspend, True), (devices.resume, False), (lost, True)):
            await world.database.transact(partial(_by, act, home.helper, device))
            assert await server.Due(asked(guid)) == sessions_pb2.DueResponse(due=False)
            told = await server.Due(asked(guid, proof_of(card, guid, datetime.now(UTC))))
            assert (told.proven, told.suspended, len(told.items)) == (True, suspended, 0)
    world.issuing.core.close()


@ON_SQLITE
async def test_a_blank_card_is_due_when_its_issuance_is_ready(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device = await world.bound(card)
    async with stub(world) as server:
        assert await server.Due(asked("", serial=str(card.serial))) == sessions_pb2.DueResponse(due=False)
        await world.world.issuance(device)
        assert await server.Due(asked("", serial=str(card.serial))) == sessions_pb2.DueResponse(due=True)
        for malformed in (asked(""), asked("no-uuid"), asked("", serial="x" * 81), asked(uuid4(), b"x" * 2000)):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await server.Due(malformed)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await server.Due(sessions_pb2.DueRequest(protocol=2, card=asked(uuid4()).card))
        assert reason_of(refusal.value) == "PEER_TOO_OLD"
    world.issuing.core.close()


async def test_postgresql_counts_one_statement_and_two_for_a_blank_card(
    postgresql: PostgreSql, postgresql_template: str, tmp_path: Path
) -> None:
    name = postgresql.create(postgresql_template)
    medium = SecondMedium(tmp_path / "second-medium")
    setup = Database(postgresql.url(name), second_medium=medium)
    world, card = await make_session_world(setup, tmp_path), blank()
    device, guid = await issued(world, card)
    await put(world, device, What.RENEWAL, -1, 20)
    waiting = blank(serial=77)
    await world.world.issuance(await world.bound(waiting, await world.person("bob")))
    requests = (
        (asked(guid), 1),
        (asked(guid, proof_of(card, guid, datetime.now(UTC))), 1),
        (asked("", serial="77"), 2),
    )
    for request, most in requests:
        with statements_logged(postgresql, name) as logged:
            database = Database(postgresql.url(name), pool=1)
            async with stub(world, database=database) as server:
                assert (await server.Due(request)).due
            await database.close()
        # The hints ask for events by themselves, and a new connection for types; neither belongs to the check.
        mine = [one for one in logged if one.startswith("SELECT ") and "outbox" not in one and "pg_" not in one]
        assert len(mine) == most, logged
    world.issuing.core.close()
    await setup.close()
    await medium.close()
    postgresql.drop(name)


@ON_SQLITE
async def test_a_watching_workstation_is_told_to_ask_and_nothing_else(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device, guid = await issued(world, card)
    dispatcher, revoking = Dispatcher(world.database, ()), Revoking()
    while await dispatcher.step():
        pass
    cards = [sessions_pb2.CardName(guid=str(one)) for one in (uuid4(), guid)]
    async with stub(world, streams=revoking) as server:
        stream = server.Watch(sessions_pb2.WatchRequest(protocol=1, cards=cards))
        await stream.initial_metadata()
        await world.database.transact(
            lambda unit: world.world.services.requests.create_update(unit, world.world.issuer, device)
        )
        while await dispatcher.step():
            pass
        async with asyncio.timeout(20):
            told = await stream.read()
        assert told == sessions_pb2.WatchResponse(card=cards[1])
        revoking.event.set()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(20):
                while await stream.read() is not grpc.aio.EOF:
                    pass
        assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
        many = sessions_pb2.WatchRequest(protocol=1, cards=[cards[0]] * 17)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await server.Watch(many).read()
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    world.issuing.core.close()


@ON_SQLITE
async def test_a_thousand_streams_cost_one_question(database: Database) -> None:
    hints, devices = Hints(database), [uuid4() for _ in range(1000)]
    with ExitStack() as streams:
        watchers = [streams.enter_context(hints.watching([one])) for one in devices]
        await hints.step()
        dispatcher = Dispatcher(database, ())
        event = DomainEvent(uuid4(), "device.test", "device", devices[700])
        about = DomainEvent(event.org, "request.open", "request", uuid4(), data={"device": str(devices[3])})

        async def emit(unit: Unit) -> None:
            unit.emit(event)
            unit.emit(about)

        await database.transact(emit)
        while await dispatcher.step():
            pass
        with statements_of(database) as seen:
            assert await hints.step() == 2
            assert await hints.step() == 0
        assert len(seen) == 2
        for place in (700, 3):
            async with asyncio.timeout(5):
                assert await anext(watchers[place].changes()) == devices[place]
        assert not any(one._changed for one in watchers)
    with hints.watching(devices[:1]) as alone:
        assert await hints.step() == 0
    assert not alone._changed
