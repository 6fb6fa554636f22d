"""The permit: what the person saw and agreed to, bound to one card and one plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from .operations import Act, ImportKey, MakeKey, Operation, act_of


def no_keys() -> Mapping[int, bytes]:
    """The default: no slot has a key."""
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """The card as it was at the preview.

    ``guid`` is the card UUID of its CHUID, None without a CHUID; ``serial`` the number that GET SERIAL NUMBER
    answers, None for a card that has no such command; ``card_key`` the DER SubjectPublicKeyInfo of 9E, None for a
    card that cannot prove itself.
    """

    guid: bytes | None
    serial: int | None
    card_key: bytes | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation of a permit.

    Entries with a rank are done once, in the order of their ranks (those of one rank in any order), with at most
    ``times`` attempts; one that is not ``optional`` must be done before any of a higher rank begins. Entries of rank
    None are done at any time, at most ``times`` times.
    """

    operation: Operation
    rank: int | None
    times: int = 1
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Permit:
    """What one plan may do to one card.

    ``plan`` is the SHA-256 of the previewed plan. ``keys`` are the fingerprints of the keys on the card as the
    preview showed them, by slot. ``confirmed`` are the acts for which the person typed the confirmation.
    ``sealed`` allows batches whose content this side cannot read: only their headers are then bound. A permit
    without entries allows reading only.
    """

    plan: bytes
    entries: tuple[Entry, ...] = ()
    keys: Mapping[int, bytes] = field(default_factory=no_keys, hash=False)
    confirmed: frozenset[Act] = frozenset()
    sealed: bool = False

    @property
    def acts(self) -> frozenset[Act]:
        """The acts that a person has to confirm by typing before all of the plan can be done."""
        return frozenset(act for entry in self.entries if (act := act_of(entry.operation)) is not None)


def in_order(*operations: Operation) -> tuple[Entry, ...]:
    """Entries for operations that are done one after another, each once."""
    return tuple(Entry(operation, rank) for rank, operation in enumerate(operations))


def covers(seen: Permit, fresh: Permit, touched: frozenset[int]) -> bool:
    """Whether the consent to ``seen`` extends to ``fresh``, made for the rest after a session broke off.

    All of ``fresh`` must be in ``seen``, ranks in the same order. A key may be overwritten that ``seen`` does not name
    where its slot is in ``touched``: the session itself put it there, or may have (``State.touched``).
    """
    if not fresh.confirmed <= seen.confirmed or (fresh.sealed and not seen.sealed):
        return False
    free = [entry for entry in seen.entries if entry.rank is None]
    ranked = iter(sorted((entry for entry in seen.entries if entry.rank is not None), key=_rank))
    wanted = sorted((entry for entry in fresh.entries if entry.rank is not None), key=_rank)
    return all(any(_same(old, new, touched) for old in ranked) for new in wanted) and all(
        any(_same(old, new, touched) for old in free) for new in fresh.entries if new.rank is None
    )


def _rank(entry: Entry) -> int:
    return entry.rank or 0


def _same(old: Entry, new: Entry, touched: frozenset[int]) -> bool:
    if new.times > old.times:
        return False
    one, two = old.operation, new.operation
    match two:
        case MakeKey(slot=slot) | ImportKey(slot=slot) if type(one) is type(two) and slot in touched:
            return replace(one, replaces=None) == replace(two, replaces=None)
    return one == two


def canonical(document: Any) -> bytes:
    """The one JSON text of ``document``: members sorted, no spaces, UTF-8. Raises ValueError for what is not plain."""
    _only_plain(document)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(document: Any) -> bytes:
    """The SHA-256 that binds a session to a plan, over its canonical JSON. Raises ValueError."""
    return hashlib.sha256(canonical(document)).digest()


def _only_plain(value: Any) -> None:
    # Floats have more than one spelling, and mappings with other keys than text collide when they are written.
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, list):
        for one in value:
            _only_plain(one)
        return
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for one in value.values():
            _only_plain(one)
        return
    raise ValueError(f"a plan holds no {type(value).__name__}")
