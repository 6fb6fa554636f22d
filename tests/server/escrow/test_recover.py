"""A security officer approves that keys go to another card of their owner; nobody does so for themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cardwright_cardops.errors import CardwrightError
from cardwright_server.authentication.errors import AccessDenied, NotYourOwn, PartsSeparated, ProofRequired
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.due import What
from cardwright_server.devices.model import Device
from cardwright_server.escrow.errors import EscrowedKeyRefused, EscrowQuota, NoSuchEscrowedKey, RecoveryNotPossible
from cardwright_server.escrow.model import RECOVERY, Archived, Quotas, RecoveryEvent, RecoveryState
from cardwright_server.escrow.service import Approved
from cardwright_server.machine import Actor
from cardwright_server.people.model import Person, Reach, Role, Scope
from cardwright_server.requests.errors import NoSuchRequest
from cardwright_server.requests.model import RequestState
from cardwright_server.sessions.model import Purpose
from cardwright_server.sessions.ports import Task
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.escrow_tables import key_recovery, key_recovery_transition
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.unit import Database
from tests.support.databases import Clock
from tests.support.escrow import Counter, Keep, make_keep, spki
from tests.support.lifecycles import World, make_world
from tests.support.people import make_group, make_operator, make_person
from tests.support.walks import Fired, judge


@dataclass
class Case:
    """A person with a card in use, and two keys that were made for another one."""

    world: World
    counter: Counter
    person: Person
    device: Device
    keys: list[Archived]

    @property
    def update(self) -> Task:
        """A session that brings the card up to date."""
        return self.counter.keep.task(device=self.device.id, purpose=Purpose.UPDATE)

    async def asked(self, by: Principal, *, approve: bool = True) -> UUID:
        """A request to recover keys to the card."""
        requests = self.world.services.requests
        opened = await self.world.database.transact(lambda unit: requests.create_recovery(unit, by, self.device.id))
        if opened.request.state is RequestState.PENDING and approve:
            await self.world.database.transact(
                lambda unit: requests.approve(unit, self.world.second, opened.request.id)
            )
        return opened.request.id

    async def recover(self, by: Principal, request: UUID, *keys: UUID) -> Approved:
        """Approve."""
        return await self.world.database.transact(lambda unit: self.counter.service().recover(unit, by, request, keys))

    async def rows(self, table: Any) -> list[Any]:
        return list(await self.world.database.read(lambda unit: unit.rows(select(table).order_by(table.c.id))))


@pytest.fixture
async def case(open_database: Callable[..., Database], clock: Clock, tmp_path: Path) -> Case:
    database = open_database(clock=clock)
    world = await make_world(database)
    person = await world.person("ada")
    keep = replace(make_keep(database, tmp_path, lambda: clock().timestamp()), org=world.org, person=person.id)
    device = await world.issued(person)
    keys = [await keep.new() for _ in range(2)]
    return Case(world, Counter(keep, world.services, person), person, device, keys)


async def recoverable(keep: Keep, task: Task) -> set[UUID]:
    found = await keep.database.read(lambda unit: keep.archive.recoverable(unit, task))
    return {one.id for one in found}


async def test_what_was_approved_goes_to_that_card_only(case: Case, clock: Clock) -> None:
    keep, world = case.counter.keep, case.world
    first, second = case.keys
    with pytest.raises(EscrowedKeyRefused):
        await keep.given(first, case.update)
    request = await case.asked(world.issuer)
    approved = await case.recover(world.officer, request, first.id)
    assert (approved.device, approved.keys) == (case.device.id, (first.id,))
    assert approved.expires_at == clock() + timedelta(days=7)
    assert await recoverable(keep, case.update) == {first.id}
    with pytest.raises(EscrowedKeyRefused):
        await keep.given(second, case.update)
    with pytest.raises(EscrowedKeyRefused):  # another card in use of the same person
        await keep.given(first, replace(case.update, device=uuid4()))
    session = uuid4()
    for again in (session, session, uuid4()):  # asked twice, and by the session after a cut
        assert spki(await keep.given(first, case.update, session=again)) == first.public_key
    (row,) = await case.rows(key_recovery)
    assert (row.state, row.approved_by, row.request) == (RecoveryState.DELIVERED, world.officer.actor, request)
    clock.advance(days=7)
    with pytest.raises(EscrowedKeyRefused):
        await keep.given(first, case.update)
    assert await world.database.transact(case.counter.service().expire) == 1
    assert await world.database.transact(case.counter.service().expire) == 0
    steps = [(one.source, one.event, one.target) for one in await case.rows(key_recovery_transition)]
    assert [event for _, event, _ in steps] == ["release", "deliver", "deliver", "expire"]
    assert all(RECOVERY.permits(*one) for one in steps)


async def test_a_request_that_is_taken_back_takes_the_approval_along(case: Case) -> None:
    keep, (key, _) = case.counter.keep, case.keys
    request = await case.asked(case.world.issuer)
    await case.recover(case.world.officer, request)
    assert await recoverable(keep, case.update) == {one.id for one in case.keys}
    await case.world.database.transact(
        lambda unit: case.world.services.requests.cancel(unit, case.world.helper, request)
    )
    assert await recoverable(keep, case.update) == set()
    with pytest.raises(EscrowedKeyRefused):
        await keep.given(key, case.update)


async def test_it_is_audited_due_and_the_owner_is_told(case: Case) -> None:
    request = await case.asked(case.world.issuer)
    approved = await case.recover(case.world.officer, request)
    assert set(approved.keys) == {one.id for one in case.keys}
    for again in (case.world.officer, await make_operator(case.world.database, case.world.org, Role.SECURITY_OFFICER)):
        assert await case.recover(again, request) == approved
    entries = [one for one in await case.rows(audit_entry) if one.action == "escrow.recovery-approved"]
    assert {one.target for one in entries} == {one.id for one in case.keys} and len(entries) == 2
    assert {one.who for one in entries} == {case.world.officer.id}
    due = await case.world.database.read(lambda unit: case.world.services.due.due(unit, case.world.org, case.device.id))
    assert What.RECOVERED_KEYS in {one.what for one in due.what}

    async def told() -> list[tuple[UUID, str]]:
        found = [one for one in await case.rows(outbox) if one.name == "escrow.released"]
        return [(one.person, one.data["purpose"]) for one in found]

    assert await told() == [(case.person.id, "approved to go to a card of yours")]
    for key in case.keys:
        await case.counter.keep.given(key, case.update)
    assert (await told())[1:] == [(case.person.id, "to a card of yours")] * 2


async def test_who_may_not_approve(case: Case) -> None:
    world, database, org = case.world, case.world.database, case.world.org
    request = await case.asked(world.officer)
    group = await make_group(database, org, "elsewhere")
    own = await make_operator(database, org, Role.SECURITY_OFFICER, person=case.person.id)
    cases: list[tuple[Principal, type[CardwrightError]]] = [
        (world.officer, NotYourOwn),  # asked for it
        (own, NotYourOwn),  # whose keys they are
        (world.issuer, AccessDenied),
        (world.helper, AccessDenied),
        (await make_operator(database, org, Role.AUDITOR), AccessDenied),
        (await make_operator(database, org, Role.SECURITY_OFFICER, scope=Scope(Reach.GROUP, group.id)), AccessDenied),
        (await world.proven(case.person, Method.CARD), AccessDenied),
        (await make_operator(database, uuid4(), Role.SECURITY_OFFICER), NoSuchRequest),
    ]
    for who, error in cases:
        with pytest.raises(error):
            await case.recover(who, request)
    assert await case.rows(key_recovery) == []
    await case.recover(await make_operator(database, org, Role.SECURITY_OFFICER), request)


async def test_what_cannot_be_approved(case: Case, clock: Clock) -> None:
    world, keep = case.world, case.counter.keep
    other = await make_person(world.database, world.org, "bob")
    theirs = await keep.new(keep.task(other.id))
    bare = await keep.new(certified=False)
    update = await world.database.transact(
        lambda unit: world.services.requests.create_update(unit, world.issuer, case.device.id)
    )
    with pytest.raises(RecoveryNotPossible):
        await case.recover(world.officer, update.request.id)
    request = await case.asked(world.issuer)
    for keys in ((theirs.id,), (case.keys[0].id, uuid4()), (bare.id,)):
        with pytest.raises(NoSuchEscrowedKey):
            await case.recover(world.officer, request, *keys)
    with pytest.raises(NoSuchRequest):
        await case.recover(world.officer, uuid4())
    clock.advance(days=7)
    with pytest.raises(CardwrightError) as caught:
        await case.recover(await make_operator(world.database, world.org, Role.SECURITY_OFFICER), request)
    assert caught.value.code == RecoveryNotPossible.code
    assert await case.rows(key_recovery) == []


async def test_the_makers_own_right_to_approve_is_enough_under_an_ordinary_policy(case: Case) -> None:
    request = await case.asked(case.world.issuer, approve=False)
    assert (await case.recover(case.world.officer, request)).device == case.device.id


async def test_a_strict_policy_wants_three_persons_with_cards(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    world = case.world
    monkeypatch.setattr(world.services.lifecycle, "is_strict", _answer(True))
    maker, approver, officer = [await make_operator(world.database, world.org, Role.SECURITY_OFFICER) for _ in range(3)]
    request = await case.asked(maker, approve=False)
    with pytest.raises(RecoveryNotPossible):
        await case.recover(officer, request)
    await world.database.transact(lambda unit: world.services.requests.approve(unit, approver, request))
    with pytest.raises(PartsSeparated):
        await case.recover(approver, request)
    software = await make_operator(world.database, world.org, Role.SECURITY_OFFICER, hardware=False)
    with pytest.raises(ProofRequired):
        await case.recover(software, request)
    await case.recover(officer, request)


def _answer(value: bool) -> Callable[..., Any]:
    async def answer(*_: object) -> bool:
        return value

    return answer


@pytest.mark.parametrize("quotas", [Quotas(keys_by_operator=1), Quotas(keys_of_person=1)])
async def test_recoveries_are_counted_by_the_day(case: Case, quotas: Quotas, clock: Clock) -> None:
    case.counter.quotas = quotas
    request = await case.asked(case.world.issuer)
    with pytest.raises(EscrowQuota):
        await case.recover(case.world.officer, request)
    assert await case.rows(key_recovery) == []
    await case.recover(case.world.officer, request, case.keys[0].id)
    await case.recover(case.world.officer, request, case.keys[0].id)
    with pytest.raises(EscrowQuota):
        await case.recover(case.world.officer, request, case.keys[1].id)
    clock.advance(days=1, seconds=1)
    officer = await make_operator(case.world.database, case.world.org, Role.SECURITY_OFFICER)
    await case.recover(officer, request, case.keys[1].id)


async def test_a_listing_shows_what_the_caller_may_see(case: Case) -> None:
    world, keep, database = case.world, case.counter.keep, case.world.database
    group = await make_group(database, world.org, "elsewhere")
    other = await make_person(database, world.org, "bob", (group.id,))
    theirs = await keep.new(keep.task(other.id))
    mine = [one.id for one in case.keys]

    async def seen(who: Principal, **options: Any) -> list[UUID]:
        service = case.counter.service()
        return [one.id for one in await database.read(lambda unit: service.find(unit, who, **options))]

    officer = world.officer
    assert await seen(officer) == [*mine, theirs.id]
    assert await seen(officer, person=case.person.id) == mine
    assert await seen(officer, after=mine[0], limit=1) == [mine[1]]
    narrow = await make_operator(database, world.org, Role.AUDITOR, scope=Scope(Reach.GROUP, group.id))
    assert await seen(narrow) == [theirs.id]
    with pytest.raises(AccessDenied):
        await seen(narrow, person=case.person.id)
    owner = await world.proven(case.person, Method.CARD)
    assert await seen(owner) == await seen(owner, person=case.person.id) == mine
    with pytest.raises(AccessDenied):
        await seen(owner, person=other.id)
    for who in (world.issuer, world.helper):
        with pytest.raises(AccessDenied):
            await seen(who)
    foreign = await make_operator(database, uuid4(), Role.SECURITY_OFFICER)
    assert await seen(foreign) == []
    with pytest.raises(AccessDenied):
        await seen(foreign, person=case.person.id)


@pytest.mark.parametrize("seed", range(3))
async def test_walks_over_recoveries(case: Case, clock: Clock, seed: int) -> None:
    """Approved, delivered and ended by several at once: each step legal, in one order, and no key after the end."""
    chance, late = random.Random(seed), False
    request = await case.asked(case.world.issuer)
    approved = await case.recover(case.world.officer, request)
    officer = replace(case.world.officer, authentication=None)

    async def act(what: str) -> None:
        key = chance.choice(case.keys)
        if what == "approve":
            await case.recover(officer, request)
        elif what == "expire":
            await case.world.database.transact(case.counter.service().expire)
        else:
            over = late
            await case.counter.keep.given(key, case.update, session=uuid4())
            assert not over

    for _ in range(8):
        acts = [chance.choice(["give", "give", "expire", "approve"]) for _ in range(3)]
        for result in await asyncio.gather(*map(act, acts), return_exceptions=True):
            assert result is None or isinstance(result, CardwrightError), result
        clock.advance(hours=chance.choice([1, 40]))
        late = clock() >= approved.expires_at
    await case.world.database.transact(case.counter.service().expire)
    steps = await case.rows(key_recovery_transition)
    for row in await case.rows(key_recovery):
        mine = sorted((one for one in steps if one.subject == row.id), key=lambda one: one.number)
        judge(
            RECOVERY,
            None,
            [
                Fired(
                    None if one.source is None else RecoveryState(one.source),
                    RecoveryEvent(one.event),
                    Actor(one.actor),
                    RecoveryState(one.target),
                )
                for one in mine
            ],
            RecoveryState(row.state),
        )
        assert [one.number for one in mine] == list(range(1, row.version + 1))
