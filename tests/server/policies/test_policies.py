"""Policies in the database: two persons put one in force, groups get it, and the newest version is the one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from cardwright_server.authentication.errors import AccessDenied, AuthorizationError
from cardwright_server.authentication.principal import Principal, server
from cardwright_server.machine import Actor, GuardRefused, IllegalTransition, Transition
from cardwright_server.people.errors import NoSuchGroup
from cardwright_server.people.model import Role
from cardwright_server.people.service import PeopleService
from cardwright_server.policies.document import shipped
from cardwright_server.policies.errors import ComplianceRefused, NoPolicyForPerson, NoSuchPolicy, PolicyAmbiguous
from cardwright_server.policies.model import VERSION, DeviceKind, PolicyVersion, VersionEvent, VersionState
from cardwright_server.policies.service import PolicyService
from cardwright_server.store.ids import new_id
from cardwright_server.store.policies_tables import policy_version, policy_version_transition
from cardwright_server.store.unit import Database, Unit
from tests.support.lifecycles import KINDS
from tests.support.people import allow, authorizer, make_group, make_operator, make_person
from tests.support.walks import Fired, Plan, plans, walk


class Followed:
    def __init__(self) -> None:
        self.heard: list[tuple[UUID, int, timedelta | None]] = []

    async def policy_published(
        self, unit: Unit, org: UUID, policy: UUID, number: int, mandatory_after: timedelta | None
    ) -> None:
        self.heard.append((policy, number, mandatory_after))


def service(*followers: Followed) -> PolicyService:
    return PolicyService(authorizer(), PeopleService(allow), KINDS, followers)


async def in_force(database: Database, policies: PolicyService, org: UUID, name: str) -> PolicyVersion:
    author = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    made = await database.transact(lambda unit: policies.draft_shipped(unit, author, name))
    return await database.transact(lambda unit: policies.publish(unit, officer, made.id))


async def test_the_author_does_not_publish(database: Database) -> None:
    org, policies = new_id(), service()
    both = await make_operator(database, org, Role.ADMINISTRATOR, Role.SECURITY_OFFICER)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    made = await database.transact(lambda unit: policies.draft_shipped(unit, both, "civ"))
    assert (made.number, made.state) == (1, VersionState.DRAFT)
    with pytest.raises(AuthorizationError, match="asked for yourself"):
        await database.transact(lambda unit: policies.publish(unit, both, made.id))
    # One person, two accounts: persons are compared.
    twin = await make_operator(database, org, Role.SECURITY_OFFICER, person=both.person)
    with pytest.raises(AuthorizationError):
        await database.transact(lambda unit: policies.publish(unit, twin, made.id))
    published = await database.transact(lambda unit: policies.publish(unit, officer, made.id))
    assert (published.state, published.published_by) == (VersionState.PUBLISHED, officer.actor)
    with pytest.raises(IllegalTransition):
        await database.transact(lambda unit: policies.publish(unit, officer, made.id))


async def test_rights_and_other_organizations(database: Database) -> None:
    org, policies = new_id(), service()
    made = await in_force(database, policies, org, "civ")
    helper = await make_operator(database, org, Role.HELP_DESK)
    stranger = await make_operator(database, new_id(), Role.ADMINISTRATOR, Role.SECURITY_OFFICER)
    with pytest.raises(AccessDenied):
        await database.transact(lambda unit: policies.draft_shipped(unit, helper, "civ"))
    for call in (policies.publish, policies.discard, policies.get):
        with pytest.raises(NoSuchPolicy):
            await database.transact(lambda unit, call=call: call(unit, stranger, made.id))  # type: ignore[misc]
    assert await database.read(lambda unit: policies.find(unit, stranger)) == []
    assert [one.id for one in await database.read(lambda unit: policies.find(unit, helper, "civ"))] == [made.id]


async def test_what_may_not_claim_compliance_is_drafted_but_not_published(database: Database) -> None:
    org, policies = new_id(), service()
    author = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    text = shipped("piv").replace("min_length = 6", "min_length = 5")
    made = await database.transact(lambda unit: policies.draft(unit, author, text))
    with pytest.raises(ComplianceRefused) as refused:
        await database.transact(lambda unit: policies.publish(unit, officer, made.id))
    assert refused.value.reasons == ("PIN_TOO_WEAK",)
    assert (await database.read(lambda unit: policies.get(unit, officer, made.id))).state is VersionState.DRAFT


async def test_a_new_version_supersedes_and_followers_hear(database: Database) -> None:
    org, followed = new_id(), Followed()
    policies = service(followed)
    first = await in_force(database, policies, org, "civ")
    second = await in_force(database, policies, org, "civ")
    assert (first.policy, second.number) == (second.policy, 2)
    author = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    text = shipped("civ").replace("renew_before_days", "mandatory_after_days = 14\nrenew_before_days")
    third = await database.transact(lambda unit: policies.draft(unit, author, text))
    await database.transact(lambda unit: policies.publish(unit, officer, third.id))
    assert followed.heard == [(first.policy, 1, None), (first.policy, 2, None), (first.policy, 3, timedelta(days=14))]
    states = {one.number: one.state for one in await database.read(lambda unit: policies_of(unit, org))}
    assert states == {1: VersionState.SUPERSEDED, 2: VersionState.SUPERSEDED, 3: VersionState.PUBLISHED}
    assert (await database.read(lambda unit: policies.in_force(unit, org, first.policy))).number == 3
    assert (await database.read(lambda unit: policies.numbered(unit, org, first.policy, 1))).number == 1


async def policies_of(unit: Unit, org: UUID) -> list[PolicyVersion]:
    everything = PolicyService(allow, PeopleService(allow), KINDS)
    return await everything.find(unit, server(org))


async def test_which_policy_applies_to_a_person(database: Database) -> None:
    org, policies = new_id(), service()
    author = await make_operator(database, org, Role.ADMINISTRATOR)
    staff, makers = await make_group(database, org, "staff"), await make_group(database, org, "makers")
    person = await make_person(database, org, "ada", (staff.id,))
    for name in ("civ", "developer", "smartcard-logon"):
        await in_force(database, policies, org, name)

    async def chosen(kind: DeviceKind, name: str | None = None) -> str:
        found = await database.read(lambda unit: policies.for_person(unit, org, person.id, kind, name))
        return found.document.name

    with pytest.raises(NoPolicyForPerson):
        await chosen(DeviceKind.SMART_CARD)
    await database.transact(lambda unit: policies.assign(unit, author, "developer", makers.id))
    await database.transact(lambda unit: policies.assign(unit, author, "civ", staff.id))
    await database.transact(lambda unit: policies.assign(unit, author, "civ", staff.id))
    assert await chosen(DeviceKind.SMART_CARD) == "civ"
    with pytest.raises(NoPolicyForPerson):
        await chosen(DeviceKind.PHONE)
    await database.transact(lambda unit: policies.assign(unit, author, "developer", staff.id))
    with pytest.raises(PolicyAmbiguous) as several:
        await chosen(DeviceKind.SMART_CARD)
    assert several.value.names == ("civ", "developer")
    assert await chosen(DeviceKind.SMART_CARD, "developer") == "developer"
    await database.transact(lambda unit: policies.unassign(unit, author, "civ", staff.id))
    assert await chosen(DeviceKind.SMART_CARD) == "developer"
    with pytest.raises(NoSuchGroup):
        await database.transact(lambda unit: policies.assign(unit, author, "civ", uuid4()))
    with pytest.raises(NoSuchPolicy):
        await database.transact(lambda unit: policies.assign(unit, author, "unheard-of", staff.id))


async def test_two_drafts_published_at_once_leave_one_in_force(
    database: Database, open_database: Callable[..., Database]
) -> None:
    org, policies = new_id(), service()
    author = await make_operator(database, org, Role.ADMINISTRATOR)
    officers = [await make_operator(database, org, Role.SECURITY_OFFICER) for _ in range(3)]
    drafts = [await database.transact(lambda unit: policies.draft_shipped(unit, author, "civ")) for _ in range(3)]

    async def publish(officer: Principal, draft: PolicyVersion) -> PolicyVersion:
        return await open_database().transact(lambda unit: policies.publish(unit, officer, draft.id))

    await asyncio.gather(*(publish(*pair) for pair in zip(officers, drafts, strict=True)))
    found = await database.read(lambda unit: policies.find(unit, author, "civ"))
    assert sorted(one.state for one in found) == ["published", "superseded", "superseded"]


class VersionSubject:
    """A version of a policy, moved by operators of every role through the service."""

    def __init__(self, clients: Sequence[Database], policies: PolicyService, org: UUID, draft: UUID) -> None:
        self.clients, self.policies, self.org, self.id = clients, policies, org, draft
        self.principals: dict[Actor, Principal] = {}

    async def fire(self, client: int, event: VersionEvent, actor: Actor) -> Transition[VersionState, VersionEvent]:
        before = await self.state()
        row = VERSION.next(before, event, actor)
        if event is VersionEvent.DRAFT or actor not in self.principals:
            raise IllegalTransition(VERSION.name, before, event, actor, known=False)
        call = {VersionEvent.PUBLISH: self.policies.publish, VersionEvent.DISCARD: self.policies.discard}[event]
        await self.clients[client].transact(lambda unit: call(unit, self.principals[actor], self.id))
        return row

    async def state(self) -> VersionState | None:
        text = await self.clients[0].read(
            lambda unit: unit.value(select(policy_version.c.state).where(policy_version.c.id == self.id))
        )
        return None if text is None else VersionState(text)

    async def journal(self) -> list[Fired[VersionState, VersionEvent]]:
        table = policy_version_transition
        statement = select(table).where(table.c.subject == self.id).order_by(table.c.number)
        return [
            Fired(
                None if row.source is None else VersionState(row.source),
                VersionEvent(row.event),
                Actor(row.actor),
                VersionState(row.target),
            )
            for row in await self.clients[0].read(lambda unit: unit.rows(statement))
        ]


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(plan=plans(VERSION))
async def test_walks_over_versions(open_database: Callable[..., Database], plan: Plan[VersionEvent]) -> None:
    clients = [open_database(pool=1) for _ in range(3)]
    org, policies = new_id(), service()
    author = await make_operator(clients[0], org, Role.ADMINISTRATOR)
    made = await clients[0].transact(lambda unit: policies.draft_shipped(unit, author, "developer"))
    subject = VersionSubject(clients, policies, org, made.id)
    subject.principals[Actor.ADMINISTRATOR] = author
    subject.principals[Actor.SECURITY_OFFICER] = await make_operator(clients[0], org, Role.SECURITY_OFFICER)
    await walk(VERSION, subject, plan)


def test_the_guard_names_the_author() -> None:
    with pytest.raises(GuardRefused, match="is_another_person"):
        VERSION.next(VersionState.DRAFT, VersionEvent.PUBLISH, Actor.SECURITY_OFFICER, lambda _: False)
