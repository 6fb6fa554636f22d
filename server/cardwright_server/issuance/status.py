"""What becomes of issued certificates: released, held and resumed by reasons, revoked. Also what is shown of them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import UUID

from ..acting import part_for
from ..audit.model import AuditEntry, Target, Who
from ..authentication.authorize import Authorize, CallTarget, Permission
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..machine import Actor
from ..notify.model import DomainEvent
from ..store.unit import Unit
from . import store
from .errors import NoSuchCertificate
from .journal import hold_event, revoke_event
from .model import (
    CERTIFICATE,
    ORDER,
    UNRELEASED,
    Authority,
    Certificate,
    CertificateEvent,
    CertificateState,
    HolderKind,
    Order,
    RevocationReason,
)

MOST_RESULTS = 201
"""A full page, and one more that shows whether anything follows."""
_REASON = re.compile(r"[a-z][a-z0-9-]{1,39}")
Covered = Callable[[Unit, Permission], Awaitable[Any]]
"""A subquery of the persons that a permission covers, or None for all: from the people's service."""


async def of_device(unit: Unit, org: UUID, device: UUID) -> list[Certificate]:
    """Every certificate of a device's slots, the one that ends last first."""
    return await store.certificates_of_holder(unit, org, HolderKind.DEVICE_SLOT, device)


async def awaited(unit: Unit, org: UUID, device: UUID, part: str) -> Order | None:
    """What was ordered last for a device's slot, while the authority has not answered; None once it has."""
    order = await store.newest_order(unit, org, device, part)
    return order if order is not None and order.state not in ORDER.final else None


async def of_session(unit: Unit, org: UUID, session: UUID) -> list[Certificate]:
    """Every certificate that a card session made."""
    return await store.certificates_of_session(unit, org, session)


async def release(unit: Unit, who: Who, org: UUID, session: UUID) -> list[Certificate]:
    """End the first hold of what a session made, once the card was read back. Other reasons stay.

    Gives all of the session's certificates as they now are. A certificate without signature stays prepared: it is on
    no card. Safe to repeat.
    """
    for certificate in await of_session(unit, org, session):
        if certificate.state is CertificateState.HELD and UNRELEASED in certificate.holds:
            await _take_hold(unit, who, Actor.SERVER, certificate, UNRELEASED)
    return await of_session(unit, org, session)


async def hold(
    unit: Unit, who: Who, actor: Actor, certificates: Iterable[Certificate], reason: str
) -> list[Certificate]:
    """Add a reason for a hold; what is revoked, or held for this reason already, stays as it is.

    Raises ValueError for a malformed reason, or the one that only ``release`` ends.
    """
    _require_reason(reason)
    changed = []
    for certificate in certificates:
        if certificate.state is not CertificateState.REVOKED and reason not in certificate.holds:
            transition = CERTIFICATE.next(certificate.state, CertificateEvent.HOLD, actor)
            holds = certificate.holds | {reason}
            unit.beforehand(hold_event(certificate, reason, ends=False))
            changed.append(await _move(unit, who, certificate, transition.target, holds, "certificate.hold", reason))
    return changed


async def resume(
    unit: Unit, who: Who, actor: Actor, certificates: Iterable[Certificate], reason: str
) -> list[Certificate]:
    """Take a reason away; a certificate without any is good again. Raises ValueError as ``hold``."""
    _require_reason(reason)
    return [
        await _take_hold(unit, who, actor, certificate, reason)
        for certificate in certificates
        if certificate.state is not CertificateState.REVOKED and reason in certificate.holds
    ]


async def revoke(
    unit: Unit, who: Who, actor: Actor, certificates: Iterable[Certificate], reason: RevocationReason
) -> list[Certificate]:
    """End certificates for good, whatever holds them. What is revoked already stays as it is."""
    changed = []
    for certificate in certificates:
        if certificate.state is not CertificateState.REVOKED:
            transition = CERTIFICATE.next(certificate.state, CertificateEvent.REVOKE, actor)
            unit.beforehand(revoke_event(certificate, reason))
            changed.append(
                await _move(
                    unit, who, certificate, transition.target, frozenset(), "certificate.revoke", reason, ends=reason
                )
            )
    return changed


async def abandon(unit: Unit, who: Who, org: UUID, session: UUID) -> list[Certificate]:
    """Revoke what a failed session made and did not release."""
    mine = await of_session(unit, org, session)
    open_ones = [one for one in mine if one.state is CertificateState.PREPARED or UNRELEASED in one.holds]
    return await revoke(unit, who, Actor.SERVER, open_ones, RevocationReason.CESSATION_OF_OPERATION)


class CertificateService:
    """What callers may ask and do; each call is authorized first."""

    def __init__(self, authorize: Authorize, covered: Covered) -> None:
        self._authorize = authorize
        self._covered = covered

    async def get(self, unit: Unit, principal: Principal, identifier: UUID) -> Certificate:
        """One certificate. Raises AuthorizationError, NoSuchCertificate."""
        certificate = await store.certificate_by_id(unit, principal.org, identifier)
        person = certificate.holder.person if certificate is not None else None
        await self._authorize(unit, principal, Call("CertificateService.Get"), CallTarget(principal.org, person))
        return _found(certificate)

    async def find(
        self,
        unit: Unit,
        principal: Principal,
        *,
        person: UUID | None = None,
        serial: str = "",
        device: UUID | None = None,
        after: UUID | None = None,
        limit: int = MOST_RESULTS,
    ) -> list[Certificate]:
        """Certificates that the caller may see, in the order of their ids, from beyond ``after``.

        Raises AuthorizationError.
        """
        target = CallTarget(principal.org, person)
        permission = await self._authorize(unit, principal, Call("CertificateService.Find"), target)
        persons = None if permission.everywhere else await self._covered(unit, permission)
        most = max(1, min(limit, MOST_RESULTS))
        return await store.find_certificates(
            unit, principal.org, persons, person=person, serial=serial.lower(), device=device, after=after, limit=most
        )

    async def revoke(
        self, unit: Unit, principal: Principal, identifier: UUID, reason: RevocationReason
    ) -> Certificate:
        """End one certificate. Raises AuthorizationError, NoSuchCertificate, IllegalTransition."""
        certificate = await store.certificate_by_id(unit, principal.org, identifier)
        person = certificate.holder.person if certificate is not None else None
        call = Call("CertificateService.Revoke")
        permission = await self._authorize(unit, principal, call, CallTarget(principal.org, person))
        present = _found(certificate)
        if present.state is CertificateState.REVOKED:
            return present
        actor = part_for(CERTIFICATE, present.state, CertificateEvent.REVOKE, permission)
        changed = await revoke(unit, principal.who, actor, [present], reason)
        return changed[0]

    async def authorities(self, unit: Unit, principal: Principal) -> list[Authority]:
        """Every authority. Raises AuthorizationError."""
        await self._authorize(unit, principal, Call("CertificateService.Authorities"), CallTarget(principal.org))
        return [one for one in await store.authorities(unit) if one.org == principal.org]


async def _take_hold(unit: Unit, who: Who, actor: Actor, certificate: Certificate, reason: str) -> Certificate:
    holds = certificate.holds - {reason}
    transition = CERTIFICATE.next(certificate.state, CertificateEvent.RESUME, actor, lambda guard: bool(holds))
    action = "certificate.release" if reason == UNRELEASED else "certificate.resume"
    unit.beforehand(hold_event(certificate, reason, ends=True))
    return await _move(unit, who, certificate, transition.target, holds, action, reason)


async def _move(
    unit: Unit,
    who: Who,
    certificate: Certificate,
    state: CertificateState,
    holds: frozenset[str],
    action: str,
    reason: str,
    *,
    ends: RevocationReason | None = None,
) -> Certificate:
    # A further reason does not change since when it is held.
    since = certificate.status_at if state is certificate.state else unit.now
    values = {"state": state, "holds": sorted(holds), "status_at": since, "reason": ends}
    await store.update_certificate(unit, certificate, values)
    facts = {"serial": certificate.serial, "reason": reason, "before": certificate.state, "after": state}
    target = Target("certificate", certificate.id)
    unit.audit(AuditEntry(certificate.org, who, action, target, facts=facts))
    holder = certificate.holder
    data = {"reason": reason, "holder": str(holder.id), "part": holder.part, "state": state.value}
    name = "certificate.held" if action == "certificate.hold" else f"{action}d"
    unit.emit(DomainEvent(certificate.org, name, "certificate", certificate.id, holder.person, data))
    return _found(await store.certificate_by_id(unit, certificate.org, certificate.id))


def _require_reason(reason: str) -> None:
    if reason == UNRELEASED or not _REASON.fullmatch(reason):
        raise ValueError(f"{reason!r} is no reason for a hold")


def _found(certificate: Certificate | None) -> Certificate:
    if certificate is None:
        raise NoSuchCertificate("there is no such certificate")
    return certificate
