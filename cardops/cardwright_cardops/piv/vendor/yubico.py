"""Yubico-style administration, which PivApplet, CanoKey and others share in part (instructions F6 to FF)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ...iso7816.apdu import MAX_EXTENDED_LE, CommandAPDU
from ...iso7816.tlv import MalformedTlv, encode, parse_unique
from ...secret import Secret
from ..algorithms import Algorithm, KeyKind, PinPolicy, PrivateKey, PublicKey, TouchPolicy
from ..commands import policy_tags
from ..management_key import ManagementKey
from ..references import MANAGEMENT_KEY
from ..responses import MalformedAnswer, public_key_of

INS_MOVE_KEY = 0xF6
INS_GET_METADATA = 0xF7
INS_GET_SERIAL = 0xF8
INS_ATTEST = 0xF9
INS_SET_RETRIES = 0xFA
INS_RESET = 0xFB
INS_GET_VERSION = 0xFD
INS_IMPORT_KEY = 0xFE
INS_SET_MANAGEMENT_KEY = 0xFF

DEFAULT_PIN = Secret(b"123456")
DEFAULT_PUK = Secret(b"12345678")


class KeyOrigin(Enum):
    """Where the card says a key was made."""

    GENERATED = "generated"
    IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Metadata:
    """Answer of GET METADATA for a slot, a PIN, the PUK or the administration key; None is "not told".

    ``tries`` is (total, left). ``algorithm`` is the octet on the wire.
    """

    algorithm: int | None = None
    pin_policy: PinPolicy | None = None
    touch_policy: TouchPolicy | None = None
    origin: KeyOrigin | None = None
    public_key: PublicKey | None = None
    is_default: bool | None = None
    tries: tuple[int, int] | None = None


def get_metadata(reference: int) -> CommandAPDU:
    """GET METADATA of a slot, 80, 81 or 9B. 6A88: an empty slot; 6D00: the card has no metadata."""
    return CommandAPDU(0x00, INS_GET_METADATA, 0x00, reference, b"", MAX_EXTENDED_LE)


def parse_metadata(data: bytes, *, origin_from_zero: bool = False) -> Metadata:
    """Read an answer of GET METADATA. Raises MalformedAnswer.

    ``origin_from_zero``: PivApplet counts origins from 0, others from 1. A public key of an algorithm that is not
    known here is left out.
    """
    try:
        inner = parse_unique(data)
        algorithm = _octet(inner.get(0x01))
        policies = inner.get(0x02, b"")
        tries = inner.get(0x06, b"")
        return Metadata(
            algorithm=algorithm,
            pin_policy=PinPolicy(policies[0]) if len(policies) == 2 else None,
            touch_policy=TouchPolicy(policies[1]) if len(policies) == 2 else None,
            origin=_origin(_octet(inner.get(0x03)), 0 if origin_from_zero else 1),
            public_key=_public_key(algorithm, inner.get(0x04)),
            is_default=None if 0x05 not in inner else _octet(inner[0x05]) == 1,
            tries=(tries[0], tries[1]) if len(tries) == 2 else None,
        )
    except (MalformedTlv, ValueError) as error:
        raise MalformedAnswer(f"The card's metadata is damaged: {error}") from error


def _octet(value: bytes | None) -> int | None:
    if value is None:
        return None
    if len(value) != 1:
        raise ValueError("a one-octet value has another length")
    return value[0]


def _origin(code: int | None, first: int) -> KeyOrigin | None:
    if code is None:
        return None
    return {first: KeyOrigin.GENERATED, first + 1: KeyOrigin.IMPORTED}.get(code)


def _public_key(algorithm: int | None, template: bytes | None) -> PublicKey | None:
    if template is None or algorithm not in set(Algorithm):
        return None
    return public_key_of(Algorithm(algorithm), template)


def get_serial() -> CommandAPDU:
    """GET SERIAL NUMBER: 4 octets."""
    return CommandAPDU(0x00, INS_GET_SERIAL, 0x00, 0x00, b"", 256)


def get_version() -> CommandAPDU:
    """GET VERSION: 3 octets. Many clones claim a version that is not theirs."""
    return CommandAPDU(0x00, INS_GET_VERSION, 0x00, 0x00, b"", 256)


def attest(slot: int) -> CommandAPDU:
    """ATTEST: a certificate, signed by the attestation key, for a key that the card made in ``slot``."""
    return CommandAPDU(0x00, INS_ATTEST, slot, 0x00, b"", MAX_EXTENDED_LE)


def set_retries(pin: int, puk: int) -> CommandAPDU:
    """SET PIN RETRIES, 1 to 255 each. It puts PIN *and* PUK back to their factory values."""
    return CommandAPDU(0x00, INS_SET_RETRIES, pin, puk)


def reset() -> CommandAPDU:
    """RESET of the whole application; the card takes it only when PIN and PUK are both blocked."""
    return CommandAPDU(0x00, INS_RESET, 0x00, 0x00)


def move_key(source: int, target: int) -> CommandAPDU:
    """MOVE KEY between slots; certificates stay where they are."""
    return CommandAPDU(0x00, INS_MOVE_KEY, target, source)


def delete_key(slot: int) -> CommandAPDU:
    """MOVE KEY to nowhere: delete it."""
    return CommandAPDU(0x00, INS_MOVE_KEY, 0xFF, slot)


def set_management_key(key: ManagementKey, *, touch: bool = False) -> CommandAPDU:
    """SET MANAGEMENT KEY; needs authentication with the old one."""
    data = bytes((key.algorithm, MANAGEMENT_KEY)) + bytes((len(key.value),)) + key.value.reveal()
    return CommandAPDU(0x00, INS_SET_MANAGEMENT_KEY, 0xFF, 0xFE if touch else 0xFF, data)


def import_key(
    slot: int,
    key: PrivateKey,
    *,
    pin_policy: PinPolicy = PinPolicy.DEFAULT,
    touch_policy: TouchPolicy = TouchPolicy.DEFAULT,
) -> CommandAPDU:
    """IMPORT ASYMMETRIC KEY. Raises UnsupportedAlgorithm for a key that no slot holds."""
    algorithm = Algorithm.of(key.public_key())
    data = private_components(algorithm, key) + policy_tags(pin_policy, touch_policy)
    return CommandAPDU(0x00, INS_IMPORT_KEY, algorithm, slot, data)


def private_components(algorithm: Algorithm, key: PrivateKey) -> bytes:
    """The data objects of a private key: 01-05 the CRT parts of RSA, 06 an EC scalar, 07 and 08 the 25519 seeds."""
    match key:
        case rsa.RSAPrivateKey():
            numbers = key.private_numbers()
            parts = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
            half = algorithm.octets // 2
            return b"".join(encode(tag, part.to_bytes(half, "big")) for tag, part in enumerate(parts, 0x01))
        case ec.EllipticCurvePrivateKey():
            return encode(0x06, key.private_numbers().private_value.to_bytes(algorithm.octets, "big"))
        case _:
            tag = 0x07 if algorithm.kind is KeyKind.ED25519 else 0x08
            return encode(tag, key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))

