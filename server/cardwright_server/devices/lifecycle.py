"""What happens to devices: the machine's rows carried out, with their guards and effects.

Nothing here asks who may: services do, and say in which part (``actor``) the caller acts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.principal import Principal, server
from ..machine import Actor, Rules, Transition
from ..notify.model import DomainEvent
from ..people.model import PersonStatus
from ..people.service import PeopleService
from ..policies.errors import NoSuchPolicy
from ..policies.model import AssignedPolicy
from ..policies.service import PolicyService
from ..store.unit import Unit
from . import store
from .card_lock import CardLocks
from .consequences import Credentials, DeviceRequests
from .due import DueList, What
from .errors import (
    DeviceRestoreRefused,
    KindNotAllowed,
    NoSuchDevice,
    NoSuchHold,
    PersonNotActive,
    SecondPersonRequired,
    TooManyDevices,
)
from .journal import REMEMBERED, device_event
from .machine import DEVICE
from .model import (
    CRL_REASONS,
    INCIDENTS,
    OUT_OF_REACH,
    REVOKE_AFTER,
    SERVERS_HOLDS,
    Device,
    DeviceEvent,
    DeviceState,
    Disposition,
    HoldReason,
    Reason,
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller says with an event; each event looks only at what it needs.

    ``reason``: of an incident or the end. ``values``: columns that binding or issuing sets. ``read_back``: the card
    was read back after the last step and is as planned. ``consistent``: it is as before the update, or as after it.
    ``found``: a lost card is at hand. ``lock_card``: it is to be locked at its next contact.
    ``expires_at`` and ``activate_by``: None for as late as the policy allows.
    """

    reason: Reason = Reason.NONE
    hold: HoldReason = HoldReason.OPERATOR
    request: UUID | None = None
    session: UUID | None = None
    read_back: bool = False
    consistent: bool = False
    found: bool = False
    lock_card: bool = False
    disposition: Disposition | None = None
    expires_at: datetime | None = None
    activate_by: datetime | None = None
    values: dict[str, Any] = field(default_factory=dict)
    remark: str = field(default="", repr=False)


@dataclass(slots=True)
class _Move:
    unit: Unit
    principal: Principal
    device: Device
    event: DeviceEvent
    actor: Actor
    told: Told


_CLEAN: dict[str, Any] = {
    "person": None,
    "policy": None,
    "policy_number": None,
    "replaces": None,
    "temporary": False,
    "guid": None,
    "fascn": None,
    "session": None,
    "bound_at": None,
    "issued_at": None,
    "expires_at": None,
    "activate_by": None,
    "ended_at": None,
    "disposition": "",
    "card_locked": False,
}
_AT_THE_END = {DeviceState.TERMINATED: {"card_locked": False}}
"""Nobody opens a card again whose device has ended."""
_STARTS = (DeviceEvent.START, DeviceEvent.START_UPDATE)


class DeviceLifecycle:
    """Carries out events of devices. Stateless."""

    def __init__(
        self,
        people: PeopleService,
        policies: PolicyService,
        credentials: Credentials,
        requests: DeviceRequests,
        due: DueList,
    ) -> None:
        self._people = people
        self._policies = policies
        self._credentials = credentials
        self._requests = requests
        self._due = due
        self.locks = CardLocks(requests, due)
        self._rules: Rules[DeviceState, DeviceEvent, _Move] = Rules(
            DEVICE,
            guards={
                "may_be_bound": self._may_be_bound,
                "request_is_executing": self._request_is_executing,
                "request_goes_on": self._request_goes_on,
                "read_back_matches": self._read_back_matches,
                "not_activated_in_time": lambda move: _passed(move, move.device.activate_by),
                "is_the_last_hold": self._is_the_last_hold,
                "is_held_so": self._is_held_so,
                "card_is_consistent": lambda move: move.told.consistent,
                "is_graver": lambda move: _gravity(move.told.reason) > _gravity(move.device.reason),
                "may_return": self._may_return,
                "may_return_held": self._may_return_held,
                "temporary_has_expired": lambda move: move.device.temporary and _passed(move, move.device.expires_at),
                "has_expired": lambda move: _passed(move, move.device.expires_at),
                "second_person_agrees": self._second_person_agrees,
                "revocation_cannot_wait": self._revocation_cannot_wait,
                "may_be_used_again": self._may_be_used_again,
                "recycle_is_executing": self._recycle_is_executing,
                "nobody_works_on_it": lambda move: move.device.session is None,
            },
            effects={
                "close_requests": lambda move: self._requests.close(move.unit, move.principal, move.device.id),
                "activate_credentials": self._activate_credentials,
                "settle_replacement": self._settle_replacement,
                "revoke_credentials": self._revoke_credentials,
                "revoke_new_credentials": lambda move: self._credentials.revoke_new(
                    move.unit, move.device.org, move.device.id, move.told.session or move.device.session
                ),
                "hold_credentials": self._hold_credentials,
                "revoke_in_time": self._revoke_in_time,
                "withdraw_unlock": lambda move: self.locks.withdraw(move.unit, move.principal, move.device),
                "order_lock": self._order_lock,
                "give_card_back": self._give_card_back,
                "release_credentials": self._release_credentials,
                "add_hold": self._add_hold,
                "remove_hold": lambda move: store.remove_hold(move.unit, move.device.id, move.told.hold),
                "restore_original": self._restore_original,
                "forget_holds": lambda move: store.remove_holds(move.unit, move.device.id),
                "settle_due": self._settle_due,
                "ask_for_activation": lambda move: self._due.put(
                    move.unit, move.device.org, move.device.id, What.ACTIVATION, move.unit.now
                ),
                "settle_activation": self._settle_activation,
                "forget_due": lambda move: self._due.remove(move.unit, move.device.id),
                "tell_that_it_is_over": lambda move: self._due.put(
                    move.unit, move.device.org, move.device.id, What.REVOKED, move.unit.now
                ),
            },
        )

    async def device(self, unit: Unit, org: UUID, identifier: UUID) -> Device:
        """A device of an organization. Raises NoSuchDevice."""
        found = await store.by_id(unit, org, identifier)
        if found is None:
            raise NoSuchDevice("there is no such device")
        return found

    async def serials(self, unit: Unit, org: UUID, identifiers: Collection[UUID]) -> dict[UUID, str]:
        """Serial numbers of devices by their ids, without those that are not there."""
        return await store.serials(unit, org, identifiers)

    async def by_guid(self, unit: Unit, org: UUID, guid: UUID) -> Device | None:
        """The device whose card says this card UUID."""
        return await store.by_guid(unit, org, guid)

    async def policy_of(self, unit: Unit, device: Device) -> AssignedPolicy | None:
        """The version of the policy that a device was bound or made by; None for stock."""
        if device.policy is None or device.policy_number is None:
            return None
        return await self._policies.numbered(unit, device.org, device.policy, device.policy_number)

    async def newest_policy_of(self, unit: Unit, device: Device) -> AssignedPolicy | None:
        """The version in force of a device's policy, the one it was made by if none is any more; None for stock."""
        if device.policy is None:
            return None
        try:
            return await self._policies.in_force(unit, device.org, device.policy)
        except NoSuchPolicy:
            return await self.policy_of(unit, device)

    async def brought_up(self, unit: Unit, org: UUID, identifier: UUID, number: int) -> None:
        """A device in use is as version ``number`` of its policy wants it, although nobody had asked for an update.

        Raises NoSuchDevice, StaleVersion.
        """
        device = await self.device(unit, org, identifier)
        if device.policy_number != number:
            await store.update(unit, device.id, device.version, {"policy_number": number})
        await self._settle_policy(unit, device, number)

    async def is_strict(self, unit: Unit, device: Device) -> bool:
        """Whether its policy claims compliance with FIPS 201-3."""
        policy = await self.policy_of(unit, device)
        return policy is not None and policy.document.strict

    async def move(
        self, unit: Unit, principal: Principal, identifier: UUID, event: DeviceEvent, actor: Actor, told: Told = Told()
    ) -> Transition[DeviceState, DeviceEvent]:
        """Carry out an event: the row changes, the step is on record, its effects happen, others are told.

        Raises NoSuchDevice, IllegalTransition, GuardRefused, StaleVersion, and the errors of guards: NoSuchHold,
        DeviceRestoreRefused, SecondPersonRequired.
        """
        device = await self.device(unit, principal.org, identifier)
        move = _Move(unit, principal, device, event, actor, told)
        row = await self._rules.choose(device.state, event, actor, move)
        if event in (DeviceEvent.ISSUE, DeviceEvent.PRODUCE):
            move.told = told = await self._within_policy(unit, device, told)
        values = {"state": row.target, **_AT_THE_END.get(row.target, {}), **_values(move, row.target)}
        if row.target in REMEMBERED:
            unit.beforehand(device_event(device, event, values, told.hold, lock=told.lock_card))
        number = await store.update(unit, device.id, device.version, values)
        reason = Reason(values.get("reason", device.reason))
        await self._record(move, row, number, reason)
        await self._rules.perform(row, replace_device(move, reason))
        return row

    async def register(self, unit: Unit, principal: Principal, actor: Actor, values: dict[str, Any]) -> UUID | None:
        """Add a device to stock; None if it is known. Raises IllegalTransition."""
        row = DEVICE.next(None, DeviceEvent.REGISTER, actor)
        identifier = await store.insert(unit, principal.org, {"state": row.target, **values})
        if identifier is None:
            return None
        device = await self.device(unit, principal.org, identifier)
        move = _Move(unit, principal, device, DeviceEvent.REGISTER, actor, Told())
        await self._record(move, row, device.version, Reason.NONE)
        return identifier

    async def _record(
        self, move: _Move, row: Transition[DeviceState, DeviceEvent], number: int, reason: Reason
    ) -> None:
        device, told = move.device, move.told
        person = told.values.get("person") or device.person
        detail = told.hold.value if row.event in (DeviceEvent.SUSPEND, DeviceEvent.RESUME) else reason.value
        step = {
            "source": row.source,
            "event": row.event,
            "target": row.target,
            "actor": move.actor,
            "who": move.principal.actor,
            "reason": detail,
            "session": told.session,
        }
        await store.note_step(move.unit, device.org, device.id, number, step)
        facts: dict[str, Fact] = {
            "before": row.source,
            "after": row.target,
            "reason": detail,
            "actor": move.actor,
            "holder": None if person is None else str(person),
            "request": None if told.request is None else str(told.request),
        }
        if told.disposition is not None:
            facts["disposition"] = told.disposition
        if told.lock_card:
            facts["lock_card"] = True
        action = f"device.{row.event}"
        move.unit.audit(
            AuditEntry(
                device.org,
                move.principal.who,
                action,
                Target("device", device.id),
                facts=facts,
                personal={"remark": told.remark} if told.remark else {},
                session=told.session,
            )
        )
        data = {"before": row.source, "after": row.target, "reason": detail, "temporary": device.temporary}
        move.unit.emit(DomainEvent(device.org, action, "device", device.id, person, data))

    async def _within_policy(self, unit: Unit, device: Device, told: Told) -> Told:
        """What is told, with ends that the policy allows: the earlier counts."""
        policy = await self.policy_of(unit, device)
        if policy is None:
            return told
        longest = unit.now + (policy.document.temporary if device.temporary else policy.document.validity)
        latest = unit.now + policy.document.activate_within
        return replace(
            told,
            expires_at=min(told.expires_at or longest, longest),
            activate_by=min(told.activate_by or latest, latest),
        )

    # Guards.

    async def _may_be_bound(self, move: _Move) -> bool:
        """Raises NoSuchPerson, PersonNotActive, KindNotAllowed, TooManyDevices."""
        unit, org, values = move.unit, move.device.org, move.told.values
        person = await self._people.person(unit, org, values["person"])
        if person.status is not PersonStatus.ACTIVE:
            raise PersonNotActive("this person is not active")
        policy = await self._policies.numbered(unit, org, values["policy"], values["policy_number"])
        if move.device.kind not in policy.document.device_kinds:
            raise KindNotAllowed(f"{policy.document.name} does not allow a {move.device.kind}")
        if values.get("replaces") is None:
            live = await store.count_live(unit, org, person.id, policy.policy)
            if live >= policy.document.max_devices:
                raise TooManyDevices(f"this person has {live} devices under {policy.document.name}, which is the limit")
        return True

    async def _request_is_executing(self, move: _Move) -> bool:
        told = move.told
        if told.request is None or told.session is None:
            return False
        await self._check_holder(move)
        if move.device.state is DeviceState.FAILED and move.actor is Actor.USER:
            policy = await self.policy_of(move.unit, move.device)
            if policy is None or not policy.document.user_retry:
                return False
        return await self._requests.is_executing(move.unit, move.device.org, move.device.id, told.request, told.session)

    async def _request_goes_on(self, move: _Move) -> bool:
        # While a session holds the device, nobody else begins; INTERRUPT lets go of it.
        return move.device.session is None and await self._request_is_executing(move)

    async def _read_back_matches(self, move: _Move) -> bool:
        await self._check_holder(move)
        held, told = move.device.session, move.told
        # Nobody holds a device whose update was broken off and taken back: a session that finds the card in order may
        # say so without a request.
        mine = held == told.session if held is not None else told.request is None
        return told.read_back and told.session is not None and mine

    async def _check_holder(self, move: _Move) -> None:
        """Raises PersonNotActive: a device that is not held yet must not come into use after its holder was."""
        if move.device.person is not None:
            person = await self._people.person(move.unit, move.device.org, move.device.person)
            if person.status is not PersonStatus.ACTIVE:
                raise PersonNotActive("this person is not active")

    async def _is_the_last_hold(self, move: _Move) -> bool:
        return await store.holds(move.unit, move.device.id) == {move.told.hold} and self._may_lift(move)

    async def _is_held_so(self, move: _Move) -> bool:
        held = await store.holds(move.unit, move.device.id)
        if move.told.hold not in held or not self._may_lift(move):
            raise NoSuchHold(f"there is no hold for {move.told.hold} that {move.actor} may lift")
        return True

    @staticmethod
    def _may_lift(move: _Move) -> bool:
        return move.told.hold not in SERVERS_HOLDS or move.actor is Actor.SERVER

    async def _may_return(self, move: _Move) -> bool:
        await self._check_return(move)
        return not await store.holds(move.unit, move.device.id)

    async def _may_return_held(self, move: _Move) -> bool:
        await self._check_return(move)
        return True

    async def _check_return(self, move: _Move) -> None:
        device = move.device
        if device.reason not in INCIDENTS:
            raise DeviceRestoreRefused(f"a device that is invalid because it is {device.reason} does not come back")
        if device.reason is Reason.STOLEN and move.actor is Actor.USER:
            raise DeviceRestoreRefused("a device that was reported as stolen is restored by the help desk only")
        if device.expires_at is not None and device.expires_at <= move.unit.now:
            raise DeviceRestoreRefused("the device has expired in the meantime")
        if await store.has_live_stand_in(move.unit, device.org, device.id):
            raise DeviceRestoreRefused("its replacement is in use, or being made")

    async def _second_person_agrees(self, move: _Move) -> bool:
        if move.actor is Actor.SERVER:
            return True
        policy = await self.policy_of(move.unit, move.device)
        if policy is None or not policy.document.two_person_termination:
            return True
        if not await self._requests.second_person_agreed(move.unit, move.device.org, move.device.id, move.told.request):
            raise SecondPersonRequired("one person alone does not terminate a device under this policy")
        return True

    async def _revocation_cannot_wait(self, move: _Move) -> bool:
        # That it is due was written when the loss was reported.
        return move.device.reason in OUT_OF_REACH and await self.is_strict(move.unit, move.device)

    async def _may_be_used_again(self, move: _Move) -> bool:
        return move.device.session in (None, move.told.session) and may_be_used_again(
            move.device, found=move.told.found
        )

    async def _recycle_is_executing(self, move: _Move) -> bool:
        """Whatever became of its holder."""
        told, device = move.told, move.device
        if told.request is None or told.session is None or device.session is not None:
            return False
        if not may_be_used_again(device, found=True):
            return False
        return await self._requests.is_executing(move.unit, device.org, device.id, told.request, told.session)

    # Effects. The device is as it was before, but for its reason.

    async def _hold_credentials(self, move: _Move) -> None:
        suspended = move.event is DeviceEvent.SUSPEND
        reason = move.told.hold.value if suspended else move.device.reason.value
        await self._credentials.hold(move.unit, move.device.org, move.device.id, reason)

    async def _revoke_in_time(self, move: _Move) -> None:
        """A later report, stolen after lost, gives no more time."""
        if move.device.reason in OUT_OF_REACH and await self.is_strict(move.unit, move.device):
            latest = move.unit.now + REVOKE_AFTER
            await self._due.put(move.unit, move.device.org, move.device.id, What.REVOKED, latest, keep=True)

    async def _release_credentials(self, move: _Move) -> None:
        await self._credentials.release(move.unit, move.device.org, move.device.id)
        await self._due.remove(move.unit, move.device.id, What.REVOKED)

    async def _order_lock(self, move: _Move) -> None:
        if move.told.lock_card:
            await self.locks.order(move.unit, move.device)

    async def _give_card_back(self, move: _Move) -> None:
        policy = await self.policy_of(move.unit, move.device)
        document = None if policy is None else policy.document
        await self.locks.give_back(move.unit, move.principal, move.device, document)

    async def _activate_credentials(self, move: _Move) -> None:
        await self._credentials.activate(move.unit, move.device.org, move.device.id, move.told.session)

    async def _revoke_credentials(self, move: _Move) -> None:
        reasons = CRL_REASONS[move.device.reason]
        await self._credentials.revoke(move.unit, move.device.org, move.device.id, reasons)

    async def _add_hold(self, move: _Move) -> None:
        device = move.device
        await store.add_hold(move.unit, device.org, device.id, move.told.hold, move.principal.actor)

    async def _settle_replacement(self, move: _Move) -> None:
        device = move.device
        await self._due.remove(move.unit, device.id, What.REPLACEMENT)
        if device.replaces is None or device.temporary or device.person is None:
            return
        itself = server(device.org)
        replaced = {device.replaces}
        for other in await store.of_person(move.unit, device.org, device.person):
            ends = other.id == device.replaces or other.state is DeviceState.INVALID
            if other.id != device.id and ends:
                replaced.add(other.id)
                told = Told(reason=Reason.RENEWED) if other.reason is Reason.NONE else Told(reason=other.reason)
                await self.move(move.unit, itself, other.id, DeviceEvent.REPLACE, Actor.SERVER, told)
        for other in await store.of_person(move.unit, device.org, device.person):
            if other.temporary and other.replaces in replaced and other.id != device.id:
                await self._end_stand_in(move.unit, itself, other)

    async def _settle_due(self, move: _Move) -> None:
        device, made = move.device, move.told.values.get("policy_number")
        await self._due.remove(move.unit, device.id, What.REQUEST, What.UNLOCK)
        if made is not None:
            await self._settle_policy(move.unit, device, made)

    async def _settle_activation(self, move: _Move) -> None:
        device = move.device
        await self._due.remove(move.unit, device.id, What.ACTIVATION)
        made = move.told.values.get("policy_number", device.policy_number)
        newest = await self.newest_policy_of(move.unit, device)
        # New versions make those due that are in use, which it was not.
        if newest is not None and (made is None or made < newest.number):
            await self._due.put(move.unit, device.org, device.id, What.POLICY, move.unit.now)

    async def _settle_policy(self, unit: Unit, device: Device, made: int) -> None:
        newest = await self.newest_policy_of(unit, device)
        # Another version may have come while the card was written.
        if newest is not None and newest.number <= made:
            await self._due.remove(unit, device.id, What.POLICY)

    async def _end_stand_in(self, unit: Unit, itself: Principal, other: Device) -> None:
        if other.state is DeviceState.ASSIGNED:
            await self.move(unit, itself, other.id, DeviceEvent.UNBIND, Actor.SERVER)
        else:
            told = Told(reason=Reason.RETURNED, disposition=Disposition.NOT_COLLECTED)
            await self.move(unit, itself, other.id, DeviceEvent.TERMINATE, Actor.SERVER, told)

    async def _restore_original(self, move: _Move) -> None:
        device = move.device
        if not device.temporary or device.replaces is None:
            return
        original = await store.by_id(move.unit, device.org, device.replaces)
        if original is None or original.state is not DeviceState.INVALID or original.reason is not Reason.FORGOTTEN:
            return
        if original.expires_at is not None and original.expires_at <= move.unit.now:
            return
        if await store.has_live_stand_in(move.unit, device.org, original.id):
            return
        await self.move(move.unit, server(device.org), original.id, DeviceEvent.RESTORE, Actor.SERVER)


def may_be_used_again(device: Device, *, found: bool) -> bool:
    """Whether a device at its end can go back to stock. ``found``: a lost or stolen one is at hand again."""
    if device.disposition == Disposition.DESTROYED:
        return False
    return found or device.reason not in OUT_OF_REACH


def replace_device(move: _Move, reason: Reason) -> _Move:
    """The same move as effects see it: with the reason that the device has now."""
    return replace(move, device=replace(move.device, reason=reason))


def _passed(move: _Move, moment: datetime | None) -> bool:
    return moment is not None and moment <= move.unit.now


def _gravity(reason: Reason) -> int:
    return INCIDENTS.index(reason) + 1 if reason in INCIDENTS else 0


def _values(move: _Move, target: DeviceState) -> dict[str, Any]:
    told, now = move.told, move.unit.now
    match move.event:
        case DeviceEvent.BIND:
            return {**told.values, "bound_at": now}
        case DeviceEvent.UNBIND:
            return {**_CLEAN}
        case DeviceEvent.RECYCLE:
            return {**_CLEAN, "reason": Reason.RECYCLED, "life": move.device.life + 1}
        case DeviceEvent.START_RECYCLE:
            ended = {"ended_at": now, "disposition": Disposition.COLLECTED}
            return {"session": told.session, **(ended if move.device.state is DeviceState.FAILED else {})}
        case event if event in _STARTS:
            return {**told.values, "session": told.session, "reason": Reason.NONE}
        case DeviceEvent.ISSUE:
            return {**told.values, "session": None, "issued_at": now, "expires_at": told.expires_at}
        case DeviceEvent.PRODUCE:
            ends = {"expires_at": told.expires_at, "activate_by": told.activate_by}
            return {**told.values, **ends, "session": None}
        case DeviceEvent.ACTIVATE:
            return {**told.values, "issued_at": now, "activate_by": None}
        case DeviceEvent.FAIL:
            return {"session": None, "reason": Reason.FAILED}
        case DeviceEvent.INTERRUPT:
            return {"session": None}
        case DeviceEvent.UPDATE:
            return {**told.values, "session": None}
        case DeviceEvent.FAIL_UPDATE:
            return {"session": None, "reason": Reason.FAILED if target is DeviceState.INVALID else Reason.NONE}
        case DeviceEvent.REPORT_INCIDENT:
            return {"session": None, "reason": told.reason}
        case DeviceEvent.SUSPEND:
            return {"session": None}
        case DeviceEvent.RESTORE:
            return {"reason": Reason.NONE}
        case DeviceEvent.LAPSE:
            return {"reason": Reason.NOT_ACTIVATED, "ended_at": now, "disposition": Disposition.NOT_COLLECTED}
        case DeviceEvent.EXPIRE:
            if target is DeviceState.INVALID:
                return {"session": None, "reason": Reason.EXPIRED}
            return {
                "session": None,
                "reason": Reason.EXPIRED,
                "ended_at": now,
                "disposition": Disposition.NOT_COLLECTED,
            }
        case DeviceEvent.REVOKE:
            return {"session": None, "ended_at": now, "disposition": Disposition.LOST}
        case DeviceEvent.REPLACE | DeviceEvent.TERMINATE:
            disposition = told.disposition or Disposition.NOT_COLLECTED
            return {"session": None, "reason": told.reason, "ended_at": now, "disposition": disposition}
        case DeviceEvent.DISPOSE:
            return {"ended_at": now, "disposition": told.disposition or Disposition.DESTROYED}
        case _:
            return {}
