"""Rules of devices: what people, operators and the server may do with them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from ..acting import part_for
from ..authentication.authorize import Authorize, CallTarget, Permission, sought
from ..authentication.matrix import Call
from ..authentication.principal import Principal, PrincipalKind, server
from ..machine import Actor
from ..people.model import PersonStatus
from ..people.service import PeopleService
from ..policies.compliance import Act, ActKind, require
from ..policies.model import AssignedPolicy, DeviceKind
from ..policies.service import PolicyService
from ..requests.of_device import RequestsOfDevice
from ..requests.service import RequestService
from ..store.ids import new_id
from ..store.unit import Unit
from . import store
from .card_lock import require_lockable
from .due import DueList, What
from .errors import BadDevice, NoSuchDevice, SelfBindingClosed
from .lifecycle import DeviceLifecycle, Told
from .machine import DEVICE
from .model import (
    IN_USE,
    INCIDENTS,
    SERVERS_HOLDS,
    TERMINATIONS,
    Device,
    DeviceEvent,
    DeviceState,
    Disposition,
    HoldReason,
    Reason,
)

MOST_RESULTS = 201
"""A full page, and one more that shows whether anything follows."""


class DeviceService:
    """Devices. Stateless."""

    def __init__(
        self,
        authorize: Authorize,
        people: PeopleService,
        policies: PolicyService,
        lifecycle: DeviceLifecycle,
        requests: RequestService,
        of_device: RequestsOfDevice,
        due: DueList,
    ) -> None:
        self._authorize = authorize
        self._people = people
        self._policies = policies
        self._lifecycle = lifecycle
        self._requests = requests
        self._of_device = of_device
        self._due = due

    async def get(self, unit: Unit, principal: Principal, identifier: UUID) -> Device:
        """A device. Raises AuthorizationError, NoSuchDevice."""
        device, _ = await self._permitted(unit, principal, "DeviceService.Get", identifier)
        return device

    async def lock_ordered(self, unit: Unit, principal: Principal, identifier: UUID) -> bool:
        """Whether its card is to be locked at its next contact. Raises as ``get``."""
        return await self._lifecycle.locks.is_ordered(unit, await self.get(unit, principal, identifier))

    async def holds(self, unit: Unit, principal: Principal, identifier: UUID) -> frozenset[HoldReason]:
        """Why a device is held. Raises as ``get``."""
        await self.get(unit, principal, identifier)
        return await store.holds(unit, identifier)

    async def history(self, unit: Unit, principal: Principal, identifier: UUID) -> list[Row[Any]]:
        """Every step of a device's life, in order. Raises as ``get``."""
        await self.get(unit, principal, identifier)
        return await store.history(unit, principal.org, identifier)

    async def find(
        self,
        unit: Unit,
        principal: Principal,
        *,
        person: UUID | None = None,
        states: Collection[DeviceState] = (),
        serial: str = "",
        after: UUID | None = None,
        limit: int = 50,
    ) -> list[Device]:
        """Devices of persons whom the caller's grants cover, with stock; or the caller's own."""
        permission = await self._authorize(unit, principal, Call("DeviceService.Find"), CallTarget(principal.org))
        conditions: list[Any] = []
        if permission.own is not None:
            conditions.append(store.person_is(permission.own))
        elif not permission.everywhere:
            conditions.append(store.person_in(self._people.covered(permission), stock=True))
        if person is not None:
            conditions.append(store.person_is(person))
        if states:
            conditions.append(store.state_is(states))
        if serial:
            conditions.append(store.serial_is(serial))
        return await store.find(unit, principal.org, *conditions, after=after, limit=min(limit, MOST_RESULTS))

    async def bind(
        self,
        unit: Unit,
        principal: Principal,
        identifier: UUID,
        person: UUID,
        *,
        policy: str | None = None,
        replacement: UUID | None = None,
    ) -> Device:
        """Give a device of the stock to a person: an operator to others, a person to themselves where the policy lets.

        ``replacement``: the approved request that it shall fulfil, which then decides person and policy. ``policy``
        chooses by name where several fit. Raises AuthorizationError, NoSuchDevice, NoSuchPerson, PersonNotActive,
        TooManyDevices, KindNotAllowed, SelfBindingClosed, NoPolicyForPerson, PolicyAmbiguous, BadDevice.
        """
        own = principal.kind is PrincipalKind.PERSON
        call = Call("DeviceService.Bind/own") if own else Call("DeviceService.Bind")
        target = CallTarget(principal.org, person)
        await self._authorize(unit, principal, call, target)
        device = await self._sought(unit, principal, call, identifier)
        if device.person is not None:
            # Somebody has it: nobody else's operators are told more than that it is not theirs.
            await self._authorize(unit, principal, call, replace(target, person=device.person))
        values: dict[str, Any] = {"person": person}
        if replacement is not None:
            wanted = await self._of_device.replacement(unit, principal.org, replacement)
            if wanted is None or wanted.person != person:
                raise BadDevice("there is no approved replacement of this person's that waits for a device")
            values |= {"replaces": wanted.original, "temporary": wanted.temporary}
            target = (await self._requests.request(unit, principal.org, replacement)).target
        chosen = await self._policy_for_binding(unit, device, values, policy)
        values |= {"policy": chosen.policy, "policy_number": chosen.number}
        target = replace(target, strict=chosen.document.strict)
        permission = await self._authorize(unit, principal, call, target)
        if own and not chosen.document.self_bind:
            raise SelfBindingClosed(f"{chosen.document.name} lets only operators bind devices")
        await self._move(unit, permission, device, DeviceEvent.BIND, Told(values=values, request=replacement))
        if replacement is not None:
            await self._of_device.prepared(unit, principal, replacement, identifier)
            await self._due.put(unit, principal.org, identifier, What.REPLACEMENT, unit.now)
        return await self._lifecycle.device(unit, principal.org, identifier)

    async def unbind(self, unit: Unit, principal: Principal, identifier: UUID) -> Device:
        """Put an unwritten device back to stock. Raises AuthorizationError, NoSuchDevice, IllegalTransition."""
        device, permission = await self._permitted(unit, principal, "DeviceService.Unbind", identifier)
        return await self._move(unit, permission, device, DeviceEvent.UNBIND, Told())

    async def activate(self, unit: Unit, principal: Principal, identifier: UUID) -> Device:
        """The holder has a device that was written elsewhere, and set its PIN. Raises as ``unbind``."""
        device, permission = await self._permitted(unit, principal, "DeviceService.Activate", identifier)
        return await self._move(unit, permission, device, DeviceEvent.ACTIVATE, Told())

    async def suspend(
        self,
        unit: Unit,
        principal: Principal,
        identifier: UUID,
        hold: HoldReason = HoldReason.OPERATOR,
        *,
        lock_card: bool = False,
        remark: str = "",
    ) -> Device:
        """Hold a device for one more reason; its certificates go on hold. Twice for one reason is once.

        ``lock_card``: its PIN is blocked at its next contact, too; of a device that is held already as well.
        Raises as ``unbind``, BadDevice for a reason that is the server's to give, and CardLockUnavailable.
        """
        device, permission = await self._permitted(unit, principal, "DeviceService.Suspend", identifier)
        if hold in SERVERS_HOLDS and principal.kind is not PrincipalKind.SYSTEM:
            raise BadDevice(f"only the server holds a device for {hold}")
        if lock_card:
            policy = await self._lifecycle.policy_of(unit, device)
            require_lockable(device, None if policy is None else policy.document)
        told = Told(hold=hold, lock_card=lock_card, remark=remark)
        return await self._move(unit, permission, device, DeviceEvent.SUSPEND, told)

    async def resume(
        self, unit: Unit, principal: Principal, identifier: UUID, hold: HoldReason = HoldReason.OPERATOR
    ) -> Device:
        """Lift one hold. Only when none is left, the device is in use again; a card that was locked gets a new PIN.

        Raises as ``unbind``, and NoSuchHold.
        """
        device, permission = await self._permitted(unit, principal, "DeviceService.Resume", identifier)
        return await self._move(unit, permission, device, DeviceEvent.RESUME, Told(hold=hold))

    async def report_incident(
        self, unit: Unit, principal: Principal, identifier: UUID, incident: Reason, *, remark: str = ""
    ) -> Device:
        """It was forgotten, damaged, lost or stolen: out of use, with certificates on hold; a replacement is asked for.

        Raises as ``unbind``, BadDevice for another reason, GuardRefused for a lighter incident than is known.
        """
        if incident not in INCIDENTS:
            raise BadDevice(f"{incident} is no incident")
        device, permission = await self._permitted(unit, principal, "DeviceService.ReportIncident", identifier)
        told = Told(reason=incident, remark=remark)
        made = await self._move(unit, permission, device, DeviceEvent.REPORT_INCIDENT, told)
        await self._requests.for_incident(unit, permission, identifier)
        return made

    async def terminate(
        self,
        unit: Unit,
        principal: Principal,
        identifier: UUID,
        reason: Reason,
        disposition: Disposition,
        *,
        request: UUID | None = None,
        remark: str = "",
    ) -> Device:
        """End a device: its certificates are revoked for the reason. A temporary one gives back what it stood in for.

        ``request``: the termination request that a second person approved, where the policy wants one. Raises as
        ``unbind``, SecondPersonRequired, ComplianceRefused, BadDevice for a reason that ends nothing.
        """
        if reason not in TERMINATIONS:
            raise BadDevice(f"{reason or 'no reason'} does not end a device")
        device, permission = await self._permitted(unit, principal, "DeviceService.Terminate", identifier)
        policy = await self._lifecycle.policy_of(unit, device)
        if policy is not None:
            require(policy.document, Act(ActKind.TERMINATE, disposition=disposition, revoked_within=timedelta(0)))
        act = new_id()
        if request is not None:
            await self._requests.begin_termination(unit, permission, identifier, request, act)
        told = Told(reason=reason, disposition=disposition, request=request, remark=remark)
        made = await self._move(unit, permission, device, DeviceEvent.TERMINATE, told)
        if request is not None:
            await self._requests.finish(unit, principal.org, request, act, Told())
        return made

    async def recycle(self, unit: Unit, principal: Principal, identifier: UUID, *, found: bool = False) -> Device:
        """Put a device that was wiped back to stock. ``found``: a lost or stolen one is at hand again.

        Raises as ``unbind``, GuardRefused for one that was destroyed, or is lost.
        """
        device, permission = await self._permitted(unit, principal, "DeviceService.Recycle", identifier)
        return await self._move(unit, permission, device, DeviceEvent.RECYCLE, Told(found=found))

    async def dispose(
        self,
        unit: Unit,
        principal: Principal,
        identifier: UUID,
        disposition: Disposition = Disposition.DESTROYED,
        *,
        remark: str = "",
    ) -> Device:
        """It is gone for good; ``remark`` says for instance who saw it. Raises as ``unbind``."""
        device, permission = await self._permitted(unit, principal, "DeviceService.Dispose", identifier)
        told = Told(disposition=disposition, remark=remark)
        return await self._move(unit, permission, device, DeviceEvent.DISPOSE, told)

    # What the server does by itself.

    async def follow_person(self, unit: Unit, org: UUID, person: UUID, status: PersonStatus) -> None:
        """A person was suspended, came back, or left: so do their devices. May be repeated."""
        itself = server(org)
        for listed in await store.of_person(unit, org, person):
            device = await self._lifecycle.device(unit, org, listed.id)
            match status, device.state:
                case PersonStatus.LEFT, DeviceState.ASSIGNED:
                    await self._lifecycle.move(unit, itself, device.id, DeviceEvent.UNBIND, Actor.SERVER)
                case PersonStatus.LEFT, state if state in _ENDED:
                    continue  # it stood in for one that was ended just now, or was ended by that
                case PersonStatus.LEFT, _:
                    told = Told(reason=Reason.LEFT, disposition=Disposition.NOT_COLLECTED)
                    await self._lifecycle.move(unit, itself, device.id, DeviceEvent.TERMINATE, Actor.SERVER, told)
                case PersonStatus.SUSPENDED, state if state in IN_USE:
                    told = Told(hold=HoldReason.PERSON)
                    await self._lifecycle.move(unit, itself, device.id, DeviceEvent.SUSPEND, Actor.SERVER, told)
                case PersonStatus.ACTIVE, _ if HoldReason.PERSON in await store.holds(unit, device.id):
                    told = Told(hold=HoldReason.PERSON)
                    await self._lifecycle.move(unit, itself, device.id, DeviceEvent.RESUME, Actor.SERVER, told)
        if status is PersonStatus.LEFT:
            await self._requests.close_of_person(unit, org, person)

    async def expire(self, unit: Unit, limit: int = 100) -> int:
        """End what has expired, what nobody activated in time, and what was lost too long ago to wait for a
        replacement, by the time of the database; how many.
        """
        expired = await store.overdue(unit, "expires_at", _MAY_EXPIRE, limit)
        lapsed = await store.overdue(unit, "activate_by", (DeviceState.PRODUCED,), limit)
        for event, devices in ((DeviceEvent.EXPIRE, expired), (DeviceEvent.LAPSE, lapsed)):
            for device in devices:
                await self._lifecycle.move(unit, server(device.org), device.id, event, Actor.TIMER)
        lost = await self._due.to_revoke(unit, limit)
        for org, identifier in lost:
            if await self._lifecycle.is_strict(unit, await self._lifecycle.device(unit, org, identifier)):
                await self._lifecycle.move(unit, server(org), identifier, DeviceEvent.REVOKE, Actor.TIMER)
            else:
                # A restore puts back that it is due, and knows nothing of policies.
                await self._due.remove(unit, identifier, What.REVOKED)
        return len(expired) + len(lapsed) + len(lost)

    async def _permitted(
        self, unit: Unit, principal: Principal, name: str, identifier: UUID
    ) -> tuple[Device, Permission]:
        device = await self._sought(unit, principal, Call(name), identifier)
        strict = await self._lifecycle.is_strict(unit, device)
        target = CallTarget(principal.org, device.person, strict=strict)
        return device, await self._authorize(unit, principal, Call(name), target)

    async def _sought(self, unit: Unit, principal: Principal, call: Call, identifier: UUID) -> Device:
        finding = self._lifecycle.device(unit, principal.org, identifier)
        return await sought(self._authorize, unit, principal, call, finding, NoSuchDevice)

    async def _policy_for_binding(
        self, unit: Unit, device: Device, values: dict[str, Any], name: str | None
    ) -> AssignedPolicy:
        original = values.get("replaces")
        if original is not None:
            replaced = await self._lifecycle.device(unit, device.org, original)
            if replaced.policy is not None:
                return await self._policies.in_force(unit, device.org, replaced.policy)
        kind: DeviceKind = device.kind
        return await self._policies.for_person(unit, device.org, values["person"], kind, name)

    async def _move(self, unit: Unit, permission: Permission, device: Device, event: DeviceEvent, told: Told) -> Device:
        actor = part_for(DEVICE, device.state, event, permission)
        await self._lifecycle.move(unit, permission.principal, device.id, event, actor, told)
        return await self._lifecycle.device(unit, device.org, device.id)


_ENDED = (DeviceState.STOCK, DeviceState.TERMINATED, DeviceState.DISPOSED)
_MAY_EXPIRE = (DeviceState.ISSUED, DeviceState.UPDATING, DeviceState.SUSPENDED)
