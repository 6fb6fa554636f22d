"""SQL of people's tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Row, Table, delete, false, func, or_, select, true

from ..store.people_tables import membership, operator, operator_grant, operator_key, person, person_group
from ..store.unit import Unit
from .model import AccountKind, Grant, Group, Operator, OperatorKey, Person, PersonStatus, Reach, Role, Scope
from .naming import branch_path, folded_login


def _person(row: Row[Any]) -> Person:
    return Person(
        id=row.id,
        org=row.org,
        login=row.login,
        display_name=row.display_name,
        mail=row.mail,
        status=PersonStatus(row.status),
        source=row.source,
        entry=row.entry,
        dn=row.dn,
        attributes={name: tuple(values) for name, values in row.attributes.items()},
        version=row.version,
    )


def _grant(row: Row[Any]) -> Grant:
    return Grant(Role(row.role), Scope(Reach(row.reach), row.scope_group, row.branch))


def _group(row: Row[Any]) -> Group:
    return Group(row.id, row.org, row.name, row.source, row.entry, row.version)


async def person_by_id(unit: Unit, org: UUID, identifier: UUID) -> Person | None:
    """A person of an organization."""
    row = await unit.row(select(person).where(person.c.id == identifier, person.c.org == org))
    return _person(row) if row is not None else None


async def logins(unit: Unit, org: UUID, identifiers: Collection[UUID]) -> dict[UUID, str]:
    """Logins by ids, of those persons whom an organization has."""
    statement = select(person.c.id, person.c.login).where(person.c.org == org, person.c.id.in_(identifiers))
    return {row.id: row.login for row in await unit.rows(statement)}


async def person_by_login(unit: Unit, org: UUID, folded: str) -> Person | None:
    """A person by the folded form of the login."""
    row = await unit.row(select(person).where(person.c.org == org, person.c.folded_login == folded))
    return _person(row) if row is not None else None


async def person_by_entry(unit: Unit, org: UUID, source: str, entry: str) -> Person | None:
    """A person by the directory's lasting id. Raises MultipleResultsFound if the store is not what it should be."""
    row = await unit.row(select(person).where(person.c.org == org, person.c.source == source, person.c.entry == entry))
    return _person(row) if row is not None else None


async def find_persons(
    unit: Unit, org: UUID, words: Sequence[str], covered: ColumnElement[bool], after: str, limit: int
) -> list[Person]:
    """Persons whose login or names contain every word, in the order of folded logins, from beyond ``after``."""
    statement = select(person).where(person.c.org == org, covered, person.c.folded_login > after)
    for word in words:
        statement = statement.where(person.c.search.contains(word, autoescape=True))
    return [_person(row) for row in await unit.rows(statement.order_by(person.c.folded_login).limit(limit))]


def covered(grants: Iterable[Grant]) -> ColumnElement[bool]:
    """Which rows of ``person`` grants cover, whatever the organization."""
    clauses: list[ColumnElement[bool]] = []
    for grant in grants:
        match grant.scope.reach:
            case Reach.EVERYWHERE:
                return true()
            case Reach.GROUP:
                inside = select(membership.c.person).where(membership.c.member_of == grant.scope.group)
                clauses.append(person.c.id.in_(inside))
            case Reach.BRANCH:
                clauses.append(person.c.path.startswith(branch_path(grant.scope.branch), autoescape=True))
    return or_(*clauses) if clauses else false()


def ids_covered(org: UUID, grants: Iterable[Grant]) -> Any:
    """A subquery of the ids of an organization's persons whom grants cover."""
    return select(person.c.id).where(person.c.org == org, covered(grants))


def person_values(
    login: str, display_name: str, mail: str, attributes: Mapping[str, Sequence[str]], dn: str
) -> dict[str, Any]:
    """Columns that follow from what a person is. Raises BadName."""
    folded = folded_login(login)
    return {
        "login": login.strip(),
        "folded_login": folded,
        "display_name": display_name,
        "mail": mail,
        "dn": dn,
        "path": branch_path(dn),
        "attributes": {name: list(values) for name, values in attributes.items()},
        "search": f"{folded} {display_name} {mail}".casefold()[:2000],
    }


async def insert_person(unit: Unit, org: UUID, values: Mapping[str, Any]) -> UUID | None:
    """Add a person; None if the login is taken."""
    added: UUID | None = await unit.insert_if_absent(person, {"org": org, **values}, ["org", "folded_login"])
    return added


async def update_person(unit: Unit, identifier: UUID, version: int, values: Mapping[str, Any]) -> int:
    """Change a person. Raises StaleVersion."""
    return await unit.update(person, identifier, version, values)


async def forget_person(unit: Unit, org: UUID, identifier: UUID) -> bool:
    """Remove a person of an organization with memberships; False if there is none."""
    gone = delete(person).where(person.c.id == identifier, person.c.org == org)
    return (await unit.execute(gone)).rowcount > 0


async def delete_person(unit: Unit, identifier: UUID) -> None:
    """Remove a person with memberships. The caller has seen to operators."""
    await unit.execute(delete(person).where(person.c.id == identifier))


async def standing(unit: Unit, identifier: UUID) -> tuple[Row[Any], frozenset[UUID]] | None:
    """(org, status, path) of a person and the groups, in one statement."""
    joined = person.outerjoin(membership, membership.c.person == person.c.id)
    rows = await unit.rows(
        select(person.c.org, person.c.status, person.c.path, membership.c.member_of)
        .select_from(joined)
        .where(person.c.id == identifier)
    )
    if not rows:
        return None
    return rows[0], frozenset(row.member_of for row in rows if row.member_of is not None)


async def groups_of(unit: Unit, identifier: UUID) -> list[Group]:
    """The groups of a person."""
    joined = person_group.join(membership, membership.c.member_of == person_group.c.id)
    rows = await unit.rows(
        select(person_group).select_from(joined).where(membership.c.person == identifier).order_by(person_group.c.id)
    )
    return [_group(row) for row in rows]


async def group_by_id(unit: Unit, org: UUID, identifier: UUID) -> Group | None:
    """A group of an organization."""
    row = await unit.row(select(person_group).where(person_group.c.id == identifier, person_group.c.org == org))
    return _group(row) if row is not None else None


async def find_groups(
    unit: Unit, org: UUID, among: frozenset[UUID] | None, after: tuple[str, UUID] | None, limit: int
) -> list[Group]:
    """Groups by folded name and id, from beyond a place; only those of ``among`` unless that is None."""
    name, identifier = person_group.c.folded_name, person_group.c.id
    statement = select(person_group).where(person_group.c.org == org, _beyond(name, identifier, after))
    if among is not None:
        statement = statement.where(identifier.in_(among))
    return [_group(row) for row in await unit.rows(statement.order_by(name, identifier).limit(limit))]


async def ensure_group(unit: Unit, org: UUID, name: str, source: str, entry: str) -> tuple[UUID, bool]:
    """The id of a group, and whether it was added just now. Raises BadName."""
    values = {"org": org, "name": name, "folded_name": folded_login(name), "source": source, "entry": entry}
    unique = ["org", "source", "folded_name", "entry"]
    added: UUID | None = await unit.insert_if_absent(person_group, values, unique)
    if added is not None:
        return added, True
    found: UUID = await unit.value(
        select(person_group.c.id).where(*(person_group.c[column] == values[column] for column in unique))
    )
    return found, False


async def add_member(unit: Unit, org: UUID, identifier: UUID, group: UUID) -> bool:
    """Put a person into a group; whether that changed anything."""
    values = {"org": org, "person": identifier, "member_of": group}
    return await unit.insert_if_absent(membership, values, ["person", "member_of"]) is not None


async def remove_member(unit: Unit, identifier: UUID, group: UUID) -> bool:
    """Take a person out of a group; whether that changed anything."""
    gone = await unit.execute(
        delete(membership).where(membership.c.person == identifier, membership.c.member_of == group)
    )
    return gone.rowcount > 0


def _beyond(text: Column[str], identifier: Column[UUID], after: tuple[str, UUID] | None) -> ColumnElement[bool]:
    """Which rows follow a place in the order of a text and, among equal ones, of ids."""
    return true() if after is None else or_(text > after[0], (text == after[0]) & (identifier > after[1]))


def _operator(row: Row[Any], grants: Iterable[Grant]) -> Operator:
    return Operator(
        id=row.id,
        org=row.org,
        kind=AccountKind(row.kind),
        person=row.person,
        label=row.label,
        active=row.active,
        role_version=row.role_version,
        grants=tuple(grants),
    )


async def account_standing(unit: Unit, identifier: UUID) -> Row[Any] | None:
    """(org, kind, active, role_version, status of the person or None) of an operator."""
    joined = operator.outerjoin(person, person.c.id == operator.c.person)
    return await unit.row(
        select(operator.c.org, operator.c.kind, operator.c.active, operator.c.role_version, person.c.status)
        .select_from(joined)
        .where(operator.c.id == identifier)
    )


async def grants_of(unit: Unit, identifier: UUID) -> tuple[Grant, ...]:
    """The grants of an operator, in the order in which they were given."""
    rows = await unit.rows(
        select(operator_grant)
        .where(operator_grant.c.operator == identifier)
        .order_by(operator_grant.c.created_at, operator_grant.c.id)
    )
    return tuple(_grant(row) for row in rows)


async def operator_by_id(unit: Unit, org: UUID, identifier: UUID) -> Operator | None:
    """An operator of an organization."""
    row = await unit.row(select(operator).where(operator.c.id == identifier, operator.c.org == org))
    return _operator(row, await grants_of(unit, identifier)) if row is not None else None


async def operators(unit: Unit, org: UUID, after: tuple[str, UUID] | None, limit: int) -> list[Operator]:
    """Operators of an organization by label and id, from beyond a place."""
    label, identifier = operator.c.label, operator.c.id
    statement = select(operator).where(operator.c.org == org, _beyond(label, identifier, after))
    rows = await unit.rows(statement.order_by(label, identifier).limit(limit))
    grants: dict[UUID, list[Grant]] = {}
    theirs = select(operator_grant).where(operator_grant.c.operator.in_([row.id for row in rows]))
    for row in await unit.rows(theirs.order_by(operator_grant.c.created_at, operator_grant.c.id)):
        grants.setdefault(row.operator, []).append(_grant(row))
    return [_operator(row, grants.get(row.id, ())) for row in rows]


async def keys_of(unit: Unit, org: UUID, accounts: Iterable[UUID]) -> dict[UUID, tuple[OperatorKey, ...]]:
    """Keys of some operators of an organization, in the order in which they were registered."""
    theirs = select(operator_key).where(operator_key.c.org == org, operator_key.c.operator.in_(list(accounts)))
    found: dict[UUID, tuple[OperatorKey, ...]] = {}
    for row in await unit.rows(theirs.order_by(operator_key.c.created_at, operator_key.c.id)):
        key = OperatorKey(row.spki, row.hardware, row.device)
        found[row.operator] = (*found.get(row.operator, ()), key)
    return found


async def operator_by_key(unit: Unit, spki: bytes) -> tuple[Operator, bool, UUID | None, str | None] | None:
    """The operator of a key, whether the key is in hardware and in which device, and the person's status."""
    joined = operator_key.join(operator, operator.c.id == operator_key.c.operator).outerjoin(
        person, person.c.id == operator.c.person
    )
    row = await unit.row(
        select(operator, operator_key.c.hardware, operator_key.c.device, person.c.status)
        .select_from(joined)
        .where(operator_key.c.spki == spki)
    )
    if row is None:
        return None
    return _operator(row, await grants_of(unit, row.id)), row.hardware, row.device, row.status


async def has_key(unit: Unit, identifier: UUID, spki: bytes) -> bool:
    """Whether a key is an operator's."""
    found = select(operator_key.c.id).where(operator_key.c.operator == identifier, operator_key.c.spki == spki)
    return await unit.value(found) is not None


async def operators_of(unit: Unit, identifier: UUID) -> list[UUID]:
    """The accounts of a person."""
    rows = await unit.rows(select(operator.c.id).where(operator.c.person == identifier))
    return [row.id for row in rows]


async def is_label_taken(unit: Unit, org: UUID, label: str) -> bool:
    """Whether an open account has this label."""
    theirs = operator.c.org == org, operator.c.label == label, operator.c.active
    return await unit.row(select(operator.c.id).where(*theirs).limit(1)) is not None


async def insert_operator(unit: Unit, org: UUID, kind: AccountKind, holder: UUID | None, label: str) -> UUID:
    """Add an account without keys and grants."""
    values = {"org": org, "kind": kind, "person": holder, "label": label, "active": True, "role_version": 1}
    return await unit.insert(operator, values)


async def insert_key(unit: Unit, org: UUID, account: UUID, spki: bytes, hardware: bool, device: UUID | None) -> bool:
    """Register a key; False if it is registered already, for whomever."""
    values = {"org": org, "operator": account, "spki": spki, "hardware": hardware, "device": device}
    return await unit.insert_if_absent(operator_key, values, ["spki"]) is not None


async def delete_key(unit: Unit, account: UUID, spki: bytes, *, before: datetime | None = None) -> bool:
    """Forget a key, or only one that was registered before a moment; whether it was there."""
    gone = await unit.execute(
        delete(operator_key).where(
            operator_key.c.operator == account, operator_key.c.spki == spki, _older(operator_key, before)
        )
    )
    return gone.rowcount > 0


async def insert_grant(unit: Unit, org: UUID, account: UUID, grant: Grant) -> None:
    """Give a role. Raises BadName for a branch that is none."""
    values = {
        "org": org,
        "operator": account,
        "role": grant.role,
        "reach": grant.scope.reach,
        "scope_group": grant.scope.group,
        "branch": grant.scope.branch,
        "branch_path": branch_path(grant.scope.branch),
    }
    await unit.insert(operator_grant, values)


async def delete_grant(unit: Unit, account: UUID, grant: Grant, *, before: datetime | None = None) -> bool:
    """Take a role away, or only if it was given before a moment; whether it was there."""
    same_group = (
        operator_grant.c.scope_group.is_(None)
        if grant.scope.group is None
        else operator_grant.c.scope_group == grant.scope.group
    )
    gone = await unit.execute(
        delete(operator_grant).where(
            operator_grant.c.operator == account,
            operator_grant.c.role == grant.role,
            operator_grant.c.reach == grant.scope.reach,
            operator_grant.c.branch_path == branch_path(grant.scope.branch),
            same_group,
            _older(operator_grant, before),
        )
    )
    return gone.rowcount > 0


def _older(table: Table, before: datetime | None) -> ColumnElement[bool]:
    return true() if before is None else table.c.created_at < before


async def bump_roles(unit: Unit, account: UUID, **values: Any) -> None:
    """Count a change of an account's rights, with other columns if any. The row is locked until commit."""
    await unit.execute(
        operator.update()
        .where(operator.c.id == account)
        .values(
            {
                "role_version": operator.c.role_version + 1,
                "version": operator.c.version + 1,
                "changed_at": unit.time,
                **values,
            }
        )
    )


async def activate_again(unit: Unit, account: UUID, active: bool, at: datetime) -> bool:
    """Close an account or open it, as it was at a moment; False if it is so, or was changed since."""
    older = (operator.c.id == account, operator.c.changed_at < at, operator.c.active.is_not(active))
    if await unit.value(select(operator.c.id).where(*older)) is None:
        return False
    await bump_roles(unit, account, active=active, changed_at=at)
    return True


async def status_again(unit: Unit, identifier: UUID, status: PersonStatus, at: datetime) -> bool:
    """Give a person the status of a moment, with their accounts; False if it is so, or they were changed since."""
    changed = await unit.execute(
        person.update()
        .where(person.c.id == identifier, person.c.changed_at < at, person.c.status != status)
        .values(status=status, changed_at=at, version=person.c.version + 1)
    )
    if changed.rowcount != 1:
        return False
    for account in await operators_of(unit, identifier):
        await bump_roles(unit, account, changed_at=operator.c.changed_at)
    return True


async def holders(unit: Unit, org: UUID, role: Role) -> list[tuple[Person, Grant]]:
    """Active persons with active accounts that have a role, with each grant of it."""
    joined = operator.join(operator_grant, operator_grant.c.operator == operator.c.id).join(
        person, person.c.id == operator.c.person
    )
    given = (operator_grant.c.role, operator_grant.c.reach, operator_grant.c.scope_group, operator_grant.c.branch)
    rows = await unit.rows(
        select(person, *given)
        .select_from(joined)
        .where(
            operator.c.org == org,
            operator.c.active.is_(True),
            operator_grant.c.role == role,
            person.c.status == PersonStatus.ACTIVE,
        )
        .order_by(person.c.id, operator_grant.c.id)
    )
    return [(_person(row), _grant(row)) for row in rows]


async def count_holding(unit: Unit, org: UUID, role: Role) -> int:
    """Active operators with a role over the whole organization, whose person (if any) is active."""
    joined = operator.join(operator_grant, operator_grant.c.operator == operator.c.id).outerjoin(
        person, person.c.id == operator.c.person
    )
    found: int = await unit.value(
        select(func.count(func.distinct(operator.c.id)))
        .select_from(joined)
        .where(
            operator.c.org == org,
            operator.c.active.is_(True),
            operator_grant.c.role == role,
            operator_grant.c.reach == Reach.EVERYWHERE,
            or_(operator.c.person.is_(None), person.c.status == PersonStatus.ACTIVE),
        )
    )
    return found
