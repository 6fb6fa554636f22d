"""The CMS SignedData of CHUID, biometric records and Security Object, and who made them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .. import asn1
from ..piv.containers import CERT_9E, CHUID, SECURITY_OBJECT, Container
from ..piv.signed import SignedObject, find_signer, read
from .context import Context
from .model import Level
from .profiles import CONTENT_SIGNING, CONTENT_SIGNING_PIV_I, CURVES, SIGNATURE_HASHES


@dataclass(frozen=True, slots=True)
class Expected:
    """What one kind of signed object must be. ``content`` None: it is inside."""

    content_type: str
    content: bytes | None
    wants_card_attributes: bool = False
    may_have_certificate: bool = True


def examine(context: Context, container: Container, der: bytes, expected: Expected) -> SignedObject | None:
    """Check one signature of ``container``; what was read, None when it is no SignedData."""
    try:
        seen = read(der)
    except asn1.MalformedAsn1 as cause:
        context.report("SIGNATURE_MALFORMED", container, str(cause))
        return None
    _shape(context, container, seen, expected)
    content = seen.content if expected.content is None else expected.content
    if content is not None:
        if not seen.digest_matches(content):
            context.report("SIGNATURE_DIGEST_MISMATCH", container, "the content is not what was signed")
        _who(context, container, seen, content)
    if expected.wants_card_attributes:
        _card_attributes(context, container, seen)
    return seen


def judge_signer(context: Context, container: Container, signer: x509.Certificate) -> None:
    """Check the certificate of a content signer once, at the object that brought it."""
    if signer in context.signers.values():
        return
    context.signers[container] = signer
    ends = signer.not_valid_after_utc
    card = context.certificates.get(CERT_9E)
    if context.at > ends:
        context.report("CONTENT_SIGNER_EXPIRED", container, f"the content signer's certificate expired {ends:%Y-%m-%d}")
    elif card is not None and ends < card.not_valid_after_utc:
        context.report(
            "CONTENT_SIGNER_ENDS_EARLY",
            container,
            f"the content signer's certificate expires {ends:%Y-%m-%d},"
            f" before that of 9E ({card.not_valid_after_utc:%Y-%m-%d})",
        )
    if context.at < signer.not_valid_before_utc:
        context.report(
            "CONTENT_SIGNER_NOT_YET_VALID", container, f"valid from {signer.not_valid_before_utc:%Y-%m-%d} only"
        )
    usages = extended_key_usages(signer)
    wanted = {
        Level.PIV: {CONTENT_SIGNING},
        Level.PIV_I: {CONTENT_SIGNING_PIV_I},
    }.get(context.level, {CONTENT_SIGNING, CONTENT_SIGNING_PIV_I})
    if not wanted & usages:
        context.report("CONTENT_SIGNER_EKU", container, "the content signer's certificate lacks content signing")
    if context.policies is not None and not context.policies.content_signing & policies(signer):
        context.report("CONTENT_SIGNER_POLICY", container, "no content-signing policy is asserted")
    if not strong_key(signer):
        context.report("CONTENT_SIGNER_KEY", container, "the content signer's key is of a kind or size not allowed")


def extended_key_usages(certificate: x509.Certificate) -> set[str]:
    """The OIDs in dots, empty without the extension."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return set()
    return {usage.dotted_string for usage in found.value}


def policies(certificate: x509.Certificate) -> set[str]:
    """The policy OIDs in dots, empty without the extension."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies)
    except x509.ExtensionNotFound:
        return set()
    return {policy.policy_identifier.dotted_string for policy in found.value}


def strong_key(certificate: x509.Certificate) -> bool:
    """Whether SP 800-78-5 lets a signer have this key: RSA from 2048 bits, P-256, P-384."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= 2048
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES


def _shape(context: Context, container: Container, seen: SignedObject, expected: Expected) -> None:
    problems: Iterable[tuple[bool, str]] = (
        (seen.content_type != expected.content_type, f"the content type is {seen.content_type}"),
        (seen.signers != 1, f"there are {seen.signers} signers"),
        ((seen.content is None) == (expected.content is None), "the content is inside or outside wrongly"),
        (seen.has_crls, "CRLs are included"),
        (seen.signer_id is None, "the signer is named by key identifier"),
        (seen.version not in (1, 3), f"the version is {seen.version}"),
        (seen.digest_algorithms != (seen.digest,), "the digest algorithms do not agree"),
        (not seen.attributes, "there are no signed attributes"),
        (
            bool(seen.attributes) and seen.attribute_content_type != seen.content_type,
            "the signed content type is another",
        ),
        (len(seen.certificates) > 1, "more than one certificate is included"),
        (bool(seen.certificates) and not expected.may_have_certificate, "a certificate is included"),
        (container is CHUID and not seen.certificates, "the signer's certificate is not included"),
    )
    for wrong, message in problems:
        if wrong:
            context.report("SIGNATURE_PROFILE", container, message)
    weak = seen.digest not in SIGNATURE_HASHES or (seen.pss is not None and seen.pss[0] not in SIGNATURE_HASHES)
    if weak or seen.signature_algorithm not in ("rsassa_pkcs1v15", "rsassa_pss", "ecdsa"):
        context.report("SIGNATURE_ALGORITHM_WEAK", container, f"{seen.signature_algorithm} with {seen.digest}")
    if container is not SECURITY_OBJECT and seen.attributes and seen.signer_dn is None:
        context.report("SIGNED_ATTRIBUTE_ABSENT", container, "pivSigner-DN is missing")


def _who(context: Context, container: Container, seen: SignedObject, content: bytes) -> None:
    """Find the signer and try the signature. Without a certificate inside it has to be the CHUID's signer."""
    issuer = context.signers.get(CHUID)
    known = (*((issuer,) if issuer else ()), *context.pool)
    named = [each for each in (find_signer(seen, ()), *known) if each is not None and seen.names_signer(each)]
    signer = next((each for each in named if seen.signature_verifies(each, content)), None)
    if signer is None:
        where = "" if named else ": its signer's certificate is not the CHUID's and was not given"
        context.report("SIGNATURE_INVALID", container, f"the signature does not verify{where}")
        return
    if seen.signer_dn is not None and seen.signer_dn != signer.subject.public_bytes():
        context.report("SIGNER_DN_MISMATCH", container, "pivSigner-DN is not the subject of the signer's certificate")
    if container is CHUID or seen.certificates:
        judge_signer(context, container, signer)
    elif issuer is not None and signer != issuer:
        context.report("CONTENT_SIGNER_DIFFERS", container, "signed by another than the CHUID's signer")


def _card_attributes(context: Context, container: Container, seen: SignedObject) -> None:
    chuid = context.chuid
    if seen.fascn is None and context.level is Level.PIV:
        context.report("SIGNED_ATTRIBUTE_ABSENT", container, "pivFASC-N is missing")
    elif chuid is not None and seen.fascn is not None and seen.fascn != chuid.fascn:
        context.report("SIGNED_FASCN_MISMATCH", container, "the signed attribute pivFASC-N is not the CHUID's")
    if seen.uuid is None:
        context.report("SIGNED_ATTRIBUTE_ABSENT", container, "entryUUID is missing")
    elif chuid is not None and seen.uuid != chuid.guid.bytes:
        context.report("SIGNED_UUID_MISMATCH", container, "the signed attribute entryUUID is not the CHUID's GUID")
