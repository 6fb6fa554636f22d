"""The one decision whether a call may be made. Services ask it first; nothing in front of them decides."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from cardwright_cardops.errors import CardwrightError

from ..people.model import Grant, PersonStatus, Reach
from ..store.unit import Unit
from .errors import AccessDenied, NotYourOwn, PartsSeparated, ProofExpired, ProofRequired, UnlistedCall
from .matrix import RULES, Call, Part, Refuse, Rule, Wants
from .model import Authentication, Method
from .principal import LOCAL_FRONT, Principal, PrincipalKind
from .services import accepts, alternatives, refusal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallTarget:
    """What a call is about, as far as rights depend on it. Ids come from the database, never from the caller.

    ``person``: whom it belongs to; None: the organization. ``requested_by`` and ``parts`` hold actors
    (``Principal.actor``): who asked for it, and who had which part in it. ``strict``: its policy is ``piv``.
    ``request``: the request that is acted on, which an emergency password must have been given out for. ``path``: the
    place in the directory (``naming.branch_path``) of a person who is not here yet.
    """

    org: UUID
    person: UUID | None = None
    requested_by: UUID | None = None
    parts: Mapping[Part, frozenset[UUID]] = field(default_factory=dict)
    workstation: UUID | None = None
    request: UUID | None = None
    path: str = ""
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Permission:
    """That a call may be made, and what it covers: ``grants`` of an operator, or the one person ``own``.

    Lists show only this (``PeopleService.covered``). With neither, the caller is the server or acts for itself.
    """

    principal: Principal
    grants: tuple[Grant, ...] = ()
    own: UUID | None = None

    @property
    def everywhere(self) -> bool:
        """Whether the whole organization is covered."""
        return any(grant.scope.reach is Reach.EVERYWHERE for grant in self.grants) or (
            self.principal.kind is PrincipalKind.SYSTEM
        )


@dataclass(frozen=True, slots=True)
class AccountStanding:
    """What an operator or service account is worth now. ``grants`` is None if the version is the one that was known."""

    org: UUID
    active: bool
    role_version: int
    grants: tuple[Grant, ...] | None


@dataclass(frozen=True, slots=True)
class PersonStanding:
    """Where a person stands: status, groups, and place in the directory (``naming.branch_path``, "" if none)."""

    org: UUID
    status: PersonStatus
    groups: frozenset[UUID]
    path: str


_NOWHERE = "\x00"
"""A place in no directory: only grants for everywhere cover it."""


class Standings(Protocol):
    """What authorization reads about people, anew at every call."""

    async def account(self, unit: Unit, operator: UUID, key: bytes, known_version: int) -> AccountStanding | None:
        """The account, one statement if its version is the known one. Not active also: its person is not, or ``key``
        is no key of it any more."""

    async def person(self, unit: Unit, person: UUID) -> PersonStanding | None:
        """The person, with groups."""

    def covers(self, grant: Grant, standing: PersonStanding) -> bool:
        """Whether a grant's scope includes a person."""


class Proofs(Protocol):
    """What authorization reads about proofs."""

    async def stands(self, unit: Unit, authentication: UUID) -> bool:
        """Whether it is neither ended nor expired."""


class Workstations(Protocol):
    """What authorization reads about workstations; no statement, as old as the watch allows."""

    def is_revoked(self, workstation: UUID) -> bool:
        """Whether its certificate counts no more."""


class Authorize(Protocol):
    """How services ask. Raises AuthorizationError.

    ``unit`` may be None for workstations: what they may is known without a statement. Others are denied without one.
    """

    async def __call__(self, unit: Unit | None, principal: Principal, call: Call, target: CallTarget) -> Permission:
        """Permission, or an error."""


async def sought(
    authorize: Authorize,
    unit: Unit,
    principal: Principal,
    call: Call,
    finding: Awaitable[T],
    absent: type[CardwrightError],
) -> T:
    """What a call is about. That there is no such thing is told only to who may make the call on everything.

    Others get the answer that something outside of their scope gets. Raises AuthorizationError, and ``absent``.
    """
    try:
        return await finding
    except absent:
        await authorize(unit, principal, call, CallTarget(principal.org, path=_NOWHERE))
        raise


class Authorizer:
    """The decision: deny by default, one way in is enough, everything that can change is read again."""

    def __init__(
        self, people: Standings, proofs: Proofs, workstations: Workstations, rules: Mapping[str, Rule] = RULES
    ) -> None:
        self._people = people
        self._proofs = proofs
        self._workstations = workstations
        self._rules = rules

    async def __call__(self, unit: Unit | None, principal: Principal, call: Call, target: CallTarget) -> Permission:
        """May ``principal`` make ``call`` on ``target``?

        Raises UnlistedCall, AccessDenied, NotYourOwn, PartsSeparated, ProofRequired, ProofExpired.
        """
        rule = self._rules.get(call.name)
        if rule is None:
            raise UnlistedCall(f"{call.name} is in no matrix")
        if principal.org != target.org:
            raise _denied(call)
        if principal.workstation is not None and self._workstations.is_revoked(principal.workstation):
            raise _denied(call)
        match principal.kind:
            case PrincipalKind.ANYONE:
                if rule.anyone and (not rule.local or principal.front == LOCAL_FRONT):
                    return Permission(principal)
            case PrincipalKind.SYSTEM:
                if rule.server:
                    return Permission(principal)
            case PrincipalKind.WORKSTATION:
                return self._workstation(principal, call, rule, target)
            case PrincipalKind.PERSON if unit is not None:
                return await self._person(unit, principal, call, rule, target)
            case PrincipalKind.OPERATOR | PrincipalKind.SERVICE if unit is not None:
                return await self._account(unit, principal, call, rule, target)
        raise _denied(call)

    def _workstation(self, principal: Principal, call: Call, rule: Rule, target: CallTarget) -> Permission:
        itself = target.workstation is None or target.workstation == principal.id
        if not itself or self._workstations.is_revoked(principal.id):
            raise _denied(call)
        if not rule.workstation:
            if rule.own:
                # The person at it may make the call. One answer whatever it is about, and whether that exists.
                raise _unproven(f"{call.name} needs a proof of who you are", rule, strict=False)
            raise _denied(call)
        return Permission(principal)

    async def _person(self, unit: Unit, principal: Principal, call: Call, rule: Rule, target: CallTarget) -> Permission:
        if not rule.own or principal.person is None or target.person not in (None, principal.person):
            raise _denied(call)
        if target.person is None and rule.wants is not Wants.SOME:
            raise _denied(call)
        proof = _fresh(principal, unit.now)
        if proof.subject != principal.person or proof.org != principal.org:
            raise _denied(call)
        standing = await self._people.person(unit, principal.person)
        if standing is None or standing.org != principal.org or standing.status is not PersonStatus.ACTIVE:
            raise _denied(call)
        if not await self._proofs.stands(unit, proof.id):
            raise ProofExpired("the proof was ended or has expired")
        methods = _methods_for(proof, target)
        if not any(accepts(service, methods, piv=target.strict) for service in rule.own):
            closed = [reason for service in rule.own if (reason := refusal(service, piv=target.strict))]
            if len(closed) == len(rule.own):
                raise ProofRequired(f"this policy does not open {call.name} to persons by themselves: {closed[0]}")
            raise _unproven(f"{call.name} needs another proof of who you are", rule, strict=target.strict)
        return Permission(principal, own=principal.person)

    async def _account(
        self, unit: Unit, principal: Principal, call: Call, rule: Rule, target: CallTarget
    ) -> Permission:
        proof = _fresh(principal, unit.now)
        if proof.subject != principal.actor or proof.org != principal.org:
            raise _denied(call)
        standing = await self._people.account(unit, principal.id, principal.key, principal.role_version)
        if standing is None or not standing.active or standing.org != principal.org:
            raise _denied(call)
        held = principal.grants if standing.grants is None else standing.grants
        grants = tuple(grant for grant in held if grant.role in rule.roles)
        if not grants:
            raise _denied(call)
        covering = await self._covering(unit, grants, rule.wants, target)
        if not covering:
            raise _denied(call)
        if proof.assurance < rule.assurance:
            raise ProofRequired(f"{call.name} needs a key", frozenset({Method.CARD, Method.CLIENT_KEY}))
        if target.strict and rule.part is not None and Method.CARD not in proof.methods:
            raise ProofRequired(f"{call.name} needs a card under this policy", frozenset({Method.CARD}))
        _not_own(principal, call, rule, target)
        return Permission(principal, grants=covering)

    async def _covering(
        self, unit: Unit, grants: tuple[Grant, ...], wants: Wants, target: CallTarget
    ) -> tuple[Grant, ...]:
        if wants is Wants.SOME and target.person is None:
            return grants
        everywhere = tuple(grant for grant in grants if grant.scope.reach is Reach.EVERYWHERE)
        if wants is Wants.ORGANIZATION:
            return everywhere
        if target.person is None and not target.path:
            return grants if wants is Wants.STOCK else everywhere
        standing: PersonStanding | None = PersonStanding(target.org, PersonStatus.ACTIVE, frozenset(), target.path)
        if target.person is not None:
            standing = await self._people.person(unit, target.person)
        if standing is None:
            return everywhere if wants in (Wants.HOLDER, Wants.STOCK) else ()
        if standing.org != target.org:
            return ()
        return tuple(grant for grant in grants if self._people.covers(grant, standing))


def _unproven(words: str, rule: Rule, *, strict: bool) -> ProofRequired:
    """With the methods by which a person may prove enough for their own call."""
    sets = (one for service in rule.own for one in alternatives(service, piv=strict))
    methods = frozenset[Method]().union(*sets)
    return ProofRequired(f"{words}: {', '.join(sorted(methods))}", methods)


def _not_own(principal: Principal, call: Call, rule: Rule, target: CallTarget) -> None:
    if Refuse.OWN_PERSON in rule.refuse and target.person == principal.actor:
        raise NotYourOwn(f"{call.name} on what is your own is refused")
    if Refuse.OWN_REQUEST in rule.refuse and target.requested_by == principal.actor:
        raise NotYourOwn(f"{call.name} on what you asked for yourself is refused")
    if target.strict and rule.part is not None:
        others = (held for part, held in target.parts.items() if part is not rule.part)
        if any(principal.actor in held for held in others):
            raise PartsSeparated(f"{call.name} is refused: you already had another part in this")


def _fresh(principal: Principal, now: datetime) -> Authentication:
    proof = principal.authentication
    if proof is None:
        raise ProofRequired("the caller has not proved who they are")
    if proof.expires_at <= now:
        raise ProofExpired("the proof has expired")
    return proof


def _methods_for(proof: Authentication, target: CallTarget) -> frozenset[Method]:
    """An emergency password counts only for the request that it was given out for."""
    if proof.request is not None and proof.request != target.request:
        return proof.methods - {Method.EMERGENCY_PASSWORD}
    return proof.methods


def _denied(call: Call) -> AccessDenied:
    return AccessDenied(f"{call.name} is not open to you for this")
