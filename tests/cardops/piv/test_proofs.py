"""Proofs of card keys: octet for octet (RFC 3163 section 3), judged by every kind of key, and what is refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519

from cardwright_cardops.iso7816.tlv import encode, parse_one
from cardwright_cardops.piv.algorithms import Algorithm, PrivateKey
from cardwright_cardops.piv.proofs import ProofInvalid, check_nonce, prepare, token, verify

AUDIENCE, NONCE, RANDOM = "urn:example:door", b"12345678", bytes(range(32))
GUID = UUID("00112233-4455-4677-8899-aabbccddeeff")
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
KEYS: dict[str, PrivateKey] = {
    "rsa": rsa.generate_private_key(65537, 2048), "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()), "ed25519": ed25519.Ed25519PrivateKey.generate(),
}  # fmt: skip


def signature(key: PrivateKey, message: bytes) -> bytes:
    match key:
        case rsa.RSAPrivateKey():
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            return key.sign(message, ec.ECDSA(hashes.SHA384() if key.key_size == 384 else hashes.SHA256()))
        case ed25519.Ed25519PrivateKey():
            return key.sign(message)
    raise AssertionError


def proof(key: PrivateKey, audience: str = AUDIENCE, nonce: bytes = NONCE) -> bytes:
    made = prepare(audience, nonce, RANDOM)
    return token(made, Algorithm.of(key.public_key()), signature(key, made.message))


def test_the_nonce_of_a_check_is_good_for_one_card_and_one_minute() -> None:
    minute = int(NOON.timestamp()) // 60
    expected = hashlib.sha256(b"cardwright due check " + GUID.bytes + minute.to_bytes(8, "big")).digest()
    assert check_nonce(GUID, NOON) == check_nonce(GUID, NOON + timedelta(seconds=59.9)) == expected
    others = [check_nonce(GUID, NOON + timedelta(seconds=60)), check_nonce(GUID, NOON - timedelta(seconds=1)),
              check_nonce(UUID(int=GUID.int + 1), NOON)]  # fmt: skip
    assert len({expected, *others}) == 4


def test_what_is_signed_octet_for_octet() -> None:
    name = encode(0xA0, encode(0x86, AUDIENCE.encode()))
    message = encode(0x30, encode(0x04, RANDOM) + encode(0x04, NONCE) + name)
    assert prepare(AUDIENCE, NONCE, RANDOM).message == message
    ecdsa = bytes.fromhex("300a06082a8648ce3d040302")
    made = token(prepare(AUDIENCE, NONCE, RANDOM), Algorithm.P256, b"signature")
    assert made == encode(0x30, encode(0x04, RANDOM) + name + ecdsa + encode(0x03, b"\x00signature"))


@pytest.mark.parametrize(
    ("algorithm", "oid"),
    [
        (Algorithm.RSA2048, "2a864886f70d01010b"), (Algorithm.RSA4096, "2a864886f70d01010b"),
        (Algorithm.P256, "2a8648ce3d040302"), (Algorithm.P384, "2a8648ce3d040303"), (Algorithm.ED25519, "2b6570"),
    ],
)  # fmt: skip
def test_the_algorithm_is_named(algorithm: Algorithm, oid: str) -> None:
    made = parse_one(token(prepare(AUDIENCE, NONCE, RANDOM), algorithm, b"s"), 0x30).value
    assert encode(0x06, bytes.fromhex(oid)) in made


@pytest.mark.parametrize(("octets", "good"), [(7, False), (8, True), (64, True), (65, False)])
def test_a_nonce_has_8_to_64_octets(octets: int, good: bool) -> None:
    if good:
        assert prepare(AUDIENCE, bytes(octets), RANDOM).random_a == RANDOM
        return
    with pytest.raises(ValueError, match="8 to 64"):
        prepare(AUDIENCE, bytes(octets), RANDOM)


@pytest.mark.parametrize("octets", [0, 31, 33])
def test_our_random_has_32_octets(octets: int) -> None:
    with pytest.raises(ValueError, match="random 32"):
        prepare(AUDIENCE, NONCE, bytes(octets))


@pytest.mark.parametrize("kind", KEYS)
def test_a_proof_is_for_one_audience_one_nonce_and_one_key(kind: str) -> None:
    key = KEYS[kind]
    made = proof(key)
    verify(made, audience=AUDIENCE, nonce=NONCE, key=key.public_key())
    with pytest.raises(ProofInvalid, match="another audience"):
        verify(made, audience="urn:example:other", nonce=NONCE, key=key.public_key())
    with pytest.raises(ProofInvalid, match="not signed by this card's key, or not for this request"):
        verify(made, audience=AUDIENCE, nonce=b"12345679", key=key.public_key())
    for other in KEYS.values():
        if other is not key:
            with pytest.raises(ProofInvalid):
                verify(made, audience=AUDIENCE, nonce=NONCE, key=other.public_key())
    for damaged in (b"", made[:-1], made + b"\x00", b"\x31" + made[1:]):
        with pytest.raises(ProofInvalid):
            verify(damaged, audience=AUDIENCE, nonce=NONCE, key=key.public_key())


def test_keys_that_only_agree_prove_nothing() -> None:
    public = x25519.X25519PrivateKey.generate().public_key()
    with pytest.raises(ProofInvalid, match="does not sign"):
        verify(proof(KEYS["p256"]), audience=AUDIENCE, nonce=NONCE, key=public)
