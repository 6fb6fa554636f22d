"""The data of a card in a reader, as the check takes it: every object, and proofs of the keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import CardwrightError
from ..iso7816.status import SW
from ..iso7816.tlv import MalformedTlv
from ..piv import commands, containers
from ..piv.algorithms import Algorithm, KeyKind, UnsupportedAlgorithm
from ..piv.objects import CertificateObject, MalformedObject
from ..piv.references import ACTIVE_SLOTS, MANAGEMENT_KEY, RETIRED_SLOTS, PinReference, Slot
from ..piv.responses import MalformedAnswer
from ..piv.signing import default_hash, message_block, signature_of
from ..piv.vendor import yubico
from ..program.items import Answer, Apdu, Batch, Group, Item, Outcome, Program, UseKey, VerifyPin, ask
from .image import same_key
from .model import CardData, Proof

Task: TypeAlias = tuple[UseKey, Callable[[bytes], Proof]]
"""What the key is to do, and what its answer proves."""

STAGE = "check"
_SECRETS = (PinReference.PIN, PinReference.PUK, MANAGEMENT_KEY)
_ABSENT = frozenset(map(int, (SW.NOT_FOUND, SW.REFERENCE_NOT_FOUND)))


def read_card(*, with_pin: bool = False, name: str = "") -> Program[CardData]:
    """Read every object, and have the keys prove themselves as far as the card allows.

    ``with_pin`` verifies the PIN first: then objects under the PIN are read and all keys are used, without it only
    those that the card tells of by itself, and 9E. Raises StatusError, TransportError, LastTry, NoPin.
    """
    tags = [row.tag for row in containers.PIV_CONTAINERS]
    slots = (*ACTIVE_SLOTS, *RETIRED_SLOTS)
    head: tuple[Item, ...] = (Apdu(commands.select()), *([VerifyPin()] if with_pin else []))
    opened = yield from ask(*head, stage=STAGE, essential=True)
    for answer, doing in zip(opened, ("selecting the PIV application", "verifying the PIN"), strict=False):
        answer.require(doing)
    reads = tuple(Group((Apdu(commands.get_data(tag)),)) for tag in tags)
    asks = tuple(Group((Apdu(yubico.get_metadata(slot)),)) for slot in ACTIVE_SLOTS)
    secrets = tuple(Group((Apdu(yubico.get_metadata(reference)),)) for reference in _SECRETS)
    answers = yield Batch((*reads, *asks, *secrets), STAGE)
    objects: dict[int, bytes | None] = {}
    for tag, (answer,) in zip(tags, answers, strict=False):
        _keep(objects, tag, answer)
    proofs: dict[int, Proof] = {}
    told = answers[len(tags) + len(asks) :]
    factory = tuple(reference for reference, (answer,) in zip(_SECRETS, told, strict=True) if _is_default(answer))
    for slot, (answer,) in zip(ACTIVE_SLOTS, answers[len(tags) :], strict=False):
        key = _told(answer)
        if key is not None:
            proofs[slot] = same_key(key)
    for slot in slots:
        if slot not in proofs and (with_pin or slot is Slot.CARD_AUTHENTICATION):
            proof = yield from _prove(slot, objects.get(slot.certificate_tag), with_pin)
            if proof is not None:
                proofs[slot] = proof
    return CardData(objects, proofs, name, factory)


def _keep(objects: dict[int, bytes | None], tag: int, answer: Answer) -> None:
    if answer.ok:
        objects[tag] = answer.data
    elif answer.outcome is not Outcome.ANSWERED:
        answer.require(f"reading object {tag:X}")
    elif answer.sw not in _ABSENT:
        objects[tag] = None


def _is_default(answer: Answer) -> bool:
    if not answer.ok:
        return False
    try:
        return yubico.parse_metadata(answer.data).is_default is True
    except MalformedAnswer:
        return False


def _told(answer: Answer) -> PublicKeyTypes | None:
    """The public key in the card's metadata, where it has metadata."""
    if not answer.ok:
        return None
    try:
        return yubico.parse_metadata(answer.data).public_key
    except MalformedAnswer:
        return None


def _certified(tag: int, content: bytes | None) -> PublicKeyTypes | None:
    if not content:
        return None
    try:
        row = containers.CONTAINERS[tag]
        return CertificateObject.decode(containers.unwrap(tag, content), row).x509(row).public_key()
    except (MalformedObject, MalformedTlv):
        return None  # the check itself reports it


def _prove(slot: Slot, content: bytes | None, with_pin: bool) -> Program[Proof | None]:
    """Use the key of ``slot`` once on something random; None where that cannot be done."""
    key = _certified(slot.certificate_tag, content)
    if key is None:
        return None
    try:
        algorithm = Algorithm.of(key)  # type: ignore[arg-type]
    except UnsupportedAlgorithm:
        return None
    use, judge = _agreement(slot, algorithm, key) if _agrees(slot, algorithm) else _signature(slot, algorithm)
    items: tuple[Item, ...] = (VerifyPin(), use) if with_pin and slot is not Slot.CARD_AUTHENTICATION else (use,)
    answer = (yield from ask(*items, stage=STAGE))[-1]
    if answer.outcome is not Outcome.ANSWERED and answer.cause is not None:
        raise answer.cause
    return judge(answer.data) if answer.ok else None


def _agrees(slot: Slot, algorithm: Algorithm) -> bool:
    return algorithm.kind is KeyKind.X25519 or (
        algorithm.kind is KeyKind.EC and (slot is Slot.KEY_MANAGEMENT or slot.is_retired)
    )


def _signature(slot: Slot, algorithm: Algorithm) -> Task:
    message = os.urandom(32)
    use = UseKey(slot, algorithm, message_block(message, algorithm, default_hash(algorithm)))

    def judge(raw: bytes) -> Proof:
        return lambda other: _verifies(other, algorithm, raw, message)

    return use, judge


def _verifies(key: PublicKeyTypes, algorithm: Algorithm, raw: bytes, message: bytes) -> bool:
    try:
        signature = signature_of(raw, algorithm)
        match key:
            case rsa.RSAPublicKey():
                key.verify(signature, message, padding.PKCS1v15(), default_hash(algorithm))
            case ec.EllipticCurvePublicKey():
                key.verify(signature, message, ec.ECDSA(default_hash(algorithm)))
            case ed25519.Ed25519PublicKey():
                key.verify(signature, message)
            case _:
                return False
    except (InvalidSignature, CardwrightError):
        return False
    return True


def _agreement(slot: Slot, algorithm: Algorithm, key: PublicKeyTypes) -> Task:
    if isinstance(key, ec.EllipticCurvePublicKey):
        own = ec.generate_private_key(key.curve)
        point = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return UseKey(slot, algorithm, point, agree=True), lambda shared: _ecdh_proof(own, shared)
    seed = x25519.X25519PrivateKey.generate()
    point = seed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return UseKey(slot, algorithm, point, agree=True), lambda shared: _x25519_proof(seed, shared)


def _ecdh_proof(own: ec.EllipticCurvePrivateKey, shared: bytes) -> Proof:
    def proof(other: PublicKeyTypes) -> bool:
        fits = isinstance(other, ec.EllipticCurvePublicKey) and other.curve.name == own.curve.name
        return fits and own.exchange(ec.ECDH(), cast(ec.EllipticCurvePublicKey, other)) == shared

    return proof


def _x25519_proof(own: x25519.X25519PrivateKey, shared: bytes) -> Proof:
    return lambda other: isinstance(other, x25519.X25519PublicKey) and own.exchange(other) == shared
