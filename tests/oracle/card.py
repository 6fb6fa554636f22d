"""The judge of a finished card: looks at the raw memory of the virtual card and imports nothing that it judges.

Its own TLV reading, its own table of factory values, public keys made again from the private ones in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519

FACTORY_PINS = {b"123456\xff\xff", b"12345678"}
FACTORY_KEYS = {bytes.fromhex("0102030405060708" * 3)}
CERTIFICATES = {0x9A: 0x5FC105, 0x9C: 0x5FC10A, 0x9D: 0x5FC10B, 0x9E: 0x5FC101} | {
    0x82 + index: 0x5FC10D + index for index in range(20)
}
CHUID, CCC, DISCOVERY = 0x5FC102, 0x5FC107, 0x7E
NON_FEDERAL = "D4E739DA739CED39CE739D"
"""Start sentinel, 9999, 9999, 999999 and their separators (TIG SCEPACS encoding), first 11 octets."""
RSA = {0x06: 1024, 0x07: 2048, 0x05: 3072, 0x16: 4096}
CURVES = {0x11: ec.SECP256R1(), 0x14: ec.SECP384R1()}


@dataclass(frozen=True)
class Expected:
    """What a good card has. ``keys`` maps a slot to (algorithm octet, made on the card).

    ``management_keys`` are the values one of which must be set; empty for a card whose key was left alone.
    ``issuer`` is the public key that signed the certificates, None where each key signed its own.
    """

    keys: Mapping[int, tuple[int, bool]]
    pin: bytes
    puk: bytes
    management_keys: frozenset[bytes] = frozenset()
    tries: tuple[int, int] | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    issuer: Any = None


def judge(snapshot: bytes, expected: Expected) -> list[str]:
    """Everything that is wrong with the card whose memory is ``snapshot``, in words; nothing for a good one."""
    memory: dict[str, Any] = json.loads(snapshot)
    return [
        *_secrets(memory, expected),
        *_objects(memory, expected),
        *_keys(memory, expected),
    ]


def _secrets(memory: dict[str, Any], expected: Expected) -> list[str]:
    wrong = []
    for name, number, wanted in (("PIN", "80", expected.pin), ("PUK", "81", expected.puk)):
        item = memory["references"][number]
        value = bytes.fromhex(item["value"])
        if value != wanted.ljust(8, b"\xff"):
            wrong.append(f"{name} is not the new one")
        if value in FACTORY_PINS:
            wrong.append(f"{name} is the factory's")
        if item["tries"] != item["maximum"]:
            wrong.append(f"{name} has {item['tries']} of {item['maximum']} tries")
        index = 0 if name == "PIN" else 1
        if expected.tries is not None and item["maximum"] != expected.tries[index]:
            wrong.append(f"{name} has {item['maximum']} tries in all")
    key = bytes.fromhex(memory["management"]["value"])
    if expected.management_keys and (key in FACTORY_KEYS or key not in expected.management_keys):
        wrong.append("the management key is the factory's, or was never recorded")
    return wrong


def _objects(memory: dict[str, Any], expected: Expected) -> list[str]:
    wrong = []
    objects = {int(tag, 16): bytes.fromhex(raw) for tag, raw in memory["objects"].items()}
    allowed = {CHUID, CCC, DISCOVERY, *(CERTIFICATES[slot] for slot in expected.keys)}
    wrong += [f"object {tag:X} was not asked for" for tag in objects.keys() - allowed]
    chuid = dict(_content(objects.get(CHUID, b"")))
    if list(chuid) != [0x30, 0x34, 0x35, 0x3E, 0xFE]:
        return [*wrong, f"the CHUID has tags {[f'{tag:X}' for tag in chuid]}"]
    if not chuid[0x30].hex().upper().startswith(NON_FEDERAL) or len(chuid[0x30]) != 25:
        wrong.append("the FASC-N is not that of a non-federal issuer")
    if UUID(bytes=chuid[0x34]).version != 4:
        wrong.append("the GUID is not a random one")
    text = chuid[0x35].decode()
    if date(int(text[:4]), int(text[4:6]), int(text[6:])) <= expected.now.date():
        wrong.append("the CHUID is expired")
    if chuid[0x3E] or chuid[0xFE]:
        wrong.append("the CHUID has a signature, or its end is not empty")
    ccc = dict(_content(objects.get(CCC, b"")))
    if ccc.get(0xF5) != b"\x10" or list(ccc)[-1] != 0xFE:
        wrong.append("the CCC does not name data model 10")
    return wrong


def _keys(memory: dict[str, Any], expected: Expected) -> list[str]:
    wrong = []
    held = {int(slot, 16): key for slot, key in memory["keys"].items()}
    wrong += [f"key {slot:02X} was not asked for" for slot in held.keys() - expected.keys.keys()]
    guid = dict(_content(bytes.fromhex(memory["objects"].get(f"{CHUID:X}", "")))).get(0x34, bytes(16))
    for slot, (algorithm, generated) in expected.keys.items():
        key = held.get(slot)
        if key is None:
            wrong.append(f"key {slot:02X} is missing")
            continue
        if key["algorithm"] != algorithm or key["generated"] is not generated:
            wrong.append(f"key {slot:02X} is of another algorithm or origin")
        raw = bytes.fromhex(memory["objects"].get(f"{CERTIFICATES[slot]:X}", ""))
        public = _public(key["algorithm"], key["private"])
        wrong += _certificate(slot, raw, public, UUID(bytes=guid), expected)
    return wrong


def _certificate(slot: int, raw: bytes, public: Any, guid: UUID, expected: Expected) -> list[str]:
    content = _content(raw)
    if [tag for tag, _ in content] != [0x70, 0x71, 0xFE] or content[1][1] != b"\0" or content[2][1]:
        return [f"certificate {slot:02X} is missing or badly wrapped"]
    certificate = x509.load_der_x509_certificate(content[0][1])
    wrong = []
    if certificate.public_key() != public:
        wrong.append(f"certificate {slot:02X} is for another key")
    if not certificate.not_valid_before_utc <= expected.now < certificate.not_valid_after_utc:
        wrong.append(f"certificate {slot:02X} is not valid now")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if names.get_values_for_type(x509.UniformResourceIdentifier) != [f"urn:uuid:{guid}"]:
        wrong.append(f"certificate {slot:02X} does not name the card")
    try:
        _verify(certificate, expected.issuer or public)
    except InvalidSignature:
        wrong.append(f"certificate {slot:02X} is not signed by the key that should have signed it")
    return wrong


def _verify(certificate: x509.Certificate, public: Any) -> None:
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    hashed = certificate.signature_hash_algorithm
    if isinstance(public, rsa.RSAPublicKey):
        assert hashed is not None
        public.verify(signature, signed, padding.PKCS1v15(), hashed)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        assert hashed is not None
        public.verify(signature, signed, ec.ECDSA(hashed))
    else:
        public.verify(signature, signed)


def _public(algorithm: int, private: list[str]) -> Any:
    parts = [int(part, 16) for part in private]
    if algorithm in RSA:
        return rsa.RSAPublicNumbers(parts[2], parts[0] * parts[1]).public_key()
    if algorithm in CURVES:
        return ec.derive_private_key(parts[0], CURVES[algorithm]).public_key()
    kind = ed25519.Ed25519PrivateKey if algorithm == 0xE0 else x25519.X25519PrivateKey
    return kind.from_private_bytes(bytes.fromhex(private[0])).public_key()


def _content(raw: bytes) -> list[tuple[int, bytes]]:
    """The data objects inside template 53, one-octet tags; nothing for what is no such template."""
    outer = _split(raw)
    return _split(outer[0][1]) if len(outer) == 1 and outer[0][0] == 0x53 else []


def _split(raw: bytes) -> list[tuple[int, bytes]]:
    found = []
    while raw:
        tag, first, raw = raw[0], raw[1], raw[2:]
        if first > 0x80:
            octets = first - 0x80
            first, raw = int.from_bytes(raw[:octets], "big"), raw[octets:]
        assert len(raw) >= first, "a data object is cut"
        found.append((tag, raw[:first]))
        raw = raw[first:]
    return found
