"""Accounts, keys and grants, with the two who keep each other in check; on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import select

from cardwright_server.authentication.errors import AccessDenied, NotYourOwn
from cardwright_server.people.errors import KeyTaken, LastHolder, LoginTaken, NoSuchGroup, NoSuchOperator, NoSuchPerson
from cardwright_server.people.model import AccountKind, Grant, Reach, Role, Scope
from cardwright_server.people.naming import BadName
from cardwright_server.people.operators import OperatorService
from cardwright_server.store.audit_tables import audit_detail, audit_entry
from cardwright_server.store.unit import Database
from tests.support.people import authorizer, key_of, make_operator, make_person

OPERATORS = OperatorService(authorizer())


async def test_neither_an_administrator_nor_an_officer_alone_makes_an_operator(database: Database) -> None:
    org = uuid4()
    admin = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    person = await make_person(database, org, "new")
    with pytest.raises(AccessDenied):
        await database.transact(lambda unit: OPERATORS.create(unit, officer, "x", person.id))
    made = await database.transact(lambda unit: OPERATORS.create(unit, admin, "desk 1", person.id))
    assert (made.active, made.grants, made.person) == (True, (), person.id)
    with pytest.raises(AccessDenied):
        await database.transact(lambda unit: OPERATORS.grant(unit, admin, made.id, Grant(Role.HELP_DESK)))
    for who in (admin, officer):
        mine = who.id
        for role in Role:
            with pytest.raises((AccessDenied, NotYourOwn)):
                await database.transact(partial(OPERATORS.grant, principal=who, account=mine, grant=Grant(role)))
    before = made.role_version
    granted = await database.transact(lambda unit: OPERATORS.grant(unit, officer, made.id, Grant(Role.HELP_DESK)))
    assert (granted.grants, granted.role_version) == ((Grant(Role.HELP_DESK),), before + 1)
    again = await database.transact(lambda unit: OPERATORS.grant(unit, officer, made.id, Grant(Role.HELP_DESK)))
    assert again == granted


async def test_what_does_not_exist_or_belongs_elsewhere_is_refused(database: Database) -> None:
    org, elsewhere = uuid4(), uuid4()
    admin = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    foreign = await make_operator(database, elsewhere, Role.HELP_DESK)
    assert foreign.person is not None
    with pytest.raises(NoSuchPerson):
        await database.transact(partial(OPERATORS.create, principal=admin, label="x", person=foreign.person))
    with pytest.raises(NoSuchPerson):
        await database.transact(partial(OPERATORS.create, principal=admin, label="x", person=None))
    with pytest.raises(NoSuchOperator):
        await database.transact(lambda unit: OPERATORS.grant(unit, officer, foreign.id, Grant(Role.AUDITOR)))
    target = await make_operator(database, org)
    with pytest.raises(NoSuchGroup):
        scope = Scope(Reach.GROUP, uuid4())
        await database.transact(lambda unit: OPERATORS.grant(unit, officer, target.id, Grant(Role.AUDITOR, scope)))
    for branch in ("nonsense", "   ", ","):
        bad = Grant(Role.AUDITOR, Scope(Reach.BRANCH, branch=branch))
        with pytest.raises(BadName):
            await database.transact(partial(OPERATORS.grant, principal=officer, account=target.id, grant=bad))
    with pytest.raises(KeyTaken):
        await database.transact(lambda unit: OPERATORS.add_key(unit, admin, target.id, foreign.key))


async def test_someone_is_always_left_who_can_give_rights(open_database: Callable[..., Database]) -> None:
    """Two officers who withdraw each other's role at once: one is left."""
    database = open_database()
    org = uuid4()
    one = await make_operator(database, org, Role.SECURITY_OFFICER)
    two = await make_operator(database, org, Role.SECURITY_OFFICER)
    beside = open_database()
    role = Grant(Role.SECURITY_OFFICER)
    results = await asyncio.gather(
        database.transact(lambda unit: OPERATORS.withdraw(unit, one, two.id, role)),
        beside.transact(lambda unit: OPERATORS.withdraw(unit, two, one.id, role)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["AccessDenied", "Operator"]
    left = one if isinstance(results[0], BaseException) is False else two
    with pytest.raises(LastHolder):
        await database.transact(lambda unit: OPERATORS.withdraw(unit, left, left.id, role))
    admin = await make_operator(database, org, Role.ADMINISTRATOR)
    with pytest.raises(LastHolder):
        await database.transact(lambda unit: OPERATORS.set_active(unit, admin, left.id, False))


async def test_an_open_account_has_its_label_for_itself(database: Database) -> None:
    org = uuid4()
    admin = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    service = partial(OPERATORS.create, label="portal", person=None, kind=AccountKind.SERVICE)
    first = await database.transact(partial(service, principal=admin))
    with pytest.raises(LoginTaken, match="portal"):
        await database.transact(partial(service, principal=admin))
    await database.transact(lambda unit: OPERATORS.set_active(unit, officer, first.id, active=False))
    assert (await database.transact(partial(service, principal=admin))).id != first.id


async def test_a_service_account_has_no_person(database: Database) -> None:
    org = uuid4()
    idms = await make_operator(database, org, Role.HELP_DESK, kind=AccountKind.SERVICE)
    assert (idms.kind.value, idms.person, idms.actor) == ("service", None, idms.id)


async def test_every_change_of_rights_is_recorded_and_names_no_place(database: Database) -> None:
    org = uuid4()
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    admin = await make_operator(database, org, Role.ADMINISTRATOR)
    account = await make_operator(database, org)
    grant = Grant(Role.AUDITOR, Scope(Reach.BRANCH, branch="ou=secret place,dc=example"))
    await database.transact(lambda unit: OPERATORS.grant(unit, officer, account.id, grant))
    await database.transact(lambda unit: OPERATORS.withdraw(unit, officer, account.id, grant))
    await database.transact(lambda unit: OPERATORS.add_key(unit, admin, account.id, key_of("second")))
    await database.transact(lambda unit: OPERATORS.remove_key(unit, officer, account.id, key_of("second")))
    await database.transact(lambda unit: OPERATORS.set_active(unit, officer, account.id, False))
    rows = await database.read(
        lambda unit: unit.rows(
            select(audit_entry).where(audit_entry.c.target == account.id, audit_entry.c.who.in_([officer.id, admin.id]))
        )
    )
    assert sorted(row.action for row in rows) == [
        "operator.activity",
        "operator.granted",
        "operator.key-added",
        "operator.key-removed",
        "operator.withdrawn",
    ]
    assert "secret place" not in str(rows)
    details = await database.read(lambda unit: unit.rows(select(audit_detail.c.detail)))
    assert "secret place" in str(details)
