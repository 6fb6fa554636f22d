"""Persons are taken over from a directory, by their login or all of a part of it, by who may act on them there."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from cardwright_cardops.errors import CardwrightError

from ..authentication.authorize import Authorize, CallTarget, Permission
from ..authentication.errors import AccessDenied
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..store.errors import StaleVersion
from ..store.unit import Database, Unit
from .directory import DirectoryEntry, EntryPage, NoSuchBranch, ReadableDirectory, UnusableEntry
from .errors import ImportRunning, NoDirectory, NoSuchPerson, PeopleError
from .model import Person, Reach, Taken
from .naming import BadName, branch_path, folded_login
from .service import PeopleService

_STAYS: Final = "Who was taken over before stays."
_AGAIN: Final = "Then import again: who is here already is not changed by it."


@dataclass(frozen=True, slots=True)
class ImportAll:
    """Leave to take over everybody at or below ``places`` (distinguished names), or of them who is in ``group``."""

    principal: Principal
    directory: ReadableDirectory
    places: tuple[str, ...]
    group: str


@dataclass(frozen=True, slots=True)
class Imported:
    """How far it is: numbers of everything so far, and the ``entries`` that were refused since the step before."""

    added: int
    changed: int
    unchanged: int
    refused: int
    entries: tuple[UnusableEntry, ...]


class ImportService:
    """Looks into an organization's directory and has ``PeopleService`` take over what it finds. Opens its own units,
    so that no transaction waits for a directory."""

    def __init__(
        self,
        database: Database,
        authorize: Authorize,
        people: PeopleService,
        directories: Mapping[UUID, ReadableDirectory],
    ) -> None:
        """``directories``: of each organization that has one."""
        self._database = database
        self._authorize = authorize
        self._people = people
        self._directories = directories
        self._running: set[UUID] = set()

    async def import_person(self, principal: Principal, login: str) -> Person:
        """Take over a person, new or changed. Who may not is not told whether the directory knows the login.

        Raises AuthorizationError, NoDirectory, NoSuchPerson, BadName, DirectoryError, and as
        ``PeopleService.import_entry``.
        """
        await self._database.read(lambda unit: self._may_look(unit, principal))
        directory = self._directory(principal)
        entry = await directory.find(folded_login(login))
        if entry is None:
            # Asked as for someone of no place: a grant for a part of the directory is refused, as it would be for
            # someone outside of that part.
            await self._database.read(lambda unit: self._may_import(unit, principal))
            raise NoSuchPerson("the directory knows nobody of this login")
        return await self._database.transact(lambda unit: self._people.import_entry(unit, principal, entry))

    async def permit_all(self, principal: Principal, under: str = "", group: str = "") -> ImportAll:
        """Leave for ``import_all``: of what lies at or below ``under``, only what the caller's grants name.

        Raises AuthorizationError, also where they name no part of the directory; NoDirectory, BadName, NoSuchBranch.
        """
        permission = await self._database.read(lambda unit: self._may_import_all(unit, principal))
        directory = self._directory(principal)
        branch_path(group if "=" in group else "")
        mine = _places(permission, directory.base)
        places = _narrowed(mine, under) if under else mine
        if places:
            return ImportAll(principal, directory, places, group)
        if permission.everywhere:
            raise NoSuchBranch("that is no place at or below the base of the directory")
        raise AccessDenied("PersonService.ImportAll is not open to you for this")

    async def import_all(self, permitted: ImportAll) -> AsyncGenerator[Imported, None]:
        """Take over everybody, each in a transaction of their own: one that is refused stops nobody else. After each
        page of the directory it says how far it is, and whether the caller still may is asked before.

        Raises ImportRunning, AuthorizationError, DirectoryError, StoreError: what was done before stays.
        """
        org = permitted.principal.org
        if org in self._running:
            # Each holds one of the few sessions with the directory that proofs need, too.
            raise ImportRunning("everybody is being taken over from this directory already")
        self._running.add(org)
        done: Counter[Taken] = Counter()
        refused = 0
        try:
            for place in permitted.places:
                async with aclosing(permitted.directory.pages(place, permitted.group)) as pages:
                    async for page in pages:
                        entries = await self._take_over(permitted.principal, page, done)
                        refused += len(entries)
                        yield Imported(done[Taken.ADDED], done[Taken.CHANGED], done[Taken.UNCHANGED], refused, entries)
        except CardwrightError as error:
            if done:
                error.effect, error.advice = _STAYS, " ".join(part for part in (error.advice, _AGAIN) if part)
            raise
        finally:
            self._running.remove(org)

    async def _take_over(
        self, principal: Principal, page: EntryPage, done: Counter[Taken]
    ) -> tuple[UnusableEntry, ...]:
        await self._database.read(lambda unit: self._may_import_all(unit, principal))
        refused: list[UnusableEntry] = []
        for entry in page:
            if isinstance(entry, UnusableEntry):
                refused.append(entry)
                continue
            try:
                done[await self._one(principal, entry)] += 1
            except (PeopleError, BadName, AccessDenied, StaleVersion) as error:
                refused.append(UnusableEntry(entry.dn, entry.login, error.code, error.message))
        return tuple(refused)

    async def _one(self, principal: Principal, entry: DirectoryEntry) -> Taken:
        return (await self._database.transact(lambda unit: self._people.take_over(unit, principal, entry)))[1]

    def _directory(self, principal: Principal) -> ReadableDirectory:
        found = self._directories.get(principal.org)
        if found is None:
            raise NoDirectory("this organization has no directory")
        return found

    async def _may_look(self, unit: Unit, principal: Principal) -> None:
        await self._authorize(unit, principal, Call("PersonService.Import/look"), CallTarget(principal.org))

    async def _may_import(self, unit: Unit, principal: Principal) -> None:
        await self._authorize(unit, principal, Call("PersonService.Import"), CallTarget(principal.org))

    async def _may_import_all(self, unit: Unit, principal: Principal) -> Permission:
        return await self._authorize(unit, principal, Call("PersonService.ImportAll"), CallTarget(principal.org))


def _places(permission: Permission, base: str) -> tuple[str, ...]:
    """What grants name of a directory, each part once. A group of persons is no place."""
    if permission.everywhere:
        return (base,)
    branches = {grant.scope.branch for grant in permission.grants if grant.scope.reach is Reach.BRANCH}
    return _narrowed(tuple(sorted(branches)), base)


def _narrowed(places: tuple[str, ...], within: str) -> tuple[str, ...]:
    """What is common to ``places`` and ``within``, without what lies at or below another of them."""
    wanted, found = branch_path(within), {}
    for place in places:
        path = branch_path(place)
        if path.startswith(wanted):
            found[path] = place
        elif wanted.startswith(path):
            found[wanted] = within
    return tuple(
        place for path, place in found.items() if not any(path != one and path.startswith(one) for one in found)
    )
