"""OpenFIPS201 administration: objects and keys are created first, then filled; all inside SCP03.

The commands are built plain; ``globalplatform`` wraps them. A key's value is set one element at a time, so a key is
several commands: the card takes it over with the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ...iso7816.apdu import CommandAPDU
from ...iso7816.tlv import MalformedTlv, Tlv, encode, encode_tag, parse_one, parse_unique
from ...secret import Secret
from ..algorithms import Algorithm, PrivateKey, UnsupportedAlgorithm
from ..commands import pin_block
from ..management_key import ManagementKey
from ..references import MANAGEMENT_KEY
from ..responses import MalformedAnswer, encode_public_key

_ADMINISTRATION = (0x3F, 0x00)
_BY_ADMINISTRATOR = 0xFF


class AccessMode(IntFlag):
    """What opens an object or key; modes are alternatives."""

    NEVER = 0x00
    PIN = 0x01
    PIN_ALWAYS = 0x02
    OCC = 0x04
    USER_ADMIN = 0x10
    ALWAYS = 0x7F


class Role(IntFlag):
    """What a key is for."""

    AUTHENTICATE = 0x01
    KEY_ESTABLISHMENT = 0x02
    SIGN = 0x04


class Attribute(IntFlag):
    """What may be done with a key."""

    NONE = 0x00
    INTERNAL = 0x02
    EXTERNAL = 0x04
    MUTUAL = 0x08
    IMPORTABLE = 0x10


@dataclass(frozen=True, slots=True)
class CreateObject:
    """A container that the card does not have yet, with its access over each interface."""

    tag: int
    contact: AccessMode
    contactless: AccessMode

    def request(self) -> Tlv:
        """The administrative data object."""
        return _request(0x64, encode_tag(self.tag), self.contact, self.contactless)


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """A container that goes, with its content."""

    tag: int

    def request(self) -> Tlv:
        """The administrative data object."""
        return Tlv(0x65, encode(0x8B, encode_tag(self.tag)))


@dataclass(frozen=True, slots=True)
class CreateKey:
    """A key reference with its mechanism; its value comes by GENERATE or ``set_key``."""

    reference: int
    mechanism: int
    contact: AccessMode
    contactless: AccessMode
    role: Role
    attributes: Attribute = Attribute.NONE

    def request(self) -> Tlv:
        """The administrative data object."""
        head = _request(0x66, bytes((self.reference,)), self.contact, self.contactless)
        rest = ((0x8E, self.mechanism), (0x8F, self.role), (0x90, self.attributes))
        return Tlv(head.tag, head.value + b"".join(encode(tag, bytes((value,))) for tag, value in rest))


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """A key reference that goes."""

    reference: int

    def request(self) -> Tlv:
        """The administrative data object."""
        return Tlv(0x67, encode(0x8B, bytes((self.reference,))))


Administration = CreateObject | DeleteObject | CreateKey | DeleteKey


def _request(tag: int, reference: bytes, contact: AccessMode, contactless: AccessMode) -> Tlv:
    modes = encode(0x8C, bytes((contact,))) + encode(0x8D, bytes((contactless,)))
    return Tlv(tag, encode(0x8B, reference) + modes)


def administer(*steps: Administration) -> CommandAPDU:
    """PUT DATA 3F00: one step, or several that the card takes together or not at all.

    Raises ValueError without a step.
    """
    if not steps:
        raise ValueError("nothing to administer")
    requests = [step.request() for step in steps]
    data = requests[0].encode() if len(requests) == 1 else encode(0x6A, b"".join(one.encode() for one in requests))
    return CommandAPDU(0x00, 0xDB, *_ADMINISTRATION, data)


def set_key(slot: int, key: PrivateKey) -> tuple[CommandAPDU, ...]:
    """The value of a key that was created IMPORTABLE, element by element. Raises UnsupportedAlgorithm."""
    algorithm = Algorithm.of(key.public_key())
    elements: tuple[tuple[int, bytes], ...]
    match key:
        case rsa.RSAPrivateKey():
            numbers = key.private_numbers()
            public = parse_unique(encode_public_key(key.public_key()))
            private = numbers.d.to_bytes(algorithm.octets, "big")
            elements = ((0x81, public[0x81]), (0x82, public[0x82]), (0x83, private))
        case ec.EllipticCurvePrivateKey():
            point = parse_unique(encode_public_key(key.public_key()))[0x86]
            scalar = key.private_numbers().private_value.to_bytes(algorithm.octets, "big")
            elements = ((0x86, point), (0x87, scalar))
        case _:
            raise UnsupportedAlgorithm(f"OpenFIPS201 has no {algorithm.label} keys.")
    return tuple(_element(algorithm, slot, tag, value) for tag, value in elements)


def set_management_key(key: ManagementKey) -> CommandAPDU:
    """The value of 9B."""
    return _element(key.algorithm, MANAGEMENT_KEY, 0x80, key.value.reveal())


def set_reference(reference: int, value: Secret) -> CommandAPDU:
    """A PIN, Global PIN or PUK, set without the old one. Raises ValueError for none or over 8 octets."""
    return CommandAPDU(0x00, 0x24, _BY_ADMINISTRATOR, reference, pin_block(value))


def _element(mechanism: int, reference: int, tag: int, value: bytes) -> CommandAPDU:
    return CommandAPDU(0x00, 0x24, mechanism, reference, encode(0x30, encode(tag, value)))


def get_version() -> CommandAPDU:
    """The applet's version and build."""
    return _information(0x2F4756)


def get_status() -> CommandAPDU:
    """The applet's state."""
    return _information(0x2F4753)


def _information(tag: int) -> CommandAPDU:
    return CommandAPDU(0x00, 0xCB, *_ADMINISTRATION, encode(0x5C, tag.to_bytes(3, "big")), 256)


def parse_information(data: bytes) -> dict[int, bytes]:
    """The data objects in an answer of GET_VERSION or GET_STATUS, by tag. Raises MalformedAnswer."""
    try:
        return parse_unique(parse_one(data, 0x73).value)
    except MalformedTlv as error:
        raise MalformedAnswer(f"The applet's answer is damaged: {error}") from error
