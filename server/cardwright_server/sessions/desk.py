"""``Devices`` by the domains of devices, requests and policies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any, Protocol
from uuid import UUID

from cardwright_cardops.piv.algorithms import PublicKey
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.records import DEFAULT, FACTORY, fold

from ..authentication.authorize import Permission
from ..authentication.principal import Principal, PrincipalKind, server
from ..devices.due import DueList, What
from ..devices.errors import CardLockUnavailable
from ..devices.lifecycle import DeviceLifecycle, Told
from ..devices.model import Device, DeviceEvent, DeviceState
from ..devices.numbering import NINES, Numbering
from ..devices.stock import StockService
from ..issuance import status
from ..issuance.model import UNRELEASED, Certificate, CertificateState, public_key_of
from ..machine import Actor
from ..policies.model import DeviceKind, Policy
from ..requests.model import Request, RequestKind, RequestState
from ..requests.service import RequestService
from ..store.unit import Unit
from . import store
from .errors import NothingToDo, NotInUse, RecycledElsewhere, WrongCard
from .failures import Failure
from .model import Greeting, Outcome, Purpose
from .ports import Task
from .proving import Holder

_KINDS = {
    Purpose.ISSUE: frozenset({RequestKind.ISSUANCE, RequestKind.REPLACEMENT}),
    Purpose.UPDATE: frozenset({RequestKind.UPDATE, RequestKind.RECOVERY}),
    Purpose.REISSUE: frozenset({RequestKind.REISSUE}),
    Purpose.UNLOCK: frozenset({RequestKind.UNLOCK}),
    Purpose.UNLOCK_ASSISTED: frozenset({RequestKind.UNLOCK}),
    Purpose.FORGOTTEN_PIN: frozenset({RequestKind.UNLOCK}),
    Purpose.RECYCLE: frozenset({RequestKind.RECYCLE}),
    Purpose.LOCK: frozenset[RequestKind](),
}


_MAY_START = frozenset((RequestState.READY, RequestState.EXECUTING, RequestState.RETRYABLE))
_IN_USE = frozenset((DeviceState.ISSUED, DeviceState.UPDATING))
_NO_PIN = "Its PIN was not set."


class Stations(Protocol):
    """What sessions ask about workstations."""

    def is_trusted(self, workstation: UUID | None) -> bool:
        """Whether it is enrolled as a station whose word about a key counts. No statement."""


class Desk:
    """Finds what is to be done with a card, and moves device and request along with the session."""

    def __init__(
        self,
        lifecycle: DeviceLifecycle,
        requests: RequestService,
        numbering: Numbering,
        stations: Stations,
        stock: StockService,
        due: DueList,
    ) -> None:
        self._lifecycle = lifecycle
        self._numbering = numbering
        self._requests = requests
        self._stations = stations
        self._stock = stock
        self._due = due

    async def task(self, unit: Unit, principal: Principal, greeting: Greeting) -> Task:
        """See ``Devices``: the request that is named, else the open one of the card with this card UUID, or of the one
        that has none yet and shows the maker's number of a bound device. An update takes an open re-issue, too.

        Raises NoSuchRequest, NoSuchDevice, NothingToDo, NotInUse, RecycledElsewhere, CardLockUnavailable.
        """
        trusted = self._stations.is_trusted(principal.workstation)
        device, request = await self._found(unit, principal.org, greeting)
        elsewhere = principal.kind is PrincipalKind.WORKSTATION and not trusted
        if greeting.purpose is Purpose.RECYCLE and elsewhere and device.kind is not DeviceKind.VIRTUAL_CARD:
            raise RecycledElsewhere("This workstation is none where cards are erased.")
        is_reissue = request is not None and request.kind is RequestKind.REISSUE
        purpose = Purpose.REISSUE if is_reissue else greeting.purpose
        brings_up = greeting.purpose.follows_policy
        lifecycle = self._lifecycle
        policy = await (lifecycle.newest_policy_of if brings_up else lifecycle.policy_of)(unit, device)
        if policy is None:
            raise NothingToDo("This device is bound to nobody, so no policy applies to it.")
        is_token = greeting.token is not None
        if is_token is not (device.kind is DeviceKind.PKCS11_TOKEN) or device.kind is DeviceKind.PHONE:
            raise WrongCard(f"The device that the request is for is a {device.kind}.")
        # A card that is erased has its factory's secrets, whatever it was delivered with.
        delivered = device.life == 1 and greeting.purpose is not Purpose.RECYCLE
        initial = await self._stock.initial_secrets(unit, device) if delivered else None
        expires = (device.expires_at or unit.now + policy.document.validity).date()
        wanted = replace(policy.document.card, ends=_beginning(expires))
        known = (await self._due.due(unit, device.org, device.id)).what if brings_up else ()
        due = {one.what for one in known}
        own = principal.kind is PrincipalKind.PERSON
        activates = device.state is DeviceState.PRODUCED and purpose is Purpose.ISSUE
        if activates and not own:
            raise NothingToDo("This card is written, and waits until its holder activates it.")
        since = None if request is None else request.created_at
        trusted = self._stations.is_trusted(principal.workstation)
        return Task(
            device.org,
            device.id,
            purpose,
            replace(policy.document, card=wanted),
            device.guid
            or (greeting.card.identity.guid if is_token else None)
            or await self._numbering.card_uuid(unit, device.org, device.id, since=since),
            expires,
            number=policy.number,
            is_due=not due.isdisjoint((What.RENEWAL, What.POLICY)),
            waits=policy.document.activation and purpose is Purpose.ISSUE and not own,
            activates=activates,
            person=device.person,
            request=None if request is None else request.id,
            serial=device.serial,
            trusted=trusted,
            token=is_token,
            unlockable=device.state is DeviceState.ISSUED,
            in_use=device.state in _IN_USE,
            temporary=device.temporary,
            was_issued=device.issued_at is not None,
            adrift=request is None and device.state is DeviceState.UPDATING and device.session is None,
            rotate_puk=What.SECRETS in due and _rotates(device, purpose, policy.document, trusted=trusted),
            guid_is_new=device.guid is None,
            asked_as=None if request is None else request.target,
            fascn=await self._fascn(unit, device),
            life=device.life,
            initial={} if initial is None else initial.sealed,
            vendor=None if initial is None else initial.vendor,
        )

    async def holder(self, unit: Unit, org: UUID, guid: UUID) -> Holder | None:
        """See ``Holders``: who holds the card in use, and the keys in 9A that prove it, the newest first.

        Those whose certificates count, those of a session that broke off before the card was read back, and the one
        that another authority has not certified yet: the card has no other one any more.
        """
        device = await self._lifecycle.by_guid(unit, org, guid)
        if device is None or device.person is None or device.state not in _IN_USE:
            return None
        part = Slot.AUTHENTICATION.label.lower()
        good = [
            one.x509.public_key()
            for one in await status.of_device(unit, org, device.id)
            if one.holder.part == part and _proves(one) and one.not_after > unit.now
        ]
        awaited = await status.awaited(unit, org, device.id, part)
        if awaited is not None and awaited.holder.person == device.person:
            good.insert(0, public_key_of(awaited.public_key))
        return Holder(device.id, device.person, tuple(key for key in good if isinstance(key, PublicKey)))

    async def begin(self, unit: Unit, permission: Permission, task: Task, session: UUID) -> None:
        """See ``Devices``. Raises what ``RequestService.start`` raises."""
        if task.request is not None:
            await self._requests.start(unit, permission, task.request, session)

    async def exposed(self, unit: Unit, task: Task, workstation: UUID | None, puk: str) -> None:
        """See ``Devices``. What a workstation of a user saw is due to be changed at a trusted one."""
        if not task.trusted and not task.token:
            detail = {"puk": puk, "workstation": None if workstation is None else str(workstation)}
            await self._due.put(unit, task.org, task.device, What.SECRETS, unit.now, detail=detail)

    async def still_wanted(self, unit: Unit, task: Task) -> None:
        """See ``Devices``. Raises NothingToDo, NotInUse."""
        brings_up = task.in_use and task.purpose.follows_policy
        if not (brings_up or task.purpose.unlocks or task.purpose is Purpose.LOCK):
            return
        device = await self._lifecycle.device(unit, task.org, task.device)
        # Held, lost or ended since the session began: no PUK leaves for it any more (S3), and nothing is signed.
        if task.purpose is Purpose.LOCK:
            await self._require_order(unit, device)
        elif brings_up and device.state not in _IN_USE:
            raise NotInUse(device.state, "updated", "What is left is done once it is in use again.")
        elif task.purpose.unlocks and device.state is not DeviceState.ISSUED:
            raise NotInUse(device.state, "unlocked", _NO_PIN)

    async def locking(self, unit: Unit, task: Task) -> None:
        """See ``Devices``. Raises StaleVersion."""
        await self._lifecycle.locks.begin(unit, await self._lifecycle.device(unit, task.org, task.device))

    async def finished(
        self, unit: Unit, principal: Principal, task: Task, session: UUID, outcome: Outcome, card: Inventory
    ) -> None:
        """See ``Devices``. What waits for certificates stays open, and goes on at the next contact."""
        if task.purpose is Purpose.LOCK:
            device = await self._lifecycle.device(unit, task.org, task.device)
            await self._lifecycle.locks.done(unit, principal, device, session)
            return
        if task.trusted and await store.noted_puk(unit, task.org, session):
            await self._due.remove(unit, task.device, What.SECRETS)
        values: dict[str, Any] = {"guid": task.guid, "fascn": task.fascn.hex()}
        brought_up = task.purpose.follows_policy and outcome is not Outcome.PENDING
        if brought_up:
            values["policy_number"] = task.number
        told = Told(read_back=True, found=True, expires_at=_beginning(task.expires), values=values)
        if task.request is None:
            if task.activates and outcome is not Outcome.PENDING:
                await self._lifecycle.move(unit, principal, task.device, DeviceEvent.ACTIVATE, Actor.USER, told)
            elif task.adrift and outcome is not Outcome.PENDING:
                told = replace(told, session=session)
                itself = server(task.org)
                await self._lifecycle.move(unit, itself, task.device, DeviceEvent.UPDATE, Actor.SERVER, told)
            elif brought_up:
                await self._lifecycle.brought_up(unit, task.org, task.device, task.number)
        elif outcome is Outcome.PENDING:
            await self._requests.interrupt(unit, task.org, task.request, session)
        else:
            await self._requests.finish(unit, task.org, task.request, session, told, produce=task.waits)
        if brought_up:
            await self._note_renewal(unit, task, card)
        if task.purpose.unlocks or (brought_up and card.pin.tries_left):
            device = await self._lifecycle.device(unit, task.org, task.device)
            await self._lifecycle.locks.over(unit, principal, device, session)

    async def _require_order(self, unit: Unit, device: Device) -> None:
        if not await self._lifecycle.locks.is_ordered(unit, device):
            raise NothingToDo("Nobody wants this card to be locked, or not any more.")

    async def _require_way_back(self, unit: Unit, device: Device) -> None:
        """A holder may have set the PUK before the policy wanted one of the vault's. Raises CardLockUnavailable."""
        puk = fold((await store.records(unit, device.org, device.id, device.life)).entries).puk
        if set(puk.names) <= {DEFAULT, FACTORY}:
            raise CardLockUnavailable(
                "this card never got a PUK from the vault, so the server could not open it again",
                effect="Nothing was sent to the card; its certificates are on hold.",
                advice="Hand the card in at the help desk. What is issued anew gets a PUK that is known there.",
            )

    async def _note_renewal(self, unit: Unit, task: Task, card: Inventory) -> None:
        """From when a certificate that can be renewed is due to be, and when the first of all ends."""
        policy = task.policy.card
        ends = [one.not_after for one in card.certificates if policy.slot(one.slot) is not None]
        if not ends:
            return
        renewable = [one for one in ends if policy.ends is None or one < policy.ends]
        since = min(renewable) - policy.renew_before if renewable else min(ends)
        await self._due.put(unit, task.org, task.device, What.RENEWAL, since, ends_at=min(ends))

    async def ended(
        self, unit: Unit, org: UUID, request: UUID | None, session: UUID, failure: Failure | None
    ) -> None:
        """See ``Devices``."""
        if request is None:
            return
        found = await self._requests.request(unit, org, request)
        if found.session != session:
            return
        if failure is None:
            await self._requests.interrupt(unit, org, request, session)
        else:
            await self._requests.fail(
                unit, org, request, session, retryable=failure.retryable, consistent=failure.consistent
            )
        if found.kind is RequestKind.UNLOCK:
            device = await self._lifecycle.device(unit, org, found.device)
            if device.state is not DeviceState.ISSUED:
                # What was waiting when it went out of use is closed; this one could not be, while a session was at it.
                await self._lifecycle.locks.withdraw(unit, server(org), device)

    async def _fascn(self, unit: Unit, device: Device) -> bytes:
        """The number of the device's present life: given at its first session, then always the same. A token has none.
        """
        if device.kind is DeviceKind.PKCS11_TOKEN:
            return NINES.encode()
        given = device.fascn or await store.fascn(unit, device.org, device.id, device.life)
        if given:
            return bytes.fromhex(given)
        return (await self._numbering.fascn(unit, device.org, device.id)).encode()

    async def _found(self, unit: Unit, org: UUID, greeting: Greeting) -> tuple[Device, Request | None]:
        kinds, guid = _KINDS[greeting.purpose], greeting.card.identity.guid
        if greeting.request is not None:
            request = await self._requests.request(unit, org, greeting.request)
            if request.kind not in kinds or request.worked_on is None:
                raise NothingToDo(f"This request is not one to {greeting.purpose} a card.")
            if request.state is RequestState.DONE:
                raise NothingToDo("This request is done: nothing is left to do for it.")
            named = await self._lifecycle.device(unit, org, request.worked_on)
            _require_unlockable(greeting.purpose, named)
            return named, request
        device = None if guid is None else await self._lifecycle.by_guid(unit, org, guid)
        if device is None and greeting.card.identity.serial:
            blank = await self._due.of_blank(unit, org, greeting.card.identity.serial)
            device = None if blank is None else await self._lifecycle.device(unit, org, blank.device)
        if device is None:
            raise NothingToDo("No device of ours shows this card UUID or number; name the request.")
        _require_unlockable(greeting.purpose, device)
        if greeting.purpose is Purpose.LOCK:
            await self._require_order(unit, device)
            await self._require_way_back(unit, device)
            return device, None
        everything = await self._requests.open_of(unit, org, device.id)
        open_ones = [one for one in everything if one.kind in kinds]
        if not open_ones and greeting.purpose is Purpose.UPDATE:
            # A card whose key in 9E is being made anew is not told what is due for it, so it asks for what there is.
            open_ones = [one for one in everything if one.kind is RequestKind.REISSUE and one.state in _MAY_START]
        if not open_ones and greeting.purpose is Purpose.RECYCLE:
            unasked = await self._requests.recycle_unasked(unit, org, device.id)
            open_ones = [] if unasked is None else [unasked]
        activates = device.state is DeviceState.PRODUCED and greeting.purpose is Purpose.ISSUE
        if not open_ones and greeting.purpose is not Purpose.UPDATE and not activates:
            raise NothingToDo(f"There is no open request to {greeting.purpose} this card.")
        if not open_ones and greeting.purpose is Purpose.UPDATE and device.state not in _IN_USE:
            # Or a bound card would be written, and its certificates released, that nobody agreed to.
            raise NotInUse(device.state, "updated without a request")
        return device, open_ones[0] if open_ones else None


def _require_unlockable(purpose: Purpose, device: Device) -> None:
    """Said by name: that no proof would count (S3) would sound as if the card were a copy. Raises NotInUse."""
    if purpose.unlocks and device.state is not DeviceState.ISSUED:
        raise NotInUse(device.state, "unlocked", _NO_PIN)


def _beginning(day: date) -> datetime:
    return datetime.combine(day, time(0), UTC)


def _rotates(device: Device, purpose: Purpose, policy: Policy, *, trusted: bool) -> bool:
    """Whether a session may give the card a PUK that only a trusted station saw: in passing, with an update."""
    fits = purpose in (Purpose.UPDATE, Purpose.REISSUE) and device.state is DeviceState.ISSUED
    fits = fits and device.kind is not DeviceKind.PKCS11_TOKEN
    return trusted and fits and policy.clear_secrets.allows(trusted=trusted)


def _proves(certificate: Certificate) -> bool:
    """Whether the key of a certificate says who holds the card: it is good, or was never held for anything else."""
    unread = certificate.state is CertificateState.HELD and certificate.holds == {UNRELEASED}
    return certificate.state is CertificateState.GOOD or unread
