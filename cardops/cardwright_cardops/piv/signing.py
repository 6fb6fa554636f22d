"""What goes into GENERAL AUTHENTICATE for a signature or a decryption, and what comes out.

The card does the bare private-key operation only (SP 800-73-5 part 2 appendix A.4, A.5): padding and hashing
happen here. RSA paddings follow RFC 8017 section 9.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.hazmat.primitives import constant_time, hashes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ..errors import CardwrightError
from ..iso7816.tlv import MalformedTlv, parse_one
from .algorithms import Algorithm, KeyKind

_DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
}
"""DER DigestInfo up to the digest (RFC 8017 section 9.2 note 1)."""


class BlockTooLarge(CardwrightError):
    """A hash, message or ciphertext that the key is too small for."""

    code = "BLOCK_TOO_LARGE"
    default_effect = "Nothing was sent to the card."
    default_advice = "Use a larger key or a shorter hash."


class DecryptionFailed(CardwrightError):
    """The decrypted block is not a padded message: wrong key or damaged ciphertext."""

    code = "DECRYPTION_FAILED"
    default_effect = "The card is as before."
    default_advice = "Check that the message was encrypted to this certificate."


def digest(data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    """The hash of ``data``."""
    context = hashes.Hash(algorithm)
    context.update(data)
    return context.finalize()


def pkcs1_v15_block(hashed: bytes, algorithm: hashes.HashAlgorithm, size: int) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2): ``size`` octets. Raises BlockTooLarge."""
    prefix = _DIGEST_INFO.get(algorithm.name)
    if prefix is None:
        raise BlockTooLarge(f"PKCS #1 v1.5 signatures with {algorithm.name} are not made.")
    info = prefix + hashed
    if size < len(info) + 11:
        raise BlockTooLarge(f"A {algorithm.name} signature does not fit a key of {size * 8} bits.")
    return b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info


def pss_block(
    hashed: bytes,
    algorithm: hashes.HashAlgorithm,
    key_bits: int,
    salt_octets: int,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """EMSA-PSS with MGF1 of the same hash (RFC 8017 section 9.1.1). Raises BlockTooLarge."""
    bits = key_bits - 1
    size = (bits + 7) // 8
    if size < algorithm.digest_size + salt_octets + 2:
        raise BlockTooLarge(f"A {algorithm.name} PSS signature does not fit a key of {key_bits} bits.")
    salt = random(salt_octets)
    seal = digest(bytes(8) + hashed + salt, algorithm)
    plain = bytes(size - salt_octets - len(seal) - 2) + b"\x01" + salt
    masked = bytearray(_xor(plain, mgf1(seal, len(plain), algorithm)))
    masked[0] &= 0xFF >> (8 * size - bits)
    block = bytes(masked) + seal + b"\xbc"
    return block.rjust((key_bits + 7) // 8, b"\x00")


def mgf1(seed: bytes, size: int, algorithm: hashes.HashAlgorithm) -> bytes:
    """Mask generation function 1 (RFC 8017 appendix B.2.1)."""
    blocks = -(-size // algorithm.digest_size)
    return b"".join(digest(seed + index.to_bytes(4, "big"), algorithm) for index in range(blocks))[:size]


def ecdsa_block(hashed: bytes, key: Algorithm) -> bytes:
    """The leftmost octets of the hash that the curve takes (FIPS 186-5 section 6.4.1)."""
    return hashed[: key.octets]


def message_block(message: bytes, key: Algorithm, hash_algorithm: hashes.HashAlgorithm) -> bytes:
    """What the card signs of ``message`` in the default way of ``key``: PKCS #1 v1.5, ECDSA or Ed25519."""
    if key.kind is KeyKind.ED25519:
        return message
    hashed = digest(message, hash_algorithm)
    return pkcs1_v15_block(hashed, hash_algorithm, key.octets) if key.kind is KeyKind.RSA else ecdsa_block(hashed, key)


def default_hash(key: Algorithm) -> hashes.SHA256 | hashes.SHA384:
    """The hash that goes with a key (SP 800-78-5 table 3): SHA-384 with P-384, else SHA-256."""
    return hashes.SHA384() if key is Algorithm.P384 else hashes.SHA256()


def signature_of(raw: bytes, key: Algorithm) -> bytes:
    """The signature in the form X.509 and CMS use. Raises DecryptionFailed for what cannot be one."""
    if key.kind is KeyKind.RSA:
        return raw.rjust(key.octets, b"\x00")
    if key.kind is KeyKind.EC:
        return _strict_dss(raw)
    return raw


def _strict_dss(raw: bytes) -> bytes:
    """DER Ecdsa-Sig-Value again with minimal integers: a few cards pad or strip octets."""
    try:
        body = parse_one(raw, 0x30).value
        first_size = body[1]
        r = int.from_bytes(body[2 : 2 + first_size], "big")
        second = body[2 + first_size :]
        if body[0] != 0x02 or second[0] != 0x02 or second[1] != len(second) - 2:
            raise ValueError("not two integers")
        return encode_dss_signature(r, int.from_bytes(second[2:], "big"))
    except (MalformedTlv, ValueError, IndexError) as error:
        raise DecryptionFailed(f"The card's answer is no ECDSA signature: {error}.") from error


def unpad_pkcs1_v15(block: bytes) -> bytes:
    """The message in an EME-PKCS1-v1_5 block (RFC 8017 section 7.2.2). Raises DecryptionFailed."""
    separator = block.find(b"\x00", 2)
    if block[:2] != b"\x00\x02" or separator < 10:
        raise DecryptionFailed("The decrypted block has no PKCS #1 v1.5 padding.")
    return block[separator + 1 :]


def unpad_oaep(
    block: bytes, algorithm: hashes.HashAlgorithm, mask_hash: hashes.HashAlgorithm, label: bytes = b""
) -> bytes:
    """The message in an EME-OAEP block (RFC 8017 section 7.1.2). Raises DecryptionFailed."""
    size = algorithm.digest_size
    if len(block) < 2 * size + 2:
        raise DecryptionFailed("The decrypted block is too short for OAEP.")
    masked_seed, masked_data = block[1 : 1 + size], block[1 + size :]
    seed = _xor(masked_seed, mgf1(masked_data, size, mask_hash))
    data = _xor(masked_data, mgf1(seed, len(masked_data), mask_hash))
    start = data.find(b"\x01", size)
    padding = data[size:start]
    whole = block[0] == 0 and start >= 0 and not any(padding)
    if not (constant_time.bytes_eq(data[:size], digest(label, algorithm)) and whole):
        raise DecryptionFailed("The decrypted block has no OAEP padding of this kind.")
    return data[start + 1 :]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
