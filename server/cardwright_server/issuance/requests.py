"""What is asked for, and the checks that need no database: proof of possession, key strength, evidence, names."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from asn1crypto import csr as asn1_csr
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops import asn1
from cardwright_cardops.piv.algorithms import Algorithm, PublicKey
from cardwright_cardops.piv.algorithms import UnsupportedAlgorithm as UnknownAlgorithm

from ..policies.model import Origin
from ..store.columns import canonical
from .errors import CertificateRefused
from .model import Holder, public_key_of
from .names import HolderNames
from .origin import Attested, Evidence, Expected, MadeHere, Sealed
from .profiles import Profile

MAX_CSR = 16 * 1024
MAX_KEY = 2 * 1024


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """One certificate that is wanted.

    ``id`` makes it repeatable: the same id gives the same certificate. ``proof``: a PKCS #10 request (DER) signed by
    the key; b"" only for keys that the vault made, a card attested, or that were made through a secure channel.
    ``expected``: what the key must be, its ``public_key`` being the slot's. ``least_origin`` is the device policy's.
    ``strict``: that policy claims FIPS 201-3. ``until``: the certificate ends no later (the card's expiry).
    """

    id: UUID
    org: UUID
    profile: str
    holder: Holder
    names: HolderNames
    expected: Expected
    proof: bytes = field(default=b"", repr=False)
    evidence: Evidence = None
    least_origin: Origin = Origin.UNPROVEN
    strict: bool = True
    until: datetime | None = None
    session: UUID | None = None

    @property
    def digest(self) -> str:
        """Hex SHA-256 of what makes it this request; proofs and evidence, which may be made anew, are not in it."""
        holder = [self.holder.kind, self.holder.id, self.holder.part, self.holder.person]
        content = [self.org, self.profile, self.strict, holder, self.names.document(), self.expected.public_key.hex()]
        return hashlib.sha256(canonical(content).encode()).hexdigest()


def check_key(request: CertificateRequest, profile: Profile) -> PublicKey:
    """The key of a request, strong enough and of a kind that the profile has. Raises CertificateRefused."""
    if request.holder.kind not in profile.holders:
        raise CertificateRefused("holder", f"Profile {profile.name} is not for a {request.holder.kind}.")
    if len(request.expected.public_key) > MAX_KEY:
        raise CertificateRefused("key", "The public key is too large.")
    try:
        key = public_key_of(request.expected.public_key)
        algorithm = Algorithm.of(key)
    except (ValueError, UnsupportedAlgorithm, UnknownAlgorithm) as cause:
        raise CertificateRefused("algorithm", "The public key is of no kind that is certified.") from cause
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != request.expected.public_key:
        raise CertificateRefused("key", "The public key is not in DER.")
    profile.usages(algorithm)
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        if numbers.e != 65537 or not numbers.n & 1 or _has_small_factor(numbers.n):
            raise CertificateRefused("key", "The RSA key is weak: exponent other than 65537, or a small factor.")
    return key


def check_proof(request: CertificateRequest) -> None:
    """That whoever asks has the key. Raises CertificateRefused."""
    if not request.proof:
        if not isinstance(request.evidence, Attested | MadeHere | Sealed):
            raise CertificateRefused("proof", "Nothing proves that the holder has this key.")
        return
    if len(request.proof) > MAX_CSR:
        raise CertificateRefused("proof", "The certification request is too large.")
    try:
        asn1.load(asn1_csr.CertificationRequest, request.proof)
        csr = x509.load_der_x509_csr(request.proof)
        spki = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        holds = csr.is_signature_valid
    except (ValueError, TypeError, asn1.MalformedAsn1, UnsupportedAlgorithm, InvalidSignature) as cause:
        raise CertificateRefused("proof", "The certification request cannot be read.") from cause
    if spki != request.expected.public_key:
        raise CertificateRefused("key", "The certification request is for another key than the slot's.")
    if not holds:
        raise CertificateRefused("proof", "The certification request is not signed by its key.")
    digest = csr.signature_hash_algorithm
    if not isinstance(csr.public_key(), rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or (
        digest is None or digest.name not in ("sha256", "sha384", "sha512")
    ):
        raise CertificateRefused("proof", "The certification request is signed by a weak hash.")


def policies_for(request: CertificateRequest, profile: Profile, origin: Origin) -> tuple[str, ...]:
    """The policies to assert. Raises CertificateRefused if the key's origin is not proven as they, or the device's
    policy, want it."""
    if not origin.proves(request.least_origin):
        raise CertificateRefused("origin", f"The key's origin is {origin}; the policy wants {request.least_origin}.")
    if profile.hardware and not origin.proves(Origin.SEALED):
        raise CertificateRefused(
            "origin", f"Profile {profile.name} says that the key is in hardware, of which there is no proof."
        )
    return profile.policies


_SMALL = math.prod(one for one in range(3, 2000, 2) if all(one % other for other in range(3, int(one**0.5) + 1, 2)))


def _has_small_factor(modulus: int) -> bool:
    return math.gcd(modulus, _SMALL) != 1
