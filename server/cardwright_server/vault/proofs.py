"""Which connections of administrators proved the credential a moment ago, so that not each request pays for it."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

LASTS: Final = 60.0
"""Seconds from the proof; requests do not make it last longer."""


class Peer:
    """One connection, as long as it lives."""


@dataclass(frozen=True, slots=True)
class _Proof:
    key: bytes
    tag: bytes
    ends: float


class Proofs:
    """Every request of an administrator carries the credential. Trying a passphrase is costly on purpose, so that
    guessing is: a request that carries the very octets which its own connection proved is spared that.

    What is remembered is a MAC of the credential under a key of its own. It goes with its connection, and all of them
    go when the vault is locked or the credential changed.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._made: WeakKeyDictionary[Peer, _Proof] = WeakKeyDictionary()

    def __len__(self) -> int:
        """Connections that proved it."""
        return len(self._made)

    def hold(self, peer: Peer | None, credential: bytes) -> bool:
        """Whether this connection proved this credential, and not too long ago."""
        proof = None if peer is None else self._made.get(peer)
        if peer is None or proof is None:
            return False
        if self._now() >= proof.ends:
            del self._made[peer]
            return False
        return hmac.compare_digest(hmac.digest(proof.key, credential, "sha256"), proof.tag)

    def note(self, peer: Peer | None, credential: bytes) -> None:
        """This connection has just proved this credential."""
        if peer is not None:
            key = os.urandom(32)
            self._made[peer] = _Proof(key, hmac.digest(key, credential, "sha256"), self._now() + LASTS)

    def forget(self) -> None:
        """Nobody has proved anything."""
        self._made.clear()
