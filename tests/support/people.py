"""Persons and operators for tests: made through the real services, by a caller who may do everything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

from cardwright_server.authentication.authorize import Authorizer, CallTarget, Permission
from cardwright_server.authentication.matrix import Call
from cardwright_server.authentication.model import Authentication, Method
from cardwright_server.authentication.principal import Principal, PrincipalKind, server
from cardwright_server.people.model import EVERYWHERE, AccountKind, Grant, Group, Person, Role, Scope
from cardwright_server.people.operators import OperatorService
from cardwright_server.people.service import PeopleService
from cardwright_server.people.standing import PeopleStandings
from cardwright_server.store.unit import Database, Unit


async def allow(unit: Unit | None, principal: Principal, call: Call, target: CallTarget) -> Permission:
    """An ``Authorize`` that permits everything, for making what a test begins with."""
    return Permission(principal, (Grant(Role.ADMINISTRATOR),))


class AllProofsStand:
    """``Proofs`` for tests that are not about them."""

    async def stands(self, unit: Unit, authentication: UUID) -> bool:
        return True


class EveryUnlockIsOpen:
    """``OpenUnlocks`` for tests that are not about requests."""

    async def is_open(self, unit: Unit, org: UUID, request: UUID, person: UUID) -> bool:
        return True


@dataclass
class NoneRevoked:
    """``Workstations`` of which only ``revoked`` are."""

    revoked: set[UUID] = field(default_factory=set)

    def is_revoked(self, workstation: UUID) -> bool:
        return workstation in self.revoked


def authorizer(revoked: NoneRevoked | None = None) -> Authorizer:
    """The real decision, over the real tables of people."""
    return Authorizer(PeopleStandings(), AllProofsStand(), revoked or NoneRevoked())


async def make_person(
    database: Database, org: UUID, login: str, groups: tuple[UUID, ...] = (), **attributes: tuple[str, ...]
) -> Person:
    """A person of the embedded store."""
    people = PeopleService(allow)

    async def work(unit: Unit) -> Person:
        person = await people.create_person(
            unit,
            server(org),
            login=login,
            display_name=login.title(),
            mail=f"{login}@example.org",
            attributes=attributes,
        )
        for group in groups:
            await people.add_member(unit, server(org), group, person.id)
        return person

    return await database.transact(work)


async def make_group(database: Database, org: UUID, name: str) -> Group:
    """A group of the embedded store."""
    return await database.transact(lambda unit: PeopleService(allow).create_group(unit, server(org), name))


def key_of(label: str) -> bytes:
    """A made-up SHA-256 of a SubjectPublicKeyInfo."""
    return hashlib.sha256(label.encode()).digest()


async def make_operator(
    database: Database,
    org: UUID,
    *roles: Role,
    scope: Scope = EVERYWHERE,
    person: UUID | None = None,
    kind: AccountKind = AccountKind.PERSON,
    hardware: bool = True,
) -> Principal:
    """The principal of an operator with these roles in a scope, connected by a key; of a new person unless given."""
    label = f"operator-{uuid4().hex}"
    holder = person
    if holder is None and kind is AccountKind.PERSON:
        holder = (await make_person(database, org, label)).id
    operators = OperatorService(allow)
    key = key_of(label)

    async def work(unit: Unit) -> Principal:
        account = await operators.add(unit, server(org), label, holder, kind)
        await operators.put_key(unit, server(org), account.id, key, hardware=hardware)
        for role in roles:
            await operators.put_grant(unit, server(org), account.id, Grant(role, scope))
        made = await operators.recognize(
            unit, key, expires_at=unit.now + timedelta(hours=8), front="test", address="192.0.2.1"
        )
        assert made is not None
        return made

    return await database.transact(work)


async def make_proven(database: Database, person: Person, *methods: Method, request: UUID | None = None) -> Principal:
    """The principal of a person who proved who they are. The proof is in no table: for ``AllProofsStand``."""

    async def work(unit: Unit) -> Principal:
        proof = Authentication(
            id=uuid4(),
            org=person.org,
            subject=person.id,
            methods=frozenset(methods),
            time=unit.now,
            expires_at=unit.now + timedelta(minutes=15),
            network="192.0.2.1",
            request=request,
        )
        return Principal(
            PrincipalKind.PERSON, person.id, person.org, person=person.id, authentication=proof, front="test"
        )

    return await database.read(work)
