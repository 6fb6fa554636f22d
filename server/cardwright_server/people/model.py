"""Values of people: persons, groups, operators, and what an operator may act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

EMBEDDED = "embedded"
"""Source of persons and groups that are kept here and in no directory."""


class PersonStatus(StrEnum):
    """Whether a person may use anything."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    LEFT = "left"
    """Gone for good: everything of theirs is to be terminated. The record stays until it is erased."""


class Role(StrEnum):
    """What an operator is for. Which calls a role may make: ``authentication.matrix``."""

    ISSUANCE = "issuance"
    HELP_DESK = "help-desk"
    SECURITY_OFFICER = "security-officer"
    ADMINISTRATOR = "administrator"
    AUDITOR = "auditor"


class Reach(StrEnum):
    """How far a grant goes."""

    EVERYWHERE = "everywhere"
    """The whole organization of the operator, never another."""
    GROUP = "group"
    BRANCH = "branch"
    """Persons at or below an entry of the directory."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a grant covers. ``group`` with Reach.GROUP, ``branch`` (a distinguished name, RFC 4514) with BRANCH.

    Raises ValueError if they do not go together.
    """

    reach: Reach
    group: UUID | None = None
    branch: str = ""

    def __post_init__(self) -> None:
        if (self.group is not None) != (self.reach is Reach.GROUP) or bool(self.branch) != (self.reach is Reach.BRANCH):
            raise ValueError(f"a scope of reach {self.reach} with the wrong detail")


EVERYWHERE = Scope(Reach.EVERYWHERE)


@dataclass(frozen=True, slots=True)
class Grant:
    """One role of an operator, and whom it covers."""

    role: Role
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class Person:
    """A person. ``login`` is unique in the organization, in its folded form (``naming.folded_login``).

    ``attributes`` hold what certificates and mail need, each with its values in order. ``entry`` names the directory's
    record by an id that survives renaming (entryUUID, objectGUID); ``dn`` is its place when it was last read.
    """

    id: UUID
    org: UUID
    login: str
    display_name: str = field(repr=False)
    mail: str = field(repr=False)
    status: PersonStatus
    source: str
    entry: str
    dn: str = field(repr=False)
    attributes: Mapping[str, tuple[str, ...]] = field(repr=False)
    version: int


class Taken(StrEnum):
    """What taking over an entry of a directory came to."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Group:
    """A group. ``source`` as in Person; members of a directory's group come from that directory alone."""

    id: UUID
    org: UUID
    name: str
    source: str
    entry: str
    version: int


class AccountKind(StrEnum):
    """Who is behind an operator account."""

    PERSON = "person"
    SERVICE = "service"
    """Another system; it has no person, and is compared by its account."""


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """A key by which an operator is known. ``spki``: SHA-256 of its SubjectPublicKeyInfo.

    ``hardware``: it was found on ``device``, a card of the operator's person.
    """

    spki: bytes = field(repr=False)
    hardware: bool
    device: UUID | None


@dataclass(frozen=True, slots=True)
class Operator:
    """An account that holds roles. ``role_version`` grows with every change of grants, keys or ``active``."""

    id: UUID
    org: UUID
    kind: AccountKind
    person: UUID | None
    label: str
    active: bool
    role_version: int
    grants: tuple[Grant, ...]
