"""Authorities that certify: the embedded one, and the form of any other. Each answers now, later, or never."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ..vault.model import KeyRole, PublicKeyInfo, SigningAlgorithm
from ..vault.protocol import Vault
from .model import Authority, Certificate, Order, Purpose
from .profiles import Profile
from .tbs import assemble

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class Signed:
    """A DER certificate."""

    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Later:
    """Ask again, by this name of the backend's own (at most 200 characters)."""

    reference: str


@dataclass(frozen=True, slots=True)
class Declined:
    """Never. ``reason`` is a stable word of at most 60 characters."""

    reason: str


BackendAnswer = Signed | Later | Declined


class AuthorityBackend(Protocol):
    """An authority elsewhere. Both calls are safe to repeat; an error of the line is raised, and tried again later."""

    name: str

    async def submit(self, order: Order) -> BackendAnswer:
        """Ask for a certificate over ``order.public_key`` (``order.csr``: the request, if the holder made one)."""

    async def collect(self, order: Order) -> BackendAnswer:
        """Ask what became of it."""


def issuer_info(authority: Authority, profile: Profile | None = None) -> PublicKeyInfo:
    """An authority of ours as the vault describes its key."""
    role = KeyRole.ROOT if authority.purpose is Purpose.ROOT else KeyRole.ISSUING
    profiles = () if profile is None else (profile.rule,)
    return PublicKeyInfo(
        authority.name, role, signing_algorithm(authority.public_key), authority.public_key, authority.subject, profiles
    )


def signing_algorithm(public_key: bytes) -> SigningAlgorithm:
    """Of which kind a key of the vault is. Raises ValueError."""
    key = load_der_public_key(public_key)
    if isinstance(key, rsa.RSAPublicKey):
        return SigningAlgorithm(f"rsa{key.key_size}")
    if isinstance(key, ec.EllipticCurvePublicKey):
        return SigningAlgorithm(f"p{key.key_size}")
    raise ValueError("no key that the vault signs with")


async def sign_embedded(vault: Vault, authority: Authority, certificate: Certificate, rule: str) -> Signed:
    """The certificate over what was prepared. Raises what the vault raises."""
    signature = await vault.sign_certificate(authority.name, rule, certificate.tbs)
    return Signed(assemble(certificate.tbs, issuer_info(authority), signature))
