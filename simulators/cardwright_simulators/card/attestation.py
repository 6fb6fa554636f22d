"""Attestation: a certificate under the card's own F9 key that a key was made on the card.

F9 comes from the maker: its key and certificate are functions of the card's seed and serial number, under one
virtual root whose key is public knowledge. Such a statement proves nothing about a real card.
"""

from __future__ import annotations

import datetime
import hashlib
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from .algorithms import Algorithm
from .keys import working_key
from .state import StoredKey

_ARC: Final = "1.3.6.1.4.1.41482.3."
FIRMWARE: Final = x509.ObjectIdentifier(_ARC + "3")
SERIAL: Final = x509.ObjectIdentifier(_ARC + "7")
POLICY: Final = x509.ObjectIdentifier(_ARC + "8")
FORM_FACTOR: Final = x509.ObjectIdentifier(_ARC + "9")
_BEGIN: Final = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
_END: Final = datetime.datetime(2054, 1, 1, tzinfo=datetime.UTC)
_ORDER_BELOW_P256: Final = 2**255


@cache
def root() -> x509.Certificate:
    """The self-signed certificate above every virtual card's F9; the same octets everywhere and always."""
    key = _root_key()
    name = _name("Cardwright Virtual PIV Root")
    builder = _builder(name, name, key.public_key(), b"root")
    builder = builder.add_extension(x509.BasicConstraints(True, 1), True)
    return _sign(builder, key)


def root_pem() -> bytes:
    """:func:`root` as PEM, for tools that verify attestations."""
    return root().public_bytes(serialization.Encoding.PEM)


def factory_key(seed: bytes) -> StoredKey:
    """The F9 key that the maker put on the card with this seed."""
    scalar = _scalar(seed + b"attestation")
    return StoredKey(Algorithm.P256, (scalar.to_bytes(32, "big"),), pin_policy=1, generated=True)


def factory_certificate(seed: bytes, serial: int, version: tuple[int, int, int]) -> bytes:
    """DER of the F9 certificate that goes with :func:`factory_key`."""
    key = _private(factory_key(seed))
    builder = _builder(
        _name(f"Cardwright Virtual PIV Attestation {serial}"), root().subject, key.public_key(), seed + b"F9"
    )
    builder = builder.add_extension(x509.BasicConstraints(True, 0), True)
    builder = builder.add_extension(x509.UnrecognizedExtension(FIRMWARE, bytes(version)), False)
    return _sign(builder, _root_key()).public_bytes(serialization.Encoding.DER)


def attest(
    slot: int,
    key: StoredKey,
    signer: StoredKey,
    signer_certificate: bytes,
    *,
    serial: int,
    version: tuple[int, int, int],
    form_factor: int,
    nonce: bytes,
) -> bytes:
    """DER of the statement that ``key`` was generated in ``slot``. Raises ValueError where F9 cannot sign it.

    ``serial`` is the card's number; ``nonce`` makes the certificate's serial number.
    """
    issuer = x509.load_der_x509_certificate(signer_certificate)
    public = working_key(key.algorithm, key.private).exported().public_key()
    builder = _builder(_name(f"Cardwright PIV Attestation {slot:02x}"), issuer.subject, public, nonce)
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    for identifier, value in (
        (FIRMWARE, bytes(version)),
        (SERIAL, bytes((0x02, len(octets))) + octets),
        (POLICY, bytes((key.pin_policy, key.touch_policy))),
        (FORM_FACTOR, bytes((form_factor,))),
    ):
        builder = builder.add_extension(x509.UnrecognizedExtension(identifier, value), False)
    return _sign(builder, _private(signer)).public_bytes(serialization.Encoding.DER)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: CertificatePublicKeyTypes, serial_from: bytes
) -> x509.CertificateBuilder:
    number = int.from_bytes(hashlib.sha256(serial_from).digest()[:15], "big") + 1
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(number)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
    )


def _sign(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> x509.Certificate:
    if isinstance(key, rsa.RSAPrivateKey):
        return builder.sign(key, hashes.SHA256())
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)


def _private(stored: StoredKey) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    key = working_key(stored.algorithm, stored.private).exported()
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("the attestation key can be RSA, P-256 or P-384")
    return key


def _root_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(_scalar(b"Cardwright Virtual PIV Root"), ec.SECP256R1())


def _scalar(seed: bytes) -> int:
    return int.from_bytes(hashlib.sha256(seed).digest(), "big") % _ORDER_BELOW_P256 + 1


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
