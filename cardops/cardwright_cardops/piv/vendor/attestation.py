"""Statements of a token that it made a key itself: read, and verified up to one of several roots.

Roots rotate (tokens from 5.7.4 chain to another root through an intermediate), so a list of certificates is taken,
roots and intermediates alike; only self-signed ones end a chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import exceptions, x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509 import ObjectIdentifier

from ...errors import CardwrightError
from ...iso7816.tlv import MalformedTlv, parse_one
from ..algorithms import Algorithm, PinPolicy, PublicKey, TouchPolicy, UnsupportedAlgorithm
from ..references import Slot, UnknownSlot

FIRMWARE: Final = ObjectIdentifier("1.3.6.1.4.1.41482.3.3")
SERIAL: Final = ObjectIdentifier("1.3.6.1.4.1.41482.3.7")
POLICY: Final = ObjectIdentifier("1.3.6.1.4.1.41482.3.8")
_SLOT_IN_SUBJECT: Final = re.compile(r"Attestation ([0-9a-fA-F]{2})$")
_MAX_CHAIN: Final = 5
_UNREADABLE: Final = (
    ValueError, TypeError, exceptions.UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What the library raises where it first reads a part of a certificate, far from where it was loaded."""


class AttestationInvalid(CardwrightError):
    """A statement that is damaged, or whose signature is not by the key it should be."""

    code = "ATTESTATION_INVALID"
    default_effect = "Nothing on the card was changed."
    default_advice = "Do not rely on this key having been made on the card."


@dataclass(frozen=True, slots=True)
class Attestation:
    """What a statement says. ``trusted``: its chain ends at a root that was given.

    ``slot`` and the others are None where the token does not say.
    """

    public_key: PublicKey
    algorithm: Algorithm
    slot: Slot | None
    serial: str | None
    firmware: str | None
    pin_policy: PinPolicy | None
    touch_policy: TouchPolicy | None
    trusted: bool


def verify_attestation(
    statement: x509.Certificate, signer: x509.Certificate | None, known: Iterable[x509.Certificate]
) -> Attestation:
    """Read ``statement`` and check its chain: ``signer`` (the token's attestation certificate) and ``known``.

    A chain that ends at no self-signed certificate of ``known`` is reported as not trusted; one that is broken
    raises AttestationInvalid. Validity periods are not looked at: tokens have no clock, and outlive them.
    """
    pool = list(known)
    if signer is None:
        signer = _issuer_in(statement, pool)
        if signer is None:
            raise AttestationInvalid("The token shows no certificate of the key that signed the statement.")
    if not _is_by(statement, signer):
        raise AttestationInvalid("The statement was not signed by the token's attestation key.")
    try:
        key = statement.public_key()
        algorithm = Algorithm.of(key)  # type: ignore[arg-type]
        policies = _extension(statement, POLICY)
        return Attestation(
            public_key=key,  # type: ignore[arg-type]
            algorithm=algorithm,
            slot=_slot(statement),
            serial=_serial(_extension(statement, SERIAL)),
            firmware=_firmware(_extension(statement, FIRMWARE)),
            pin_policy=PinPolicy(policies[0]) if policies is not None and len(policies) == 2 else None,
            touch_policy=TouchPolicy(policies[1]) if policies is not None and len(policies) == 2 else None,
            trusted=_reaches_root(signer, pool),
        )
    except (*_UNREADABLE, MalformedTlv, UnsupportedAlgorithm, UnknownSlot) as error:
        raise AttestationInvalid(f"The statement is damaged: {error}.") from error


def _reaches_root(certificate: x509.Certificate, pool: list[x509.Certificate]) -> bool:
    for _ in range(_MAX_CHAIN):
        if certificate in pool and _is_by(certificate, certificate):
            return True
        issuer = _issuer_in(certificate, pool)
        if issuer is None or issuer == certificate:
            return False
        certificate = issuer
    return False


def _issuer_in(certificate: x509.Certificate, pool: list[x509.Certificate]) -> x509.Certificate | None:
    return next((one for one in pool if one != certificate and _is_by(certificate, one)), None)


def _is_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def _extension(certificate: x509.Certificate, oid: ObjectIdentifier) -> bytes | None:
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
    return value.value if isinstance(value, x509.UnrecognizedExtension) else None


def _slot(statement: x509.Certificate) -> Slot | None:
    names = statement.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    found = _SLOT_IN_SUBJECT.search(str(names[0].value)) if names else None
    return Slot.named(found[1]) if found else None


def _serial(raw: bytes | None) -> str | None:
    return None if raw is None else str(int.from_bytes(parse_one(raw, 0x02).value, "big"))


def _firmware(raw: bytes | None) -> str | None:
    return None if raw is None else ".".join(str(octet) for octet in raw)
