"""Persons prove who they are: the registry of methods, run so that a stranger's attempt looks like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Outcome, Target
from ..notify.model import DomainEvent
from ..people.directory import DirectoryError
from ..people.model import Person, PersonStatus
from ..people.naming import BadName, folded_login
from ..people.service import PeopleService
from ..store.ids import new_id
from ..store.unit import Database, Unit
from . import counters, store
from .authorize import Authorize, CallTarget
from .counters import POLICIES, LockPolicy
from .errors import MethodLocked, MethodNotOffered, ProofRefused
from .journal import password_event
from .matrix import Call
from .methods import Evidence, Verdict, Verifier
from .model import Authentication, Method
from .principal import Principal, PrincipalKind, server

LIFETIME = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login and evidence by one or more methods. ``login`` may be empty if a card says who it is."""

    login: str
    evidence: Mapping[Method, Evidence] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whom attempts are counted for: a person, or a number made of a login that nobody has.

    ``login`` is folded, "" if what was typed is no login: only this form reaches a directory, which compares in ways
    of its own, so that two spellings of one login are never counted apart.
    """

    id: UUID
    login: str
    person: Person | None


class AuthenticationService:
    """Proofs by the registered methods. It opens its own units: an attempt is committed before it is judged."""

    def __init__(
        self,
        database: Database,
        authorize: Authorize,
        people: PeopleService,
        verifiers: Mapping[Method, Verifier],
        *,
        policies: Mapping[Method, LockPolicy] = POLICIES,
        lifetime: timedelta = LIFETIME,
    ) -> None:
        self._database = database
        self._authorize = authorize
        self._people = people
        self._verifiers = verifiers
        self._policies = policies
        self._lifetime = lifetime

    @property
    def methods(self) -> frozenset[Method]:
        """The methods that are offered."""
        return frozenset(self._verifiers)

    async def prove(self, principal: Principal, attempt: Attempt) -> Authentication:
        """Judge an attempt; with several methods all must be right, and of the same person. The proof is stored.

        Raises AuthorizationError, MethodNotOffered, ProofRefused (never saying what was wrong), MethodLocked and
        DirectoryError (then nothing was judged and nothing counted).
        """
        if not attempt.evidence or not attempt.evidence.keys() <= self._verifiers.keys():
            raise MethodNotOffered("no such method is offered")
        org = principal.org
        subject, prepared, closed = await self._database.transact(lambda unit: self._begin(unit, principal, attempt))
        if closed is not None:
            raise closed
        try:
            verdicts = {
                method: await self._verifiers[method].check(
                    org, subject.login, subject.person, prepared[method], evidence
                )
                for method, evidence in attempt.evidence.items()
            }
        except DirectoryError:
            await self._database.transact(lambda unit: self._unjudged(unit, org, subject, attempt))
            raise
        proof = await self._database.transact(lambda unit: self._finish(unit, principal, subject, verdicts))
        if proof is None:
            raise ProofRefused("the proof was not accepted")
        return proof

    async def put_proof(
        self,
        unit: Unit,
        principal: Principal,
        person: UUID,
        methods: frozenset[Method],
        *,
        device: UUID | None = None,
        request: UUID | None = None,
    ) -> Authentication:
        """Record a proof that another domain judged (a card in its session). The caller has authorized its own call."""
        return await self._record(unit, principal, person, methods, Verdict(True, device=device, request=request))

    async def principal_of(self, unit: Unit, principal: Principal, proof: UUID) -> Principal:
        """The person behind a proof, coming through the connection of ``principal``. Raises ProofRefused."""
        found = await store.proof_by_id(unit, principal.org, proof)
        if found is None:
            raise ProofRefused("the proof was not accepted")
        workstation = principal.id if principal.kind is PrincipalKind.WORKSTATION else principal.workstation
        return Principal(
            kind=PrincipalKind.PERSON,
            id=found.subject,
            org=found.org,
            person=found.subject,
            authentication=found,
            front=principal.front,
            address=principal.address,
            workstation=workstation,
        )

    async def end(self, unit: Unit, principal: Principal, proof: UUID | None = None) -> int:
        """End one of the caller's proofs, or all; how many stood. Raises AuthorizationError."""
        target = CallTarget(principal.org, principal.person)
        await self._authorize(unit, principal, Call("AuthenticationService.End"), target)
        return await store.end_proofs(unit, principal.org, principal.actor, proof)

    async def forget(self, unit: Unit, principal: Principal, person: UUID) -> None:
        """Remove everything kept of a person who is being erased; the caller has authorized that."""
        await store.forget_person(unit, principal.org, person)

    async def _begin(
        self, unit: Unit, principal: Principal, attempt: Attempt
    ) -> tuple[_Subject, dict[Method, Any], MethodLocked | None]:
        """Count the attempt by each method, and read what it will be compared with."""
        org = principal.org
        await self._authorize(unit, principal, Call("AuthenticationService.Prove"), CallTarget(org))
        subject = await self._subject(unit, org, attempt.login)
        known = subject.person is not None
        prepared = {}
        closed: MethodLocked | None = None
        for method in sorted(attempt.evidence):
            policy = self._policies.get(method)
            if policy is not None and not await counters.reserve(unit, org, subject.id, method, policy, known=known):
                # Committed all the same: a lock that was due may just have been recorded.
                closed = counters.locked(method, policy)
            prepared[method] = await self._verifiers[method].prepare(unit, org, subject.person)
        return subject, prepared, closed

    async def _finish(
        self, unit: Unit, principal: Principal, subject: _Subject, verdicts: Mapping[Method, Verdict]
    ) -> Authentication | None:
        """Settle the counters; a proof if everything was right."""
        org = principal.org
        person = await self._whose(unit, org, subject, verdicts)
        spent = True
        if person is not None:
            for verdict in verdicts.values():
                if verdict.spend is not None:
                    unit.beforehand(password_event(org, verdict.spend))
                    spent = spent and await store.use_password(unit, verdict.spend)
        good = person is not None and spent
        for method, verdict in verdicts.items():
            await self._settle(unit, principal, subject, method, right=good or (verdict.right and spent))
        if person is None or not spent:
            facts: dict[str, Fact] = {"methods": " ".join(sorted(verdicts)), "known": subject.person is not None}
            self._audit(unit, principal, "authentication.refused", subject.id, facts, Outcome.REFUSED)
            return None
        whole = Verdict(
            True,
            device=next((one.device for one in verdicts.values() if one.device is not None), None),
            request=next((one.request for one in verdicts.values() if one.request is not None), None),
        )
        return await self._record(unit, principal, person, frozenset(verdicts), whole)

    async def _whose(self, unit: Unit, org: UUID, subject: _Subject, verdicts: Mapping[Method, Verdict]) -> UUID | None:
        """The one active person whom every verdict is about; a directory's person is taken over or refreshed."""
        if not all(verdict.right for verdict in verdicts.values()):
            return None
        persons = {subject.person.id} if subject.person is not None else set()
        for verdict in verdicts.values():
            if verdict.entry is not None:
                persons.add((await self._people.import_entry(unit, server(org), verdict.entry)).id)
            elif verdict.person is not None:
                persons.add(verdict.person)
        if len(persons) != 1:
            return None
        person = await self._people.person(unit, org, persons.pop())
        return person.id if person.status is PersonStatus.ACTIVE else None

    async def _settle(
        self, unit: Unit, principal: Principal, subject: _Subject, method: Method, *, right: bool
    ) -> None:
        policy = self._policies.get(method)
        if policy is None:
            return
        if right:
            await counters.succeeded(unit, principal.org, subject.id, method)
            return
        known = subject.person is not None
        if await counters.failed(unit, principal.org, subject.id, method, policy, known=known) and known:
            self._audit(unit, principal, "authentication.locked", subject.id, {"method": method}, Outcome.DONE)
            unit.emit(
                DomainEvent(
                    principal.org, "authentication.locked", "person", subject.id, subject.id, {"method": method}
                )
            )

    async def _unjudged(self, unit: Unit, org: UUID, subject: _Subject, attempt: Attempt) -> None:
        for method in attempt.evidence:
            await counters.unjudged(unit, org, subject.id, method)

    async def _record(
        self, unit: Unit, principal: Principal, person: UUID, methods: frozenset[Method], verdict: Verdict
    ) -> Authentication:
        proof = Authentication(
            id=new_id(),
            org=principal.org,
            subject=person,
            methods=methods,
            time=unit.now,
            expires_at=unit.now + self._lifetime,
            network=principal.address[:100],
            device=verdict.device,
            request=verdict.request,
        )
        await store.insert_proof(unit, proof)
        # Whoever has the id has the proof: auditors get what recognizes it, and nothing to call with.
        mark = sha256(proof.id.bytes).hexdigest()[:32]
        facts: dict[str, Fact] = {"methods": " ".join(sorted(methods)), "proof": mark}
        self._audit(unit, principal, "authentication.proved", person, facts, Outcome.DONE)
        return proof

    async def _subject(self, unit: Unit, org: UUID, login: str) -> _Subject:
        try:
            folded = folded_login(login)
        except BadName:
            return _Subject(_stranger(org, ""), "", None)
        person = await self._people.by_login(unit, org, folded)
        if person is not None and person.status is PersonStatus.ACTIVE:
            return _Subject(person.id, folded, person)
        return _Subject(_stranger(org, folded), folded, None)

    def _audit(
        self,
        unit: Unit,
        principal: Principal,
        action: str,
        subject: UUID,
        facts: Mapping[str, Fact],
        outcome: Outcome,
    ) -> None:
        unit.audit(AuditEntry(principal.org, principal.who, action, Target("person", subject), outcome, facts))


def _stranger(org: UUID, folded: str) -> UUID:
    """A number for a login that nobody has, the same each time."""
    return UUID(bytes=sha256(b"stranger" + org.bytes + folded.encode("utf-8", "surrogatepass")).digest()[:16])
