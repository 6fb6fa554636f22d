"""May this CA put its signature under this TBSCertificate? RFC 5280 section 4, and the vault's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops import asn1

from .der import MAX_TBS, canonical_extensions, key_id, require_window, signature_algorithm, signed_structure
from .errors import VaultRefused
from .model import KeyRole, PublicKeyInfo
from .profiles import (
    ALTERNATIVE_NAME,
    BASIC_CONSTRAINTS,
    EXTENDED_KEY_USAGE,
    INHIBIT_ANY_POLICY,
    KEY_USAGE,
    NAME_CONSTRAINTS,
    POLICY,
    POLICY_CONSTRAINTS,
    CertificateRule,
    Holder,
)

E = TypeVar("E", bound=x509.ExtensionType)

_BACK = 86400.0
_AHEAD = 3600.0
_ROLES = {
    Holder.ROOT: KeyRole.ROOT,
    Holder.CA: KeyRole.ISSUING,
    Holder.OCSP: KeyRole.OCSP,
    Holder.CONTENT: KeyRole.CONTENT,
}
_CA_HOLDERS = (Holder.ROOT, Holder.CA)
_MAY_BE_CRITICAL = {EXTENDED_KEY_USAGE, POLICY, NAME_CONSTRAINTS, POLICY_CONSTRAINTS, INHIBIT_ANY_POLICY}
_UNREADABLE = (
    asn1.MalformedAsn1,
    ValueError,
    TypeError,
    KeyError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)
_CURVES = {"secp256r1": "p256", "secp384r1": "p384"}
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What the audit says of a signed certificate: no names of people."""

    serial: int
    not_after: datetime
    subject_key: str
    """Name of the vault's own key that is certified, else empty."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A TBSCertificate as both parsers see it, and what it is judged by."""

    certificate: x509.Certificate
    spki: bytes
    issuer: PublicKeyInfo
    rule: CertificateRule
    keys: Mapping[str, PublicKeyInfo]


def check_certificate(
    tbs: bytes,
    issuer: PublicKeyInfo,
    rule: CertificateRule,
    keys: Mapping[str, PublicKeyInfo],
    now: datetime,
    latest: datetime | None,
) -> CertificateFacts:
    """Judge ``tbs``; ``keys`` are all keys of the vault, ``latest`` is the end of the CA's own certificate.

    Raises VaultRefused.
    """
    certificate, spki = _read(tbs, issuer)
    reading = _Reading(certificate, spki, issuer, rule, keys)
    _check_frame(reading, tbs)
    _check_validity(reading, now, latest)
    own = _check_holder(reading)
    _check_public_key(reading)
    for check in _EXTENSION_CHECKS:
        check(reading)
    return CertificateFacts(certificate.serial_number, certificate.not_valid_after_utc, own)


def _read(tbs: bytes, issuer: PublicKeyInfo) -> tuple[x509.Certificate, bytes]:
    if len(tbs) > MAX_TBS:
        raise VaultRefused("size", f"A TBSCertificate of {len(tbs)} octets is too large.")
    try:
        structure = asn1.load(asn1_x509.TbsCertificate, tbs)
        if not 1 << 63 <= structure["serial_number"].native < 1 << 159:
            raise VaultRefused("serial", "A serial number is positive and has 64 to 159 bits.")
        whole = signed_structure(tbs, signature_algorithm(issuer.algorithm))
        certificate = x509.load_der_x509_certificate(whole)
        extensions = certificate.extensions
        canonical_extensions(extensions, structure["extensions"])
        spki = bytes(structure["subject_public_key_info"].dump())
        key = certificate.public_key()
        if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
            raise VaultRefused("public-key", "The public key is not in its DER form.")
        # Read now what is read lazily: a damaged value must not come up later.
        _ = (certificate.subject, certificate.issuer, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except _UNREADABLE as cause:
        raise VaultRefused("structure", "This is no DER TBSCertificate for this CA.") from cause
    if certificate.tbs_certificate_bytes != tbs:
        raise VaultRefused("structure", "This is no DER TBSCertificate for this CA.")
    return certificate, spki


def _check_frame(reading: _Reading, tbs: bytes) -> None:
    certificate, issuer = reading.certificate, reading.issuer
    structure = asn1_x509.TbsCertificate.load(tbs)
    if certificate.version is not x509.Version.v3:
        raise VaultRefused("version", "Only version 3 certificates are signed.")
    if structure["signature"].dump() != signature_algorithm(issuer.algorithm):
        raise VaultRefused("signature-algorithm", "The TBSCertificate names another signature algorithm.")
    if certificate.issuer.public_bytes() != issuer.subject:
        raise VaultRefused("issuer", "The issuer is not this CA's name.")
    if structure["issuer_unique_id"].native is not None or structure["subject_unique_id"].native is not None:
        raise VaultRefused("structure", "Unique identifiers are not signed.")


def _check_validity(reading: _Reading, now: datetime, latest: datetime | None) -> None:
    begin, end = reading.certificate.not_valid_before_utc, reading.certificate.not_valid_after_utc
    require_window("notBefore", begin, now, back_seconds=_BACK, ahead_seconds=_AHEAD)
    if not begin < end <= begin + timedelta(days=reading.rule.max_days):
        raise VaultRefused("validity", f"The profile allows {reading.rule.max_days} days.")
    if latest is not None and end > latest:
        raise VaultRefused("validity", "The certificate would outlive its issuer's.")


def _check_holder(reading: _Reading) -> str:
    subject = reading.certificate.subject.public_bytes()
    holder, issuer = reading.rule.holder, reading.issuer
    ours = [one for one in reading.keys.values() if one.public_key == reading.spki]
    if holder is Holder.OUTSIDE:
        if ours or any(one.subject == subject for one in reading.keys.values()):
            raise VaultRefused("holder", "Key or subject belong to the vault; this profile is for others.")
        return ""
    if len(ours) != 1 or ours[0].role is not _ROLES[holder] or ours[0].subject != subject:
        raise VaultRefused("holder", f"This profile certifies only the vault's own {holder.value} keys.")
    if holder in _CA_HOLDERS and issuer.role is not KeyRole.ROOT:
        raise VaultRefused("holder", "Only a root certifies CAs.")
    if holder is Holder.ROOT and ours[0].name != issuer.name:
        raise VaultRefused("holder", "A root is certified by itself only.")
    return ours[0].name


def _check_public_key(reading: _Reading) -> None:
    match key := reading.certificate.public_key():
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            if numbers.e != 65537 or not numbers.n & 1:
                raise VaultRefused("public-key", "An RSA key has the exponent 65537.")
            name = f"rsa{key.key_size}"
        case ec.EllipticCurvePublicKey():
            name = _CURVES.get(key.curve.name, key.curve.name)
        case _:
            name = type(key).__name__
    if name not in reading.rule.public_keys:
        raise VaultRefused("public-key", f"The profile does not allow {name} keys.")


def _check_allowed(reading: _Reading) -> None:
    allowed = set(reading.rule.extensions)
    for extension in reading.certificate.extensions:
        oid = extension.oid.dotted_string
        if oid not in allowed:
            raise VaultRefused("extension", f"The profile does not allow extension {oid}.")
        must = oid in (KEY_USAGE, BASIC_CONSTRAINTS)
        may = must or oid in _MAY_BE_CRITICAL or (oid == ALTERNATIVE_NAME and not list(reading.certificate.subject))
        if (must and not extension.critical) or (extension.critical and not may):
            raise VaultRefused("extension", f"Extension {oid} must {'' if must else 'not '}be critical.")


def _check_key_usage(reading: _Reading) -> None:
    value = _extension(reading, x509.KeyUsage)
    if value is None:
        raise VaultRefused("key-usage", "Key usage is missing.")
    asserted = {name for name in _USAGES if getattr(value, name)}
    if value.key_agreement and (value.encipher_only or value.decipher_only):
        asserted.add("encipher_only or decipher_only")
    if asserted not in [set(one) for one in reading.rule.key_usage]:
        raise VaultRefused("key-usage", "The profile does not allow this key usage.")
    is_rsa = isinstance(reading.certificate.public_key(), rsa.RSAPublicKey)
    if ("key_encipherment" in asserted and not is_rsa) or ("key_agreement" in asserted and is_rsa):
        raise VaultRefused("key-usage", "The key usage does not fit the key.")


def _check_extended_usage(reading: _Reading) -> None:
    value = _extension(reading, x509.ExtendedKeyUsage)
    asserted = [] if value is None else [one.dotted_string for one in value]
    required, allowed = set(reading.rule.extended_required), set(reading.rule.extended_allowed)
    if len(set(asserted)) != len(asserted) or not required <= set(asserted) <= required | allowed:
        raise VaultRefused("extended-key-usage", "The profile does not allow this extended key usage.")


def _check_policies(reading: _Reading) -> None:
    value = _extension(reading, x509.CertificatePolicies)
    asserted = [] if value is None else [one.policy_identifier.dotted_string for one in value]
    if len(set(asserted)) != len(asserted) or not set(asserted) <= set(reading.rule.policies):
        raise VaultRefused("policy", "The profile does not allow these certificate policies.")
    if reading.rule.policy_required and not asserted:
        raise VaultRefused("policy", "The profile requires a certificate policy.")


def _check_constraints(reading: _Reading) -> None:
    value = _extension(reading, x509.BasicConstraints)
    if reading.rule.holder not in _CA_HOLDERS:
        if value is not None:
            raise VaultRefused("basic-constraints", "Only CA certificates have basic constraints.")
    elif value is None or not value.ca or value.path_length != reading.rule.path_length:
        raise VaultRefused("basic-constraints", "The profile is for a CA with the path length that it names.")


def _check_names(reading: _Reading) -> None:
    value = _extension(reading, x509.SubjectAlternativeName)
    for name in value or ():
        if _kind(name) not in reading.rule.names:
            raise VaultRefused("alternative-name", "The profile does not allow this kind of alternative name.")
    if value is None and not list(reading.certificate.subject):
        raise VaultRefused("alternative-name", "Neither subject nor alternative name.")


def _check_key_ids(reading: _Reading) -> None:
    authority = _extension(reading, x509.AuthorityKeyIdentifier)
    self_signed = reading.spki == reading.issuer.public_key
    if authority is None:
        if not self_signed:
            raise VaultRefused("key-id", "The authority key identifier is missing.")
    elif (
        authority.key_identifier != key_id(reading.issuer.public_key)
        or authority.authority_cert_issuer is not None
        or authority.authority_cert_serial_number is not None
    ):
        raise VaultRefused("key-id", "The authority key identifier is not this CA's.")
    subject = _extension(reading, x509.SubjectKeyIdentifier)
    if subject is None:
        if reading.rule.holder in _CA_HOLDERS:
            raise VaultRefused("key-id", "The subject key identifier is missing.")
    elif subject.digest != key_id(reading.spki):
        raise VaultRefused("key-id", "The subject key identifier is not the SHA-1 of the public key.")


_EXTENSION_CHECKS: tuple[Callable[[_Reading], None], ...] = (
    _check_allowed,
    _check_key_usage,
    _check_extended_usage,
    _check_policies,
    _check_constraints,
    _check_names,
    _check_key_ids,
)


def _extension(reading: _Reading, kind: type[E]) -> E | None:
    try:
        return reading.certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _kind(name: x509.GeneralName) -> str:
    match name:
        case x509.RFC822Name():
            return "email"
        case x509.DNSName():
            return "dns"
        case x509.IPAddress():
            return "ip"
        case x509.UniformResourceIdentifier():
            return "uri"
        case x509.DirectoryName():
            return "directory"
        case x509.OtherName():
            return f"other:{name.type_id.dotted_string}"
    return "other"
