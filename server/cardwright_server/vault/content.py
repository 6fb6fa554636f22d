"""May a content signer sign these SignedAttributes? SP 800-73-5 part 1 section 3, RFC 5652 section 5.3."""

from __future__ import annotations

from asn1crypto import cms, core

from cardwright_cardops import asn1
from cardwright_cardops.piv.signed import (
    BIOMETRIC_CONTENT,
    CHUID_CONTENT,
    ENTRY_UUID,
    FASCN,
    LDS_CONTENT,
    SIGNER_DN,
)

from .errors import VaultRefused
from .model import ContentKind, PublicKeyInfo, SigningAlgorithm

MAX_ATTRIBUTES = 8 * 1024
_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_KINDS = {
    ContentKind.CHUID: CHUID_CONTENT,
    ContentKind.BIOMETRIC: BIOMETRIC_CONTENT,
    ContentKind.SECURITY_OBJECT: LDS_CONTENT,
}
_LENGTHS = {FASCN: 25, ENTRY_UUID: 16}


def check_content(attributes: bytes, kind: ContentKind, signer: PublicKeyInfo) -> bytes:
    """The messageDigest in ``attributes``. Raises VaultRefused."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise VaultRefused("size", f"Signed attributes of {len(attributes)} octets are too large.")
    try:
        parsed = asn1.load(cms.CMSAttributes, attributes)
        values = {one["type"].dotted: [value.dump() for value in one["values"]] for one in parsed}
        count = len(parsed)
    except (asn1.MalformedAsn1, ValueError, TypeError, KeyError) as cause:
        raise VaultRefused("structure", "These are no DER SignedAttributes.") from cause
    if count != len(values) or any(len(one) != 1 for one in values.values()):
        raise VaultRefused("structure", "Each signed attribute is there once, with one value.")
    optional = set(_LENGTHS) if kind is ContentKind.BIOMETRIC else set()
    required = {_CONTENT_TYPE, _MESSAGE_DIGEST, SIGNER_DN}
    if not required <= values.keys() <= required | optional:
        raise VaultRefused("attribute", f"A signed {kind.value} does not have these signed attributes.")
    if values[_CONTENT_TYPE][0] != cms.ContentType(_KINDS[kind]).dump():
        raise VaultRefused("content-type", f"The content type is not that of {kind.value}.")
    if values[SIGNER_DN][0] != signer.subject:
        raise VaultRefused("signer", "pivSigner-DN is not the signer's name.")
    for oid, length in _LENGTHS.items():
        if oid in values and len(_octets(values[oid][0])) != length:
            raise VaultRefused("attribute", "FASC-N or entryUUID have a wrong length.")
    digest = _octets(values[_MESSAGE_DIGEST][0])
    if len(digest) != (48 if signer.algorithm is SigningAlgorithm.P384 else 32):
        raise VaultRefused("digest", "The message digest is not of this signer's hash.")
    return digest


def _octets(der: bytes) -> bytes:
    try:
        return bytes(asn1.load(core.OctetString, der).native)
    except asn1.MalformedAsn1 as cause:
        raise VaultRefused("attribute", "An attribute is no OCTET STRING.") from cause
