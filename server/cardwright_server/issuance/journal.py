"""Issuance on the second medium (S11): what is written before it takes effect, and how a restore puts it back."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..policies.model import Origin
from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from ..vault.protocol import Vault
from . import store
from .backend import issuer_info
from .errors import NoSuchAuthority
from .model import (
    UNRELEASED,
    WITHOUT_HOLD,
    Authority,
    Certificate,
    CertificateState,
    HolderKind,
    RevocationReason,
    key_fingerprint,
)
from .tbs import assemble, hexadecimal


def issue_event(certificate: Certificate, authority: Authority) -> JournalEvent:
    """Of a certificate that is about to be signed."""
    holder = certificate.holder
    data: dict[str, str | int | bool | None] = {
        "authority": authority.name,
        "request": str(certificate.request),
        "profile": certificate.profile,
        "profile_version": certificate.profile_version,
        "holder_kind": holder.kind,
        "holder": str(holder.id),
        "holder_part": holder.part,
        "person": str(holder.person) if holder.person is not None else None,
        "origin": certificate.origin,
        "session": str(certificate.session) if certificate.session is not None else None,
        "tbs": base64.b64encode(certificate.tbs).decode(),
    }
    if certificate.certificate:
        data["certificate"] = base64.b64encode(certificate.certificate).decode()
    return JournalEvent(JournalKind.ISSUE, certificate.org, certificate.id, data)


def signed_event(certificate: Certificate, der: bytes) -> JournalEvent:
    """Of a certificate whose signature is about to be kept, and then given to its holder."""
    data = {"certificate": base64.b64encode(der).decode()}
    return JournalEvent(JournalKind.ISSUE, certificate.org, certificate.id, data)


def revoke_event(certificate: Certificate, reason: RevocationReason) -> JournalEvent:
    """Of a certificate that is about to be revoked."""
    return JournalEvent(JournalKind.REVOKE, certificate.org, certificate.id, {"reason": reason})


def hold_event(certificate: Certificate, reason: str, *, ends: bool) -> JournalEvent:
    """Of a hold that is about to begin or end: as grave as a revocation, if a restore forgets it."""
    return JournalEvent(JournalKind.REVOKE, certificate.org, certificate.id, {"hold": reason, "ends": ends})


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Put back what a restored database does not know. Gives whether there was anything to do.

    A certificate that was signed comes back on hold until its release is replayed, too; one that was not is only
    prepared. Revocations and holds come back in their order. Events of other domains, and those that took no effect,
    are passed over. All of them may be replayed again.
    Raises NoSuchAuthority if the authority itself is missing, StaleVersion.
    """
    event = remembered.event
    if remembered.settled is Settled.ABANDONED:
        return False
    if event.kind is JournalKind.ISSUE:
        return await (_reissue(unit, event) if "tbs" in event.data else _sign_again(unit, event))
    if event.kind is JournalKind.REVOKE:
        return await _repeat(unit, event)
    return False


async def _repeat(unit: Unit, event: JournalEvent) -> bool:
    """A revocation, or the beginning or end of a hold, once more."""
    certificate = await store.certificate_by_id(unit, event.org, event.subject)
    if certificate is None or certificate.state is CertificateState.REVOKED:
        return False
    values: dict[str, Any] = {"status_at": unit.now}
    if (reason := event.data.get("hold")) is None:
        values |= {"state": CertificateState.REVOKED, "reason": event.data["reason"], "holds": []}
    else:
        ends = bool(event.data["ends"])
        holds = certificate.holds - {str(reason)} if ends else certificate.holds | {str(reason)}
        if holds == certificate.holds:
            return False
        values["holds"] = sorted(holds)
        if certificate.state is not CertificateState.PREPARED:
            values["state"] = CertificateState.HELD if holds else CertificateState.GOOD
    await store.update_certificate(unit, certificate, values)
    return True


async def _sign_again(unit: Unit, event: JournalEvent) -> bool:
    """The signature that was made then."""
    certificate = await store.certificate_by_id(unit, event.org, event.subject)
    if certificate is None or certificate.state is not CertificateState.PREPARED:
        return False
    return await _keep(unit, certificate, str(event.data["certificate"]))


async def _keep(unit: Unit, certificate: Certificate, der: str) -> bool:
    state = CertificateState.HELD if certificate.holds else CertificateState.GOOD
    values = {"state": state, "certificate": base64.b64decode(der), "status_at": unit.now}
    return await store.keep_signed(unit, certificate.id, values)


async def _reissue(unit: Unit, event: JournalEvent) -> bool:
    if await store.certificate_by_id(unit, event.org, event.subject) is not None:
        return False
    data = {key: str(value) if value is not None else None for key, value in event.data.items()}
    authority = await store.authority_by_name(unit, data["authority"] or "")
    if authority is None:
        raise NoSuchAuthority(f"the journal names the authority {data['authority']}, which is not in the database")
    tbs = base64.b64decode(data["tbs"] or "")
    kind = HolderKind(data["holder_kind"] or "")
    parsed = x509.load_der_x509_certificate(assemble(tbs, issuer_info(authority), b"\0"))
    values: dict[str, Any] = {
        "id": event.subject,
        "org": event.org,
        "request": UUID(data["request"]),
        "authority": authority.id,
        "serial": hexadecimal(parsed.serial_number),
        "profile": data["profile"],
        "profile_version": event.data["profile_version"],
        "holder_kind": kind,
        "holder": UUID(data["holder"]),
        "holder_part": data["holder_part"],
        "person": UUID(data["person"]) if data["person"] else None,
        "key": key_fingerprint(parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        "origin": Origin(data["origin"] or ""),
        "state": CertificateState.PREPARED,
        "holds": [] if kind in WITHOUT_HOLD else [UNRELEASED],
        "status_at": unit.now,
        "reason": None,
        "not_before": parsed.not_valid_before_utc,
        "not_after": parsed.not_valid_after_utc,
        "session": UUID(data["session"]) if data["session"] else None,
        "tbs": tbs,
        "certificate": b"",
    }
    made = await store.insert_certificate(unit, values)
    if data.get("certificate"):
        await _keep(unit, made, str(data["certificate"]))
    return True


async def raise_floors(unit: Unit, numbers: dict[str, int]) -> None:
    """After a restore: OCSP answers "try later" until a CRL beyond the last one that the vault signed is out.

    ``numbers`` is ``VaultStatus.crl_numbers``. Raises StaleVersion.
    """
    for authority in await store.authorities(unit):
        number = max(numbers.get(authority.name, 0), await store.last_number(unit, authority.id))
        if number > authority.crl_floor:
            await store.update_authority(unit, authority, {"crl_floor": number})


async def numbers_of(vault: Vault) -> dict[str, int]:
    """The highest CRL number that the vault signed for each authority. Raises VaultError."""
    return dict((await vault.status()).crl_numbers)
