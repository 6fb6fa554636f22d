"""TBSCertificates: what the vault is asked to sign, made from profile, names and issuer, and kept before it signs."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import AuthorityInformationAccessOID, SubjectInformationAccessOID

from cardwright_cardops.piv.algorithms import Algorithm, PublicKey

from ..vault.der import key_id, signature_algorithm, signed_structure
from ..vault.model import PublicKeyInfo
from ..vault.signing import VaultECKey, VaultRSAKey
from .profiles import Profile

BACKDATED = timedelta(minutes=5)
"""How far a certificate begins before it is made: for clocks that are a little slow."""
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where relying parties find what belongs to an authority; plain HTTP, as RFC 5280 and FIPS 201-3 want it."""

    base: str

    def __post_init__(self) -> None:
        if not self.base.startswith("http://") or self.base.endswith("/"):
            raise ValueError("the address for certificate status begins with http:// and has no slash at its end")

    def crl(self, authority: str) -> str:
        """Its revocation list."""
        return f"{self.base}/crl/{authority}.crl"

    def certificate(self, authority: str) -> str:
        """Its certificate (DER)."""
        return f"{self.base}/ca/{authority}.cer"

    def bundle(self, authority: str) -> str:
        """Certificates that it issued to authorities, as PKCS #7."""
        return f"{self.base}/ca/{authority}.p7c"

    @property
    def ocsp(self) -> str:
        """The responder for all of them."""
        return f"{self.base}/ocsp"


@dataclass(frozen=True, slots=True)
class Draft:
    """A certificate before its signature. ``authority`` is the name of the CA that it is for, "" for all others.

    ``path_length`` is a CA's, None for no limit.
    """

    profile: Profile
    issuer: PublicKeyInfo
    public_key: PublicKey
    subject: x509.Name
    serial: int
    not_before: datetime
    not_after: datetime
    policies: tuple[str, ...] = ()
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    authority: str = ""
    path_length: int | None = None


def new_serial() -> int:
    """A serial number of 20 octets, positive, with 158 random bits."""
    return 1 << 158 | secrets.randbits(158)


def hexadecimal(serial: int) -> str:
    """As the books have it: lower case, two digits for each octet."""
    text = f"{serial:x}"
    return text if len(text) % 2 == 0 else f"0{text}"


def build(draft: Draft, places: Places) -> bytes:
    """The DER TBSCertificate. Raises CertificateRefused if the profile is not for this kind of key."""
    issuer_key = load_der_public_key(draft.issuer.public_key)
    self_signed = draft.profile.rule == "root"
    builder = (
        x509.CertificateBuilder()
        .subject_name(draft.subject)
        .issuer_name(x509.Name.from_bytes(draft.issuer.subject))
        .serial_number(draft.serial)
        .not_valid_before(draft.not_before)
        .not_valid_after(draft.not_after)
        .public_key(draft.public_key)
    )
    for value, critical in _extensions(draft, places, self_signed=self_signed):
        builder = builder.add_extension(value, critical=critical)
    seen: list[bytes] = []

    def capture(data: bytes) -> bytes:
        seen.append(data)
        return b"\0"

    if isinstance(issuer_key, rsa.RSAPublicKey):
        builder.sign(VaultRSAKey(issuer_key, capture), hashes.SHA256())
    else:
        assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
        digest = hashes.SHA384() if issuer_key.curve.key_size == 384 else hashes.SHA256()
        builder.sign(VaultECKey(issuer_key, capture), digest)
    return seen[0]


def assemble(tbs: bytes, issuer: PublicKeyInfo, signature: bytes) -> bytes:
    """The DER certificate of a TBSCertificate and its signature value."""
    return signed_structure(tbs, signature_algorithm(issuer.algorithm), signature)


def _extensions(
    draft: Draft, places: Places, *, self_signed: bool
) -> Iterable[tuple[x509.ExtensionType, bool]]:
    profile, issuer = draft.profile, draft.issuer
    usages = profile.usages(Algorithm.of(draft.public_key))
    yield x509.AuthorityKeyIdentifier(key_id(issuer.public_key), None, None), False
    yield x509.SubjectKeyIdentifier.from_public_key(_certified(draft.public_key)), False
    yield x509.KeyUsage(**{name: name in usages for name in _USAGES}), True
    if draft.authority:
        yield x509.BasicConstraints(ca=True, path_length=draft.path_length), True
        repository = x509.UniformResourceIdentifier(places.bundle(draft.authority))
        yield x509.SubjectInformationAccess(
            [x509.AccessDescription(SubjectInformationAccessOID.CA_REPOSITORY, repository)]
        ), False
    if draft.policies:
        information = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in draft.policies]
        yield x509.CertificatePolicies(information), False
    if profile.extended:
        oids = [x509.ObjectIdentifier(oid) for oid in profile.extended]
        yield x509.ExtendedKeyUsage(oids), profile.extended_critical
    if not self_signed:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(places.crl(issuer.name))], None, None, None)
        yield x509.CRLDistributionPoints([point]), False
        yield x509.AuthorityInformationAccess(list(_access(issuer.name, places, ocsp=profile.ocsp))), False
    if profile.no_check:
        yield x509.OCSPNoCheck(), False
    yield from draft.extensions


def _access(name: str, places: Places, *, ocsp: bool) -> Iterable[x509.AccessDescription]:
    address = x509.UniformResourceIdentifier(places.certificate(name))
    yield x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, address)
    if ocsp:
        yield x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(places.ocsp)
        )


def _certified(key: PublicKey) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return key
