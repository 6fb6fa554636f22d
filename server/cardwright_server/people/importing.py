"""Persons are taken over from a directory by their login, one at a time, by who may act on them there."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..store.unit import Database, Unit
from .directory import Directory
from .errors import NoDirectory, NoSuchPerson
from .model import Person
from .naming import folded_login
from .service import PeopleService


class ImportService:
    """Looks into an organization's directory and has ``PeopleService`` take over what it finds. Opens its own units,
    so that no transaction waits for a directory."""

    def __init__(
        self, database: Database, authorize: Authorize, people: PeopleService, directories: Mapping[UUID, Directory]
    ) -> None:
        """``directories``: of each organization that has one."""
        self._database = database
        self._authorize = authorize
        self._people = people
        self._directories = directories

    async def import_person(self, principal: Principal, login: str) -> Person:
        """Take over a person, new or changed. Who may not is not told whether the directory knows the login.

        Raises AuthorizationError, NoDirectory, NoSuchPerson, BadName, DirectoryError, and as
        ``PeopleService.import_entry``.
        """
        await self._database.read(lambda unit: self._may_look(unit, principal))
        directory = self._directories.get(principal.org)
        if directory is None:
            raise NoDirectory("this organization has no directory")
        entry = await directory.find(folded_login(login))
        if entry is None:
            # Asked as for someone of no place: a grant for a part of the directory is refused, as it would be for
            # someone outside of that part.
            await self._database.read(lambda unit: self._may_import(unit, principal))
            raise NoSuchPerson("the directory knows nobody of this login")
        return await self._database.transact(lambda unit: self._people.import_entry(unit, principal, entry))

    async def _may_look(self, unit: Unit, principal: Principal) -> None:
        await self._authorize(unit, principal, Call("PersonService.Import/look"), CallTarget(principal.org))

    async def _may_import(self, unit: Unit, principal: Principal) -> None:
        await self._authorize(unit, principal, Call("PersonService.Import"), CallTarget(principal.org))
