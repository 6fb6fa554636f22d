"""PersonService and GroupService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import people_pb2 as pb
from cardwright_server.api.people import GroupServicer, PersonServicer
from cardwright_server.audit.desk import Details
from cardwright_server.authentication.principal import Principal
from cardwright_server.people.directory import DirectoryEntry, DirectoryUnavailable, EntryPage, ReadableDirectory
from cardwright_server.people.erasure import ErasureService
from cardwright_server.people.importing import ImportService
from cardwright_server.people.model import Reach, Role, Scope
from cardwright_server.people.naming import branch_path
from cardwright_server.people.service import PeopleService
from cardwright_server.store.audit_tables import audit_detail
from cardwright_server.store.unit import Database, Unit
from tests.support.api import Api, serving
from tests.support.people import authorizer, make_operator


@dataclass
class FakeDirectory:
    """A directory in memory."""

    entries: dict[str, DirectoryEntry] = field(default_factory=dict)
    asked: int = 0
    away: bool = False
    last: str = ""
    source: str = "corp"
    base: str = "dc=example"

    def add(self, login: str, unit: str) -> None:
        """Someone in an organizational unit."""
        dn = f"uid={login},ou={unit},dc=example"
        self.entries[login] = DirectoryEntry("corp", f"id-{login}", dn, login, login.title(), "", {"sn": ("Doe",)})

    async def find(self, login: str) -> DirectoryEntry | None:
        self.asked += 1
        if self.away:
            raise DirectoryUnavailable("away", timedelta(seconds=30))
        return self.entries.get(login)

    async def pages(self, place: str, group: str = "") -> AsyncGenerator[EntryPage, None]:
        for entry in list(self.entries.values()):
            if self.away:
                raise DirectoryUnavailable("away", timedelta(seconds=30))
            self.away = entry.login == self.last
            if branch_path(entry.dn).startswith(branch_path(place)):
                yield [entry]

    async def search(self, text: str, limit: int) -> list[DirectoryEntry]:
        return []

    async def check_password(self, dn: str | None, password: Secret) -> bool:
        return False


@dataclass
class Keeper:
    """Remembers whom it was told to forget."""

    forgotten: list[UUID] = field(default_factory=list)

    async def forget(self, unit: Unit, principal: Principal, person: UUID) -> None:
        self.forgotten.append(person)


@dataclass
class World:
    """An organization behind the API."""

    database: Database
    api: Api
    org: UUID
    directory: FakeDirectory
    keeper: Keeper
    admin: Principal

    async def person(self, login: str) -> pb.Person:
        """A new person."""
        request = pb.CreatePersonRequest(login=login, display_name=login.title(), mail=f"{login}@example.org")
        made: pb.Person = await self.api.call("PersonService.Create", request, self.admin)
        return made


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    org, decide = uuid4(), authorizer()
    people, directory, keeper = PeopleService(decide), FakeDirectory(), Keeper()
    directories: dict[UUID, ReadableDirectory] = {org: directory}
    imports = ImportService(database, decide, people, directories)
    erasure = ErasureService(people, (keeper, Details()))
    async with serving(
        database,
        lambda calls: [PersonServicer(calls, people, imports, erasure), GroupServicer(calls, people)],
    ) as api:
        yield World(database, api, org, directory, keeper, await make_operator(database, org, Role.ADMINISTRATOR))


async def test_a_person_from_creation_to_erasure(world: World) -> None:
    made = await world.person("anna")
    assert (made.login, made.status, made.source, made.version) == ("anna", pb.PERSON_STATUS_ACTIVE, "embedded", 1)
    attributes = [pb.PersonAttribute(name="givenName", values=["Anna", "Maria"]), pb.PersonAttribute(name="sn")]
    update = pb.UpdatePersonRequest(id=made.id, version=1, display_name="Anna M.", attributes=attributes)
    changed = await world.api.call("PersonService.Update", update, world.admin)
    assert (changed.version, changed.mail, list(changed.attributes)) == (2, "", attributes)
    assert await world.api.refused("PersonService.Update", update, world.admin) == ("ABORTED", "STALE_VERSION")

    group = await world.api.call("GroupService.Create", pb.CreateGroupRequest(name="Staff"), world.admin)
    again = await world.api.call("GroupService.Create", pb.CreateGroupRequest(name="STAFF"), world.admin)
    assert again == group
    member = {"group": group.id, "person": made.id}
    await world.api.call("GroupService.AddMember", pb.AddMemberRequest(**member), world.admin)
    shown = await world.api.call("PersonService.Get", pb.GetPersonRequest(id=made.id), world.admin)
    assert (shown.person, list(shown.groups)) == (changed, [group])
    await world.api.call("GroupService.RemoveMember", pb.RemoveMemberRequest(**member), world.admin)
    assert not (await world.api.call("PersonService.Get", pb.GetPersonRequest(id=made.id), world.admin)).groups

    officer = await make_operator(world.database, world.org, Role.SECURITY_OFFICER)
    erase = pb.ErasePersonRequest(id=made.id)
    assert await world.api.refused("PersonService.Erase", erase, officer) == ("FAILED_PRECONDITION", "NOT_ERASABLE")
    left = pb.SetPersonStatusRequest(id=made.id, status=pb.PERSON_STATUS_LEFT, reason="moved to Lima")
    assert (await world.api.call("PersonService.SetStatus", left, world.admin)).status == pb.PERSON_STATUS_LEFT
    await world.api.call("PersonService.Erase", erase, officer)
    assert world.keeper.forgotten == [UUID(made.id)]
    details = await world.database.read(lambda unit: unit.rows(select(audit_detail.c.detail)))
    assert not [row for row in details if "anna" in row.detail or "Lima" in row.detail]
    gone = await world.api.refused("PersonService.Get", pb.GetPersonRequest(id=made.id), world.admin)
    assert gone == ("PERMISSION_DENIED", "ACCESS_DENIED")


async def test_persons_and_groups_by_pages(world: World) -> None:
    for number in range(5):
        await world.person(f"p{number}")
        await world.api.call("GroupService.Create", pb.CreateGroupRequest(name=f"g{number}"), world.admin)
    found, token = [], ""
    while True:
        request = pb.FindPersonsRequest(text="example.org", page_size=2, page_token=token)
        page = await world.api.call("PersonService.Find", request, world.admin)
        found += [one.login for one in page.persons]
        token = page.next_page_token
        if not token:
            break
        assert len(page.persons) == 2
    assert [login for login in found if login.startswith("p")] == ["p0", "p1", "p2", "p3", "p4"]
    assert len(found) == 6  # and the administrator
    first = await world.api.call("GroupService.Find", pb.FindGroupsRequest(page_size=3), world.admin)
    rest_of = pb.FindGroupsRequest(page_size=3, page_token=first.next_page_token)
    rest = await world.api.call("GroupService.Find", rest_of, world.admin)
    assert [one.name for one in (*first.groups, *rest.groups)] == ["g0", "g1", "g2", "g3", "g4"]
    assert rest.next_page_token == ""
    # A token of another listing has another number of keys.
    other = pb.FindPersonsRequest(page_token=first.next_page_token)
    refused = await world.api.refused("PersonService.Find", other, world.admin)
    assert refused == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


async def test_two_of_one_name(world: World) -> None:
    await world.person("bert")
    again = pb.CreatePersonRequest(login="BERT")
    assert await world.api.refused("PersonService.Create", again, world.admin) == ("ALREADY_EXISTS", "LOGIN_TAKEN")
    invisible = pb.CreatePersonRequest(login="be\u200bt")
    assert await world.api.refused("PersonService.Create", invisible, world.admin) == ("INVALID_ARGUMENT", "BAD_NAME")


async def test_who_covers_a_part_of_the_directory_learns_nothing_of_the_rest(world: World) -> None:
    world.directory.add("inside", "a")
    world.directory.add("outside", "b")
    scoped = await make_operator(
        world.database, world.org, Role.ISSUANCE, scope=Scope(Reach.BRANCH, branch="ou=a,dc=example")
    )
    made = await world.api.call("PersonService.Import", pb.ImportPersonRequest(login="Inside"), scoped)
    assert (made.source, made.dn, made.login) == ("corp", "uid=inside,ou=a,dc=example", "inside")
    denied = ("PERMISSION_DENIED", "ACCESS_DENIED")
    for login in ("outside", "nobody"):
        assert await world.api.refused("PersonService.Import", pb.ImportPersonRequest(login=login), scoped) == denied
    nobody = await world.api.refused("PersonService.Import", pb.ImportPersonRequest(login="nobody"), world.admin)
    assert nobody == ("NOT_FOUND", "NO_SUCH_PERSON")
    await world.api.call("PersonService.Import", pb.ImportPersonRequest(login="outside"), world.admin)

    asked = world.directory.asked
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)
    assert await world.api.refused("PersonService.Import", pb.ImportPersonRequest(login="inside"), desk) == denied
    assert world.directory.asked == asked
    world.directory.away = True
    away = await world.api.refused("PersonService.Import", pb.ImportPersonRequest(login="inside"), world.admin)
    assert away == ("UNAVAILABLE", "DIRECTORY_UNAVAILABLE")
    elsewhere = await make_operator(world.database, uuid4(), Role.ADMINISTRATOR)
    none = await world.api.refused("PersonService.Import", pb.ImportPersonRequest(login="inside"), elsewhere)
    assert none == ("FAILED_PRECONDITION", "NO_DIRECTORY")


async def test_everybody_is_taken_over_as_a_stream(world: World) -> None:
    for login, unit in (("ada", "a"), ("bob", "a"), ("cyd", "b"), ("dan", "a")):
        world.directory.add(login, unit)
    await world.person("bob")
    request = pb.ImportAllPersonsRequest(under="ou=a,dc=example")
    world.directory.last = "cyd"
    answers, refused = await world.api.stream("PersonService.ImportAll", [request], world.admin)
    assert refused == ("UNAVAILABLE", "DIRECTORY_UNAVAILABLE")
    assert [(one.added, one.refused, [entry.login for entry in one.entries]) for one in answers] == [
        (1, 0, []),
        (1, 1, ["bob"]),
    ]
    world.directory.last, world.directory.away = "", False
    answers, refused = await world.api.stream("PersonService.ImportAll", [request], world.admin)
    last = answers[-1]
    assert (refused, last.added, last.changed, last.unchanged, last.refused) == (None, 1, 0, 1, 1)
    (entry,) = answers[1].entries
    assert (entry.login, entry.dn, entry.code) == ("bob", "uid=bob,ou=a,dc=example", "LOGIN_TAKEN")
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)
    for wrong, by, told in (
        (request, desk, ("PERMISSION_DENIED", "ACCESS_DENIED")),
        (pb.ImportAllPersonsRequest(under="ou=a,dc=other"), world.admin, ("NOT_FOUND", "NO_SUCH_BRANCH")),
        (pb.ImportAllPersonsRequest(under="x" * 2001), world.admin, ("INVALID_ARGUMENT", "REQUEST_MALFORMED")),
        (pb.ImportAllPersonsRequest(group_name="a=b,,"), world.admin, ("INVALID_ARGUMENT", "BAD_NAME")),
    ):
        assert await world.api.stream("PersonService.ImportAll", [wrong], by) == ([], told)


async def test_malformed_fields_record_nothing(world: World) -> None:
    made = await world.person("carl")
    many = [pb.PersonAttribute(name=f"a{number}") for number in range(61)]
    twice = [pb.PersonAttribute(name="a"), pb.PersonAttribute(name="a")]
    for name, request in (
        ("Create", pb.CreatePersonRequest()),
        ("Create", pb.CreatePersonRequest(login="x" * 201)),
        ("Create", pb.CreatePersonRequest(login="x", mail="a\nb@example.org")),
        ("Create", pb.CreatePersonRequest(login="x", display_name="x" * 301)),
        ("Create", pb.CreatePersonRequest(login="x", attributes=many)),
        ("Create", pb.CreatePersonRequest(login="x", attributes=twice)),
        ("Create", pb.CreatePersonRequest(login="x", attributes=[pb.PersonAttribute(name="a", values=["x"] * 21)])),
        ("SetStatus", pb.SetPersonStatusRequest(id=made.id)),
        ("SetStatus", pb.SetPersonStatusRequest(id=made.id, status=9)),  # type: ignore[arg-type]
        ("Find", pb.FindPersonsRequest(page_size=201)),
        ("Find", pb.FindPersonsRequest(page_token="e30")),
    ):
        refused = await world.api.refused(f"PersonService.{name}", request, world.admin)
        assert refused == ("INVALID_ARGUMENT", "REQUEST_MALFORMED"), request
    shown = await world.api.call("PersonService.Get", pb.GetPersonRequest(id=made.id), world.admin)
    assert shown.person == made
