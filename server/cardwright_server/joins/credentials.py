"""``devices.consequences.Credentials`` by the issuance domain: what becomes of a device's certificates."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from cryptography.x509 import ReasonFlags

from cardwright_cardops.piv.references import RETIRED_SLOTS

from ..audit.model import SERVER
from ..devices.model import CrlReasons
from ..issuance import status
from ..issuance.model import UNRELEASED, Certificate, RevocationReason
from ..machine import Actor
from ..store.unit import Unit

KEY_MANAGEMENT = frozenset({"9d", *(slot.label.lower() for slot in RETIRED_SLOTS)})
"""Slots of keys that others encrypted to: copies are in the archive, and they are revoked for reasons of their own."""


class DeviceCredentials:
    """The certificates of a device's slots. Stateless; every call may be repeated."""

    async def hold(self, unit: Unit, org: UUID, device: UUID, reason: str) -> None:
        """See ``Credentials``."""
        await status.hold(unit, SERVER, Actor.SERVER, await status.of_device(unit, org, device), reason)

    async def release(self, unit: Unit, org: UUID, device: UUID) -> None:
        """See ``Credentials``: every reason ends but the one that only a read-back ends."""
        mine = await status.of_device(unit, org, device)
        for reason in sorted({reason for one in mine for reason in one.holds} - {UNRELEASED}):
            mine = await status.of_device(unit, org, device)
            await status.resume(unit, SERVER, Actor.SERVER, mine, reason)

    async def activate(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        """See ``Credentials``."""
        mine = await status.of_device(unit, org, device)
        made_in = {session} if session is not None else _sessions(one for one in mine if UNRELEASED in one.holds)
        for one in sorted(made_in):
            await status.release(unit, SERVER, org, one)

    async def revoke(self, unit: Unit, org: UUID, device: UUID, reasons: CrlReasons) -> None:
        """See ``Credentials``."""
        mine = await status.of_device(unit, org, device)
        archived = [one for one in mine if one.holder.part in KEY_MANAGEMENT]
        others = [one for one in mine if one.holder.part not in KEY_MANAGEMENT]
        await status.revoke(unit, SERVER, Actor.SERVER, others, _reason(reasons.keys))
        await status.revoke(unit, SERVER, Actor.SERVER, archived, _reason(reasons.key_management))

    async def revoke_new(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        """See ``Credentials``."""
        mine = await status.of_device(unit, org, device)
        made_in = {session} if session is not None else _sessions(one for one in mine if UNRELEASED in one.holds)
        for one in sorted(made_in):
            await status.abandon(unit, SERVER, org, one)


def _sessions(certificates: Iterable[Certificate]) -> set[UUID]:
    return {one.session for one in certificates if one.session is not None}


def _reason(flag: ReasonFlags) -> RevocationReason:
    return RevocationReason[flag.name.upper()]
