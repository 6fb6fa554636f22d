"""Card verifiable certificates: what a card shows for its secure messaging key (SP 800-73-5 part 2 section 4.1).

A certificate is a data object of tag 7F21 with exactly these, in this order: 5F29 profile, 42 issuer, 5F20
subject, 7F49 public key, 5F4C role, 5F37 signature over the five before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ..errors import CardwrightError
from ..iso7816 import tlv
from .objects.certificate import readable

TAG_CVC: Final = 0x7F21
GUID_SIZE: Final = 16
KEY_ID_SIZE: Final = 8
MAX_CVC: Final = 1024
"""Octets: an intermediate certificate signed with RSA-3072 has about 530."""

CONTENT_SIGNING: Final = x509.ObjectIdentifier("2.16.840.1.101.3.6.7")

_UNREADABLE: Final = (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError)
_PROFILE: Final = b"\x80"
_TAGS: Final = [0x5F29, 0x42, 0x5F20, 0x7F49, 0x5F4C, 0x5F37]
_CURVES: Final[dict[bytes, ec.EllipticCurve]] = {
    bytes.fromhex("2A8648CE3D030107"): ec.SECP256R1(),
    bytes.fromhex("2B81040022"): ec.SECP384R1(),
}


class SmError(CardwrightError):
    """Root of what can go wrong with PIV secure messaging on this side."""

    default_effect = "No protected session was set up; nothing on the card changed."


class CvcMalformed(SmError):
    """Bytes that are no card verifiable certificate."""

    code = "SM_CVC_MALFORMED"
    default_advice = "The card's secure messaging certificate is damaged; the card needs its issuer."


class CvcUntrusted(SmError):
    """A card verifiable certificate that the content signer did not vouch for."""

    code = "SM_CVC_UNTRUSTED"
    default_effect = "The card did not prove what it is; no protected session was set up."
    default_advice = "Do not enter a PIN. Check that the card is genuine and that its signer is the right one."


class CvcRole(IntEnum):
    """Object 5F4C: whose key it is."""

    CARD = 0x00
    SIGNER = 0x12


class CvcSignatureAlgorithm(Enum):
    """How the issuer signed: the content octets of AlgorithmIdentifier."""

    ECDSA_SHA256 = bytes.fromhex("06082A8648CE3D040302")
    ECDSA_SHA384 = bytes.fromhex("06082A8648CE3D040303")
    RSA_SHA256 = bytes.fromhex("06092A864886F70D01010B0500")


@dataclass(frozen=True, slots=True)
class Cvc:
    """A parsed certificate; ``verify`` says whether it is genuine.

    ``issuer`` is the start of the signer's subject key identifier (8 octets). ``subject`` is the card's GUID
    (16 octets) for role CARD, 8 octets for role SIGNER. ``raw`` is the whole data object, ``signed`` what the
    signature covers.
    """

    raw: bytes = field(repr=False)
    issuer: bytes
    subject: bytes
    public_key: ec.EllipticCurvePublicKey = field(repr=False)
    role: CvcRole
    algorithm: CvcSignatureAlgorithm
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Cvc:
        """The certificate that ``raw`` is, whole and in the shortest form. Raises CvcMalformed."""
        if len(raw) > MAX_CVC:
            raise CvcMalformed(f"{len(raw)} octets are too many for a card verifiable certificate.")
        try:
            items = tlv.parse_all(tlv.parse_one(raw, TAG_CVC).value)
            if [item.tag for item in items] != _TAGS or tlv.encode(TAG_CVC, tlv.join(items)) != raw:
                raise CvcMalformed("The card verifiable certificate has missing, extra or oddly coded parts.")
            profile, issuer, subject, key, role, signature = (item.value for item in items)
            public_key = _public_key(key)
            algorithm, octets = _signature(signature)
        except (tlv.MalformedTlv, ValueError) as error:
            raise CvcMalformed("The card verifiable certificate cannot be read.") from error
        if profile != _PROFILE or len(issuer) != KEY_ID_SIZE or role not in (b"\x00", b"\x12"):
            raise CvcMalformed("The card verifiable certificate has an unknown profile, issuer or role.")
        kind = CvcRole(role[0])
        if len(subject) != (GUID_SIZE if kind is CvcRole.CARD else KEY_ID_SIZE):
            raise CvcMalformed("The subject of the card verifiable certificate does not fit its role.")
        return cls(raw, issuer, subject, public_key, kind, algorithm, octets, tlv.join(items[:-1]))

    def verify(self, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> None:
        """Check the signature alone. Raises CvcUntrusted."""
        try:
            if isinstance(key, rsa.RSAPublicKey):
                if self.algorithm is not CvcSignatureAlgorithm.RSA_SHA256:
                    raise CvcUntrusted("The signature is not of the kind that its issuer's key makes.")
                key.verify(self.signature, self.signed, padding.PKCS1v15(), hashes.SHA256())
                return
            # The hash goes with the curve (SP 800-78-5), whatever the certificate claims.
            large = key.curve.key_size > 256
            wanted = CvcSignatureAlgorithm.ECDSA_SHA384 if large else CvcSignatureAlgorithm.ECDSA_SHA256
            if self.algorithm is not wanted:
                raise CvcUntrusted("The signature is not of the kind that its issuer's key makes.")
            key.verify(self.signature, self.signed, ec.ECDSA(hashes.SHA384() if large else hashes.SHA256()))
        except InvalidSignature as error:
            raise CvcUntrusted("The signature of the card verifiable certificate is wrong.") from error


@dataclass(frozen=True, slots=True)
class ContentSigner:
    """What object 5FC122 holds: the content signing certificate and, on some cards, an intermediate one.

    The path from the certificate to a trust anchor is the caller's to validate.
    """

    certificate: x509.Certificate
    intermediate: Cvc | None = None

    @classmethod
    def load(cls, der: bytes, intermediate_cvc: bytes = b"") -> ContentSigner:
        """From the object's octets (an empty ``intermediate_cvc`` is none). Raises CvcMalformed."""
        try:
            certificate = readable(der)
        except ValueError as error:
            raise CvcMalformed("The content signing certificate cannot be read.") from error
        return cls(certificate, Cvc.parse(intermediate_cvc) if intermediate_cvc else None)


def verify_cvc(cvc: Cvc, signer: ContentSigner, *, at: datetime | None = None) -> None:
    """Check the card's certificate against its signer, through the intermediate if there is one.

    Signatures, identifiers, roles, and that the certificate is a PIV content signer valid ``at`` (now if not
    given). Raises CvcUntrusted.
    """
    _require(cvc.role is CvcRole.CARD, "The card showed a signer's certificate as its own.")
    _verify_content_signer(signer.certificate, at or datetime.now(UTC))
    top = cvc
    if signer.intermediate is not None:
        top = signer.intermediate
        _require(top.role is CvcRole.SIGNER, "The intermediate certificate is not a signer's.")
        _require(top.subject == intermediate_subject(top.public_key), "The intermediate's name is not its key's.")
        _require(cvc.issuer == top.subject, "The card's certificate names another issuer.")
        _require(
            cvc.public_key.curve.name == top.public_key.curve.name,
            "The intermediate's key is of another strength than the card's.",
        )
        cvc.verify(top.public_key)
    _require(
        top.issuer == _subject_key_identifier(signer.certificate)[:KEY_ID_SIZE],
        "The content signing certificate is not the one that the card names.",
    )
    top.verify(_signing_key(signer.certificate))


def intermediate_subject(key: ec.EllipticCurvePublicKey) -> bytes:
    """What an intermediate certificate calls itself: 8 octets of SHA-1 over the data object of its point."""
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    digest = hashes.Hash(hashes.SHA1())
    digest.update(tlv.encode(0x86, point))
    return digest.finalize()[:KEY_ID_SIZE]


def _verify_content_signer(certificate: x509.Certificate, at: datetime) -> None:
    _require(
        certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc,
        "The content signing certificate is not valid at this time.",
    )
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except _UNREADABLE as error:
        raise CvcUntrusted("The signer's certificate does not say what it is for.") from error
    _require(CONTENT_SIGNING in usages, "The signer's certificate is not for signing PIV content.")


def _subject_key_identifier(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except _UNREADABLE as error:
        raise CvcUntrusted("The content signing certificate has no subject key identifier.") from error


def _signing_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise CvcUntrusted("The key of the content signing certificate cannot be read.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise CvcUntrusted("The content signing certificate has a key of another kind than RSA or EC.")
    return key


def _public_key(value: bytes) -> ec.EllipticCurvePublicKey:
    """The key of object 7F49. Raises MalformedTlv, CvcMalformed, ValueError (a point off the curve)."""
    curve, point = tlv.parse_all(value)
    if (curve.tag, point.tag) != (0x06, 0x86) or curve.value not in _CURVES or point.value[:1] != b"\x04":
        raise CvcMalformed("The certificate's public key is on no curve that PIV uses.")
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve.value], point.value)


def _signature(value: bytes) -> tuple[CvcSignatureAlgorithm, bytes]:
    """Algorithm and signature of object 5F37. Raises MalformedTlv, ValueError (an unknown algorithm)."""
    algorithm, octets = tlv.parse_all(tlv.parse_one(value, 0x30).value)
    if (algorithm.tag, octets.tag) != (0x30, 0x03) or octets.value[:1] != b"\0":
        raise CvcMalformed("The signature of the card verifiable certificate cannot be read.")
    return CvcSignatureAlgorithm(algorithm.value), octets.value[1:]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CvcUntrusted(message)
