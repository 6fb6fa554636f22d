"""Everybody of a real slapd is taken over: by pages, within the operator's branches, again, and until it is dead."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from uuid import UUID, uuid4

import pytest

from cardwright_cardops.errors import CardwrightError
from cardwright_server.authentication.errors import AccessDenied
from cardwright_server.authentication.principal import Principal
from cardwright_server.people.directory import DirectoryUnavailable, NoSuchBranch, ReadableDirectory
from cardwright_server.people.errors import ImportRunning, NoDirectory
from cardwright_server.people.importing import Imported, ImportService
from cardwright_server.people.ldap_directory import MOST_AT_ONCE, LdapDirectory
from cardwright_server.people.model import Grant, Reach, Role, Scope
from cardwright_server.people.naming import BadName
from cardwright_server.people.operators import OperatorService
from cardwright_server.people.service import PeopleService
from cardwright_server.store.unit import Database
from tests.support.people import authorizer, make_group, make_operator, make_person
from tests.support.slapd import BASE, PEOPLE, Slapd, ask, cuts_after, ldif_of, proxy, reach, slapd, unique

__all__ = ["slapd"]

NUMBERS = ("added", "changed", "unchanged", "refused")


class Desk:
    """An organization with a directory, and who imports from it."""

    def __init__(self, database: Database, directory: LdapDirectory, operator: Principal) -> None:
        self.database = database
        self.operator = operator
        self.people = PeopleService(authorizer())
        directories: Mapping[UUID, ReadableDirectory] = {operator.org: directory}
        self.service = ImportService(database, authorizer(), self.people, directories)

    async def steps(self, under: str = "", group: str = "", by: Principal | None = None) -> list[Imported]:
        """Everything that an import said."""
        permitted = await self.service.permit_all(by or self.operator, under, group)
        async with aclosing(self.service.import_all(permitted)) as steps:
            return [step async for step in steps]

    async def numbers(self, under: str = "", group: str = "", by: Principal | None = None) -> tuple[int, ...]:
        """New, changed, unchanged, refused."""
        last = (await self.steps(under, group, by))[-1]
        return tuple(getattr(last, name) for name in NUMBERS)

    async def logins(self) -> set[str]:
        """Who was taken over, as the operator sees it."""
        everybody = await self.database.read(lambda unit: self.people.find(unit, self.operator, limit=201))
        return {one.login for one in everybody if one.source == "corp"}


async def desk(database: Database, directory: LdapDirectory, role: Role = Role.ADMINISTRATOR) -> Desk:
    return Desk(database, directory, await make_operator(database, uuid4(), role))


def place(slapd: Slapd, *uids: str) -> str:
    """A new branch with these persons, for other tests have theirs in the same directory."""
    name = unique("place")
    branch = f"ou={name},{PEOPLE}"
    slapd.change(f"dn: {branch}\nobjectClass: organizationalUnit\nou: {name}\n")
    if uids:
        slapd.change(ldif_of(uids, branch))
    return branch


async def test_everybody_by_pages_and_again(slapd: Slapd, database: Database) -> None:
    names = [f"{number:02}{unique('-all')}" for number in range(23)]
    branch = place(slapd, *names)
    one = await desk(database, ask(reach(slapd, "ldapi"), page=5))
    steps = await one.steps(branch)
    assert [step.added for step in steps] == [5, 10, 15, 20, 23]
    assert not any(step.entries for step in steps)
    assert await one.logins() == set(names)
    assert await one.numbers(branch) == (0, 0, 23, 0)
    slapd.tool("ldapmodify", input=f"dn: uid={names[3]},{branch}\nreplace: sn\nsn: Married\n")
    slapd.add_group(unique("joined"), f"uid={names[7]},{branch}")
    new = unique("late")
    slapd.change(ldif_of([new], branch))
    assert await one.numbers(branch) == (1, 2, 21, 0)


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_never_more_than_a_page_is_held(slapd: Slapd, database: Database) -> None:
    branch = place(slapd, *(f"{number:03}{unique('-many')}" for number in range(MOST_AT_ONCE + 3)))
    directory = ask(reach(slapd, "ldapi"), page=5000)
    async with aclosing(directory.pages(branch)) as pages:
        assert [len(page) async for page in pages] == [MOST_AT_ONCE, 3]


async def test_one_that_is_refused_stops_nobody_else(slapd: Slapd, database: Database) -> None:
    good, taken, twice, hidden = unique("a-good"), unique("b-taken"), unique("c-twice"), unique("d-hid\u202eden")
    branch = place(slapd, good, taken, twice, hidden)
    slapd.change(f"dn: ou=deep,{branch}\nobjectClass: organizationalUnit\nou: deep\n")
    slapd.change(ldif_of([twice], f"ou=deep,{branch}"))
    long = unique("e-long")
    slapd.change(f"dn: cn={long},{branch}\nobjectClass: inetOrgPerson\nuid: {'x' * 300}\ncn: {long}\nsn: {long}\n")
    one = await desk(database, ask(reach(slapd, "ldapi"), page=2))
    await make_person(database, one.operator.org, taken)
    steps = await one.steps(branch)
    assert [getattr(steps[-1], name) for name in NUMBERS] == [2, 0, 0, 4]
    told = {(entry.login, entry.code) for step in steps for entry in step.entries}
    assert told == {(taken, "LOGIN_TAKEN"), (twice, "LOGIN_TAKEN"), ("", "BAD_NAME"), ("x" * 300, "BAD_NAME")}
    assert all(entry.reason and entry.dn.endswith(branch) for step in steps for entry in step.entries)
    assert await one.logins() == {good, twice}
    assert await one.numbers(branch) == (0, 0, 2, 4)


async def test_without_a_lasting_id_each_is_refused(slapd: Slapd, database: Database) -> None:
    branch = place(slapd, unique("a"), unique("b"))
    one = await desk(database, ask(reach(slapd, "ldapi"), entry_attribute="employeeNumber"))
    (step,) = await one.steps(branch)
    assert (step.added, step.refused, {entry.code for entry in step.entries}) == (0, 2, {"DIRECTORY_ANSWER_REFUSED"})


@pytest.mark.parametrize("groups", [{}, {"group_base": f"ou=groups,{BASE}"}])
async def test_only_a_group_of_the_directory(slapd: Slapd, database: Database, groups: dict[str, str]) -> None:
    names = [f"{number}{unique('-grp')}" for number in range(7)]
    branch = place(slapd, *names)
    name = unique("Team (a)*")
    dn = slapd.add_group(name, *(f"uid={one},{branch}" for one in names[2:6]))
    one = await desk(database, ask(reach(slapd, "ldapi"), page=2, **groups))
    assert await one.numbers(branch, name.upper()) == (4, 0, 0, 0)
    assert await one.logins() == set(names[2:6])
    assert await one.numbers(branch, dn.replace(",", " , ").upper()) == (0, 0, 4, 0)
    assert await one.numbers(branch, unique("nobody is in it")) == (0, 0, 0, 0)
    with pytest.raises(BadName):
        await one.steps(branch, "cn=not,,a=name")


async def test_an_operator_of_a_branch_reads_only_that(slapd: Slapd, database: Database) -> None:
    mine, beside = place(slapd, inside := unique("in")), place(slapd, outside := unique("out"))
    slapd.change(f"dn: ou=low,{mine}\nobjectClass: organizationalUnit\nou: low\n")
    slapd.change(ldif_of([deep := unique("deep")], f"ou=low,{mine}"))
    one = await desk(database, ask(reach(slapd, "ldapi")))
    org = one.operator.org
    scope = Scope(Reach.BRANCH, branch=mine.replace("ou=", "OU = "))
    clerk = await make_operator(database, org, Role.ISSUANCE, scope=scope)
    log = len(slapd.log.read_bytes())
    assert await one.numbers(by=clerk) == (2, 0, 0, 0)
    assert await one.logins() == {inside, deep}
    assert await one.numbers(f"ou=low,{mine}", by=clerk) == (0, 0, 1, 0)
    # A place above is cut down to the branch.
    assert await one.numbers(PEOPLE, by=clerk) == (0, 0, 2, 0)
    asked = slapd.log.read_bytes()[log:].decode(errors="replace")
    assert f'SRCH base="{PEOPLE}"' not in asked and beside not in asked
    with pytest.raises(AccessDenied):
        await one.steps(beside, by=clerk)
    with pytest.raises(AccessDenied):
        await one.steps("ou=nothing,dc=elsewhere", by=clerk)
    # Who was elsewhere when they were taken over is not theirs to pull in.
    assert await one.numbers(beside) == (1, 0, 0, 0)
    slapd.tool("ldapmodrdn", "-s", mine, input=f"uid={outside},{beside}\nuid={outside}\n")
    (step,) = await one.steps(by=clerk)
    assert (step.unchanged, [(entry.login, entry.code) for entry in step.entries]) == (2, [(outside, "ACCESS_DENIED")])


async def test_rights_that_name_no_part_of_the_directory(slapd: Slapd, database: Database) -> None:
    one = await desk(database, ask(reach(slapd, "ldapi")))
    org = one.operator.org
    group = await make_group(database, org, "ours")
    grouped = await make_operator(database, org, Role.ISSUANCE, scope=Scope(Reach.GROUP, group=group.id))
    foreign = await make_operator(
        database, org, Role.ISSUANCE, scope=Scope(Reach.BRANCH, branch="ou=people,dc=elsewhere")
    )
    desk_only = await make_operator(database, org, Role.HELP_DESK)
    for principal in (grouped, foreign, desk_only):
        with pytest.raises(AccessDenied):
            await one.steps(by=principal)
    with pytest.raises(NoDirectory):
        await one.steps(by=await make_operator(database, uuid4(), Role.ADMINISTRATOR))
    for nowhere in ("dc=elsewhere", f"ou={unique('none')},{PEOPLE}"):
        with pytest.raises(NoSuchBranch):
            await one.steps(nowhere)
    with pytest.raises(BadName):
        await one.steps("no name of a place")


async def test_a_directory_that_dies_in_the_middle_ends_it_and_again_goes_on(slapd: Slapd, database: Database) -> None:
    names = [f"{number:02}{unique('-die')}" for number in range(40)]
    branch = place(slapd, *names)
    alive = await desk(database, ask(reach(slapd, "clear"), page=4))
    async with proxy(slapd.port, cuts_after(6000)) as port:
        dying = ask(reach(slapd, "clear", port=port, connect=2.0, operation=1.5, whole=3.0, failures=100), page=4)
        one = Desk(database, dying, alive.operator)
        seen: list[Imported] = []
        permitted = await one.service.permit_all(one.operator, branch)
        with pytest.raises(DirectoryUnavailable) as error:
            async for step in one.service.import_all(permitted):
                seen.append(step)
        assert error.value.effect == "Who was taken over before stays."
        assert error.value.advice.endswith("Then import again: who is here already is not changed by it.")
    done = seen[-1].added
    assert 4 <= done < 40 and len(await alive.logins()) == done
    assert await alive.numbers(branch) == (40 - done, 0, done, 0)


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_one_at_a_time_and_a_session_is_given_back(slapd: Slapd, database: Database) -> None:
    branch = place(slapd, *(f"{number}{unique('-one')}" for number in range(5)))
    directory = ask(reach(slapd, "ldapi", sessions=1), page=2)
    one = await desk(database, directory)
    permitted = await one.service.permit_all(one.operator, branch)
    async with aclosing(one.service.import_all(permitted)) as first:
        await anext(first)
        with pytest.raises(ImportRunning):
            await one.steps(branch)
        with pytest.raises(DirectoryUnavailable, match="busy"):
            await directory.find("anyone")
    assert await directory.find(unique("anyone")) is None
    assert await one.numbers(branch) == (3, 0, 2, 0)


async def test_a_role_that_is_withdrawn_ends_it(slapd: Slapd, database: Database) -> None:
    branch = place(slapd, *(f"{number}{unique('-gone')}" for number in range(6)))
    one = await desk(database, ask(reach(slapd, "ldapi"), page=2))
    officer = await make_operator(database, one.operator.org, Role.SECURITY_OFFICER)
    await make_operator(database, one.operator.org, Role.ADMINISTRATOR)
    operators = OperatorService(authorizer())
    permitted = await one.service.permit_all(one.operator, branch)
    with pytest.raises(CardwrightError) as error:
        async with aclosing(one.service.import_all(permitted)) as steps:
            await anext(steps)
            grant = Grant(Role.ADMINISTRATOR)
            await database.transact(lambda unit: operators.withdraw(unit, officer, one.operator.id, grant))
            await anext(steps)
    assert (error.value.code, error.value.effect) == ("ACCESS_DENIED", "Who was taken over before stays.")
