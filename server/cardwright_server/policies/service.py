"""Rules of device policies: draft, publish by another person, assign to groups, and which one applies to whom."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from ..acting import part_for
from ..audit.model import AuditEntry, Fact, Target
from ..authentication.authorize import Authorize, CallTarget, Permission
from ..authentication.matrix import Call
from ..authentication.principal import Principal, server
from ..machine import Actor, Rules
from ..notify.model import DomainEvent
from ..people.model import Group
from ..store.unit import Unit
from . import store
from .compliance import publication, refused
from .document import PROFILES, read, shipped
from .errors import NoPolicyForPerson, NoSuchPolicy, PolicyAmbiguous, PolicyUnreachable
from .model import VERSION, AssignedPolicy, DeviceKind, Policy, PolicyVersion, VersionEvent, VersionState
from .reach import CertificateKinds, unreachable

MOST_RESULTS = 201
"""A full page, and one more that shows whether anything follows."""
MOST_VERSIONS = 200


class PeopleOfPolicies(Protocol):
    """What policies ask about people."""

    async def group(self, unit: Unit, org: UUID, identifier: UUID) -> Group:
        """A group. Raises NoSuchGroup."""

    async def groups_of(self, unit: Unit, org: UUID, identifier: UUID) -> list[Group]:
        """The groups of a person. Raises NoSuchPerson."""


class PolicyFollower(Protocol):
    """Who must know, in the same unit, that another version of a policy is in force."""

    async def policy_published(
        self, unit: Unit, org: UUID, policy: UUID, number: int, mandatory_after: timedelta | None
    ) -> None:
        """``number`` of ``policy`` is in force from now on; after ``mandatory_after`` nobody puts it off any more."""


@dataclass(slots=True)
class _Step:
    unit: Unit
    principal: Principal
    version: PolicyVersion


class PolicyService:
    """Device policies. Stateless, but for documents that were read already."""

    def __init__(
        self,
        authorize: Authorize,
        people: PeopleOfPolicies,
        certificates: CertificateKinds,
        followers: Sequence[PolicyFollower] = (),
        profiles: Collection[str] = PROFILES,
    ) -> None:
        """``profiles``: names of certificate profiles that documents may use; ``certificates`` knows each of them."""
        self._authorize = authorize
        self._people = people
        self._certificates = certificates
        self._followers = tuple(followers)
        self._rules: Rules[VersionState, VersionEvent, _Step] = Rules(
            VERSION,
            guards={"is_another_person": lambda step: step.principal.actor != step.version.drafted_by},
            effects={"supersede_older": self._supersede_older},
        )
        names = frozenset(profiles)
        # A version's text never changes, so reading it once is enough.
        self._read = lru_cache(maxsize=256)(lambda text: read(text, names))

    async def draft(self, unit: Unit, principal: Principal, text: str) -> PolicyVersion:
        """A new version of the policy that the document names.

        Raises AuthorizationError, PolicyUnreachable and what ``read`` raises.
        """
        permission = await self._authorize(unit, principal, Call("PolicyService.Draft"), CallTarget(principal.org))
        document = self._read(text)
        self._require_reachable(document)
        policy = await store.ensure_policy(unit, principal.org, document.name)
        actor = part_for(VERSION, None, VersionEvent.DRAFT, permission)
        row = VERSION.next(None, VersionEvent.DRAFT, actor)
        values = {
            "state": row.target,
            "text": text,
            "digest": sha256(text.encode()).hexdigest(),
            "drafted_by": principal.actor,
        }
        identifier = await store.insert_version(unit, principal.org, policy, values)
        made = await self.version(unit, principal.org, identifier)
        await self._note(unit, principal, made, None, row.event, actor, row.target, made.version)
        return made

    async def draft_shipped(self, unit: Unit, principal: Principal, name: str) -> PolicyVersion:
        """As ``draft``, of a policy that comes with the program. Raises NoSuchPolicy, too."""
        try:
            text = shipped(name)
        except FileNotFoundError:
            raise NoSuchPolicy(f"no policy {name!r} comes with the program") from None
        return await self.draft(unit, principal, text)

    async def publish(self, unit: Unit, principal: Principal, identifier: UUID) -> PolicyVersion:
        """Put a draft in force, in place of the version before. The one who drafted it may not.

        Raises AuthorizationError, NoSuchPolicy, PolicyUnreachable, ComplianceRefused, IllegalTransition, GuardRefused,
        StaleVersion.
        """
        found = await self.version(unit, principal.org, identifier)
        target = CallTarget(principal.org, requested_by=found.drafted_by)
        permission = await self._authorize(unit, principal, Call("PolicyService.Publish"), target)
        document = self._read(found.text)
        self._require_reachable(document)
        if unfit := publication(document):
            raise refused(unfit)
        published = {"published_by": principal.actor, "published_at": unit.now}
        made = await self._move(unit, principal, permission, found, VersionEvent.PUBLISH, published)
        for follower in self._followers:
            await follower.policy_published(unit, made.org, made.policy, made.number, document.mandatory_after)
        return made

    async def discard(self, unit: Unit, principal: Principal, identifier: UUID) -> PolicyVersion:
        """Give a draft up; it is kept. Raises AuthorizationError, NoSuchPolicy, IllegalTransition, StaleVersion."""
        permission = await self._authorize(unit, principal, Call("PolicyService.Draft"), CallTarget(principal.org))
        found = await self.version(unit, principal.org, identifier)
        return await self._move(unit, principal, permission, found, VersionEvent.DISCARD, {})

    async def assign(self, unit: Unit, principal: Principal, name: str, group: UUID) -> None:
        """Let a policy apply to a group's members. Raises AuthorizationError, NoSuchPolicy, NoSuchGroup."""
        policy = await self._assignable(unit, principal, name)
        await self._people.group(unit, principal.org, group)
        if await store.assign(unit, principal.org, policy, group):
            self._record(unit, principal, "policy.assigned", policy, {"group": str(group)})

    async def unassign(self, unit: Unit, principal: Principal, name: str, group: UUID) -> None:
        """Let it apply no more; devices keep what they have. Raises AuthorizationError, NoSuchPolicy."""
        policy = await self._assignable(unit, principal, name)
        if await store.unassign(unit, policy, group):
            self._record(unit, principal, "policy.unassigned", policy, {"group": str(group)})

    async def get(self, unit: Unit, principal: Principal, identifier: UUID) -> PolicyVersion:
        """A version. Raises AuthorizationError, NoSuchPolicy."""
        await self._authorize(unit, principal, Call("PolicyService.Get"), CallTarget(principal.org))
        return await self.version(unit, principal.org, identifier)

    async def groups(self, unit: Unit, principal: Principal, identifier: UUID) -> list[UUID]:
        """The groups that a version's policy is assigned to. Raises as ``get``."""
        found = await self.get(unit, principal, identifier)
        return await store.groups(unit, principal.org, found.policy)

    async def find(
        self,
        unit: Unit,
        principal: Principal,
        name: str | None = None,
        *,
        states: Collection[VersionState] = (),
        after: UUID | None = None,
        limit: int = MOST_RESULTS,
    ) -> list[PolicyVersion]:
        """Versions, of one policy or of all, in the order of their ids. Raises AuthorizationError."""
        await self._authorize(unit, principal, Call("PolicyService.Find"), CallTarget(principal.org))
        conditions: list[Any] = []
        if name is not None:
            conditions.append(store.name_is(name))
        if states:
            conditions.append(store.state_in(states))
        return await store.find(unit, principal.org, *conditions, after=after, limit=min(limit, MOST_RESULTS))

    # What other domains ask, after they have authorized their own call.

    async def version(self, unit: Unit, org: UUID, identifier: UUID) -> PolicyVersion:
        """A version by its id. Raises NoSuchPolicy."""
        found = await store.version(unit, org, identifier)
        if found is None:
            raise NoSuchPolicy("there is no such version of a policy")
        return found

    async def in_force(self, unit: Unit, org: UUID, policy: UUID) -> AssignedPolicy:
        """The version of a policy that is in force. Raises NoSuchPolicy."""
        found = await store.published(unit, org, policy)
        if found is None:
            raise NoSuchPolicy("no version of this policy is in force")
        return self._applied(found)

    async def numbered(self, unit: Unit, org: UUID, policy: UUID, number: int) -> AssignedPolicy:
        """A version by its number: what a device was made by. Raises NoSuchPolicy."""
        found = await store.numbered(unit, org, policy, number)
        if found is None:
            raise NoSuchPolicy("there is no such version of this policy")
        return self._applied(found)

    async def for_person(
        self, unit: Unit, org: UUID, person: UUID, kind: DeviceKind, name: str | None = None
    ) -> AssignedPolicy:
        """The one policy in force for a person and a kind of device; ``name`` chooses among several.

        Raises NoSuchPerson, NoPolicyForPerson, PolicyAmbiguous.
        """
        groups = await self._people.groups_of(unit, org, person)
        found = [self._applied(one) for one in await store.assigned(unit, org, [group.id for group in groups])]
        fitting = [
            one for one in found if kind in one.document.device_kinds and (name is None or one.document.name == name)
        ]
        if not fitting:
            raise NoPolicyForPerson(f"no policy for a {kind} is assigned to a group of this person")
        if len(fitting) > 1:
            raise PolicyAmbiguous([one.document.name for one in fitting])
        return fitting[0]

    def _require_reachable(self, document: Policy) -> None:
        if findings := unreachable(document, self._certificates):
            raise PolicyUnreachable(findings)

    async def _assignable(self, unit: Unit, principal: Principal, name: str) -> UUID:
        await self._authorize(unit, principal, Call("PolicyService.Assign"), CallTarget(principal.org))
        policy = await store.policy_by_name(unit, principal.org, name)
        if policy is None:
            raise NoSuchPolicy(f"there is no policy {name!r}")
        return policy

    def _applied(self, found: PolicyVersion) -> AssignedPolicy:
        document: Policy = self._read(found.text)
        return AssignedPolicy(found.policy, found.number, document)

    async def _move(
        self,
        unit: Unit,
        principal: Principal,
        permission: Permission,
        found: PolicyVersion,
        event: VersionEvent,
        values: dict[str, Any],
    ) -> PolicyVersion:
        actor = part_for(VERSION, found.state, event, permission)
        step = _Step(unit, principal, found)
        row = await self._rules.choose(found.state, event, actor, step)
        number = await store.update_version(unit, found, {"state": row.target, **values})
        await self._note(unit, principal, found, found.state, event, actor, row.target, number)
        await self._rules.perform(row, step)
        return await self.version(unit, found.org, found.id)

    async def _supersede_older(self, step: _Step) -> None:
        mine = step.version
        for older in await store.versions(step.unit, mine.org, mine.name, MOST_VERSIONS):
            if older.id != mine.id and older.state is VersionState.PUBLISHED:
                permission = Permission(server(mine.org))
                await self._move(step.unit, permission.principal, permission, older, VersionEvent.SUPERSEDE, {})

    async def _note(
        self,
        unit: Unit,
        principal: Principal,
        version: PolicyVersion,
        source: VersionState | None,
        event: VersionEvent,
        actor: Actor,
        target: VersionState,
        number: int,
    ) -> None:
        values = {"source": source, "event": event, "actor": actor, "target": target, "who": principal.actor}
        await store.note_step(unit, version.org, version.id, number, values)
        facts: dict[str, Fact] = {
            "version": version.number,
            "digest": version.digest,
            "before": source,
            "after": target,
            "policy": str(version.policy),
        }
        self._record(unit, principal, f"policy.{event}", version.id, facts)

    def _record(self, unit: Unit, principal: Principal, action: str, identifier: UUID, facts: dict[str, Fact]) -> None:
        unit.audit(AuditEntry(principal.org, principal.who, action, Target("policy", identifier), facts=facts))
        unit.emit(DomainEvent(principal.org, action, "policy", identifier, data=facts))
