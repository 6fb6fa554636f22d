"""Public keys as the guard sees them pass by: fingerprints from answers, imported keys and certificates."""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from ..iso7816.tlv import MalformedTlv, parse_all, parse_one, parse_unique

RSA: Final = {0x05: 3072, 0x06: 1024, 0x07: 2048, 0x16: 4096}
CURVES: Final[dict[int, ec.EllipticCurve]] = {0x11: ec.SECP256R1(), 0x14: ec.SECP384R1()}
ED25519: Final = 0xE0
X25519: Final = 0xE1
ALGORITHMS: Final = frozenset((*RSA, *CURVES, ED25519, X25519))

_EXPONENT: Final = 65537
_MAX_CERTIFICATE: Final = 0x10000
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_VERSION: Final = 0xA0

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey


class Unreadable(Exception):
    """Octets that are no key or certificate as the guard knows them."""


def fingerprint(spki: bytes) -> bytes:
    """SHA-256 of a DER SubjectPublicKeyInfo."""
    return hashlib.sha256(spki).digest()


def spki_of(key: PublicKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def made_key(algorithm: int, answer: bytes) -> bytes:
    """The SubjectPublicKeyInfo in an answer of GENERATE (7F49). Raises Unreadable."""
    try:
        return template_key(algorithm, parse_one(answer, 0x7F49).value)
    except MalformedTlv as error:
        raise Unreadable(str(error)) from None


def template_key(algorithm: int, template: bytes) -> bytes:
    """The SubjectPublicKeyInfo of the data objects 81 and 82, or 86. Raises Unreadable."""
    try:
        parts = parse_unique(template)
        if algorithm in RSA:
            modulus, exponent = int.from_bytes(parts[0x81], "big"), int.from_bytes(parts[0x82], "big")
            if modulus.bit_length() != RSA[algorithm]:
                raise Unreadable("the modulus has another size than the algorithm")
            return spki_of(rsa.RSAPublicNumbers(exponent, modulus).public_key())
        return spki_of(_point(algorithm, parts[0x86]))
    except (KeyError, ValueError, MalformedTlv) as error:
        raise Unreadable(str(error)) from None


def imported_key(algorithm: int, parts: dict[int, bytes]) -> bytes:
    """The SubjectPublicKeyInfo of private components 01 to 08 on their way into a card. Raises Unreadable."""
    try:
        if algorithm in RSA:
            p, q, dp, dq = (int.from_bytes(parts[tag], "big") for tag in (0x01, 0x02, 0x03, 0x04))
            modulus = p * q
            # The exponent is not sent; the parts say whether it is the one that the modulus is certified with.
            if modulus.bit_length() != RSA[algorithm] or dp * _EXPONENT % (p - 1) != 1 or dq * _EXPONENT % (q - 1) != 1:
                raise Unreadable("the parts are no RSA key of that size with exponent 65537")
            return spki_of(rsa.RSAPublicNumbers(_EXPONENT, modulus).public_key())
        if algorithm in CURVES:
            curve, scalar = CURVES[algorithm], parts[0x06]
            if len(scalar) != (curve.key_size + 7) // 8:
                raise Unreadable("the scalar has another size than the curve")
            return spki_of(ec.derive_private_key(int.from_bytes(scalar, "big"), curve).public_key())
        if algorithm == ED25519:
            return spki_of(ed25519.Ed25519PrivateKey.from_private_bytes(parts[0x07]).public_key())
        return spki_of(x25519.X25519PrivateKey.from_private_bytes(parts[0x08]).public_key())
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise Unreadable(str(error)) from None


def certified_key(content: bytes) -> bytes:
    """The SubjectPublicKeyInfo in the content of a certificate container, plain or gzip. Raises Unreadable."""
    try:
        parts = parse_unique(content)
        raw, info = parts[0x70], parts.get(0x71, b"\x00")
        if not parts.keys() <= {0x70, 0x71, 0xFE} or info not in (b"\x00", b"\x01"):
            raise Unreadable("the container holds something else than a certificate")
        return _subject_key(_unpacked(raw) if info == b"\x01" else raw)
    except (KeyError, ValueError, MalformedTlv, zlib.error) as error:
        raise Unreadable(str(error)) from None


def certificate_key(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a DER certificate. Raises Unreadable."""
    try:
        return _subject_key(der)
    except (ValueError, MalformedTlv) as error:
        raise Unreadable(str(error)) from None


def private_key(algorithm: int, der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a PKCS #8 key that must be of ``algorithm``. Raises Unreadable."""
    try:
        public = load_der_private_key(der, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unreadable(str(error)) from None
    match public:
        case rsa.RSAPublicKey() if RSA.get(algorithm) == public.key_size:
            return spki_of(public)
        case ec.EllipticCurvePublicKey() if algorithm in CURVES and CURVES[algorithm].name == public.curve.name:
            return spki_of(public)
    raise Unreadable("the key is of another algorithm")


def _subject_key(der: bytes) -> bytes:
    """subjectPublicKeyInfo of a certificate (RFC 5280 section 4.1): found by place, nothing else is looked at."""
    tbs, _, _ = parse_all(parse_one(der, _SEQUENCE).value)
    fields = parse_all(tbs.value)
    if fields and fields[0].tag == _VERSION:
        fields = fields[1:]
    # serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, extensions
    if tbs.tag != _SEQUENCE or [field.tag for field in fields[:6]] != [_INTEGER, *[_SEQUENCE] * 5]:
        raise Unreadable("the container holds no certificate")
    return fields[5].encode()


def _unpacked(raw: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    data = unpacker.decompress(raw, _MAX_CERTIFICATE)
    if not unpacker.eof or unpacker.unused_data:
        raise Unreadable("the packed certificate is damaged, too long or has something behind it")
    return data


def _point(algorithm: int, point: bytes) -> PublicKey:
    if algorithm in CURVES:
        return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[algorithm], point)
    if algorithm == ED25519:
        return ed25519.Ed25519PublicKey.from_public_bytes(point)
    if algorithm == X25519:
        return x25519.X25519PublicKey.from_public_bytes(point)
    raise Unreadable("no such algorithm")
