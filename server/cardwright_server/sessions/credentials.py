"""``Credentials`` of devices by the issuance domain: what becomes of a device becomes of its certificates."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from cryptography.x509 import ReasonFlags

from cardwright_cardops.piv.references import RETIRED_SLOTS, Slot

from ..audit.model import SERVER
from ..devices.model import CrlReasons
from ..issuance import status
from ..issuance.model import UNRELEASED, Certificate, CertificateState, RevocationReason
from ..machine import Actor
from ..store.unit import Unit

_REASONS: Final = {
    ReasonFlags.key_compromise: RevocationReason.KEY_COMPROMISE,
    ReasonFlags.affiliation_changed: RevocationReason.AFFILIATION_CHANGED,
    ReasonFlags.superseded: RevocationReason.SUPERSEDED,
    ReasonFlags.cessation_of_operation: RevocationReason.CESSATION_OF_OPERATION,
    ReasonFlags.privilege_withdrawn: RevocationReason.PRIVILEGE_WITHDRAWN,
}
_KEY_MANAGEMENT: Final = frozenset(slot.label.lower() for slot in (Slot.KEY_MANAGEMENT, *RETIRED_SLOTS))
"""Parts whose keys may be archived: a lost card does not compromise them in the same way."""


class DeviceCredentials:
    """See ``devices.consequences.Credentials``. Stateless."""

    async def hold(self, unit: Unit, org: UUID, device: UUID, reason: str) -> None:
        """Put all on hold for one more reason. Raises StoreError."""
        await status.hold(unit, SERVER, Actor.SERVER, await status.of_device(unit, org, device), reason)

    async def release(self, unit: Unit, org: UUID, device: UUID) -> None:
        """End every hold but that of a certificate that was never released."""
        for reason in sorted({one for row in await status.of_device(unit, org, device) for one in row.holds}):
            if reason != UNRELEASED:
                held = await status.of_device(unit, org, device)
                await status.resume(unit, SERVER, Actor.SERVER, held, reason)

    async def activate(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        """Release what ``session``, or without one any session, issued on hold."""
        mine = await _unreleased(unit, org, device)
        for made_in in sorted({one.session for one in mine if one.session is not None}):
            if session in (None, made_in):
                await status.release(unit, SERVER, org, made_in)

    async def revoke(self, unit: Unit, org: UUID, device: UUID, reasons: CrlReasons) -> None:
        """Revoke all, each for the reason of its key."""
        mine = await status.of_device(unit, org, device)
        kept = [one for one in mine if one.holder.part in _KEY_MANAGEMENT]
        rest = [one for one in mine if one.holder.part not in _KEY_MANAGEMENT]
        await status.revoke(unit, SERVER, Actor.SERVER, rest, _REASONS[reasons.keys])
        await status.revoke(unit, SERVER, Actor.SERVER, kept, _REASONS[reasons.key_management])

    async def revoke_new(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        """Revoke what was issued for the device and never released; an unfinished run may have had several sessions."""
        mine = await _unreleased(unit, org, device)
        await status.revoke(unit, SERVER, Actor.SERVER, mine, RevocationReason.CESSATION_OF_OPERATION)


async def _unreleased(unit: Unit, org: UUID, device: UUID) -> list[Certificate]:
    return [
        one
        for one in await status.of_device(unit, org, device)
        if one.state is CertificateState.PREPARED or UNRELEASED in one.holds
    ]
