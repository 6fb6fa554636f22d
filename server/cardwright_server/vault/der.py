"""To-be-signed structures: read strictly, and read twice, before the vault puts a signature under them.

``cryptography`` interprets; it wants a whole signed structure, so one is made with an empty signature. What it
reads must encode again to the same octets, extension by extension, so that nothing it skips is signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from asn1crypto import algos, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509

from cardwright_cardops import asn1

from .errors import VaultRefused
from .model import SigningAlgorithm

MAX_TBS = 64 * 1024
MAX_TBS_CRL = 8 * 1024 * 1024

SIGNATURE_NAMES = {
    SigningAlgorithm.RSA2048: "sha256_rsa",
    SigningAlgorithm.RSA3072: "sha256_rsa",
    SigningAlgorithm.RSA4096: "sha256_rsa",
    SigningAlgorithm.P256: "sha256_ecdsa",
    SigningAlgorithm.P384: "sha384_ecdsa",
}


def signature_algorithm(algorithm: SigningAlgorithm) -> bytes:
    """The DER AlgorithmIdentifier of a key's signatures."""
    name = SIGNATURE_NAMES[algorithm]
    value = {"algorithm": name} if "ecdsa" in name else {"algorithm": name, "parameters": core.Null()}
    return bytes(algos.SignedDigestAlgorithm(value).dump())


def signed_structure(tbs: bytes, algorithm: bytes, signature: bytes = b"\0") -> bytes:
    """SEQUENCE { tbs, AlgorithmIdentifier, BIT STRING }: a certificate, a CRL."""
    content = tbs + algorithm + bytes(core.OctetBitString(signature).dump())
    return _header(0x30, len(content)) + content


def key_id(spki: bytes) -> bytes:
    """RFC 5280 section 4.2.1.2 method 1: SHA-1 of the public key's BIT STRING."""
    info = asn1.load(asn1_x509.PublicKeyInfo, spki)
    bits: bytes = info["public_key"].contents[1:]
    return bytes(hashlib.sha1(bits, usedforsecurity=False).digest())


def canonical_extensions(extensions: Iterable[x509.Extension[x509.ExtensionType]], raw: Iterable[core.Any]) -> None:
    """Refuse extensions that mean to ``cryptography`` anything but what their octets say in DER."""
    listed = list(raw)
    seen = list(extensions)
    if [one.oid.dotted_string for one in seen] != [one["extn_id"].dotted for one in listed]:
        raise VaultRefused("extension", "The extensions cannot be read one by one.")
    for one, octets in zip(seen, listed, strict=True):
        if isinstance(one.value, x509.UnrecognizedExtension):
            asn1.require_der(bytes(octets["extn_value"].contents))
        elif one.value.public_bytes() != bytes(octets["extn_value"].contents):
            raise VaultRefused("extension", f"Extension {one.oid.dotted_string} is not in DER.")


def require_window(name: str, value: datetime, now: datetime, *, back_seconds: float, ahead_seconds: float) -> None:
    """Refuse a time outside ``now - back`` to ``now + ahead``."""
    offset = (value - now).total_seconds()
    if not -back_seconds <= offset <= ahead_seconds:
        raise VaultRefused("time", f"{name} is not about now.")


def utc(stamp: float) -> datetime:
    """Seconds since 1970 as an aware time."""
    return datetime.fromtimestamp(stamp, UTC)


def _header(tag: int, size: int) -> bytes:
    if size < 0x80:
        return bytes((tag, size))
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | octets)) + size.to_bytes(octets, "big")
