"""The lock of a card itself: that somebody wants it, that it is or may be carried out, and the way back.

A locked card has its PIN blocked, so only its PUK, which the vault makes, opens it again. ``Device.card_locked`` is
written before a session tries the first value, and taken back when a session has set a new PIN.
"""

from __future__ import annotations

from uuid import UUID

from cardwright_cardops.piv.references import Slot

from ..audit.model import AuditEntry, Target
from ..authentication.principal import Principal
from ..notify.model import DomainEvent
from ..policies.model import ClearSecrets, DeviceKind, Policy, UnlockMethod
from ..store.unit import Unit
from . import store
from .consequences import DeviceRequests
from .due import DueList, What
from .errors import CardLockUnavailable
from .journal import LockStep, lock_event
from .model import Device, DeviceState

LOCKABLE_STATES = frozenset({DeviceState.SUSPENDED, DeviceState.INVALID})
"""Out of use, and not at the end: there a card is locked."""
_HOLDERS_WAYS = frozenset({UnlockMethod.SELF, UnlockMethod.ASSISTED})


def require_lockable(device: Device, policy: Policy | None) -> None:
    """Raise CardLockUnavailable where a card cannot be locked, or nobody could open it again afterwards."""
    if device.kind in (DeviceKind.PKCS11_TOKEN, DeviceKind.PHONE):
        raise CardLockUnavailable(f"a {device.kind} cannot be locked by a session")
    if device.issued_at is None or policy is None:
        raise CardLockUnavailable("it was never issued, so nobody could open it again")
    if not policy.card.secrets.puk:
        raise CardLockUnavailable(f"{policy.name} leaves the PUK as it is, so the server could not open it again")
    if policy.clear_secrets is ClearSecrets.NEVER:
        raise CardLockUnavailable(f"{policy.name} lets no workstation see a PUK, so nobody could open it again")
    if not policy.unlock or policy.card.slot(Slot.CARD_AUTHENTICATION) is None:
        raise CardLockUnavailable(f"{policy.name} opens no way of unlocking, so nobody could open it again")


class CardLocks:
    """Keeps ``Device.card_locked`` and what is due for it. Stateless; asks nobody who may."""

    def __init__(self, requests: DeviceRequests, due: DueList) -> None:
        self._requests = requests
        self._due = due

    async def order(self, unit: Unit, device: Device) -> None:
        """The card is to be locked at its next contact."""
        await self._due.put(unit, device.org, device.id, What.LOCK, unit.now, keep=True)

    async def is_ordered(self, unit: Unit, device: Device) -> bool:
        """Whether that still stands."""
        due = await self._due.due(unit, device.org, device.id)
        return device.state in LOCKABLE_STATES and any(one.what is What.LOCK for one in due.what)

    async def begin(self, unit: Unit, device: Device) -> None:
        """A session is about to block the PIN: from here on it may be. Raises StaleVersion."""
        unit.beforehand(lock_event(device, LockStep.BEGUN))
        await store.update(unit, device.id, device.version, {"card_locked": True})

    async def done(self, unit: Unit, principal: Principal, device: Device, session: UUID) -> None:
        """A session read that the PIN is blocked. Nothing more is due, unless it was taken back while that went on.

        Raises StaleVersion.
        """
        if not device.card_locked and not await self.is_ordered(unit, device):
            return
        unit.beforehand(lock_event(device, LockStep.DONE))
        await store.update(unit, device.id, device.version, {"card_locked": True})
        await self._due.remove(unit, device.id, What.LOCK)
        self._say(unit, principal, device, "device.card-locked", session)

    async def withdraw(self, unit: Unit, principal: Principal, device: Device) -> None:
        """Nobody is to set its PIN anew: it goes out of use again, or that was done."""
        await self._due.remove(unit, device.id, What.UNLOCK)
        await self._requests.close_unlock(unit, principal, device.id)

    async def give_back(self, unit: Unit, principal: Principal, device: Device, policy: Policy | None) -> None:
        """It is in use again: it is not locked any more, and if it may be locked, its holder sets a new PIN.

        The request for that is opened where the policy has a way for holders; else an operator asks for it.
        """
        await self._due.remove(unit, device.id, What.LOCK)
        if not device.card_locked:
            return
        await self._due.put(unit, device.org, device.id, What.UNLOCK, unit.now)
        if policy is not None and policy.unlock & _HOLDERS_WAYS:
            await self._requests.open_unlock(unit, principal, device.id, device.person, strict=policy.strict)
        unit.emit(DomainEvent(device.org, "device.card-unlock-due", "device", device.id, device.person))

    async def over(self, unit: Unit, principal: Principal, device: Device, session: UUID) -> None:
        """A session set a new PIN, whatever it was for: nobody has to any more. Raises StaleVersion."""
        if not device.card_locked:
            return
        await self.withdraw(unit, principal, device)
        unit.beforehand(lock_event(device, LockStep.OVER))
        await store.update(unit, device.id, device.version, {"card_locked": False})
        self._say(unit, principal, device, "device.card-unlocked", session)

    @staticmethod
    def _say(unit: Unit, principal: Principal, device: Device, action: str, session: UUID) -> None:
        unit.audit(AuditEntry(device.org, principal.who, action, Target("device", device.id), session=session))
        unit.emit(DomainEvent(device.org, action, "device", device.id, device.person))
