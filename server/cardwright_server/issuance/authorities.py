"""Authorities: made once with keys in the vault, told apart by purpose, and never taken for one another (S6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.check.profiles import EMAIL_PROTECTION

from ..audit.model import Who
from ..store.unit import Database, Unit
from ..vault.calls import VaultAdmin
from ..vault.errors import VaultRefused
from ..vault.model import KeyRole, PublicKeyInfo, SigningAlgorithm
from ..vault.profiles import (
    CLIENT_AUTH,
    DEFAULT_RULES,
    PKINIT_CLIENT,
    SERVER_AUTH,
    SMARTCARD_LOGON,
    CertificateRule,
)
from ..vault.protocol import Vault
from . import store
from .errors import WrongRole
from .model import Authority, Certificate, CertificateState, HolderKind, Purpose
from .own import OwnCertificates
from .tbs import hexadecimal

_SIGNATURE = DEFAULT_RULES["piv-authentication"]
EXTRA_RULES: Final[dict[str, CertificateRule]] = {
    "derived-authentication": CertificateRule(
        max_days=1096,
        public_keys=("rsa2048", "rsa3072", "p256", "p384"),
        key_usage=(("digital_signature",),),
        extended_required=(CLIENT_AUTH,),
        extended_allowed=(SMARTCARD_LOGON, PKINIT_CLIENT),
        policies=("2.16.840.1.101.3.2.1.3.40", "2.16.840.1.101.3.2.1.3.41"),
        extensions=_SIGNATURE.extensions,
        names=("uri", "email", *(one for one in _SIGNATURE.names if one.startswith("other:1."))),
    ),
    "operator": CertificateRule(
        max_days=366,
        public_keys=("rsa2048", "rsa3072", "p256", "p384"),
        key_usage=(("digital_signature",),),
        extended_required=(CLIENT_AUTH,),
        extended_allowed=(EMAIL_PROTECTION,),
        extensions=DEFAULT_RULES["workstation"].extensions,
        names=("uri", "email"),
    ),
}
"""Rules that a vault needs besides those it begins with."""
_RULES: Final[dict[Purpose, tuple[str, ...]]] = {
    Purpose.ROOT: ("root", "ca"),
    Purpose.CARDS: (
        "piv-authentication",
        "card-authentication",
        "signature",
        "key-management",
        "content-signing",
        "ocsp",
        "derived-authentication",
    ),
    Purpose.WORKSTATIONS: ("workstation", "operator", "ocsp"),
    Purpose.SERVERS: ("server", "ocsp"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Which keys to make. ``names`` are common names of authorities; ``generation`` tells later ones apart."""

    base: x509.Name
    names: dict[Purpose, str]
    root: SigningAlgorithm = SigningAlgorithm.P384
    issuing: SigningAlgorithm = SigningAlgorithm.P256
    generation: int = 1

    def key(self, purpose: Purpose) -> str:
        """The name of an authority's key in the vault."""
        return f"{purpose}-{self.generation}"


async def organization(database: Database) -> UUID | None:
    """The organization of the installation: whose root there is. None before there is one."""

    async def read(unit: Unit) -> UUID | None:
        found = [one for one in await store.authorities(unit) if one.purpose is Purpose.ROOT and not one.foreign]
        return found[0].org if found else None

    return await database.read(read)


async def establish(
    database: Database, vault: Vault, admin: VaultAdmin, own: OwnCertificates, who: Who, org: UUID, plan: Plan
) -> list[Authority]:
    """Make keys and certificates of a root and an issuing authority for each purpose, with responders, and a content
    signer. Safe to repeat after a failure at any point: what is there is taken.

    Raises VaultError, StoreError.
    """
    wanted = {oid for rule in EXTRA_RULES.values() for oid in rule.policies}
    ca = DEFAULT_RULES["ca"]
    rules = {**EXTRA_RULES, "ca": msgspec.structs.replace(ca, policies=tuple(sorted({*ca.policies, *wanted})))}
    for name, rule in rules.items():
        await admin.set_rule(name, rule)
    for purpose in (Purpose.ROOT, Purpose.CARDS, Purpose.WORKSTATIONS, Purpose.SERVERS):
        role, algorithm = (KeyRole.ROOT, plan.root) if purpose is Purpose.ROOT else (KeyRole.ISSUING, plan.issuing)
        name = plan.key(purpose)
        info = await _key(vault, admin, name, role, algorithm, _subject(plan, plan.names[purpose]), _RULES[purpose])
        responder = "" if purpose is Purpose.ROOT else f"{name}-ocsp"
        if responder:
            subject = _subject(plan, f"{plan.names[purpose]} OCSP")
            await _key(vault, admin, responder, KeyRole.OCSP, SigningAlgorithm.P256, subject)
        await database.transact(partial(_insert, org=org, info=info, purpose=purpose, responder=responder))
    await _key(
        vault,
        admin,
        f"{plan.key(Purpose.CARDS)}-content",
        KeyRole.CONTENT,
        SigningAlgorithm.P256,
        _subject(plan, f"{plan.names[Purpose.CARDS]} Content Signer"),
    )
    await own.renew(database, who)
    return await database.read(store.authorities)


async def make_content_signer(
    vault: Vault, admin: VaultAdmin, name: str, subject: bytes, algorithm: SigningAlgorithm
) -> PublicKeyInfo:
    """A key for a further content signer; ``OwnCertificates.renew`` certifies it. Raises VaultError."""
    return await _key(vault, admin, name, KeyRole.CONTENT, algorithm, subject)


async def _key(
    vault: Vault,
    admin: VaultAdmin,
    name: str,
    role: KeyRole,
    algorithm: SigningAlgorithm,
    subject: bytes,
    profiles: Sequence[str] = (),
) -> PublicKeyInfo:
    try:
        return await vault.public_key(name)
    except VaultRefused:
        return await admin.create_key(name, role, algorithm, subject, profiles)


async def _insert(unit: Unit, org: UUID, info: PublicKeyInfo, purpose: Purpose, responder: str) -> None:
    values = {
        "org": org,
        "name": info.name,
        "purpose": purpose,
        "foreign_backend": False,
        "subject": info.subject,
        "public_key": info.public_key,
        "certificate": b"",
        "responder": responder,
        "active": True,
        "crl_floor": 0,
    }
    await store.insert_authority(unit, values)


async def add_foreign(unit: Unit, org: UUID, name: str, purpose: Purpose, certificate: x509.Certificate) -> None:
    """Know another authority: what its backend brings must be signed by it."""
    values = {
        "org": org,
        "name": name,
        "purpose": purpose,
        "foreign_backend": True,
        "subject": certificate.subject.public_bytes(),
        "public_key": certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "certificate": certificate.public_bytes(Encoding.DER),
        "responder": "",
        "active": True,
        "crl_floor": 0,
    }
    await store.insert_authority(unit, values)


_USAGE: Final = {
    HolderKind.WORKSTATION: CLIENT_AUTH,
    HolderKind.OPERATOR: CLIENT_AUTH,
    HolderKind.SERVICE: CLIENT_AUTH,
    HolderKind.SERVER: SERVER_AUTH,
}


def issuer_of(
    certificate: x509.Certificate, purpose: Purpose, authorities: Iterable[Authority], now: datetime
) -> Authority:
    """The authority for ``purpose`` that issued a certificate, which is in its time. Raises WrongRole."""
    for authority in authorities:
        if authority.purpose is not purpose or not authority.certificate:
            continue
        try:
            certificate.verify_directly_issued_by(authority.x509)
        except (ValueError, TypeError, InvalidSignature):
            continue
        if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            raise WrongRole("time", "The certificate is not valid now.")
        return authority
    raise WrongRole("issuer", f"The certificate is by no authority for {purpose}.")


async def verify_role(
    unit: Unit, certificate: x509.Certificate, purpose: Purpose, holder: HolderKind
) -> Certificate:
    """Our record of a certificate that is shown for a purpose, by the kind of holder that it must be.

    Issuer, time, extended key usage, status and holder are judged; the caller has seen that the peer has the key.
    Raises WrongRole.
    """
    authority = issuer_of(certificate, purpose, await store.authorities(unit), unit.now)
    wanted = _USAGE.get(holder)
    if wanted is not None and wanted not in _extended(certificate):
        raise WrongRole("usage", "The certificate is not for this use.")
    serial = hexadecimal(certificate.serial_number)
    found = (await store.certificates_by_serial(unit, authority.id, [serial])).get(serial)
    same = found is not None and found.certificate == certificate.public_bytes(Encoding.DER)
    if found is None or not same or found.state is not CertificateState.GOOD:
        raise WrongRole("status", "The certificate is held, revoked or unknown.")
    if found.holder.kind is not holder:
        raise WrongRole("holder", f"The certificate is no {holder}'s.")
    return found


def _extended(certificate: x509.Certificate) -> list[str]:
    try:
        value = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [one.dotted_string for one in value]


def _subject(plan: Plan, common_name: str) -> bytes:
    own = x509.RelativeDistinguishedName([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    return x509.Name([*plan.base.rdns, own]).public_bytes()
