"""Key 04 of a card with secure messaging: its certificate, and the virtual content signer that issued it."""

from __future__ import annotations

import datetime
import hashlib
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cardwright_cardops.iso7816.tlv import encode

from .algorithms import Algorithm
from .keys import EllipticKey
from .secure_messaging import make_cvc

SIGNER_OBJECT: Final = 0x5FC122
_CONTENT_SIGNING: Final = x509.ObjectIdentifier("2.16.840.1.101.3.6.7")
_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cardwright Virtual Content Signer")])
_BEGIN: Final = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
_END: Final = datetime.datetime(2054, 1, 1, tzinfo=datetime.UTC)
_BELOW_ORDER: Final = 2**255


def guid(seed: bytes) -> bytes:
    """The card UUID (RFC 4122 version 4) of a fresh card with this seed."""
    octets = bytearray(hashlib.sha256(seed + b"guid").digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    return bytes(octets)


def factory_scalar(seed: bytes, suite: int) -> bytes:
    """The private part of key 04 as the maker generated it."""
    size = 32 if suite == Algorithm.CS2 else 48
    material = hashlib.sha512(seed + b"secure messaging").digest()
    return (int.from_bytes(material[: size - 1], "big") + 1).to_bytes(size, "big")


def issue(suite: int, private: bytes, card_guid: bytes) -> bytes:
    """The card verifiable certificate for key 04, issued by the virtual content signer of that suite."""
    key = EllipticKey(suite, int.from_bytes(private, "big"))
    return make_cvc(key.exported().public_key(), card_guid, _key_identifier(suite)[:8], _signer_key(suite))


def signer_object(suite: int) -> bytes:
    """The content of container 5FC122 as GET DATA answers it."""
    der = signer_certificate(suite).public_bytes(serialization.Encoding.DER)
    return encode(0x53, encode(0x70, der) + encode(0x71, b"\0") + encode(0xFE, b""))


@cache
def signer_certificate(suite: int) -> x509.Certificate:
    """The content signer's self-signed certificate, the same octets on every card of that suite."""
    key = _signer_key(suite)
    digest = hashes.SHA256() if suite == Algorithm.CS2 else hashes.SHA384()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(suite)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.SubjectKeyIdentifier(_key_identifier(suite)), False)
        .add_extension(x509.ExtendedKeyUsage([_CONTENT_SIGNING]), True)
    )
    return builder.sign(key, digest, ecdsa_deterministic=True)


def _key_identifier(suite: int) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(_signer_key(suite).public_key()).digest


@cache
def _signer_key(suite: int) -> ec.EllipticCurvePrivateKey:
    curve = ec.SECP256R1() if suite == Algorithm.CS2 else ec.SECP384R1()
    material = hashlib.sha256(b"Cardwright Virtual Content Signer").digest()
    return ec.derive_private_key(int.from_bytes(material, "big") % _BELOW_ORDER + 1, curve)
