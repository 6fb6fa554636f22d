"""Padding and signatures: what the card gets, judged by cryptography and by real private keys."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cardwright_cardops.piv import signing
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.signing import BlockTooLarge, DecryptionFailed

KEYS = {bits: rsa.generate_private_key(65537, bits) for bits in (1024, 1025, 1032, 2048)}


def raw_rsa(key: rsa.RSAPrivateKey, block: bytes) -> bytes:
    numbers = key.private_numbers()
    size = (key.key_size + 7) // 8
    return pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n).to_bytes(size, "big")


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_pkcs1_signatures_verify(algorithm: hashes.HashAlgorithm) -> None:
    key = KEYS[2048]
    block = signing.pkcs1_v15_block(signing.digest(b"message", algorithm), algorithm, 256)
    assert len(block) == 256
    key.public_key().verify(raw_rsa(key, block), b"message", padding.PKCS1v15(), algorithm)
    with pytest.raises(InvalidSignature):
        key.public_key().verify(raw_rsa(key, block), b"massage", padding.PKCS1v15(), algorithm)


@pytest.mark.parametrize("bits", [1024, 1025, 1032, 2048])
@pytest.mark.parametrize("salt", [0, 20, 32])
def test_pss_signatures_verify(bits: int, salt: int) -> None:
    key, algorithm = KEYS[bits], hashes.SHA256()
    block = signing.pss_block(signing.digest(b"message", algorithm), algorithm, bits, salt)
    how = padding.PSS(padding.MGF1(algorithm), salt)
    assert len(block) == (128 if bits == 1024 else 129 if bits < 2048 else 256)
    key.public_key().verify(raw_rsa(key, block), b"message", how, algorithm)


def test_blocks_that_do_not_fit_are_refused() -> None:
    digest = signing.digest(b"", hashes.SHA512())
    assert signing.pkcs1_v15_block(digest, hashes.SHA512(), 94)[:11] == b"\x00\x01" + b"\xff" * 8 + b"\x00"
    with pytest.raises(BlockTooLarge):
        signing.pkcs1_v15_block(digest, hashes.SHA512(), 93)
    assert len(signing.pss_block(digest, hashes.SHA512(), 1024, 62)) == 128
    with pytest.raises(BlockTooLarge):
        signing.pss_block(digest, hashes.SHA512(), 1024, 63)
    with pytest.raises(BlockTooLarge):
        signing.pkcs1_v15_block(bytes(16), hashes.MD5(), 256)


@given(message=st.binary(max_size=80))
@settings(max_examples=25)
def test_pkcs1_padding_comes_off(message: bytes) -> None:
    key = KEYS[1024]
    sealed = key.public_key().encrypt(message, padding.PKCS1v15())
    assert signing.unpad_pkcs1_v15(raw_rsa(key, sealed)) == message


@pytest.mark.parametrize("mask", [hashes.SHA1(), hashes.SHA256()])
@pytest.mark.parametrize("label", [b"", b"label"])
def test_oaep_padding_comes_off(mask: hashes.HashAlgorithm, label: bytes) -> None:
    key = KEYS[2048]
    sealed = key.public_key().encrypt(b"message", padding.OAEP(padding.MGF1(mask), hashes.SHA256(), label))
    block = raw_rsa(key, sealed)
    assert signing.unpad_oaep(block, hashes.SHA256(), mask, label) == b"message"
    for damaged in (b"\x01" + block[1:], block[:-1] + bytes((block[-1] ^ 1,)), block[:60]):
        with pytest.raises(DecryptionFailed):
            signing.unpad_oaep(damaged, hashes.SHA256(), mask, b"another")


@pytest.mark.parametrize(
    "block",
    [
        b"\x00\x02" + b"\x11" * 7 + b"\x00" + b"x" * 100,
        b"\x00\x01" + b"\x11" * 9 + b"\x00x",
        b"\x01\x02" + b"\x11" * 9 + b"\x00x",
        b"\x00\x02" + b"\x11" * 20,
        b"",
    ],
)
def test_blocks_without_padding_are_refused(block: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        signing.unpad_pkcs1_v15(block)
    assert signing.unpad_pkcs1_v15(b"\x00\x02" + b"\x11" * 8 + b"\x00x") == b"x"


@given(r=st.integers(1, 2**255), s=st.integers(1, 2**255), wide=st.booleans())
def test_ecdsa_answers_become_minimal_der(r: int, s: int, wide: bool) -> None:
    def integer(value: int) -> bytes:
        size = 33 if wide else (value.bit_length() // 8) + 1
        return b"\x02" + bytes((size,)) + value.to_bytes(size, "big")

    body = integer(r) + integer(s)
    answer = b"\x30" + bytes((len(body),)) + body
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    assert decode_dss_signature(signing.signature_of(answer, Algorithm.P256)) == (r, s)


@pytest.mark.parametrize("answer", ["", "3000", "30020201", "3006020101030101", "300602010102010100", "30060201010202"])
def test_answers_that_are_no_ecdsa_signature_are_refused(answer: str) -> None:
    with pytest.raises(DecryptionFailed):
        signing.signature_of(bytes.fromhex(answer), Algorithm.P256)


def test_signatures_of_other_kinds() -> None:
    assert signing.signature_of(b"\x01", Algorithm.RSA1024) == b"\x01".rjust(128, b"\x00")
    assert signing.signature_of(b"\x01", Algorithm.ED25519) == b"\x01"


def test_messages_become_blocks() -> None:
    assert signing.message_block(b"m", Algorithm.ED25519, hashes.SHA256()) == b"m"
    assert signing.message_block(b"m", Algorithm.P256, hashes.SHA256()) == signing.digest(b"m", hashes.SHA256())
    assert len(signing.message_block(b"m", Algorithm.P256, hashes.SHA384())) == 32
    assert len(signing.message_block(b"m", Algorithm.P384, hashes.SHA384())) == 48
    assert len(signing.message_block(b"m", Algorithm.RSA3072, hashes.SHA256())) == 384
    assert isinstance(signing.default_hash(Algorithm.P384), hashes.SHA384)
    assert isinstance(signing.default_hash(Algorithm.RSA4096), hashes.SHA256)


def test_ecdsa_over_the_leftmost_octets_verifies() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    block = signing.ecdsa_block(signing.digest(b"m", hashes.SHA384()), Algorithm.P256)
    signature = key.sign(block, ec.ECDSA(Prehashed(hashes.SHA256())))
    key.public_key().verify(signature, b"m", ec.ECDSA(hashes.SHA384()))


def test_blocks_that_are_too_short_for_their_padding() -> None:
    algorithm = hashes.SHA256()
    for size in range(2 * algorithm.digest_size + 2):
        with pytest.raises(signing.DecryptionFailed, match="too short for OAEP"):
            signing.unpad_oaep(bytes(size), algorithm, algorithm)
    with pytest.raises(signing.DecryptionFailed, match="no OAEP padding"):
        signing.unpad_oaep(bytes(2 * algorithm.digest_size + 2), algorithm, algorithm)
    for size in range(8):
        with pytest.raises(signing.DecryptionFailed):
            signing.unpad_pkcs1_v15(b"\x00\x02" + b"\x01" * size + b"\x00message")
    assert signing.unpad_pkcs1_v15(b"\x00\x02" + b"\x01" * 8 + b"\x00message") == b"message"
    for size in (0, 1, 6, 31, 32, 33, 64, 100):
        assert len(signing.mgf1(b"seed", size, algorithm)) == size
        assert signing.mgf1(b"seed", 100, algorithm).startswith(signing.mgf1(b"seed", size, algorithm))
