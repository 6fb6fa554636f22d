"""A vault with a small PKI, and builders of what it is asked to sign."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from asn1crypto import core as asn1_core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from cardwright_cardops.secret import Secret
from cardwright_server.vault.calls import LocalVault, VaultAdmin
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.der import signature_algorithm, signed_structure
from cardwright_server.vault.document import Derivation
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import KeyRole, PublicKeyInfo, SigningAlgorithm, VaultCard
from cardwright_server.vault.signing import VaultECKey, VaultRSAKey
from cardwright_server.vault.software import SoftwareBackend

T = TypeVar("T")

PASSPHRASE = Secret(b"correct horse battery staple")
WRONG = Secret(b"incorrect horse battery staple")
QUICK = Derivation(bytes(16), iterations=1, lanes=1, memory=64)
"""Argon2id as cheap as it gets."""

CARD = VaultCard("org-1", "card-1", 1, 1)

CERTIFICATES = ("root", "ca")
ISSUING = (
    "piv-authentication",
    "card-authentication",
    "signature",
    "key-management",
    "ocsp",
    "content-signing",
)


@dataclass
class Clock:
    """A clock that stands still until it is told."""

    now: float = field(default_factory=lambda: float(int(time.time())))

    def __call__(self) -> float:
        return self.now

    @property
    def moment(self) -> datetime:
        """The same as an aware time."""
        return datetime.fromtimestamp(self.now, UTC)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end."""
    return asyncio.run(work)


def make_core(directory: Path, clock: Callable[[], float], limits: dict[str, Limit] | None = None) -> VaultCore:
    """A new, unlocked software vault."""
    return VaultCore.create(directory, SoftwareBackend(QUICK), PASSPHRASE.reveal(), now=clock, limits=limits)


def reopen(core: VaultCore, clock: Callable[[], float]) -> VaultCore:
    """Close a vault and open its directory again, locked."""
    core.close()
    return VaultCore(core.directory, SoftwareBackend(QUICK), clock)


def subject(name: str) -> x509.Name:
    """CN=name, O=Cardwright Test."""
    return x509.Name.from_rfc4514_string(f"CN={name},O=Cardwright Test")


@dataclass
class Pki:
    """A vault whose root and issuing CA are certified."""

    core: VaultCore
    vault: LocalVault
    admin: VaultAdmin
    clock: Clock
    certificates: dict[str, x509.Certificate] = field(default_factory=dict)

    async def key(
        self,
        name: str,
        role: KeyRole,
        algorithm: SigningAlgorithm = SigningAlgorithm.P256,
        profiles: Sequence[str] = (),
    ) -> PublicKeyInfo:
        """A new key named CN=name."""
        der = b"" if role is KeyRole.AUDIT else subject(name).public_bytes()
        return await self.admin.create_key(name, role, algorithm, der, profiles)

    async def certify(self, ca: str, profile: str, tbs: bytes) -> x509.Certificate:
        """The certificate over ``tbs``."""
        signature = await self.vault.sign_certificate(ca, profile, tbs)
        info = await self.vault.public_key(ca)
        whole = signed_structure(tbs, signature_algorithm(info.algorithm), signature)
        return x509.load_der_x509_certificate(whole)


async def make_pki(
    core: VaultCore,
    clock: Clock,
    algorithm: SigningAlgorithm = SigningAlgorithm.P256,
    root: SigningAlgorithm = SigningAlgorithm.P384,
    credential: Secret = PASSPHRASE,
) -> Pki:
    """Root and issuing CA, each certified; an OCSP key, a content signer and an audit key."""
    vault = LocalVault(core)
    pki = Pki(core, vault, vault.admin(credential), clock)
    await pki.key("root", KeyRole.ROOT, root, CERTIFICATES)
    await pki.key("cards", KeyRole.ISSUING, algorithm, ISSUING)
    await pki.key("ocsp", KeyRole.OCSP)
    await pki.key("content", KeyRole.CONTENT)
    await pki.key("audit", KeyRole.AUDIT)
    for name, profile in (("root", "root"), ("cards", "ca")):
        tbs = await ca_tbs(pki, name, path_length=None if name == "root" else 0)
        pki.certificates[name] = await pki.certify("root", profile, tbs)
    return pki


def public_of(info: PublicKeyInfo) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """A key of the vault as ``cryptography`` has it."""
    key = load_der_public_key(info.public_key)
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return key


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tbs_of(builder: Any, info: PublicKeyInfo) -> bytes:
    """What ``builder`` would have a key of the vault sign."""
    seen: list[bytes] = []

    def capture(data: bytes) -> bytes:
        seen.append(data)
        return b"\0"

    public = public_of(info)
    if isinstance(public, rsa.RSAPublicKey):
        builder.sign(VaultRSAKey(public, capture), hashes.SHA256())
    else:
        digest = hashes.SHA384() if info.algorithm is SigningAlgorithm.P384 else hashes.SHA256()
        builder.sign(VaultECKey(public, capture), digest)
    return seen[0]


KU_NONE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def usage(*names: str) -> x509.KeyUsage:
    """A key usage with just these."""
    return x509.KeyUsage(**{**KU_NONE, **dict.fromkeys(names, True)})


async def ca_tbs(pki: Pki, name: str, *, path_length: int | None, days: int = 3650) -> bytes:
    """The root's certificate for a CA of the vault, itself included."""
    root, info = await pki.vault.public_key("root"), await pki.vault.public_key(name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject("root"))
        .serial_number((1 << 100) + len(name))
        .not_valid_before(pki.clock.moment)
        .not_valid_after(pki.clock.moment + timedelta(days=days))
        .public_key(public_of(info))
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.BasicConstraints(True, path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_of(info)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_of(root)), critical=False)
    )
    return tbs_of(builder, root)


@dataclass
class Leaf:
    """A certificate request's content, one field of which a test may make wrong. ``extensions`` come last."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    begin: datetime
    days: float = 365
    subject: x509.Name = field(default_factory=lambda: subject("Ada"))
    issuer: x509.Name = field(default_factory=lambda: subject("cards"))
    serial: int = (1 << 120) + 7
    usage: x509.KeyUsage | None = field(default_factory=lambda: usage("digital_signature"))
    usage_critical: bool = True
    authority: x509.AuthorityKeyIdentifier | None = None
    subject_key: x509.SubjectKeyIdentifier | None = None
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    def builder(self) -> x509.CertificateBuilder:
        """As ``cryptography`` builds it."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(self.issuer)
            .serial_number(self.serial)
            .not_valid_before(self.begin)
            .not_valid_after(self.begin + timedelta(days=self.days))
            .public_key(self.key)
        )
        if self.authority is not None:
            builder = builder.add_extension(self.authority, critical=False)
        if self.subject_key is not None:
            builder = builder.add_extension(self.subject_key, critical=False)
        if self.usage is not None:
            builder = builder.add_extension(self.usage, critical=self.usage_critical)
        for value, critical in self.extensions:
            builder = builder.add_extension(value, critical=critical)
        return builder


UPN = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), asn1_core.UTF8String("ada@example.test").dump())
CLIENT_AUTH = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.2")


def leaf(pki: Pki, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, **changes: Any) -> Leaf:
    """A good PIV authentication certificate for ``key``, but for ``changes``."""
    ca = pki.certificates["cards"].public_key()
    assert isinstance(ca, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    values: dict[str, Any] = {
        "begin": pki.clock.moment,
        "authority": x509.AuthorityKeyIdentifier.from_issuer_public_key(ca),
        "subject_key": x509.SubjectKeyIdentifier.from_public_key(key),
        "extensions": (
            (x509.ExtendedKeyUsage([CLIENT_AUTH]), False),
            (x509.SubjectAlternativeName([UPN, x509.UniformResourceIdentifier("urn:uuid:1")]), False),
            (policies("2.16.840.1.101.3.2.1.3.13"), False),
        ),
    }
    return Leaf(key, **{**values, **changes})


def policies(*oids: str) -> x509.CertificatePolicies:
    """Without qualifiers."""
    return x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids])


def openssl(*arguments: str, data: bytes = b"", ok: bool = True) -> bytes:
    """What openssl prints."""
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
    assert (done.returncode == 0) is ok, done.stderr.decode()
    return done.stdout + done.stderr
