"""Strict readers of what the PIV application answers (SP 800-73-5 part 2 sections 3.1 to 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import CardwrightError
from ..iso7816.tlv import MalformedTlv, encode, iterate, parse_one, parse_unique
from .algorithms import Algorithm, KeyKind, PublicKey
from .commands import TAG_DYNAMIC_AUTHENTICATION


class MalformedAnswer(CardwrightError):
    """The card answered 9000 with data that the standard does not allow there."""

    code = "ANSWER_MALFORMED"
    default_effect = "The answer is not used; whether the card changed is told by reading it again."
    default_advice = "The card or its reader does not follow SP 800-73-5; try another reader."


@dataclass(frozen=True, slots=True)
class ApplicationProperties:
    """The application property template of SELECT (tables 3 to 6).

    ``algorithms`` are the identifiers of tag AC, () where the card announces none; ``extended_limits`` are the
    most octets of a command and of a response by tag 7F66, None where it is absent.
    """

    aid: bytes
    label: str
    url: str
    algorithms: tuple[int, ...]
    extended_limits: tuple[int, int] | None


def parse_select(data: bytes) -> ApplicationProperties:
    """Read the answer of SELECT; a short 4F (the PIX only) is accepted. Raises MalformedAnswer."""
    try:
        inner = parse_unique(parse_one(data, 0x61).value)
        algorithms = _algorithm_list(inner.get(0xAC, b""))
        limits = _extended_limits(inner.get(0x7F66))
    except MalformedTlv as error:
        raise MalformedAnswer(f"The answer of SELECT is damaged: {error}") from error
    return ApplicationProperties(
        aid=inner.get(0x4F, b""),
        label=inner.get(0x50, b"").decode("ascii", "replace"),
        url=inner.get(0x5F50, b"").decode("ascii", "replace"),
        algorithms=algorithms,
        extended_limits=limits,
    )


def _algorithm_list(raw: bytes) -> tuple[int, ...]:
    return tuple(item.value[0] for item in iterate(raw) if item.tag == 0x80 and len(item.value) == 1)


def _extended_limits(raw: bytes | None) -> tuple[int, int] | None:
    if raw is None:
        return None
    sizes = [int.from_bytes(item.value, "big") for item in iterate(raw) if item.tag == 0x02]
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def dynamic_authentication(data: bytes, *wanted: int) -> bytes:
    """The value of the first of the ``wanted`` tags in an answer of GENERAL AUTHENTICATE.

    Several are given where cards differ (82, but some say 80). Raises MalformedAnswer.
    """
    try:
        inner = parse_unique(parse_one(data, TAG_DYNAMIC_AUTHENTICATION).value)
    except MalformedTlv as error:
        raise MalformedAnswer(f"The answer of GENERAL AUTHENTICATE is damaged: {error}") from error
    for tag in wanted:
        if tag in inner:
            return inner[tag]
    raise MalformedAnswer("The answer of GENERAL AUTHENTICATE lacks what was asked for.")


def parse_public_key(algorithm: Algorithm, data: bytes) -> PublicKey:
    """The public key in an answer of GENERATE (7F49) as ``cryptography`` has it. Raises MalformedAnswer."""
    try:
        return public_key_of(algorithm, parse_one(data, 0x7F49).value)
    except MalformedTlv as error:
        raise MalformedAnswer(f"The public key that the card made is damaged: {error}") from error


def public_key_of(algorithm: Algorithm, template: bytes) -> PublicKey:
    """The public key in the data objects 81, 82 (RSA) or 86 (points). Raises MalformedAnswer."""
    try:
        inner = parse_unique(template)
        match algorithm.kind:
            case KeyKind.RSA:
                modulus, exponent = (int.from_bytes(inner[tag], "big") for tag in (0x81, 0x82))
                if (modulus.bit_length() + 7) // 8 != algorithm.octets:
                    raise ValueError("the modulus has another size")
                return rsa.RSAPublicNumbers(exponent, modulus).public_key()
            case KeyKind.EC:
                curve = ec.SECP256R1() if algorithm is Algorithm.P256 else ec.SECP384R1()
                return ec.EllipticCurvePublicKey.from_encoded_point(curve, inner[0x86])
            case KeyKind.ED25519:
                return ed25519.Ed25519PublicKey.from_public_bytes(inner[0x86])
            case KeyKind.X25519:
                return x25519.X25519PublicKey.from_public_bytes(inner[0x86])
    except (KeyError, ValueError, MalformedTlv) as error:
        raise MalformedAnswer(f"The card's public key is not one of {algorithm.label}: {error}") from error


def encode_public_key(key: PublicKey) -> bytes:
    """The data objects 81, 82 or 86 of ``key``, without 7F49: the inverse of ``public_key_of``."""
    match key:
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            size = (numbers.n.bit_length() + 7) // 8
            exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")
            return encode(0x81, numbers.n.to_bytes(size, "big")) + encode(0x82, exponent)
        case ec.EllipticCurvePublicKey():
            return encode(0x86, key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
        case _:
            return encode(0x86, key.public_bytes(Encoding.Raw, PublicFormat.Raw))
