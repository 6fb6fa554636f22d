"""The first administrator and security officer: one hour, this host, two persons, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cardwright_cardops.secret import Secret
from cardwright_server.authentication.errors import AccessDenied
from cardwright_server.authentication.first import (
    FirstCredentialRefused,
    FirstCredentialSpent,
    FirstOperators,
    SamePerson,
)
from cardwright_server.authentication.principal import LOCAL_FRONT, Principal, PrincipalKind, anyone
from cardwright_server.people.errors import KeyTaken, LastHolder
from cardwright_server.people.model import Grant, Operator, Role
from cardwright_server.people.operators import OperatorService
from cardwright_server.people.service import PeopleService
from cardwright_server.store.authentication_tables import first_credential
from cardwright_server.store.unit import Database
from tests.support.databases import Clock
from tests.support.people import authorizer, key_of, make_operator

OPERATORS = OperatorService(authorizer())
FIRST = FirstOperators(authorizer(), PeopleService(authorizer()), OPERATORS)
ADMIN, OFFICER = Role.ADMINISTRATOR, Role.SECURITY_OFFICER


def enrol(
    database: Database,
    org: UUID,
    credential: Secret,
    role: Role,
    login: str,
    *,
    key: str = "",
    front: str = LOCAL_FRONT,
) -> Awaitable[Operator]:
    return database.transact(
        lambda unit: FIRST.enrol(
            unit,
            anyone(org, front=front),
            credential,
            role,
            login=login,
            display_name=login,
            spki=key_of(key or f"{login} {role}"),
        )
    )


async def create(database: Database, org: UUID) -> Secret:
    return (await database.transact(lambda unit: FIRST.create(unit, org)))[0]


async def test_two_persons_are_enrolled_and_can_begin(database: Database) -> None:
    org = uuid4()
    credential = await create(database, org)
    admin = await enrol(database, org, credential, ADMIN, "anna")
    officer = await enrol(database, org, credential, OFFICER, "otto")
    assert (admin.grants, officer.grants) == ((Grant(ADMIN),), (Grant(OFFICER),))
    assert admin.person != officer.person

    async def connect(key: str) -> Principal:
        found = await database.read(
            lambda unit: OPERATORS.recognize(
                unit, key_of(key), expires_at=unit.now + timedelta(hours=1), front="cli", address=""
            )
        )
        assert found is not None
        return found

    anna, otto = await connect(f"anna {ADMIN}"), await connect(f"otto {OFFICER}")
    assert anna.kind is PrincipalKind.OPERATOR
    third = await make_operator(database, org)
    await database.transact(lambda unit: OPERATORS.grant(unit, otto, third.id, Grant(Role.HELP_DESK)))
    with pytest.raises(AccessDenied):
        await database.transact(lambda unit: OPERATORS.grant(unit, anna, third.id, Grant(Role.HELP_DESK)))
    with pytest.raises(LastHolder):
        await database.transact(lambda unit: OPERATORS.withdraw(unit, otto, officer.id, Grant(OFFICER)))


async def test_the_credential_is_spent_for_ever(database: Database) -> None:
    org = uuid4()
    credential = await create(database, org)
    await enrol(database, org, credential, OFFICER, "otto")
    with pytest.raises(FirstCredentialRefused):
        await enrol(database, org, credential, OFFICER, "oskar")
    await enrol(database, org, credential, ADMIN, "anna")
    for role in (ADMIN, OFFICER):
        with pytest.raises(FirstCredentialRefused):
            await enrol(database, org, credential, role, "mallory")
    with pytest.raises(FirstCredentialSpent):
        await create(database, org)
    await create(database, uuid4())


async def test_it_is_for_one_hour_by_the_database(open_database: Callable[..., Database], clock: Clock) -> None:
    database, org = open_database(clock=clock), uuid4()
    credential = await create(database, org)
    clock.advance(minutes=59, seconds=59)
    await enrol(database, org, credential, ADMIN, "anna")
    clock.advance(seconds=1)
    with pytest.raises(FirstCredentialRefused):
        await enrol(database, org, credential, OFFICER, "otto")
    again = await create(database, org)
    for late in (credential, Secret(b"cwfirst1." + b"0" * 32), Secret(b""), Secret(again.reveal().upper())):
        with pytest.raises(FirstCredentialRefused):
            await enrol(database, org, late, OFFICER, "otto")
    with pytest.raises(FirstCredentialRefused):
        await enrol(database, org, again, ADMIN, "alfred")
    await enrol(database, org, again, OFFICER, "otto")
    with pytest.raises(FirstCredentialSpent):
        await create(database, org)


async def test_only_here_only_these_roles_only_two_persons_and_keys(database: Database) -> None:
    org = uuid4()
    credential = await create(database, org)
    for front in ("", "portal", "daemon", "LOCAL"):
        with pytest.raises(AccessDenied):
            await enrol(database, org, credential, ADMIN, "anna", front=front)
    for role in set(Role) - {ADMIN, OFFICER}:
        with pytest.raises(AccessDenied):
            await enrol(database, org, credential, role, "anna")
    with pytest.raises(FirstCredentialRefused):
        await enrol(database, uuid4(), credential, ADMIN, "anna")
    await enrol(database, org, credential, ADMIN, "anna", key="one")
    with pytest.raises(SamePerson):
        await enrol(database, org, credential, OFFICER, " ANNA", key="two")
    with pytest.raises(KeyTaken):
        await enrol(database, org, credential, OFFICER, "otto", key="one")
    await enrol(database, org, credential, OFFICER, "otto", key="two")


async def test_one_role_is_one_person_on_two_processes(open_database: Callable[..., Database]) -> None:
    org = uuid4()
    processes = [open_database(), open_database()]
    credential = await create(processes[0], org)
    results = await asyncio.gather(
        *(enrol(database, org, credential, ADMIN, f"anna{number}") for number, database in enumerate(processes)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in results) == ["FirstCredentialRefused", "Operator"]


async def test_the_store_holds_no_credential(database: Database) -> None:
    org = uuid4()
    credential = await create(database, org)
    rows = await database.read(lambda unit: unit.rows(select(first_credential)))
    assert credential.reveal().decode() not in str(rows) and len(credential) == 9 + 32
