"""Who calls (S6): a person, operator, workstation, service or the server itself, and through which front."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from ..audit.model import Who
from ..people.model import Grant
from ..store.ids import SYSTEM
from .model import Authentication


class PrincipalKind(StrEnum):
    """What a caller is."""

    PERSON = "person"
    OPERATOR = "operator"
    WORKSTATION = "workstation"
    SERVICE = "service"
    SYSTEM = "system"
    ANYONE = "anyone"
    """A caller who has proved nothing yet: may prove who they are, enrol by a token, and nothing else."""


LOCAL_FRONT = "local"
"""The unix socket of the server's own host. Set by the transport, never by the caller."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. Fronts have no rights of their own; ``front`` and ``address`` are for the record.

    ``id``: the person, the operator account, the workstation. ``person``: the human behind a person or operator.
    ``workstation``: through whose connection a person comes. ``grants`` and ``role_version`` are what an operator or
    service had when the connection began; authorization reads them again at every call. ``key`` is the SHA-256 of the
    SubjectPublicKeyInfo by which an operator or service is known.
    """

    kind: PrincipalKind
    id: UUID
    org: UUID
    person: UUID | None = None
    authentication: Authentication | None = None
    front: str = ""
    address: str = field(default="", repr=False)
    grants: tuple[Grant, ...] = ()
    role_version: int = 0
    key: bytes = field(default=b"", repr=False)
    workstation: UUID | None = None

    @property
    def actor(self) -> UUID:
        """Who is compared when one may not do two things: the human, else the account."""
        return self.person if self.person is not None else self.id

    @property
    def who(self) -> Who:
        """The caller as an audit entry names them."""
        methods = self.authentication.methods if self.authentication is not None else frozenset()
        return Who(
            self.kind, self.id, self.person, tuple(sorted(method.value for method in methods)), self.front, self.address
        )


def server(org: UUID) -> Principal:
    """The server, acting in an organization by itself: timers, consequences of other acts."""
    return Principal(PrincipalKind.SYSTEM, SYSTEM, org)


def anyone(org: UUID, *, front: str, address: str = "", workstation: UUID | None = None) -> Principal:
    """A caller who has proved nothing."""
    return Principal(PrincipalKind.ANYONE, SYSTEM, org, front=front, address=address, workstation=workstation)
