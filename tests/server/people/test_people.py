"""Persons and groups of the embedded store, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cardwright_server.authentication.errors import AccessDenied
from cardwright_server.authentication.principal import Principal, server
from cardwright_server.people.errors import (
    BadAttribute,
    LoginTaken,
    NoSuchPerson,
    NotErasable,
)
from cardwright_server.people.model import Person, PersonStatus, Reach, Role, Scope
from cardwright_server.people.naming import BadName
from cardwright_server.people.service import PeopleService
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.errors import StaleVersion
from cardwright_server.store.unit import Database, Unit
from tests.support.people import authorizer, make_group, make_operator, make_person

ORG = uuid4()
PEOPLE = PeopleService(authorizer())


async def test_a_person_is_found_in_whatever_case_and_width(database: Database) -> None:
    made = await make_person(database, ORG, "Straße.One", mail=("x",))
    for typed in ("strasse.one", " STRASSE.ONE ", "\uff53\uff54\uff52\uff41\uff53\uff53\uff45.one"):
        assert await database.read(partial(PEOPLE.by_login, org=ORG, login=typed)) == made
    assert await database.read(lambda unit: PEOPLE.by_login(unit, uuid4(), "strasse.one")) is None


async def test_a_login_is_one_person_also_when_two_ask_at_once(database: Database) -> None:
    results = await asyncio.gather(
        *(make_person(database, ORG, login) for login in ("anna", "ANNA", "\uff21nna", "anna ")), return_exceptions=True
    )
    assert sum(isinstance(result, LoginTaken) for result in results) == 3
    await make_person(database, uuid4(), "anna")


@pytest.mark.parametrize("login", ["", "   ", "a\u200bb", "a\nb", "x" * 201, "a\ue000b"])
async def test_what_is_no_login_is_refused(database: Database, login: str) -> None:
    with pytest.raises(BadName):
        await make_person(database, ORG, login)


async def test_a_change_needs_the_version_that_was_read(database: Database) -> None:
    person = await make_person(database, ORG, "bert")
    clerk = await make_operator(database, ORG, Role.ISSUANCE)

    def change(version: int, mail: str) -> Awaitable[Person]:
        return database.transact(
            lambda unit: PEOPLE.update_person(
                unit, clerk, person.id, version, display_name="Bert B", mail=mail, attributes={"sn": ("B", "C")}
            )
        )

    changed = await change(person.version, "b@example.org")
    assert (changed.display_name, changed.mail, changed.attributes) == ("Bert B", "b@example.org", {"sn": ("B", "C")})
    with pytest.raises(StaleVersion):
        await change(person.version, "late@example.org")
    with pytest.raises(BadAttribute):
        await change(changed.version, "x" * 321)
    with pytest.raises(NoSuchPerson):
        await database.read(lambda unit: PEOPLE.person(unit, uuid4(), person.id))


async def test_lists_show_only_whom_the_grants_cover(database: Database) -> None:
    group = await make_group(database, ORG, "Sales")
    inside = await make_person(database, ORG, "carl", (group.id,))
    outside = await make_person(database, ORG, "carla")
    scoped = await make_operator(database, ORG, Role.HELP_DESK, scope=Scope(Reach.GROUP, group.id))
    everywhere = await make_operator(database, ORG, Role.HELP_DESK)
    foreign = await make_operator(database, uuid4(), Role.HELP_DESK)

    def find(who: Principal, text: str = "carl", after: str = "", limit: int = 50) -> Awaitable[list[Person]]:
        return database.read(lambda unit: PEOPLE.find(unit, who, text, after=after, limit=limit))

    assert await find(scoped) == [inside]
    assert await find(everywhere) == [inside, outside]
    assert await find(everywhere, "CARL @example") == [inside, outside]
    assert await find(everywhere, "carl%") == []
    assert await find(everywhere, limit=1) == [inside]
    assert await find(everywhere, after="carl") == [outside]
    assert await find(foreign) == []
    assert [one.name for one in await database.read(lambda unit: PEOPLE.find_groups(unit, scoped))] == ["Sales"]
    with pytest.raises(AccessDenied):
        await database.read(lambda unit: PEOPLE.get(unit, scoped, outside.id))
    assert await database.read(lambda unit: PEOPLE.get(unit, scoped, inside.id)) == inside


async def test_suspending_a_person_ends_the_rights_of_their_accounts(database: Database) -> None:
    victim = await make_operator(database, ORG, Role.HELP_DESK)
    boss = await make_operator(database, ORG, Role.ADMINISTRATOR)
    assert victim.person is not None
    await database.read(lambda unit: PEOPLE.find(unit, victim))
    holder = victim.person
    await database.transact(lambda unit: PEOPLE.set_status(unit, boss, holder, PersonStatus.SUSPENDED, "gone"))
    with pytest.raises(AccessDenied):
        await database.read(lambda unit: PEOPLE.find(unit, victim))
    await database.transact(lambda unit: PEOPLE.set_status(unit, boss, holder, PersonStatus.ACTIVE))
    await database.read(lambda unit: PEOPLE.find(unit, victim))


async def test_only_who_left_and_holds_no_account_is_erased(database: Database) -> None:
    officer = await make_operator(database, ORG, Role.SECURITY_OFFICER)
    desk = await make_operator(database, ORG, Role.HELP_DESK)
    person = await make_person(database, ORG, "dora")

    def erase(who: UUID) -> Awaitable[None]:
        return database.transact(lambda unit: PEOPLE.erase(unit, officer, who))

    with pytest.raises(NotErasable):
        await erase(person.id)
    assert desk.person is not None
    for who in (person.id, desk.person):
        await database.transact(partial(_left, who=who))
    await erase(person.id)
    with pytest.raises(NoSuchPerson):
        await database.read(lambda unit: PEOPLE.person(unit, ORG, person.id))
    with pytest.raises(NotErasable):
        await erase(desk.person)


async def _left(unit: Unit, who: UUID) -> Person:
    return await PEOPLE.set_status(unit, server(ORG), who, PersonStatus.LEFT)


async def test_the_audit_names_nobody(database: Database) -> None:
    person = await make_person(database, ORG, "very.secret.name")
    rows = await database.read(lambda unit: unit.rows(select(audit_entry)))
    assert [(row.action, row.target) for row in rows] == [("person.created", person.id)]
    assert "secret" not in str(rows)
