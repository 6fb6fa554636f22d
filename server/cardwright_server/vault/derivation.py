"""Keys derived from masters: SP 800-108 in counter mode, built from single AES-CMACs so that an HSM can do them.

The octets are those of ``cardwright_cardops.globalplatform.diversification``, which the tests compare.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cardwright_cardops.globalplatform.diversification import LABEL, CardContext, KeyPurpose

from .errors import VaultRefused
from .model import CommitPurpose, MasterPurpose

Cmac: TypeAlias = Callable[[bytes], bytes]
"""AES-CMAC under one master key."""

_RECORD_LABEL = b"cardwright.sealed-record.1"
_COMMIT_LABEL = b"cardwright.commitment.1"
_SALT = 16
_NONCE = 12
_PUK_OCTETS = 16


def derive(cmac: Cmac, label: bytes, context: bytes, size: int) -> bytes:
    """KBKDF in counter mode: counter and length of 4 octets, counter first."""
    fixed = label + b"\0" + context + (size * 8).to_bytes(4, "big")
    blocks = (cmac(count.to_bytes(4, "big") + fixed) for count in range(1, -(-size // 16) + 1))
    return b"".join(blocks)[:size]


def card_key(cmac: Cmac, purpose: KeyPurpose, card: CardContext, size: int) -> bytes:
    """A card's key. Raises Scp03KeyInvalid for a context that cannot be encoded."""
    return derive(cmac, LABEL, card.encode(purpose), size)


def card_puk(cmac: Cmac, card: CardContext) -> bytes:
    """Eight digits: a derived number of 128 bits modulo 10^8."""
    number = int.from_bytes(card_key(cmac, KeyPurpose.PUK, card, _PUK_OCTETS), "big")
    return f"{number % 10**8:08d}".encode()


def seal(cmac: Cmac, purpose: MasterPurpose, version: int, plain: bytes, aad: bytes) -> bytes:
    """AES-256-GCM under a key of this record alone: salt, nonce, ciphertext and tag."""
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    bound = _bound(purpose, version, aad)
    return salt + nonce + AESGCM(_record_key(cmac, salt, bound)).encrypt(nonce, plain, bound)


def unseal(cmac: Cmac, purpose: MasterPurpose, version: int, sealed: bytes, aad: bytes) -> bytes:
    """The opposite. Raises VaultRefused."""
    salt, nonce, rest = sealed[:_SALT], sealed[_SALT : _SALT + _NONCE], sealed[_SALT + _NONCE :]
    if len(rest) < 16:
        raise VaultRefused("sealed", "The sealed item is too short.")
    bound = _bound(purpose, version, aad)
    try:
        return AESGCM(_record_key(cmac, salt, bound)).decrypt(nonce, rest, bound)
    except InvalidTag:
        raise VaultRefused("sealed", "The sealed item was changed, or belongs to something else.") from None


def commitment(cmac: Cmac, purpose: CommitPurpose, values: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """HMAC-SHA-256 of each value."""
    key = derive(cmac, _COMMIT_LABEL, purpose.value.encode(), 32)
    return tuple(hmac.digest(key, value, hashlib.sha256) for value in values)


def fields(*values: bytes) -> bytes:
    """Values joined so that no two lists give the same octets: each after its length in 4 octets."""
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)


def _bound(purpose: MasterPurpose, version: int, aad: bytes) -> bytes:
    return fields(purpose.value.encode(), version.to_bytes(4, "big"), aad)


def _record_key(cmac: Cmac, salt: bytes, bound: bytes) -> bytes:
    return derive(cmac, _RECORD_LABEL, salt + hashlib.sha256(bound).digest(), 32)
