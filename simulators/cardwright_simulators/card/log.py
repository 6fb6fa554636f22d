"""The card's private log: what really happened inside, for tests that need a witness."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Selected:
    """An application was selected (``found``) or asked for in vain."""

    aid: bytes
    found: bool


@dataclass(frozen=True, slots=True)
class Verify:
    """A secret was compared: VERIFY, CHANGE REFERENCE DATA or the PUK of RESET RETRY COUNTER."""

    reference: int
    ok: bool
    tries_left: int


@dataclass(frozen=True, slots=True)
class ManagementAuthentication:
    """A host proved, or failed to prove, the management key."""

    ok: bool


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A private key worked; ``digest`` is the SHA-256 of the octets given to it."""

    slot: int
    algorithm: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class ProtectedRead:
    """An object that is not free to read was read."""

    tag: int


@dataclass(frozen=True, slots=True)
class Write:
    """Persistent content changed. ``number`` is the tag, slot or reference; ``kind`` says which.

    Kinds: object, object deleted, key generated, key imported, key moved, key deleted, reference,
    management key, retries, factory reset, channel keys, access.
    """

    kind: str
    number: int


Record = Selected | Verify | ManagementAuthentication | KeyUse | ProtectedRead | Write


def key_use(slot: int, algorithm: int, data: bytes) -> KeyUse:
    """The record of one use of the key in ``slot`` on ``data``."""
    return KeyUse(slot, algorithm, hashlib.sha256(data).digest())
