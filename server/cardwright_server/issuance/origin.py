"""Where a key was made (S1): evidence judged before anything is signed that depends on it.

A card's own statement is worth what its chain, key, slot and policies say. What a workstation merely reports is worth
nothing unless the workstation itself is trusted; a request signed by the key proves only that someone has the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.algorithms import PinPolicy, TouchPolicy
from cardwright_cardops.piv.objects.certificate import readable
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor.attestation import Attestation, AttestationInvalid, verify_attestation

from ..policies.model import Origin
from .errors import OriginRefused


@dataclass(frozen=True, slots=True)
class Attested:
    """A statement of the card, DER, and the certificate of the key that signed it (b"": it is among the known)."""

    statement: bytes = field(repr=False)
    signer: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The answer to GENERATE came through a secure channel that ends in this server: ``public_key`` is from it."""

    public_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Station:
    """A trusted workstation says that the card made it. Whether it is trusted, its enrolment says (``trusted``)."""

    trusted: bool


@dataclass(frozen=True, slots=True)
class MadeHere:
    """The vault made the key, and it reaches the card by import: what carries it there can have read it.

    ``trusted``: a trusted workstation does, as its enrolment says.
    """

    trusted: bool = False


Evidence = Attested | Sealed | Station | MadeHere | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What the key must be: public key (SubjectPublicKeyInfo DER), slot, least policies, and of which token.

    ``serial`` "" where the device's serial number is not known.
    """

    public_key: bytes = field(repr=False)
    slot: Slot | None = None
    pin_policy: PinPolicy = PinPolicy.DEFAULT
    touch_policy: TouchPolicy = TouchPolicy.DEFAULT
    serial: str = ""


_PIN_STRENGTH: Mapping[IntEnum, int] = {
    PinPolicy.NEVER: 0,
    PinPolicy.ONCE: 1,
    PinPolicy.MATCH_ONCE: 1,
    PinPolicy.ALWAYS: 2,
    PinPolicy.MATCH_ALWAYS: 2,
}
_TOUCH_STRENGTH: Mapping[IntEnum, int] = {TouchPolicy.NEVER: 0, TouchPolicy.CACHED: 1, TouchPolicy.ALWAYS: 2}


def evaluate(evidence: Evidence, expected: Expected, known: Sequence[x509.Certificate] = ()) -> Origin:
    """What ``evidence`` proves of the key. ``known`` are roots and intermediates of makers of tokens.

    Evidence that contradicts itself or what is expected raises OriginRefused: it is no weaker proof, but a lie or a
    mistake. A statement whose chain ends at no known root proves nothing.
    """
    match evidence:
        case Attested():
            return _attested(evidence, expected, known)
        case Sealed():
            if evidence.public_key != expected.public_key:
                raise OriginRefused("key", "Another key than the requested one came through the secure channel.")
            return Origin.SEALED
        case Station(trusted=True) | MadeHere(trusted=True):
            return Origin.TRUSTED_STATION
    return Origin.UNPROVEN


def _attested(evidence: Attested, expected: Expected, known: Sequence[x509.Certificate]) -> Origin:
    try:
        statement = readable(evidence.statement)
        signer = readable(evidence.signer) if evidence.signer else None
        found = verify_attestation(statement, signer, known)
    except (ValueError, AttestationInvalid) as cause:
        raise OriginRefused("chain", "The card's statement about the key does not hold.") from cause
    if found.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != expected.public_key:
        raise OriginRefused("key", "The card's statement is about another key than the requested one.")
    if not found.trusted:
        return Origin.UNPROVEN
    if found.slot is None or (expected.slot is not None and found.slot is not expected.slot):
        raise OriginRefused("slot", "The card's statement is about another slot, or names none.")
    if expected.serial and found.serial != expected.serial:
        raise OriginRefused("device", "The statement is another token's.")
    _require_policies(found, expected)
    return Origin.ATTESTED


def _require_policies(found: Attestation, expected: Expected) -> None:
    _require_strength("PIN", found.pin_policy, expected.pin_policy, _PIN_STRENGTH)
    _require_strength("touch", found.touch_policy, expected.touch_policy, _TOUCH_STRENGTH)


def _require_strength(name: str, has: IntEnum | None, least: IntEnum, strength: Mapping[IntEnum, int]) -> None:
    if least in strength and (has is None or strength.get(has, -1) < strength[least]):
        raise OriginRefused("policy", f"The key has a weaker {name} policy than the device's policy wants.")
