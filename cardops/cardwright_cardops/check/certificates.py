"""The certificates of the slots: validity, names, usages, policies, keys, and whether the key is really there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from uuid import UUID

from asn1crypto import core
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, SignatureAlgorithmOID

from .. import asn1
from ..errors import CardwrightError
from ..piv.containers import CERT_9A, CERT_9C, CERT_9D, CERT_9E, RETIRED, Container
from ..piv.signed import FASCN
from .context import Context
from .identity import end_of_card
from .model import Level
from .profiles import (
    BROAD_FOR_AUTHENTICATION,
    CARD_AUTHENTICATION,
    CURVES,
    EMAIL_PROTECTION,
    KEY_USAGES,
    MAX_DAYS,
    NACI,
    RSA_SIZES,
    SIGNATURE_HASHES,
)
from .signatures import extended_key_usages, policies

CURRENT = (CERT_9A, CERT_9C, CERT_9D, CERT_9E)
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign",
)  # fmt: skip
_LAST_YEAR_OF_RSA_2048 = 2030


def check(context: Context) -> None:
    """Check the certificates of 9A, 9C, 9D, 9E, and of retired keys only what does not age."""
    for container, certificate in context.certificates.items():
        if container not in (*CURRENT, *RETIRED):
            continue
        _key(context, container, certificate)
        if container in CURRENT:
            _validity(context, container, certificate)
            _names(context, container, certificate)
            _usage(context, container, certificate)
            _policy(context, container, certificate)
            _addresses(context, container, certificate)


def fascns(certificate: x509.Certificate) -> list[bytes]:
    """The FASC-N octets of the subject alternative name; b"" for one that cannot be read."""
    found: list[bytes] = []
    for name in _alternative_names(certificate):
        if isinstance(name, x509.OtherName) and name.type_id.dotted_string == FASCN:
            try:
                found.append(bytes(asn1.load(core.OctetString, name.value).native))
            except asn1.MalformedAsn1:
                found.append(b"")
    return found


def uuids(certificate: x509.Certificate) -> list[UUID]:
    """The UUIDs that the subject alternative name holds as urn:uuid addresses."""
    found: list[UUID] = []
    for name in _alternative_names(certificate):
        if isinstance(name, x509.UniformResourceIdentifier) and name.value.lower().startswith("urn:uuid:"):
            try:
                found.append(UUID(name.value[9:]))
            except ValueError:
                continue
    return found


def key_identifiers(key: PublicKeyTypes) -> set[bytes]:
    """The identifiers that RFC 5280 section 4.2.1.2 and RFC 7093 section 2 make from a key."""
    spki = asn1.load(_Spki, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    bits = bytes(spki["key"].contents[1:])
    sha1 = hashlib.sha1(bits, usedforsecurity=False).digest()
    short = bytes((0x40 | sha1[-8] & 0x0F,)) + sha1[-7:]
    return {sha1, short} | {hashlib.new(name, bits).digest()[:20] for name in SIGNATURE_HASHES}


class _Spki(core.Sequence):  # type: ignore[misc]
    _fields = [("algorithm", core.Any), ("key", core.BitString)]  # noqa: RUF012


def _alternative_names(certificate: x509.Certificate) -> Iterable[x509.GeneralName]:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()


def _key(context: Context, container: Container, certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        allowed = key.key_size in RSA_SIZES[container in RETIRED] and key.public_numbers().e >= 65537
        shown = f"RSA {key.key_size}, exponent {key.public_numbers().e}"
        late = certificate.not_valid_after_utc.year > _LAST_YEAR_OF_RSA_2048
        if key.key_size == 2048 and container in CURRENT and late:
            context.report("CERT_KEY_SUNSET", container, f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        allowed, shown = key.curve.name in CURVES, key.curve.name
    else:
        allowed, shown = False, type(key).__name__.removesuffix("PublicKey")
    if not allowed:
        context.report("CERT_KEY_ALGORITHM", container, f"the key is {shown}")
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        context.report("CERT_SKI_ABSENT", container, "there is no subject key identifier")
    else:
        if own not in key_identifiers(key):
            context.report("CERT_SKI_MISMATCH", container, "the subject key identifier is not that of the public key")
    _proof(context, container, key)


def _proof(context: Context, container: Container, key: PublicKeyTypes) -> None:
    proof = None if container.slot is None else context.data.proofs.get(container.slot)
    if proof is None:
        return
    try:
        belongs = proof(key)
    except CardwrightError as cause:
        context.report("KEY_NOT_PROVED", container, f"key {container.slot:02X} did not answer: {cause.code}")
        return
    if not belongs:
        context.report("KEY_MISMATCH", container, f"the private key {container.slot:02X} is not the certificate's")


def _validity(context: Context, container: Container, certificate: x509.Certificate) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if context.at > end:
        context.report("CERT_EXPIRED", container, f"the certificate expired {end:%Y-%m-%d}")
    if context.at < start:
        context.report("CERT_NOT_YET_VALID", container, f"the certificate is valid from {start:%Y-%m-%d}")
    chuid = context.chuid
    if chuid is not None and container is not CERT_9D and end > end_of_card(chuid):
        context.report(
            "SIGNING_CERT_OUTLIVES_CARD" if container is CERT_9C else "CERT_OUTLIVES_CARD",
            container,
            f"the certificate expires {end:%Y-%m-%d}, the card {chuid.expiration:%Y-%m-%d}",
        )
    if (end - start).days > MAX_DAYS:
        context.report("CERT_VALIDITY_LONG", container, f"valid for {(end - start).days} days")


def _names(context: Context, container: Container, certificate: x509.Certificate) -> None:
    chuid = context.chuid
    if chuid is None:
        return
    named = fascns(certificate)
    for_card = container in (CERT_9A, CERT_9E)
    if named and (container is CERT_9E and context.level is Level.PIV_I):
        context.report("CERT_FASCN_FORBIDDEN", container, "the certificate holds a FASC-N")
    if any(each != chuid.fascn for each in named):
        context.report("CERT_FASCN_MISMATCH", container, "the FASC-N in the certificate is not the CHUID's")
    if not named and for_card:
        context.report("CERT_FASCN_ABSENT", container, "the certificate holds no FASC-N")
    cards = [each for each in uuids(certificate) if each != chuid.cardholder_uuid]
    if not cards and for_card:
        context.report("CERT_UUID_ABSENT", container, "the certificate holds no card UUID")
    if any(each != chuid.guid for each in cards):
        context.report("CERT_UUID_MISMATCH", container, "the UUID in the certificate is not the CHUID's GUID")
    if container is CERT_9E:
        others = [
            name
            for name in _alternative_names(certificate)
            if not isinstance(name, x509.UniformResourceIdentifier)
            and not (isinstance(name, x509.OtherName) and name.type_id.dotted_string == FASCN)
        ]
        if others:
            context.report("CERT_NAME_FORM", container, f"{len(others)} other names in the subject alternative name")


def _usage(context: Context, container: Container, certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    for_encryption = {"key_agreement"} if isinstance(key, ec.EllipticCurvePublicKey) else {"key_encipherment"}
    wanted = KEY_USAGES.get(container.slot or 0, frozenset(for_encryption))
    try:
        found = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        context.report("CERT_KEY_USAGE", container, "there is no key usage")
    else:
        has = {name for name in _USAGES if getattr(found.value, name)}
        if has != wanted:
            context.report("CERT_KEY_USAGE", container, f"the key usage is {', '.join(sorted(has)) or 'empty'}")
        elif not found.critical:
            context.report("CERT_KEY_USAGE", container, "the key usage is not critical")
    usages = extended_key_usages(certificate)
    if container is CERT_9E and (usages != {CARD_AUTHENTICATION} or not _eku_is_critical(certificate)):
        context.report("CERT_EKU", container, "the extended key usage is not critical id-PIV-cardAuth alone")
    if container is CERT_9A and usages & BROAD_FOR_AUTHENTICATION:
        context.report("CERT_EKU_BROAD", container, "the extended key usage reaches beyond authentication")
    if container in (CERT_9C, CERT_9D) and EMAIL_PROTECTION not in usages:
        context.report("CERT_EKU_ABSENT", container, "the extended key usage lacks emailProtection")
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            context.report("CERT_IS_CA", container, "basicConstraints says CA")
    except x509.ExtensionNotFound:
        pass


def _eku_is_critical(certificate: x509.Certificate) -> bool:
    return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).critical


def _policy(context: Context, container: Container, certificate: x509.Certificate) -> None:
    if context.policies is None or container.slot is None:
        return
    asserted = policies(certificate)
    wanted = context.policies.for_slot(container.slot)
    if not asserted & wanted:
        code = "CERT_POLICY_WRONG" if container in (CERT_9A, CERT_9E) else "CERT_POLICY_ABSENT"
        context.report(code, container, f"asserted: {', '.join(sorted(asserted)) or 'no policy'}")
    elif asserted & wanted <= context.policies.test:
        context.report("CERT_POLICY_TEST", container, f"asserted: {', '.join(sorted(asserted))}")


def _addresses(context: Context, container: Container, certificate: x509.Certificate) -> None:
    extensions = certificate.extensions
    try:
        extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        context.report("CERT_AKI_ABSENT", container, "there is no authority key identifier")
    try:
        access = list(extensions.get_extension_for_class(x509.AuthorityInformationAccess).value)
    except x509.ExtensionNotFound:
        access = []
    methods = {each.access_method for each in access if _is_http(each.access_location)}
    needed = {AuthorityInformationAccessOID.CA_ISSUERS}
    if container in (CERT_9A, CERT_9E):
        needed.add(AuthorityInformationAccessOID.OCSP)
    if not needed <= methods:
        context.report("CERT_AIA", container, "no http address for the issuer's certificate or the OCSP responder")
    try:
        points = list(extensions.get_extension_for_class(x509.CRLDistributionPoints).value)
    except x509.ExtensionNotFound:
        points = []
    if not any(_is_http(name) for point in points for name in point.full_name or ()):
        context.report("CERT_CRLDP", container, "no http address for the CRL")
    if any(each.oid.dotted_string == NACI for each in extensions):
        context.report("CERT_NACI", container, "the extension is there")
    try:
        algorithm = certificate.signature_hash_algorithm
        used = algorithm.name if algorithm else "no hash"
    except UnsupportedAlgorithm:
        used = "an unknown algorithm"
    eddsa = certificate.signature_algorithm_oid in (SignatureAlgorithmOID.ED25519, SignatureAlgorithmOID.ED448)
    if used not in SIGNATURE_HASHES and not eddsa:
        context.report("CERT_SIGNATURE_WEAK", container, f"signed with {used}")


def _is_http(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.UniformResourceIdentifier) and name.value.lower().startswith("http://")
