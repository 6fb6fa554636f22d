"""Operators: accounts with keys and roles. They are known by a registered public key, never by a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.model import Authentication, Method
from ..authentication.principal import Principal, PrincipalKind
from ..notify.model import DomainEvent
from ..store.ids import new_id
from ..store.unit import Unit
from . import store
from .errors import KeyTaken, LastHolder, LoginTaken, NoSuchGroup, NoSuchOperator, NoSuchPerson
from .journal import KEY_REMOVED, active_event, grant_event, key_event
from .model import AccountKind, Grant, Operator, OperatorKey, PersonStatus, Reach, Role

KEPT = (Role.SECURITY_OFFICER, Role.ADMINISTRATOR)
"""Roles that someone must hold, else nobody could ever give rights again."""
MOST_RESULTS = 201
"""One more than a page shows, so that its reader sees whether anything follows."""


class CardKeys(Protocol):
    """What is known of keys on cards: issuance's index of certificates."""

    async def device_of(self, unit: Unit, org: UUID, person: UUID, spki: bytes) -> UUID | None:
        """The person's card that holds a key (SHA-256 of SubjectPublicKeyInfo) behind its PIN, by evidence; or None."""


class NoCards:
    """``CardKeys`` where no cards are issued."""

    async def device_of(self, unit: Unit, org: UUID, person: UUID, spki: bytes) -> UUID | None:
        """See CardKeys."""
        return None


class OperatorService:
    """Accounts, keys and grants. Stateless."""

    def __init__(self, authorize: Authorize, cards: CardKeys | None = None) -> None:
        self._authorize = authorize
        self._cards = cards or NoCards()

    async def create(
        self, unit: Unit, principal: Principal, label: str, person: UUID | None, kind: AccountKind = AccountKind.PERSON
    ) -> Operator:
        """An account without rights, for a person or a service.

        Raises AuthorizationError, NoSuchPerson, and LoginTaken for the label of an open account.
        """
        await self._authorize(unit, principal, Call("OperatorService.Create"), CallTarget(principal.org, person))
        if await store.is_label_taken(unit, principal.org, label[:200]):
            raise LoginTaken(
                f"an operator account is called {label[:200]} already",
                advice="Give that account what this one is for, close it, or choose another label.",
            )
        return await self.add(unit, principal, label, person, kind)

    async def add(
        self, unit: Unit, principal: Principal, label: str, person: UUID | None, kind: AccountKind = AccountKind.PERSON
    ) -> Operator:
        """As ``create``, for a caller in the server that has authorized another call."""
        if (kind is AccountKind.PERSON) != (person is not None):
            raise NoSuchPerson("an operator account needs a person, a service account has none")
        if person is not None and await store.person_by_id(unit, principal.org, person) is None:
            raise NoSuchPerson("there is no such person")
        identifier = await store.insert_operator(unit, principal.org, kind, person, label[:200])
        self._record(unit, principal, "operator.created", identifier, person, {"kind": kind})
        return await self._operator(unit, principal.org, identifier)

    async def add_key(self, unit: Unit, principal: Principal, account: UUID, spki: bytes) -> Operator:
        """Register a key by the SHA-256 of its SubjectPublicKeyInfo.

        Whether it is in hardware is found out: a card of the operator's person has it. One that the account has already
        stays as it is. Raises AuthorizationError, NoSuchOperator, KeyTaken.
        """
        operator = await self._asked(unit, principal, account, Call("OperatorService.AddKey"), itself=False)
        device = None
        if operator.person is not None:
            device = await self._cards.device_of(unit, principal.org, operator.person, spki)
        await self.put_key(unit, principal, account, spki, hardware=device is not None, device=device)
        return await self._operator(unit, principal.org, account)

    async def put_key(
        self,
        unit: Unit,
        principal: Principal,
        account: UUID,
        spki: bytes,
        *,
        hardware: bool = False,
        device: UUID | None = None,
    ) -> None:
        """As ``add_key``, for a caller in the server that has authorized another call.

        ``hardware``: it is on a card that was checked.
        """
        operator = await self._operator(unit, principal.org, account)
        if await store.has_key(unit, account, spki):
            return
        if not await store.insert_key(unit, principal.org, account, spki, hardware, device):
            raise KeyTaken("this key is registered already")
        await store.bump_roles(unit, account)
        facts: dict[str, Fact] = {"spki": spki.hex(), "hardware": hardware}
        self._record(unit, principal, "operator.key-added", account, operator.person, facts)

    async def remove_key(self, unit: Unit, principal: Principal, account: UUID, spki: bytes) -> Operator:
        """Forget a key; connections by it lose all rights at once. Raises AuthorizationError, NoSuchOperator."""
        operator = await self._asked(unit, principal, account, Call("OperatorService.RemoveKey"), itself=False)
        if await store.delete_key(unit, account, spki):
            unit.beforehand(key_event(principal.org, account, spki))
            await store.bump_roles(unit, account)
            self._record(unit, principal, KEY_REMOVED, account, operator.person, {"spki": spki.hex()})
        return await self._operator(unit, principal.org, account)

    async def grant(self, unit: Unit, principal: Principal, account: UUID, grant: Grant) -> Operator:
        """Give a role, over the organization, a group or a branch; nobody gives one to themselves.

        Raises AuthorizationError, NoSuchOperator, NoSuchGroup, BadName. What is held already stays as it is.
        """
        await self._asked(unit, principal, account, Call("OperatorService.Grant"))
        return await self.put_grant(unit, principal, account, grant)

    async def put_grant(self, unit: Unit, principal: Principal, account: UUID, grant: Grant) -> Operator:
        """As ``grant``, for a caller in the server that has authorized another call."""
        operator = await self._operator(unit, principal.org, account)
        group = grant.scope.group
        if group is not None and await store.group_by_id(unit, principal.org, group) is None:
            raise NoSuchGroup("there is no such group")
        if grant in operator.grants:
            return operator
        await store.insert_grant(unit, principal.org, account, grant)
        await store.bump_roles(unit, account)
        self._record(unit, principal, "operator.granted", account, operator.person, _facts(grant), _place(grant))
        return await self._operator(unit, principal.org, account)

    async def withdraw(self, unit: Unit, principal: Principal, account: UUID, grant: Grant) -> Operator:
        """Take a role away; it is gone for the very next call, also in open streams.

        Raises AuthorizationError, NoSuchOperator, LastHolder.
        """
        operator = await self._asked(unit, principal, account, Call("OperatorService.Withdraw"))
        if await store.delete_grant(unit, account, grant):
            unit.beforehand(grant_event(principal.org, account, grant))
            await store.bump_roles(unit, account)
            await self._someone_left(unit, principal.org, operator)
            self._record(unit, principal, "operator.withdrawn", account, operator.person, _facts(grant), _place(grant))
        return await self._operator(unit, principal.org, account)

    async def set_active(self, unit: Unit, principal: Principal, account: UUID, active: bool) -> Operator:
        """Close an account, or open it again. Raises AuthorizationError, NoSuchOperator, LastHolder."""
        operator = await self._asked(unit, principal, account, Call("OperatorService.SetActive"))
        if operator.active != active:
            unit.beforehand(active_event(principal.org, account, active))
            await store.bump_roles(unit, account, active=active)
            await self._someone_left(unit, principal.org, operator)
            self._record(unit, principal, "operator.activity", account, operator.person, {"active": active})
        return await self._operator(unit, principal.org, account)

    async def find(
        self, unit: Unit, principal: Principal, *, after: tuple[str, UUID] | None = None, limit: int = MOST_RESULTS
    ) -> list[Operator]:
        """Operators in the order of (label, id), from beyond ``after``. Raises AuthorizationError."""
        await self._authorize(unit, principal, Call("OperatorService.Find"), CallTarget(principal.org))
        return await store.operators(unit, principal.org, after, min(limit, MOST_RESULTS))

    async def keys_of(self, unit: Unit, org: UUID, accounts: Iterable[UUID]) -> dict[UUID, tuple[OperatorKey, ...]]:
        """The keys of accounts that a caller was shown, who was authorized for those."""
        return await store.keys_of(unit, org, accounts)

    async def recognize(
        self, unit: Unit, spki: bytes, *, expires_at: datetime, front: str, address: str
    ) -> Principal | None:
        """The principal of a connection whose TLS client proved a key, until its certificate ends; None if unknown.

        The caller has checked that the certificate is one for operators, by the right issuing CA, and not revoked.
        """
        found = await store.operator_by_key(unit, spki)
        if found is None:
            return None
        operator, hardware, device, status = found
        human = operator.kind is AccountKind.PERSON
        if not operator.active or (human and status != PersonStatus.ACTIVE):
            return None
        proof = Authentication(
            id=new_id(),
            org=operator.org,
            subject=operator.person or operator.id,
            methods=frozenset({Method.CARD if hardware else Method.CLIENT_KEY}),
            time=unit.now,
            expires_at=expires_at,
            network=address,
            device=device,
        )
        return Principal(
            kind=PrincipalKind.OPERATOR if human else PrincipalKind.SERVICE,
            id=operator.id,
            org=operator.org,
            person=operator.person,
            authentication=proof,
            front=front,
            address=address,
            grants=operator.grants,
            role_version=operator.role_version,
            key=spki,
        )

    async def _asked(
        self, unit: Unit, principal: Principal, account: UUID, call: Call, *, itself: bool = True
    ) -> Operator:
        """The account of a call that is authorized; who may not make it is not told whether there is one.

        ``itself``: an account without a person is compared by itself. Raises AuthorizationError, NoSuchOperator.
        """
        operator = await store.operator_by_id(unit, principal.org, account)
        person = operator.person if operator is not None else None
        whose = account if operator is not None and person is None and itself else person
        await self._authorize(unit, principal, call, CallTarget(principal.org, whose))
        if operator is None:
            raise NoSuchOperator("there is no such operator")
        return operator

    async def by_key(self, unit: Unit, org: UUID, spki: bytes) -> Operator | None:
        """For other domains: the account of an organization that a key is registered with, whatever its state."""
        found = await store.operator_by_key(unit, spki)
        return found[0] if found is not None and found[0].org == org else None

    async def _operator(self, unit: Unit, org: UUID, identifier: UUID) -> Operator:
        found = await store.operator_by_id(unit, org, identifier)
        if found is None:
            raise NoSuchOperator("there is no such operator")
        return found

    async def _someone_left(self, unit: Unit, org: UUID, before: Operator) -> None:
        held = {grant.role for grant in before.grants if grant.scope.reach is Reach.EVERYWHERE}
        for role in KEPT:
            if role in held and await store.count_holding(unit, org, role) == 0:
                raise LastHolder(f"nobody would be left with the role {role}")

    def _record(
        self,
        unit: Unit,
        principal: Principal,
        action: str,
        account: UUID,
        person: UUID | None,
        facts: Mapping[str, Fact],
        personal: Mapping[str, str] | None = None,
    ) -> None:
        target = Target("operator", account)
        unit.audit(AuditEntry(principal.org, principal.who, action, target, facts=facts, personal=personal or {}))
        unit.emit(DomainEvent(principal.org, action, "operator", account, person, dict(facts)))


def _facts(grant: Grant) -> dict[str, Fact]:
    group = grant.scope.group
    return {"role": grant.role, "reach": grant.scope.reach, "group": str(group) if group is not None else None}


def _place(grant: Grant) -> dict[str, str]:
    return {"branch": grant.scope.branch} if grant.scope.branch else {}
