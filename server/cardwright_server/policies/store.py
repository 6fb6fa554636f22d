"""SQL of the tables of device policies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, delete, func, select

from ..store.policies_tables import policy, policy_assignment, policy_version, policy_version_transition
from ..store.transitions import note
from ..store.unit import Unit
from .model import PolicyVersion, VersionState


def _version(row: Row[Any]) -> PolicyVersion:
    return PolicyVersion(
        id=row.id,
        org=row.org,
        policy=row.policy,
        name=row.name,
        number=row.number,
        state=VersionState(row.state),
        text=row.text,
        digest=row.digest,
        drafted_by=row.drafted_by,
        published_by=row.published_by,
        published_at=row.published_at,
        version=row.version,
    )


def _versions(org: UUID) -> Select[Any]:
    joined = policy_version.join(policy, policy.c.id == policy_version.c.policy)
    return select(policy_version, policy.c.name).select_from(joined).where(policy_version.c.org == org)


async def version(unit: Unit, org: UUID, identifier: UUID) -> PolicyVersion | None:
    """A version by its id."""
    row = await unit.row(_versions(org).where(policy_version.c.id == identifier))
    return None if row is None else _version(row)


async def numbered(unit: Unit, org: UUID, of: UUID, number: int) -> PolicyVersion | None:
    """A version by its number."""
    row = await unit.row(_versions(org).where(policy_version.c.policy == of, policy_version.c.number == number))
    return None if row is None else _version(row)


async def published(unit: Unit, org: UUID, of: UUID) -> PolicyVersion | None:
    """The version of a policy that is in force."""
    row = await unit.row(
        _versions(org).where(policy_version.c.policy == of, policy_version.c.state == VersionState.PUBLISHED)
    )
    return None if row is None else _version(row)


async def versions(unit: Unit, org: UUID, name: str | None, limit: int) -> list[PolicyVersion]:
    """Versions, of one policy or all, newest first within each."""
    statement = _versions(org).order_by(policy.c.name, policy_version.c.number.desc()).limit(limit)
    if name is not None:
        statement = statement.where(policy.c.name == name)
    return [_version(row) for row in await unit.rows(statement)]


async def find(
    unit: Unit, org: UUID, *conditions: ColumnElement[bool], after: UUID | None = None, limit: int = 50
) -> list[PolicyVersion]:
    """Versions that meet every condition, in the order of their ids, from beyond ``after``."""
    statement = _versions(org).where(*conditions)
    if after is not None:
        statement = statement.where(policy_version.c.id > after)
    return [_version(row) for row in await unit.rows(statement.order_by(policy_version.c.id).limit(limit))]


def name_is(name: str) -> ColumnElement[bool]:
    """Of which policy."""
    return policy.c.name == name


def state_in(states: Collection[VersionState]) -> ColumnElement[bool]:
    """In which states."""
    return policy_version.c.state.in_(states)


async def groups(unit: Unit, org: UUID, of: UUID) -> list[UUID]:
    """The groups that a policy is assigned to."""
    statement = select(policy_assignment.c.person_group).where(
        policy_assignment.c.org == org, policy_assignment.c.policy == of
    )
    return [row.person_group for row in await unit.rows(statement.order_by(policy_assignment.c.person_group))]


async def assigned(unit: Unit, org: UUID, groups: Collection[UUID]) -> list[PolicyVersion]:
    """Versions in force of the policies that are assigned to any of the groups, by name."""
    chosen = select(policy_assignment.c.policy).where(policy_assignment.c.person_group.in_(groups))
    statement = _versions(org).where(
        policy_version.c.policy.in_(chosen), policy_version.c.state == VersionState.PUBLISHED
    )
    return [_version(row) for row in await unit.rows(statement.order_by(policy.c.name))]


async def policy_by_name(unit: Unit, org: UUID, name: str) -> UUID | None:
    """The id of a policy."""
    found: UUID | None = await unit.value(select(policy.c.id).where(policy.c.org == org, policy.c.name == name))
    return found


async def ensure_policy(unit: Unit, org: UUID, name: str) -> UUID:
    """The id of a policy, which is made if there is none of the name."""
    added: UUID | None = await unit.insert_if_absent(policy, {"org": org, "name": name}, ["org", "name"])
    if added is not None:
        return added
    found = await policy_by_name(unit, org, name)
    assert found is not None
    return found


async def insert_version(unit: Unit, org: UUID, of: UUID, values: Mapping[str, Any]) -> UUID:
    """Add the next version of a policy. Two at once collide, and one of the units begins again."""
    last = await unit.value(select(func.max(policy_version.c.number)).where(policy_version.c.policy == of))
    return await unit.insert(policy_version, {"org": org, "policy": of, "number": (last or 0) + 1, **values})


async def update_version(unit: Unit, one: PolicyVersion, values: Mapping[str, Any]) -> int:
    """Change a version's row. Raises StaleVersion."""
    return await unit.update(policy_version, one.id, one.version, values)


async def note_step(unit: Unit, org: UUID, subject: UUID, number: int, values: Mapping[str, Any]) -> None:
    """Write a step of a version's machine."""
    await note(unit, policy_version_transition, org, subject, number, values)


async def assign(unit: Unit, org: UUID, of: UUID, group: UUID) -> bool:
    """Assign a policy to a group; whether that changed anything."""
    values = {"org": org, "policy": of, "person_group": group}
    return await unit.insert_if_absent(policy_assignment, values, ["policy", "person_group"]) is not None


async def unassign(unit: Unit, of: UUID, group: UUID) -> bool:
    """Take a policy from a group; whether that changed anything."""
    gone = await unit.execute(
        delete(policy_assignment).where(policy_assignment.c.policy == of, policy_assignment.c.person_group == group)
    )
    return gone.rowcount > 0
