"""What is due: one statement, the most pressing first, nothing until a moment, and the scheduler that acts on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from cardwright_cardops.piv.references import Slot
from cardwright_server.devices.due import WARNINGS, Due, DueList, DueOfCard, DueOfCards, What, due_of
from cardwright_server.devices.lifecycle import Told
from cardwright_server.devices.model import Device, DeviceState, Disposition, Reason
from cardwright_server.people.model import Role
from cardwright_server.policies.document import shipped
from cardwright_server.requests.model import RequestKind, RequestState
from cardwright_server.requests.schedule import Scheduler
from cardwright_server.sessions.store import newest_key
from cardwright_server.store.devices_tables import device as device_table
from cardwright_server.store.devices_tables import device_due
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.second_medium import SecondMedium
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock, PostgreSql, statements_logged, statements_of
from tests.support.lifecycles import World, as_operator, make_world
from tests.support.people import make_operator

DUE = DueList()
OF_CARDS = DueOfCards(lambda device, life: newest_key(device, life, Slot.CARD_AUTHENTICATION))


@pytest.fixture
async def world(open_database: Callable[..., Database], clock: Clock) -> World:
    return await make_world(open_database(clock=clock))


async def due(world: World, device: UUID) -> Due:
    return await world.database.read(lambda unit: DUE.due(unit, world.org, device))


async def put(world: World, device: UUID, what: What, days: float, ends: float | None = None) -> None:
    async def work(unit: Unit) -> None:
        ends_at = None if ends is None else unit.now + timedelta(days=ends)
        await DUE.put(unit, world.org, device, what, unit.now + timedelta(days=days), ends_at=ends_at)

    await world.database.transact(work)


async def test_nothing_until_and_then_the_most_pressing_first(world: World, clock: Clock) -> None:
    device = (await world.issued()).id
    assert await due(world, device) == Due((), None)
    start = clock.now
    await put(world, device, What.RENEWAL, 10, 40)
    await put(world, device, What.SECRETS, 20)
    assert await due(world, device) == Due((), start + timedelta(days=10))
    clock.advance(days=10)
    found = await due(world, device)
    assert [(item.what, item.ends_at) for item in found.what] == [(What.RENEWAL, start + timedelta(days=40))]
    assert found.until == start + timedelta(days=20)
    clock.advance(days=10)
    await put(world, device, What.LOCK, 0)
    found = await due(world, device)
    assert [item.what for item in found.what] == [What.LOCK, What.RENEWAL, What.SECRETS]
    assert found.until is None
    await put(world, device, What.RENEWAL, 5)
    await world.database.transact(lambda unit: DUE.remove(unit, device, What.LOCK))
    found = await due(world, device)
    assert ([item.what for item in found.what], found.until) == ([What.SECRETS], clock.now + timedelta(days=5))
    other = await world.database.read(lambda unit: DUE.due(unit, uuid4(), device))
    assert other == Due((), None)


async def with_guid(world: World) -> tuple[Device, UUID]:
    device, guid = await world.bound(await world.person()), uuid4()
    request, session = await world.issuance(device), uuid4()

    async def work(unit: Unit) -> Device:
        await world.services.requests.start(unit, as_operator(world.issuer), request.id, session)
        told = Told(read_back=True, values={"guid": guid})
        await world.services.requests.finish(unit, world.org, request.id, session, told)
        return await world.services.lifecycle.device(unit, world.org, device)

    return await world.database.transact(work), guid


async def of_card(world: World, guid: UUID) -> DueOfCard:
    found = await world.database.glance(lambda unit: OF_CARDS.ask(unit, world.org, [guid]))
    assert list(found) == [guid]
    return due_of(found[guid])


async def test_a_card_is_asked_for_by_its_uuid(world: World) -> None:
    device, guid = await with_guid(world)
    found = await of_card(world, guid)
    assert (found.device, found.state, found.due) == (device.id, DeviceState.ISSUED, Due((), None))
    await put(world, device.id, What.RENEWAL, 0)
    found = await of_card(world, guid)
    assert [item.what for item in found.due.what] == [What.RENEWAL]
    assert await world.database.glance(lambda unit: OF_CARDS.ask(unit, world.org, [uuid4()])) == {}
    assert await world.database.glance(lambda unit: OF_CARDS.ask(unit, uuid4(), [guid])) == {}


async def test_asking_costs_one_statement(world: World) -> None:
    device, _ = await with_guid(world)
    await put(world, device.id, What.RENEWAL, 0)
    for question in (
        lambda unit: DUE.due(unit, world.org, device.id),
        lambda unit: DUE.of_blank(unit, world.org, "7"),
    ):
        with statements_of(world.database) as seen:
            await world.database.read(question, timed=False)
        assert len(seen) == 1


async def test_postgresql_itself_counts_one_statement_and_uses_an_index(
    postgresql: PostgreSql, postgresql_template: str, tmp_path: Path
) -> None:
    name = postgresql.create(postgresql_template)
    medium = SecondMedium(tmp_path / "second-medium")
    setup = Database(postgresql.url(name), second_medium=medium)
    world = await make_world(setup)
    device, guid = await with_guid(world)
    await put(world, device.id, What.RENEWAL, 0)
    with statements_logged(postgresql, name) as logged:
        database = Database(postgresql.url(name), pool=1)
        found = await database.glance(lambda unit: OF_CARDS.ask(unit, world.org, [uuid4(), guid, uuid4()]))
        await database.close()
    assert [[item.what for item in due_of(rows).due.what] for rows in found.values()] == [[What.RENEWAL]]
    asked = [one for one in logged if one.startswith("SELECT") and "device_due" in one]
    assert len(asked) == 1
    assert not [one for one in logged if "FROM device" in one and one not in asked]
    # As it is planned for good, whatever the ids are: tables are small here, so their reading whole is forbidden.
    question = (
        f"SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; PREPARE asked AS {asked[0]}; "
        f"EXPLAIN EXECUTE asked(NULL, '{world.org}', '{{{guid}}}')"
    )
    plan = postgresql.sql(question, name)
    for index in ("ix_device_guid", "uq_device_due_device_what", "uq_card_key_device_life_slot_fingerprint"):
        assert index in plan
    assert "Seq Scan" not in plan
    await setup.close()
    await medium.close()
    postgresql.drop(name)


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_sqlite_finds_both_by_index(world: World) -> None:
    question = text(
        "EXPLAIN QUERY PLAN SELECT * FROM device LEFT JOIN device_due ON device_due.device = device.id "
        "WHERE device.guid = 'x'"
    )
    plan = " ".join(str(row) for row in await world.database.read(lambda unit: unit.rows(question)))
    assert "ix_device_guid" in plan and plan.count("SEARCH") == 2 and "SCAN" not in plan


async def publish(world: World, policy: str = "civ", line: str = "") -> None:
    author = await make_operator(world.database, world.org, Role.ADMINISTRATOR)
    text = shipped(policy).replace("renew_before_days", f"{line}\nrenew_before_days")

    async def work(unit: Unit) -> None:
        draft = await world.services.policies.draft(unit, author, text)
        await world.services.policies.publish(unit, world.officer, draft.id)

    await world.database.transact(work)


async def test_a_version_says_after_how_many_days_it_is_mandatory(world: World) -> None:
    device = await world.issued()
    await publish(world, line="mandatory_after_days = 14")
    (item,) = (await due(world, device.id)).what
    assert item.detail == {"number": 2, "mandatory_after_days": 14}


async def test_a_new_version_of_the_policy_makes_devices_due_until_they_have_it(world: World) -> None:
    device, waiting = await world.issued(), await world.bound(await world.person())
    await publish(world)
    await publish(world)
    found = await due(world, device.id)
    assert [(item.what, item.detail) for item in found.what] == [(What.POLICY, {"number": 3})]
    assert await due(world, waiting) == Due((), None)
    opened = await world.database.transact(
        lambda unit: world.services.requests.create_update(unit, world.helper, device.id)
    )
    for number, left in ((2, [What.POLICY]), (3, [])):
        request, session = opened.request, uuid4()

        async def work(unit: Unit, request: UUID = request.id, session: UUID = session, number: int = number) -> None:
            await world.services.requests.start(unit, as_operator(world.issuer), request, session)
            told = Told(read_back=True, values={"policy_number": number})
            await world.services.requests.finish(unit, world.org, request, session, told)

        await world.database.transact(work)
        assert [item.what for item in (await due(world, device.id)).what] == left
        opened = await world.database.transact(
            lambda unit: world.services.requests.create_update(unit, world.helper, device.id)
        )
    assert (await world.device(device.id)).policy_number == 3


async def test_of_a_device_that_ended_only_its_end_is_told(world: World) -> None:
    device = (await world.issued()).id
    await put(world, device, What.RENEWAL, 0)
    await world.database.transact(
        lambda unit: world.services.devices.terminate(
            unit, world.helper, device, Reason.NOT_NEEDED, Disposition.COLLECTED
        )
    )
    found = await due(world, device)
    assert ([item.what for item in found.what], found.until) == ([What.REVOKED], None)
    await world.database.transact(lambda unit: world.services.devices.recycle(unit, world.issuer, device))
    assert await due(world, device) == Due((), None)


def scheduler(world: World, database: Database, batch: int = 50) -> Scheduler:
    return Scheduler(database, world.services.devices, world.services.requests, world.services.due, batch)


async def test_renewals_are_asked_for_once_by_one_of_two_processes(
    world: World, open_database: Callable[..., Database], clock: Clock
) -> None:
    devices = [(await world.issued()).id for _ in range(3)]
    for device in devices:
        await put(world, device, What.RENEWAL, 1, 400)
    one = scheduler(world, open_database(clock=clock, pool=1), batch=2)
    other = scheduler(world, open_database(clock=clock, pool=1), batch=2)
    assert [run.requested for run in await asyncio.gather(one.run(), other.run()) if run is not None] in ([0], [0, 0])
    clock.advance(days=1)
    runs = [run for run in await asyncio.gather(one.run(), other.run()) if run is not None]
    assert sum(run.requested for run in runs) == 3
    for device in devices:
        (request,) = await world.open_requests(device)
        assert (request.kind, request.made_by_kind) == (RequestKind.UPDATE, "system")
    clock.advance(minutes=5)
    again = await one.run()
    assert again is not None and again.requested == 0
    assert await other.run() is None


async def test_another_card_is_asked_for_before_one_ends_that_cannot_be_renewed(
    world: World, open_database: Callable[..., Database], clock: Clock
) -> None:
    """Once; not for one whose certificates end before it, nor for one that only stands in for another."""
    whole, renewable, forgotten = [(await world.issued(days=60)).id for _ in range(3)]
    await put(world, whole, What.RENEWAL, 60, 60)
    await put(world, renewable, What.RENEWAL, 45, 60)
    await world.database.transact(
        lambda unit: world.services.devices.report_incident(unit, world.issuer, forgotten, Reason.FORGOTTEN)
    )
    (asked,) = await world.open_requests(forgotten)
    holder = await world.database.read(lambda unit: world.free.people.person(unit, world.org, asked.person))  # type: ignore[arg-type]
    temporary = await world.bound(holder, asked.id)
    await world.carried_out(asked.id, days=60)
    await put(world, temporary, What.RENEWAL, 10, 10)
    timer = scheduler(world, open_database(clock=clock, pool=1))
    for days, requested in ((29, 0), (2, 1), (1, 0)):
        clock.advance(days=days)
        run = await timer.run()
        assert run is not None and run.requested == requested, days
    (request,) = await world.open_requests(whole)
    assert (request.kind, request.reason, request.temporary) == (RequestKind.REPLACEMENT, Reason.RENEWED, False)
    assert (request.state, request.made_by_kind) == (RequestState.PENDING, "system")
    assert await world.state(whole) is DeviceState.ISSUED, "it is used until the other one is there"
    assert await world.open_requests(renewable) == []


async def test_holders_are_warned_at_each_step_once(world: World, clock: Clock) -> None:
    device = await world.issued(days=2000)
    await put(world, device.id, What.RENEWAL, 0, 60)

    async def warned() -> list[object]:
        await world.database.transact(lambda unit: DUE.warn(unit))
        rows = await world.database.read(
            lambda unit: unit.rows(
                select(outbox.c.data, outbox.c.person)
                .where(outbox.c.name == "device.renewal-warning")
                .order_by(outbox.c.created_at)
            )
        )
        assert all(row.person == device.person for row in rows)
        return [row.data["days"] for row in rows]

    assert await warned() == []
    clock.advance(days=30)
    assert await warned() == [30]
    assert await warned() == [30]
    clock.advance(days=18)
    assert await warned() == [30, 14]
    clock.advance(days=10)
    # Nobody looked for ten days: one warning, not three.
    assert await warned() == [30, 14, 3]
    clock.advance(days=1, hours=1)
    assert await warned() == [30, 14, 3, 1]
    clock.advance(days=5)
    assert await warned() == [30, 14, 3, 1]
    assert tuple(sorted(WARNINGS, reverse=True)) == WARNINGS


async def test_the_tables_hold_one_row_for_each_thing(world: World) -> None:
    device = (await world.issued()).id
    for days in (1, 2, 3):
        await put(world, device, What.RENEWAL, days)
    rows = await world.database.read(
        lambda unit: unit.rows(select(device_due.c.id).join(device_table).where(device_due.c.device == device))
    )
    assert len(rows) == 1
