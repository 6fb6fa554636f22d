"""What the guard knows of a session: values that are replaced, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Final

from .permit import Identity, Permit, no_keys

UNREAD: Final = b""
"""Stands for the fingerprint of a key that is on the card and that the guard has not seen."""


class Application(Enum):
    """Which application takes the next command."""

    UNKNOWN = "unknown"
    PIV = "PIV"
    DOMAIN = "security domain"


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds for certain when the items so far did what they should.

    ``done`` counts what was carried out of each entry, ``made`` are slots whose key was made in this session,
    ``written`` the objects written in it, ``keys`` the fingerprints of keys by slot, ``factory`` the references that
    the card said, or must have put, at their factory value.
    """

    done: tuple[int, ...]
    application: Application = Application.UNKNOWN
    made: frozenset[int] = frozenset()
    written: frozenset[int] = frozenset()
    keys: Mapping[int, bytes] = field(default_factory=no_keys, hash=False)
    factory: frozenset[int] = frozenset()

    def meet(self, other: Facts) -> Facts:
        """What holds in both cases."""
        slots = self.keys.keys() | other.keys.keys()
        keys = {
            slot: one if (one := self.keys.get(slot)) == other.keys.get(slot) and one is not None else UNREAD
            for slot in slots
        }
        return Facts(
            tuple(map(min, self.done, other.done)),
            self.application if self.application is other.application else Application.UNKNOWN,
            self.made & other.made,
            self.written & other.written,
            MappingProxyType(keys),
            self.factory & other.factory,
        )

    def with_key(self, slot: int, key: bytes | None) -> Facts:
        """The key of ``slot`` is now the one with this fingerprint; None: it is gone."""
        keys = {other: one for other, one in self.keys.items() if other != slot}
        if key is not None:
            keys[slot] = key
        return replace(self, keys=MappingProxyType(keys))


@dataclass(frozen=True, slots=True)
class State:
    """One session of one permit on one card.

    ``used`` counts what may have been carried out of each entry. ``stage`` is the open transaction, in which the
    card has ``proven`` itself or not, and in which ``pin`` says whether a PIN status may stand. ``card_key`` is the
    SubjectPublicKeyInfo that 9E must prove now, ``guids`` the card UUIDs that the CHUID may hold. ``factory_tries``
    counts factory values that were sent to a card that did not say so, ``proofs`` free proofs. ``lost`` is the reason
    why nothing more is allowed.
    """

    permit: Permit
    identity: Identity
    domains: frozenset[bytes]
    facts: Facts
    used: tuple[int, ...]
    guids: frozenset[bytes | None]
    card_key: bytes | None
    stage: str = ""
    proven: bool = False
    pin: bool = False
    factory_tries: int = 0
    proofs: int = 0
    lost: str = ""

    @classmethod
    def begin(cls, permit: Permit, identity: Identity, domains: frozenset[bytes]) -> State:
        """Nothing has happened yet."""
        none = (0,) * len(permit.entries)
        facts = Facts(none, keys=MappingProxyType(dict(permit.keys)))
        return cls(permit, identity, domains, facts, none, frozenset((identity.guid,)), identity.card_key)

    @property
    def touched(self) -> frozenset[int]:
        """Slots whose key is another than at the preview, or may be."""
        slots = self.facts.keys.keys() | self.permit.keys.keys()
        return frozenset(slot for slot in slots if self.facts.keys.get(slot) != self.permit.keys.get(slot))

    def enter(self, stage: str) -> State:
        """A batch of ``stage`` comes: another transaction unless it is the open one, and then nothing stands."""
        if stage and stage == self.stage:
            return self
        return replace(self.interrupted(), stage=stage)

    def interrupted(self) -> State:
        """Card or line failed, or a transaction ended: no status stands and the card has to prove itself again."""
        facts = replace(self.facts, application=Application.UNKNOWN)
        return replace(self, facts=facts, proven=False, pin=False)

    def spend(self, entry: int, by: int = 1) -> State:
        """``entry`` was used."""
        used = (*self.used[:entry], self.used[entry] + by, *self.used[entry + 1 :])
        return replace(self, used=used)

    def open_rank(self) -> int | None:
        """The rank of the entries that come next, None when all are done."""
        left = (
            entry.rank
            for entry, done in zip(self.permit.entries, self.facts.done, strict=True)
            if entry.rank is not None and not entry.optional and not done
        )
        return min(left, default=None)
