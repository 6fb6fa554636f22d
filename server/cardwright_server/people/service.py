"""Rules of persons and groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.authorize import Authorize, CallTarget, Permission
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..notify.model import DomainEvent
from ..store.unit import Unit
from . import store
from .directory import DirectoryEntry
from .errors import BadAttribute, DirectoryOwned, LoginTaken, NoSuchGroup, NoSuchPerson, NotErasable
from .journal import STATUS_CHANGED, erased_event, status_event
from .mapping import CertificateFields, CertificateMapping, certificate_fields
from .model import EMBEDDED, Group, Person, PersonStatus, Role, Taken
from .naming import branch_path, folded_login
from .standing import PeopleStandings

MOST_RESULTS = 201
"""One more than a page shows, so that its reader sees whether anything follows."""
MOST_ATTRIBUTES = 60
MOST_VALUES = 20
LONGEST_VALUE = 1000


class PeopleService:
    """Persons and groups of every source. Stateless."""

    def __init__(self, authorize: Authorize, mapping: CertificateMapping | None = None) -> None:
        self._authorize = authorize
        self._mapping = mapping or CertificateMapping()

    async def create_person(
        self,
        unit: Unit,
        principal: Principal,
        *,
        login: str,
        display_name: str,
        mail: str = "",
        attributes: Mapping[str, Sequence[str]] | None = None,
    ) -> Person:
        """Add a person to the embedded store. Raises AuthorizationError, LoginTaken, BadName, BadAttribute."""
        await self._authorize(unit, principal, Call("PersonService.Create"), CallTarget(principal.org))
        return await self._insert(unit, principal, login, display_name, mail, attributes or {}, EMBEDDED, "", "")

    async def update_person(
        self,
        unit: Unit,
        principal: Principal,
        identifier: UUID,
        version: int,
        *,
        display_name: str,
        mail: str,
        attributes: Mapping[str, Sequence[str]],
    ) -> Person:
        """Replace what is known of a person of the embedded store.

        Raises AuthorizationError, NoSuchPerson, StaleVersion, DirectoryOwned, BadAttribute.
        """
        target = CallTarget(principal.org, identifier)
        await self._authorize(unit, principal, Call("PersonService.Update"), target)
        person = await self.person(unit, principal.org, identifier)
        if person.source != EMBEDDED:
            raise DirectoryOwned("this person comes from a directory")
        _check(display_name, mail, attributes)
        values = store.person_values(person.login, display_name, mail, attributes, person.dn)
        await store.update_person(unit, identifier, version, values)
        self._record(unit, principal, "person.changed", identifier, {})
        return await self.person(unit, principal.org, identifier)

    async def set_status(
        self, unit: Unit, principal: Principal, identifier: UUID, status: PersonStatus, reason: str = ""
    ) -> Person:
        """Suspend a person, take it back, or record that they left. Other domains act on the event.

        Raises AuthorizationError, NoSuchPerson, StaleVersion. The same status again changes nothing.
        """
        await self._authorize(unit, principal, Call("PersonService.SetStatus"), CallTarget(principal.org, identifier))
        person = await self.person(unit, principal.org, identifier)
        if person.status is status:
            return person
        unit.beforehand(status_event(principal.org, identifier, status))
        await store.update_person(unit, identifier, person.version, {"status": status})
        for account in await store.operators_of(unit, identifier):
            await store.bump_roles(unit, account)
        facts: dict[str, Fact] = {"before": person.status, "after": status}
        self._record(unit, principal, STATUS_CHANGED, identifier, facts, {"reason": reason} if reason else {})
        return await self.person(unit, principal.org, identifier)

    async def import_entry(self, unit: Unit, principal: Principal, entry: DirectoryEntry) -> Person:
        """As ``take_over``."""
        return (await self.take_over(unit, principal, entry))[0]

    async def take_over(self, unit: Unit, principal: Principal, entry: DirectoryEntry) -> tuple[Person, Taken]:
        """Take over a person from a directory, new or changed, with groups; what is equal stays untouched.

        The directory's lasting id decides who it is, so that a renamed person stays the same person. Raises
        AuthorizationError, LoginTaken (by another source or entry), BadName, BadAttribute.
        """
        org = principal.org
        call = Call("PersonService.Import")
        path = branch_path(entry.dn)
        person = await store.person_by_entry(unit, org, entry.source, entry.entry)
        taken = Taken.UNCHANGED
        if person is None:
            await self._authorize(unit, principal, call, CallTarget(org, path=path))
            taken = Taken.ADDED
            person = await self._insert(
                unit,
                principal,
                entry.login,
                entry.display_name,
                entry.mail,
                entry.attributes,
                entry.source,
                entry.entry,
                entry.dn,
            )
        else:
            await self._authorize(unit, principal, call, CallTarget(org, person.id))
            if path != branch_path(person.dn):
                # Who may act on a person must not be able to take over one from elsewhere, or push one out.
                await self._authorize(unit, principal, call, CallTarget(org, path=path))
            known, person = person, await self._refresh(unit, principal, person, entry)
            if person is not known:
                taken = Taken.CHANGED
        moved = await self._take_over_groups(unit, principal, person, entry)
        return person, Taken.CHANGED if moved and taken is Taken.UNCHANGED else taken

    async def get(self, unit: Unit, principal: Principal, identifier: UUID) -> Person:
        """A person. Raises AuthorizationError, NoSuchPerson."""
        await self._authorize(unit, principal, Call("PersonService.Get"), CallTarget(principal.org, identifier))
        return await self.person(unit, principal.org, identifier)

    async def find(
        self, unit: Unit, principal: Principal, text: str = "", *, after: str = "", limit: int = 50
    ) -> list[Person]:
        """Persons whom the caller's grants cover and whose login or names hold every word of ``text``.

        In the order of folded logins, from beyond ``after``. Raises AuthorizationError.
        """
        permission = await self._authorize(unit, principal, Call("PersonService.Find"), CallTarget(principal.org))
        words = text.casefold().split()[:10]
        covered = store.covered(permission.grants)
        return await store.find_persons(unit, principal.org, words, covered, after, min(limit, MOST_RESULTS))

    async def erase(self, unit: Unit, principal: Principal, identifier: UUID) -> None:
        """Remove a person who left, with attributes and memberships; ids in records of others then name nobody.

        The caller erases what other domains keep of them in the same unit. Raises AuthorizationError, NoSuchPerson,
        NotErasable.
        """
        await self._authorize(unit, principal, Call("PersonService.Erase"), CallTarget(principal.org, identifier))
        person = await self.person(unit, principal.org, identifier)
        if person.status is not PersonStatus.LEFT or await store.operators_of(unit, identifier):
            raise NotErasable("only a person who left and has no operator account is erased")
        unit.beforehand(erased_event(principal.org, identifier))
        await store.delete_person(unit, identifier)
        self._record(unit, principal, "person.erased", identifier, {})

    async def create_group(self, unit: Unit, principal: Principal, name: str) -> Group:
        """A group of ours; an existing one of the name is given back. Raises AuthorizationError, BadName."""
        await self._authorize(unit, principal, Call("GroupService.Create"), CallTarget(principal.org))
        identifier, added = await store.ensure_group(unit, principal.org, name, EMBEDDED, "")
        if added:
            self._record(unit, principal, "group.created", identifier, {}, {"name": name}, kind="group")
        return await self.group(unit, principal.org, identifier)

    async def add_member(self, unit: Unit, principal: Principal, group: UUID, identifier: UUID) -> None:
        """Put a person into a group of ours. Raises AuthorizationError, NoSuchGroup, NoSuchPerson, DirectoryOwned."""
        await self._authorize(unit, principal, Call("GroupService.AddMember"), CallTarget(principal.org, identifier))
        await self._own_group(unit, principal.org, group)
        await self.person(unit, principal.org, identifier)
        if await store.add_member(unit, principal.org, identifier, group):
            self._record(unit, principal, "group.member-added", identifier, {"group": str(group)})

    async def remove_member(self, unit: Unit, principal: Principal, group: UUID, identifier: UUID) -> None:
        """Take a person out of a group of ours. Raises as ``add_member``."""
        await self._authorize(unit, principal, Call("GroupService.RemoveMember"), CallTarget(principal.org, identifier))
        await self._own_group(unit, principal.org, group)
        if await store.remove_member(unit, identifier, group):
            self._record(unit, principal, "group.member-removed", identifier, {"group": str(group)})

    async def find_groups(
        self, unit: Unit, principal: Principal, *, after: tuple[str, UUID] | None = None, limit: int = MOST_RESULTS
    ) -> list[Group]:
        """Groups: all, or those that a caller's grants name. Raises AuthorizationError.

        In the order of (folded name, id), from beyond ``after``.
        """
        permission = await self._authorize(unit, principal, Call("GroupService.Find"), CallTarget(principal.org))
        named = frozenset(grant.scope.group for grant in permission.grants if grant.scope.group is not None)
        among = None if permission.everywhere else named
        return await store.find_groups(unit, principal.org, among, after, min(limit, MOST_RESULTS))

    # What other domains ask, after they have authorized their own call.

    async def person(self, unit: Unit, org: UUID, identifier: UUID) -> Person:
        """A person of an organization. Raises NoSuchPerson."""
        found = await store.person_by_id(unit, org, identifier)
        if found is None:
            raise NoSuchPerson("there is no such person")
        return found

    async def add_first(self, unit: Unit, principal: Principal, *, login: str, display_name: str, mail: str) -> UUID:
        """Add a person for the first credential, which has authorized that itself. Raises as ``create_person``."""
        return (await self._insert(unit, principal, login, display_name, mail, {}, EMBEDDED, "", "")).id

    async def by_login(self, unit: Unit, org: UUID, login: str) -> Person | None:
        """A person by login, in whatever case and width it was typed. Raises BadName."""
        return await store.person_by_login(unit, org, folded_login(login))

    async def logins(self, unit: Unit, org: UUID, identifiers: Collection[UUID]) -> dict[UUID, str]:
        """Logins of persons by their ids, without those who are not there."""
        return await store.logins(unit, org, identifiers)

    async def group(self, unit: Unit, org: UUID, identifier: UUID) -> Group:
        """A group of an organization. Raises NoSuchGroup."""
        found = await store.group_by_id(unit, org, identifier)
        if found is None:
            raise NoSuchGroup("there is no such group")
        return found

    async def groups_of(self, unit: Unit, org: UUID, identifier: UUID) -> list[Group]:
        """The groups of a person, oldest first: device policies are chosen by them. Raises NoSuchPerson."""
        await self.person(unit, org, identifier)
        return await store.groups_of(unit, identifier)

    async def desk_of(self, unit: Unit, org: UUID, identifier: UUID) -> list[Person]:
        """Who is to help a person: operators of the help desk whose grants cover them, but not they themselves."""
        standings = PeopleStandings()
        standing = await standings.person(unit, identifier)
        if standing is None or standing.org != org:
            return []
        desk = await store.holders(unit, org, Role.HELP_DESK)
        covering = [one for one, grant in desk if one.id != identifier and standings.covers(grant, standing)]
        return list({one.id: one for one in covering}.values())

    async def certificate_fields(self, unit: Unit, org: UUID, identifier: UUID) -> CertificateFields:
        """What certificates say of a person. Raises NoSuchPerson, FieldMissing."""
        return certificate_fields(self._mapping, await self.person(unit, org, identifier))

    def covered(self, permission: Permission) -> Any:
        """A subquery of the ids of persons whom a permission covers: ``column.in_(people.covered(permission))``.

        For lists of what belongs to persons. With ``permission.everywhere`` no condition is needed; with
        ``permission.own`` compare with that instead.
        """
        return store.ids_covered(permission.principal.org, permission.grants)

    async def _insert(
        self,
        unit: Unit,
        principal: Principal,
        login: str,
        display_name: str,
        mail: str,
        attributes: Mapping[str, Sequence[str]],
        source: str,
        entry: str,
        dn: str,
    ) -> Person:
        _check(display_name, mail, attributes)
        values = store.person_values(login, display_name, mail, attributes, dn)
        values |= {"status": PersonStatus.ACTIVE, "source": source, "entry": entry}
        identifier = await store.insert_person(unit, principal.org, values)
        if identifier is None:
            raise LoginTaken("someone has this login already")
        self._record(unit, principal, "person.created", identifier, {"source": source}, {"login": login})
        return await self.person(unit, principal.org, identifier)

    async def _refresh(self, unit: Unit, principal: Principal, person: Person, entry: DirectoryEntry) -> Person:
        _check(entry.display_name, entry.mail, entry.attributes)
        known = (person.login, person.display_name, person.mail, person.dn, dict(person.attributes))
        if known == (entry.login, entry.display_name, entry.mail, entry.dn, dict(entry.attributes)):
            return person
        holder = await store.person_by_login(unit, principal.org, folded_login(entry.login))
        if holder is not None and holder.id != person.id:
            raise LoginTaken("someone has this login already")
        values = store.person_values(entry.login, entry.display_name, entry.mail, entry.attributes, entry.dn)
        await store.update_person(unit, person.id, person.version, values)
        self._record(unit, principal, "person.changed", person.id, {"source": entry.source})
        return await self.person(unit, principal.org, person.id)

    async def _take_over_groups(self, unit: Unit, principal: Principal, person: Person, entry: DirectoryEntry) -> bool:
        wanted = {
            (await store.ensure_group(unit, principal.org, name, entry.source, _place(dn)))[0]
            for name, dn in entry.groups
        }
        held = {group.id for group in await store.groups_of(unit, person.id) if group.source == entry.source}
        for group in sorted(wanted - held):
            await store.add_member(unit, principal.org, person.id, group)
            self._record(unit, principal, "group.member-added", person.id, {"group": str(group)})
        for group in sorted(held - wanted):
            await store.remove_member(unit, person.id, group)
            self._record(unit, principal, "group.member-removed", person.id, {"group": str(group)})
        return wanted != held

    async def _own_group(self, unit: Unit, org: UUID, identifier: UUID) -> None:
        if (await self.group(unit, org, identifier)).source != EMBEDDED:
            raise DirectoryOwned("this group comes from a directory")

    def _record(
        self,
        unit: Unit,
        principal: Principal,
        action: str,
        identifier: UUID,
        facts: Mapping[str, Fact],
        personal: Mapping[str, str] | None = None,
        *,
        kind: str = "person",
    ) -> None:
        target = Target(kind, identifier)
        unit.audit(AuditEntry(principal.org, principal.who, action, target, facts=facts, personal=personal or {}))
        unit.emit(
            DomainEvent(principal.org, action, kind, identifier, identifier if kind == "person" else None, dict(facts))
        )


def _place(dn: str) -> str:
    return sha256(branch_path(dn).encode("utf-8", "surrogatepass")).hexdigest()


def _check(display_name: str, mail: str, attributes: Mapping[str, Sequence[str]]) -> None:
    if len(display_name) > 300 or len(mail) > 320:
        raise BadAttribute("a name has at most 300 characters, a mail address 320")
    if len(attributes) > MOST_ATTRIBUTES:
        raise BadAttribute(f"a person has at most {MOST_ATTRIBUTES} attributes")
    for name, values in attributes.items():
        if not 0 < len(name) <= 60 or len(values) > MOST_VALUES or any(len(value) > LONGEST_VALUE for value in values):
            raise BadAttribute(
                "an attribute has a name of 1 to 60 characters and at most 20 values of 1,000 characters"
            )
