"""What enrolment asks of issuance, and what it accepts as a certificate request."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Protocol
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import BadRequest
from .model import StationClass

LONGEST_REQUEST = 8192
CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True)
class StationRequest:
    """What a certificate is made of: our names, and a proven key. ``id`` makes a repetition the same act."""

    id: UUID
    org: UUID
    workstation: UUID
    host: str
    station_class: StationClass
    public_key: bytes = field(repr=False)
    """SubjectPublicKeyInfo, DER."""
    lifetime: timedelta
    proof: bytes = field(default=b"", repr=False)
    """The PKCS#10 request (DER) by that key."""


@dataclass(frozen=True, slots=True)
class IssuedStation:
    """A signed certificate (DER) with its validity."""

    certificate: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime


class CertificateIssuer(Protocol):
    """The issuing CA for workstations, which is none for cards or servers."""

    async def issue(self, request: StationRequest) -> IssuedStation:
        """Issue; for an ``id`` that was issued before, give the same certificate. Opens its own units.

        Raises CardwrightError if it cannot now (vault locked); the next attempt may succeed.
        """

    async def root(self) -> bytes:
        """SHA-256 of the server's root certificate (DER)."""


def proven_key(request: bytes) -> bytes:
    """The public key (SubjectPublicKeyInfo, DER) of a PKCS#10 request (DER) that is signed with it.

    Everything else in the request is ignored. Raises BadRequest for a broken or oversized one, a signature that does
    not verify, and keys other than P-256 and P-384.
    """
    if len(request) > LONGEST_REQUEST:
        raise BadRequest("the certificate request is too large")
    try:
        parsed = x509.load_der_x509_csr(request)
        key = parsed.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
            raise BadRequest("a workstation's key is on P-256 or P-384")
        valid = parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise BadRequest("that is no certificate request") from error
    if not valid:
        raise BadRequest("the certificate request is not signed with its key")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_hash(public_key: bytes) -> bytes:
    """SHA-256 of a SubjectPublicKeyInfo (DER)."""
    return sha256(public_key).digest()
