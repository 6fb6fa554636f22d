"""What devices ask of other domains: consequences for credentials, and what requests stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ..authentication.principal import Principal
from ..store.unit import Unit
from .model import CrlReasons


class Credentials(Protocol):
    """The certificates of a device, and copies of its keys on other devices. Every call may be repeated."""

    async def hold(self, unit: Unit, org: UUID, device: UUID, reason: str) -> None:
        """Put all on hold, for one more reason (a HoldReason or Reason)."""

    async def release(self, unit: Unit, org: UUID, device: UUID) -> None:
        """Take them back from hold: no reason is left."""

    async def activate(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        """Release what was issued on hold: the card was read back (None: by sessions before), or activated."""

    async def revoke(self, unit: Unit, org: UUID, device: UUID, reasons: CrlReasons) -> None:
        """Revoke all, for good."""

    async def revoke_new(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        """Revoke what the present run issued and nobody released yet."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a replacement request asks for: which device is replaced, whose it is, and whether only for a while."""

    original: UUID
    person: UUID
    temporary: bool


class DeviceRequests(Protocol):
    """What devices ask of requests, in the same unit."""

    async def is_executing(self, unit: Unit, org: UUID, device: UUID, request: UUID, session: UUID) -> bool:
        """Whether the request is about this device (or issues it) and is being carried out by this session."""

    async def second_person_agreed(self, unit: Unit, org: UUID, device: UUID, request: UUID | None) -> bool:
        """Whether the request is an open termination of this device that another person than its maker approved."""

    async def replacement(self, unit: Unit, org: UUID, request: UUID) -> Replacement | None:
        """What an approved replacement request, which has no device yet, asks for."""

    async def prepared(self, unit: Unit, principal: Principal, request: UUID, device: UUID) -> None:
        """The request has its device now."""

    async def open_unlock(
        self, unit: Unit, principal: Principal, device: UUID, person: UUID | None, *, strict: bool
    ) -> None:
        """The card was locked and is given back: its holder may set a new PIN. Nothing where that is asked for."""

    async def close_unlock(self, unit: Unit, principal: Principal, device: UUID) -> None:
        """Nobody is to set a new PIN: what asks for that and is not carried out just now is closed."""

    async def close(self, unit: Unit, principal: Principal, device: UUID) -> None:
        """The device is gone: what is open about it is closed; what was to issue it waits for another one."""
