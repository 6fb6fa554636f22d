"""Algorithm identifiers and key references of the card edge (SP 800-78-5 tables 6-10, vendor additions)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Algorithm(IntEnum):
    """P1 of GENERAL AUTHENTICATE and the mechanism of GENERATE ASYMMETRIC KEY PAIR."""

    TDES_ZERO = 0x00
    TDES = 0x03
    RSA3072 = 0x05
    RSA1024 = 0x06
    RSA2048 = 0x07
    AES128 = 0x08
    AES192 = 0x0A
    AES256 = 0x0C
    P256 = 0x11
    P384 = 0x14
    RSA4096 = 0x16
    CS2 = 0x27
    CS7 = 0x2E
    ED25519 = 0xE0
    X25519 = 0xE1


RSA_BITS: Final[dict[int, int]] = {
    Algorithm.RSA1024: 1024,
    Algorithm.RSA2048: 2048,
    Algorithm.RSA3072: 3072,
    Algorithm.RSA4096: 4096,
}
"""Modulus size of each RSA identifier."""

EC_OCTETS: Final[dict[int, int]] = {Algorithm.P256: 32, Algorithm.P384: 48, Algorithm.CS2: 32, Algorithm.CS7: 48}
"""Octets of one coordinate of each elliptic-curve identifier."""

SYMMETRIC_OCTETS: Final[dict[int, int]] = {
    Algorithm.TDES: 24,
    Algorithm.AES128: 16,
    Algorithm.AES192: 24,
    Algorithm.AES256: 32,
}
"""Key octets of each algorithm a management key can have."""

SUITES: Final = frozenset((Algorithm.CS2, Algorithm.CS7))
"""Secure messaging cipher suites: the only algorithms of key 04."""

GLOBAL_PIN: Final = 0x00
SM_KEY: Final = 0x04
PIN: Final = 0x80
PUK: Final = 0x81
FINGERS: Final = (0x96, 0x97)
PAIRING_CODE: Final = 0x98
PIV_AUTHENTICATION: Final = 0x9A
MANAGEMENT_KEY: Final = 0x9B
SIGNATURE: Final = 0x9C
KEY_MANAGEMENT: Final = 0x9D
CARD_AUTHENTICATION: Final = 0x9E
RETIRED: Final = frozenset(range(0x82, 0x96))
ATTESTATION: Final = 0xF9

PRIMARY: Final = frozenset((PIV_AUTHENTICATION, SIGNATURE, KEY_MANAGEMENT, CARD_AUTHENTICATION))
AGREEMENT: Final = RETIRED | {KEY_MANAGEMENT}
"""Slots whose elliptic-curve keys agree on secrets; the other slots sign (SP 800-73-5 part 1 table 4)."""


def same_cipher(algorithm: int) -> int:
    """The identifier under which a cipher is kept: 00 and 03 both name 3TDEA."""
    return Algorithm.TDES if algorithm == Algorithm.TDES_ZERO else algorithm
