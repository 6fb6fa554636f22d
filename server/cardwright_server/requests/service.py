"""Rules of requests: who asks for what, who approves, and how a card session carries one out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from ..acting import part_for, parts
from ..authentication.authorize import Authorize, CallTarget, Permission, sought
from ..authentication.errors import AuthorizationError
from ..authentication.matrix import Call
from ..authentication.principal import Principal, PrincipalKind, server
from ..devices.errors import NoSuchDevice
from ..devices.lifecycle import DeviceLifecycle, Told, may_be_used_again
from ..devices.model import INCIDENTS, Device, DeviceEvent, Reason
from ..machine import Actor, IllegalTransition
from ..people.service import PeopleService
from ..policies.model import DeviceKind, UnlockMethod
from ..store.columns import canonical
from ..store.unit import Unit
from . import store
from .book import RequestBook, Wanted
from .errors import IdempotencyConflict, NoSuchRequest, RequestNotPossible, UnlockClosed
from .model import CLOSED, POSSIBLE, REQUEST, WAITING, Opened, Request, RequestEvent, RequestKind, RequestState

MOST_RESULTS = 201
"""A full page, and one more that shows whether anything follows."""
LONGEST_KEY = 80
PLANNED = frozenset({Reason.RENEWED, Reason.AFFILIATION, Reason.COMPROMISED})
"""Reasons to replace a device that works, until the new one is issued."""
_UPDATES = frozenset({RequestKind.UPDATE, RequestKind.REISSUE, RequestKind.RECOVERY})
_PRODUCES = frozenset({RequestKind.ISSUANCE, RequestKind.REPLACEMENT})
_STARTS = {
    **dict.fromkeys(_PRODUCES, DeviceEvent.START),
    **dict.fromkeys(_UPDATES, DeviceEvent.START_UPDATE),
    RequestKind.RECYCLE: DeviceEvent.START_RECYCLE,
}
"""What carrying out a request of a kind begins with for its device."""
_FAILURES = {
    **dict.fromkeys(_PRODUCES, DeviceEvent.FAIL),
    **dict.fromkeys(_UPDATES, DeviceEvent.FAIL_UPDATE),
}


@dataclass(frozen=True, slots=True)
class Names:
    """What people call that which requests are about, by id: serial numbers of devices, and logins of holders."""

    serials: Mapping[UUID, str]
    logins: Mapping[UUID, str]


class RequestService:
    """Requests. Stateless."""

    def __init__(
        self, authorize: Authorize, people: PeopleService, lifecycle: DeviceLifecycle, book: RequestBook
    ) -> None:
        self._authorize = authorize
        self._people = people
        self._lifecycle = lifecycle
        self._book = book

    # What people and operators ask for.

    async def create_issuance(self, unit: Unit, principal: Principal, device: UUID, *, key: str = "") -> Opened:
        """Ask that a bound device be written. Raises AuthorizationError, NoSuchDevice, RequestNotPossible."""
        return await self._create(unit, principal, "RequestService.CreateIssuance", RequestKind.ISSUANCE, device, key)

    async def create_replacement(
        self, unit: Unit, principal: Principal, device: UUID, reason: Reason = Reason.NONE, *, key: str = ""
    ) -> Opened:
        """Ask for another device in place of this one; only for a while if it was forgotten.

        A device that is out of use is replaced for the reason that it has; one that works, for one of ``PLANNED``.
        Raises AuthorizationError, NoSuchDevice, RequestNotPossible.
        """
        name = "RequestService.CreateReplacement"
        found, permission = await self._permitted(unit, principal, name, device)
        why = found.reason if found.reason is not Reason.NONE else reason
        if found.reason is Reason.NONE and reason not in PLANNED:
            raise RequestNotPossible(
                "a device that works is replaced when it is renewed, compromised or of another name"
            )
        return await self._replacement(unit, permission, found, why, key)

    async def create_unlock(self, unit: Unit, principal: Principal, device: UUID, *, key: str = "") -> Opened:
        """Ask that a PIN be set anew, within ten minutes. Raises as ``create_issuance``, and UnlockClosed."""
        found, permission = await self._permitted(unit, principal, "RequestService.CreateUnlock", device)
        policy = await self._lifecycle.policy_of(unit, found)
        ways = frozenset[UnlockMethod]() if policy is None else policy.document.unlock
        mine = {UnlockMethod.SELF} if permission.own is not None else {UnlockMethod.ASSISTED, UnlockMethod.OPERATOR}
        if not mine & ways:
            raise UnlockClosed("the device's policy does not open this way of unlocking")
        return await self._open(unit, permission, Wanted(RequestKind.UNLOCK, found), key)

    async def create_update(self, unit: Unit, principal: Principal, device: UUID, *, key: str = "") -> Opened:
        """Ask that a device be brought to its policy. Raises as ``create_issuance``."""
        return await self._create(unit, principal, "RequestService.CreateUpdate", RequestKind.UPDATE, device, key)

    async def create_reissue(self, unit: Unit, principal: Principal, device: UUID, *, key: str = "") -> Opened:
        """Ask that a device be written anew as a whole. Raises as ``create_issuance``."""
        return await self._create(unit, principal, "RequestService.CreateReissue", RequestKind.REISSUE, device, key)

    async def create_termination(
        self, unit: Unit, principal: Principal, device: UUID, reason: Reason, *, key: str = ""
    ) -> Opened:
        """Ask that a device be terminated: where one person alone may not. Raises as ``create_issuance``."""
        name = "RequestService.CreateTermination"
        return await self._create(unit, principal, name, RequestKind.TERMINATE, device, key, reason)

    async def create_recovery(self, unit: Unit, principal: Principal, device: UUID, *, key: str = "") -> Opened:
        """Ask that escrowed keys be put onto a device. Raises as ``create_issuance``."""
        return await self._create(unit, principal, "RequestService.CreateRecovery", RequestKind.RECOVERY, device, key)

    async def create_recycle(
        self, unit: Unit, principal: Principal, device: UUID, *, found: bool = False, key: str = ""
    ) -> Opened:
        """Ask that a card be erased, which nobody uses any more. ``found``: a lost or stolen one is at hand again.

        Raises as ``create_issuance``.
        """
        ended, permission = await self._permitted(unit, principal, "RequestService.CreateRecycle", device)
        if ended.state in POSSIBLE[RequestKind.RECYCLE] and not may_be_used_again(ended, found=found):
            if may_be_used_again(ended, found=True):
                raise RequestNotPossible(f"a device that was {ended.reason} is not at hand unless somebody says so")
            raise RequestNotPossible("a device that was destroyed is not used again")
        return await self._open(unit, permission, Wanted(RequestKind.RECYCLE, ended), key)

    async def recycle_unasked(self, unit: Unit, org: UUID, device: UUID) -> Request | None:
        """The request by which the server has a virtual card erased that is at its end and comes again: no operator
        has it at hand. None for every other device, for one that an issuance may still go on with, for what was lost,
        stolen or destroyed, and where such a request failed or was taken back. Raises NoSuchDevice.
        """
        ended = await self._lifecycle.device(unit, org, device)
        at_its_end = ended.state in POSSIBLE[RequestKind.RECYCLE] and may_be_used_again(ended, found=False)
        if ended.kind is not DeviceKind.VIRTUAL_CARD or not at_its_end:
            return None
        if any(one.kind in _PRODUCES and one.worked_on == device for one in await self.open_of(unit, org, device)):
            return None
        # Once before it was ever in use, and once after: it is not asked for again and again.
        key = f"{device} {ended.life} {'new' if ended.issued_at is None else 'used'}"
        opened = await self.create_recycle(unit, server(org), device, key=key)
        return None if opened.request.state in CLOSED else opened.request

    async def for_incident(self, unit: Unit, permission: Permission, device: UUID) -> Opened:
        """The replacement that a reported incident brings about; the report was authorized. Raises NoSuchDevice."""
        found = await self._lifecycle.device(unit, permission.principal.org, device)
        return await self._replacement(unit, permission, found, found.reason, "")

    # Decisions.

    async def approve(self, unit: Unit, principal: Principal, identifier: UUID) -> Request:
        """Agree. Nobody does so to what they asked for. Approving what one approved already changes nothing.

        Raises AuthorizationError, NoSuchRequest, IllegalTransition, GuardRefused, StaleVersion.
        """
        found, permission = await self._of(unit, principal, "RequestService.Approve", identifier)
        if found.approved_by == principal.actor and found.state is not RequestState.PENDING:
            return found
        approval = {"approved_by": principal.actor}
        return await self._decide(unit, permission, found, RequestEvent.APPROVE, approval)

    async def deny(self, unit: Unit, principal: Principal, identifier: UUID) -> Request:
        """Refuse. Raises as ``approve``."""
        found, permission = await self._of(unit, principal, "RequestService.Deny", identifier)
        return await self._decide(unit, permission, found, RequestEvent.DENY, {})

    async def cancel(self, unit: Unit, principal: Principal, identifier: UUID) -> Request:
        """Take a request back, unless it is being carried out; it is kept. A replacement's device comes back.

        Persons cancel their own replacements, but for a stolen device only the help desk does. Raises as ``approve``,
        and DeviceRestoreRefused.
        """
        own = principal.kind is PrincipalKind.PERSON
        name = "RequestService.Cancel/own" if own else "RequestService.Cancel"
        found, permission = await self._of(unit, principal, name, identifier)
        return await self._decide(unit, permission, found, RequestEvent.CANCEL, {})

    async def get(self, unit: Unit, principal: Principal, identifier: UUID) -> Request:
        """A request. Raises AuthorizationError, NoSuchRequest."""
        found, _ = await self._of(unit, principal, "RequestService.Get", identifier)
        return found

    async def history(self, unit: Unit, principal: Principal, identifier: UUID) -> list[Row[Any]]:
        """Every step of a request, in order. Raises as ``get``."""
        await self.get(unit, principal, identifier)
        return await store.history(unit, principal.org, identifier)

    async def find(
        self,
        unit: Unit,
        principal: Principal,
        *,
        states: Collection[RequestState] = (),
        kinds: Collection[RequestKind] = (),
        device: UUID | None = None,
        person: UUID | None = None,
        after: UUID | None = None,
        limit: int = 50,
    ) -> list[Request]:
        """Requests about persons whom the caller's grants cover, or about the caller's own devices."""
        permission = await self._authorize(unit, principal, Call("RequestService.Find"), CallTarget(principal.org))
        conditions: list[Any] = []
        if permission.own is not None:
            conditions.append(store.person_is(permission.own))
        elif not permission.everywhere:
            conditions.append(store.person_in(self._people.covered(permission)))
        if states:
            conditions.append(store.state_in(states))
        if kinds:
            conditions.append(store.kind_in(kinds))
        if device is not None:
            conditions.append(store.device_is(device))
        if person is not None:
            conditions.append(store.person_is(person))
        return await store.find(unit, principal.org, *conditions, after=after, limit=min(limit, MOST_RESULTS))

    async def names(self, unit: Unit, org: UUID, requests: Collection[Request]) -> Names:
        """The names of what requests are about: for who has been given these to see."""
        people = {one.person for one in requests if one.person is not None}
        return Names(
            await self._lifecycle.serials(unit, org, {one.device for one in requests}),
            await self._people.logins(unit, org, people),
        )

    # What card sessions do, after they have authorized their own call (``Request.target`` is for that).

    async def request(self, unit: Unit, org: UUID, identifier: UUID) -> Request:
        """A request of an organization. Raises NoSuchRequest."""
        return await self._book.request(unit, org, identifier)

    async def open_of(self, unit: Unit, org: UUID, device: UUID, kind: RequestKind | None = None) -> list[Request]:
        """Open requests about a device, or that it shall fulfil as a replacement; oldest first."""
        found = await store.open_of(unit, org, device, kind)
        if kind in (None, RequestKind.REPLACEMENT):
            found += await store.open_for_card(unit, org, device)
        return sorted(found, key=lambda request: request.id)

    async def start(self, unit: Unit, permission: Permission, identifier: UUID, session: UUID) -> Request:
        """Begin to carry a request out in a card session: it is this session's alone until that ends.

        The same session again changes nothing. Raises NoSuchRequest, IllegalTransition (someone else does it, or it is
        not ready), GuardRefused (its time is over), StaleVersion.
        """
        principal = permission.principal
        found = await self._book.request(unit, principal.org, identifier)
        if found.state is RequestState.EXECUTING and found.session == session:
            return found
        actor = _starter(found, permission)
        issuer = {"issued_by": principal.actor} if found.kind in _PRODUCES else {}
        started = await self._book.move(
            unit, principal, found, RequestEvent.START, actor, session=session, values=issuer
        )
        event = _STARTS.get(found.kind)
        if event is not None:
            assert started.worked_on is not None
            told = Told(request=started.id, session=session)
            worker = Actor.SERVER if actor is Actor.SERVER else _worker(permission)
            if found.kind in _PRODUCES:
                await self._supersede_recycling(unit, started)
            await self._lifecycle.move(unit, principal, started.worked_on, event, worker, told)
        return started

    async def finish(
        self, unit: Unit, org: UUID, identifier: UUID, session: UUID, told: Told, *, produce: bool = False
    ) -> Request:
        """It is carried out, and the card was read back (``told.read_back``). ``produce``: to be activated later.

        The same session again changes nothing. Raises as ``start``.
        """
        found = await self._book.request(unit, org, identifier)
        if found.state is RequestState.DONE and found.session == session:
            return found
        itself, worked_on = server(org), found.worked_on
        told = replace(told, request=found.id, session=session)
        if found.kind in _PRODUCES and worked_on is not None:
            event = DeviceEvent.PRODUCE if produce else DeviceEvent.ISSUE
            await self._lifecycle.move(unit, itself, worked_on, event, Actor.SERVER, told)
        elif found.kind in _UPDATES:
            await self._lifecycle.move(unit, itself, found.device, DeviceEvent.UPDATE, Actor.SERVER, told)
        elif found.kind is RequestKind.RECYCLE:
            await self._lifecycle.move(unit, itself, found.device, DeviceEvent.RECYCLE, Actor.SERVER, told)
        return await self._book.move(unit, itself, found, RequestEvent.FINISH, Actor.SERVER, session=session)

    async def interrupt(self, unit: Unit, org: UUID, identifier: UUID, session: UUID) -> Request:
        """The session ended without success or failure; the next one goes on. Raises as ``start``."""
        found = await self._book.request(unit, org, identifier)
        if found.state is not RequestState.EXECUTING:
            return found
        await self._let_go(unit, found, session, DeviceEvent.INTERRUPT, Told())
        return await self._book.move(unit, server(org), found, RequestEvent.INTERRUPT, Actor.SERVER, session=session)

    async def fail(
        self, unit: Unit, org: UUID, identifier: UUID, session: UUID, *, retryable: bool, consistent: bool
    ) -> Request:
        """The session failed. ``consistent``: the card is as before, or as planned. Raises as ``start``."""
        found = await self._book.request(unit, org, identifier)
        if found.state is not RequestState.EXECUTING:
            return found
        event = _FAILURES.get(found.kind, DeviceEvent.INTERRUPT)
        await self._let_go(unit, found, session, event, Told(consistent=consistent))
        return await self._book.move(
            unit, server(org), found, RequestEvent.FAIL, Actor.SERVER, session=session, retryable=retryable
        )

    async def begin_termination(
        self, unit: Unit, permission: Permission, device: UUID, identifier: UUID, act: UUID
    ) -> Request:
        """Take up the approved termination of a device that the caller may end, by an operator rather than a session.

        Raises as ``start``; NoSuchRequest also for one about another device.
        """
        found = await self._book.request(unit, permission.principal.org, identifier)
        if found.device != device:
            raise NoSuchRequest("there is no such request")
        if found.kind is not RequestKind.TERMINATE:
            raise RequestNotPossible("this is no request for a termination")
        return await self.start(unit, permission, identifier, act)

    async def close_of_person(self, unit: Unit, org: UUID, person: UUID) -> None:
        """Close what is open about a person who left, replacements too; their devices are ended before."""
        for found in await store.open_of_person(unit, org, person):
            if found.state in WAITING:
                await self._book.move(unit, server(org), found, RequestEvent.CLOSE, Actor.SERVER)

    async def expire(self, unit: Unit, limit: int = 100) -> int:
        """End what waited too long, by the time of the database; how many. For the timer."""
        found = await store.lapsed(unit, limit)
        for one in found:
            await self._book.move(unit, server(one.org), one, RequestEvent.EXPIRE, Actor.TIMER)
        return len(found)

    async def _supersede_recycling(self, unit: Unit, issued: Request) -> None:
        """A device whose issuance is tried once more is not to be erased by what was asked for before."""
        assert issued.worked_on is not None
        for older in await store.open_of(unit, issued.org, issued.worked_on, RequestKind.RECYCLE):
            if older.state in WAITING:
                await self._book.move(unit, server(issued.org), older, RequestEvent.SUPERSEDE, Actor.SERVER)

    async def _let_go(self, unit: Unit, found: Request, session: UUID, event: DeviceEvent, told: Told) -> None:
        if found.kind not in _STARTS or found.worked_on is None:
            return
        device = await self._lifecycle.device(unit, found.org, found.worked_on)
        # Suspended or reported in mid-session, it has left the session already.
        if device.session == session:
            told = replace(told, request=found.id, session=session)
            await self._lifecycle.move(unit, server(found.org), device.id, event, Actor.SERVER, told)

    async def _create(
        self,
        unit: Unit,
        principal: Principal,
        name: str,
        kind: RequestKind,
        device: UUID,
        key: str,
        reason: Reason = Reason.NONE,
    ) -> Opened:
        found, permission = await self._permitted(unit, principal, name, device)
        return await self._open(unit, permission, Wanted(kind, found, reason), key)

    async def _permitted(self, unit: Unit, principal: Principal, name: str, device: UUID) -> tuple[Device, Permission]:
        finding = self._lifecycle.device(unit, principal.org, device)
        found = await sought(self._authorize, unit, principal, Call(name), finding, NoSuchDevice)
        strict = await self._lifecycle.is_strict(unit, found)
        target = CallTarget(principal.org, found.person, strict=strict)
        return found, await self._authorize(unit, principal, Call(name), target)

    async def _replacement(
        self, unit: Unit, permission: Permission, device: Device, reason: Reason, key: str
    ) -> Opened:
        wanted = Wanted(RequestKind.REPLACEMENT, device, reason, temporary=reason is Reason.FORGOTTEN)
        for older in await store.open_of(unit, device.org, device.id, RequestKind.REPLACEMENT):
            # Forgotten turned out to be lost: the permanent replacement takes the place of the temporary one.
            if older.state in WAITING and (older.temporary, older.reason) != (wanted.temporary, wanted.reason):
                await self._book.move(unit, server(device.org), older, RequestEvent.SUPERSEDE, Actor.SERVER)
        return await self._open(unit, permission, wanted, key)

    async def _open(self, unit: Unit, permission: Permission, wanted: Wanted, key: str) -> Opened:
        principal, device = permission.principal, wanted.device
        fingerprint = _fingerprint(wanted)
        if len(key) > LONGEST_KEY:
            raise IdempotencyConflict(f"an idempotency key has at most {LONGEST_KEY} characters")
        if key and (before := await store.by_key(unit, principal.org, principal.actor, key)) is not None:
            if before[1] != fingerprint:
                raise IdempotencyConflict("this idempotency key was used for another request")
            return Opened(before[0], created=False)
        for present in await store.open_of(unit, principal.org, device.id, wanted.kind):
            return Opened(present, created=False)
        if device.state not in POSSIBLE[wanted.kind]:
            raise RequestNotPossible(f"a device that is {device.state} is not asked for {wanted.kind}")
        if wanted.kind is RequestKind.REPLACEMENT and wanted.reason not in (*INCIDENTS, *PLANNED, *_OUT_OF_USE):
            raise RequestNotPossible(f"{wanted.reason} is no reason to replace a device")
        strict = await self._lifecycle.is_strict(unit, device)
        approves = await self._may_approve(unit, principal, device)
        wanted = replace(wanted, strict=strict, approves=approves, key=key or None, fingerprint=fingerprint)
        actor = part_for(REQUEST, None, RequestEvent.OPEN, permission)
        return Opened(await self._book.open(unit, principal, actor, wanted), created=True)

    async def _may_approve(self, unit: Unit, principal: Principal, device: Device) -> bool:
        """Whether the maker holds the right to approve: then nobody else has to, unless the policy is strict."""
        if principal.kind not in (PrincipalKind.OPERATOR, PrincipalKind.SERVICE):
            return False
        try:
            await self._authorize(
                unit, principal, Call("RequestService.Approve"), CallTarget(principal.org, device.person)
            )
        except AuthorizationError:
            return False
        return True

    async def _of(self, unit: Unit, principal: Principal, name: str, identifier: UUID) -> tuple[Request, Permission]:
        finding = self._book.request(unit, principal.org, identifier)
        found = await sought(self._authorize, unit, principal, Call(name), finding, NoSuchRequest)
        return found, await self._authorize(unit, principal, Call(name), found.target)

    async def _decide(
        self, unit: Unit, permission: Permission, found: Request, event: RequestEvent, values: dict[str, Any]
    ) -> Request:
        actor = part_for(REQUEST, found.state, event, permission)
        return await self._book.move(unit, permission.principal, found, event, actor, values=values)


_OUT_OF_USE = (Reason.EXPIRED, Reason.FAILED)


def _starter(request: Request, permission: Permission) -> Actor:
    """Who begins. What an operator asked to be erased is erased at any station that sessions let do it."""
    at_station = permission.principal.kind is PrincipalKind.WORKSTATION
    if at_station and request.kind is RequestKind.RECYCLE:
        return Actor.SERVER
    return part_for(REQUEST, request.state, RequestEvent.START, permission)


def _worker(permission: Permission) -> Actor:
    mine = parts(permission)
    if not mine:
        raise IllegalTransition(REQUEST.name, None, RequestEvent.START, permission.principal.kind, known=True)
    # Devices are written at a station by issuers, and by their holders.
    return Actor.ISSUANCE if Actor.ISSUANCE in mine else mine[0]


def _fingerprint(wanted: Wanted) -> str:
    said = [wanted.kind.value, str(wanted.device.id), wanted.reason.value, wanted.temporary]
    return sha256(canonical(said).encode()).hexdigest()
