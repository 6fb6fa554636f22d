"""``PersonService`` and ``GroupService`` of the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_proto.cms.v1 import people_pb2 as pb
from cardwright_proto.cms.v1 import people_pb2_grpc

from ..authentication.principal import Principal
from ..people.erasure import ErasureService
from ..people.importing import ImportAll, Imported, ImportService
from ..people.model import Group, Person, PersonStatus
from ..people.naming import LONGEST_DN, LONGEST_LOGIN, folded_login
from ..people.service import LONGEST_VALUE, MOST_ATTRIBUTES, MOST_VALUES, PeopleService
from ..store.unit import Unit
from . import pages
from . import reading as read
from .calling import Calls, Context
from .choices import Choices
from .errors import abort

LONGEST_NAME: Final = 300
LONGEST_MAIL: Final = 320
LONGEST_REASON: Final = 500
LONGEST_SEARCH: Final = 200
STATUSES = Choices(PersonStatus, pb.PersonStatus, "PERSON_STATUS")


class PersonServicer(people_pb2_grpc.PersonServiceServicer):
    """Decodes, calls the services, encodes."""

    def __init__(self, calls: Calls, people: PeopleService, imports: ImportService, erasure: ErasureService) -> None:
        self._calls = calls
        self._people = people
        self._imports = imports
        self._erasure = erasure

    async def Create(self, request: pb.CreatePersonRequest, context: Context) -> pb.Person:
        """A person of the embedded store."""

        async def work(unit: Unit, principal: Principal) -> Person:
            return await self._people.create_person(
                unit,
                principal,
                login=read.line(request.login, "login", LONGEST_LOGIN, least=1),
                display_name=read.line(request.display_name, "display_name", LONGEST_NAME),
                mail=read.line(request.mail, "mail", LONGEST_MAIL),
                attributes=_attributes(request.attributes),
            )

        return _person(await self._calls.write(context, work))

    async def Import(self, request: pb.ImportPersonRequest, context: Context) -> pb.Person:
        """A person of the directory."""

        async def work(principal: Principal) -> Person:
            login = read.line(request.login, "login", LONGEST_LOGIN, least=1)
            return await self._imports.import_person(principal, login)

        return _person(await self._calls.act(context, work))

    async def ImportAll(
        self, request: pb.ImportAllPersonsRequest, context: Context
    ) -> AsyncIterator[pb.ImportAllPersonsResponse]:
        """Everybody of the directory."""

        async def permit(principal: Principal) -> ImportAll:
            under = read.line(request.under, "under", LONGEST_DN)
            group = read.line(request.group_name, "group_name", LONGEST_DN)
            return await self._imports.permit_all(principal, under, group)

        permitted = await self._calls.act(context, permit)
        try:
            async with aclosing(self._imports.import_all(permitted)) as steps:
                async for step in steps:
                    yield _imported(step)
        except CardwrightError as error:
            await abort(context, error)

    async def Update(self, request: pb.UpdatePersonRequest, context: Context) -> pb.Person:
        """Replace what is known of a person."""

        async def work(unit: Unit, principal: Principal) -> Person:
            return await self._people.update_person(
                unit,
                principal,
                read.identifier(request.id, "id"),
                request.version,
                display_name=read.line(request.display_name, "display_name", LONGEST_NAME),
                mail=read.line(request.mail, "mail", LONGEST_MAIL),
                attributes=_attributes(request.attributes),
            )

        return _person(await self._calls.write(context, work))

    async def SetStatus(self, request: pb.SetPersonStatusRequest, context: Context) -> pb.Person:
        """Suspend a person, take them back, or record that they left."""

        async def work(unit: Unit, principal: Principal) -> Person:
            identifier = read.identifier(request.id, "id")
            status = STATUSES.one(request.status, "status")
            reason = read.line(request.reason, "reason", LONGEST_REASON)
            return await self._people.set_status(unit, principal, identifier, status, reason)

        return _person(await self._calls.write(context, work))

    async def Get(self, request: pb.GetPersonRequest, context: Context) -> pb.GetPersonResponse:
        """A person, with groups."""

        async def work(unit: Unit, principal: Principal) -> tuple[Person, list[Group]]:
            found = await self._people.get(unit, principal, read.identifier(request.id, "id"))
            return found, await self._people.groups_of(unit, found.org, found.id)

        found, groups = await self._calls.read(context, work)
        return pb.GetPersonResponse(person=_person(found), groups=map(_group, groups))

    async def Find(self, request: pb.FindPersonsRequest, context: Context) -> pb.FindPersonsResponse:
        """A page of persons."""

        async def work(unit: Unit, principal: Principal) -> pb.FindPersonsResponse:
            page = read.page(request.page_size, request.page_token)
            text = read.line(request.text, "text", LONGEST_SEARCH)
            after = page.after[0] if page.after else ""
            found = await self._people.find(unit, principal, text, after=after, limit=page.asked)
            shown, last = page.cut(found)
            token = "" if last is None else read.page_token(folded_login(last.login))
            return pb.FindPersonsResponse(persons=map(_person, shown), next_page_token=token)

        return await self._calls.read(context, work)

    async def Erase(self, request: pb.ErasePersonRequest, context: Context) -> pb.ErasePersonResponse:
        """Remove a person who left."""

        async def work(unit: Unit, principal: Principal) -> None:
            await self._erasure.erase(unit, principal, read.identifier(request.id, "id"))

        await self._calls.write(context, work)
        return pb.ErasePersonResponse()


class GroupServicer(people_pb2_grpc.GroupServiceServicer):
    """Decodes, calls the service, encodes."""

    def __init__(self, calls: Calls, people: PeopleService) -> None:
        self._calls = calls
        self._people = people

    async def Create(self, request: pb.CreateGroupRequest, context: Context) -> pb.Group:
        """A group of the embedded store."""

        async def work(unit: Unit, principal: Principal) -> Group:
            name = read.line(request.name, "name", LONGEST_LOGIN, least=1)
            return await self._people.create_group(unit, principal, name)

        return _group(await self._calls.write(context, work))

    async def AddMember(self, request: pb.AddMemberRequest, context: Context) -> pb.AddMemberResponse:
        """Put a person into a group."""

        async def work(unit: Unit, principal: Principal) -> None:
            group, person = read.identifier(request.group, "group"), read.identifier(request.person, "person")
            await self._people.add_member(unit, principal, group, person)

        await self._calls.write(context, work)
        return pb.AddMemberResponse()

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        """Take a person out of a group."""

        async def work(unit: Unit, principal: Principal) -> None:
            group, person = read.identifier(request.group, "group"), read.identifier(request.person, "person")
            await self._people.remove_member(unit, principal, group, person)

        await self._calls.write(context, work)
        return pb.RemoveMemberResponse()

    async def Find(self, request: pb.FindGroupsRequest, context: Context) -> pb.FindGroupsResponse:
        """A page of groups."""

        async def work(unit: Unit, principal: Principal) -> pb.FindGroupsResponse:
            page = read.page(request.page_size, request.page_token, keys=2)
            after = pages.after_text(page)
            shown, last = page.cut(await self._people.find_groups(unit, principal, after=after, limit=page.asked))
            token = "" if last is None else read.page_token(folded_login(last.name), str(last.id))
            return pb.FindGroupsResponse(groups=map(_group, shown), next_page_token=token)

        return await self._calls.read(context, work)


def _attributes(rows: Sequence[pb.PersonAttribute]) -> dict[str, list[str]]:
    read.at_most(rows, MOST_ATTRIBUTES, "attributes")
    made: dict[str, list[str]] = {}
    for row in rows:
        name = read.line(row.name, "attributes.name", 60, least=1)
        if name in made:
            raise read.RequestMalformed("attributes names something twice.")
        read.at_most(row.values, MOST_VALUES, "attributes.values")
        made[name] = [read.line(value, "attributes.values", LONGEST_VALUE) for value in row.values]
    return made


def _person(found: Person) -> pb.Person:
    return pb.Person(
        id=str(found.id),
        login=found.login,
        display_name=found.display_name,
        mail=found.mail,
        status=STATUSES.number(found.status),
        source=found.source,
        dn=found.dn,
        attributes=[pb.PersonAttribute(name=name, values=values) for name, values in found.attributes.items()],
        version=found.version,
    )


def _imported(step: Imported) -> pb.ImportAllPersonsResponse:
    entries = [pb.RefusedEntry(login=one.login, dn=one.dn, code=one.code, reason=one.reason) for one in step.entries]
    return pb.ImportAllPersonsResponse(
        added=step.added, changed=step.changed, unchanged=step.unchanged, refused=step.refused, entries=entries
    )


def _group(found: Group) -> pb.Group:
    return pb.Group(id=str(found.id), name=found.name, source=found.source)
