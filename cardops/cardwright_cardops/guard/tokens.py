"""The guard of sessions on PKCS#11 tokens: the same permit, judged step by step.

A step of a token is typed, so there is nothing to take apart; what the permit allows is the same as for a card, in the
same order and count. Whether it is the same token, whoever carries the steps out makes sure of before each: a token is
found anew by label, serial number, manufacturer and model.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from ..program import token_items as t
from . import constants as c
from . import operations as o
from .keys import Unreadable, certificate_key, fingerprint, private_key
from .permit import Entry, Permit, no_keys
from .verdict import Deny, Rule

MOST_READS: Final = 16
MOST_PROOFS: Final = 4


@dataclass(frozen=True, slots=True)
class TokenGuard:
    """What was permitted, and what of it was done. ``keys``: fingerprints by slot, as they are now.

    ``made``: those of keys that this session made, ``touched``: slots whose key it changed, or may have.
    """

    permit: Permit
    keys: Mapping[int, bytes] = field(default_factory=no_keys)
    made: Mapping[int, bytes] = field(default_factory=no_keys)
    attempts: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    done: frozenset[int] = frozenset()
    touched: frozenset[int] = frozenset()
    reads: int = 0
    proofs: int = 0


def begin_token(permit: Permit, *, plan: bytes | None = None) -> TokenGuard | Deny:
    """The state at the start of a session. ``plan``: SHA-256 of the plan that was agreed to, None while only reading.
    """
    if permit.entries and (plan is None or not hmac.compare_digest(plan, permit.plan)):
        return Deny(Rule.PLAN, "the plan is not the one that was previewed")
    return TokenGuard(permit, permit.keys)


def judge_token(state: TokenGuard, item: t.TokenItem) -> TokenGuard | Deny:
    """The state in which ``item`` is under way, or why it is not carried out.

    It is counted, and what it changes is taken for changed, before it is done: whether it was, ``done_on_token`` says.
    """
    match item:
        case t.ReadToken():
            if state.reads >= MOST_READS:
                return Deny(Rule.ITEM, "the token was read often enough")
            return replace(state, reads=state.reads + 1)
        case t.ProveToken():
            if state.proofs >= MOST_PROOFS:
                return Deny(Rule.KEY, "the token proved itself often enough")
            return replace(state, proofs=state.proofs + 1)
    try:
        place = _entry(state, item)
    except Unreadable as error:
        return Deny(Rule.KEY, f"a key or certificate cannot be read: {error}")
    if isinstance(place, Deny):
        return place
    state = replace(state, attempts={**state.attempts, place: state.attempts.get(place, 0) + 1})
    if isinstance(item, t.MakeTokenKey | t.PutTokenKey | t.RemoveToken):
        state = replace(state, touched=state.touched | {item.slot})
    if isinstance(item, t.MakeTokenKey):
        state = replace(state, made={slot: mark for slot, mark in state.made.items() if slot != item.slot})
    return state


def done_on_token(state: TokenGuard, item: t.TokenItem, data: bytes) -> TokenGuard:
    """The state after ``item`` was done; ``data`` is what it answered."""
    if isinstance(item, t.ReadToken | t.ProveToken):
        return state
    place = next((at for at, entry in enumerate(state.permit.entries) if _pays(state, entry, item)), None)
    if place is not None and state.permit.entries[place].rank is not None:
        state = replace(state, done=state.done | {place})
    match item:
        case t.MakeTokenKey(slot=slot):
            mark = fingerprint(data)
            return replace(state, keys={**state.keys, slot: mark}, made={**state.made, slot: mark})
        case t.PutTokenKey(slot=slot, algorithm=algorithm, key=key):
            return replace(state, keys={**state.keys, slot: fingerprint(private_key(algorithm, key.reveal()))})
        case t.RemoveToken(slot=slot):
            return replace(state, keys={at: mark for at, mark in state.keys.items() if at != slot})
    return state


def _entry(state: TokenGuard, item: t.TokenItem) -> int | Deny:
    """The place of the entry that pays for ``item``. Raises Unreadable."""
    found = [at for at, entry in enumerate(state.permit.entries) if _pays(state, entry, item)]
    if not found:
        return Deny(_RULES.get(type(item), Rule.ITEM), "the preview did not show this step")
    place = next((at for at in found if at not in state.done), None)
    if place is None:
        return Deny(Rule.ITEM, "this step was done already")
    entry = state.permit.entries[place]
    if state.attempts.get(place, 0) >= entry.times:
        return Deny(Rule.PIN if isinstance(item, t.SECRETS) else Rule.ITEM, "this step was tried often enough")
    if entry.rank is not None:
        for at, other in enumerate(state.permit.entries):
            if other.rank is None or other.rank == entry.rank:
                continue
            if other.rank < entry.rank and at not in state.done and not other.optional:
                return Deny(Rule.ITEM, "a step that comes before it was not done")
            if other.rank > entry.rank and state.attempts.get(at):
                return Deny(Rule.ITEM, "a step that comes after it was begun")
    act = o.act_of(entry.operation)
    if act is not None and act not in state.permit.confirmed:
        return Deny(Rule.FLOOR, f"'{act.value}' was not confirmed")
    return _floor(state, item) or place


def _pays(state: TokenGuard, entry: Entry, item: t.TokenItem) -> bool:
    """Whether ``entry`` is about what ``item`` does."""
    match item, entry.operation:
        case (t.SetSoPin(), o.ChangePuk()) | (t.InitPin(), o.UnblockPin()):
            return True
        case t.MakeTokenKey(), o.MakeKey() as made:
            policy = made.pin_policy or c.default_pin_policy(made.slot)
            wants = policy in (c.PIN_ALWAYS, c.MATCH_ALWAYS)
            return (item.slot, item.algorithm) == (made.slot, made.algorithm) and (item.always or not wants)
        case t.PutTokenKey(), o.ImportKey() as brought:
            mark = fingerprint(private_key(item.algorithm, item.key.reveal()))
            same = (item.slot, item.algorithm) == (brought.slot, brought.algorithm)
            return same and brought.key in (None, mark)
        case t.RequestTokenCertificate(), o.RequestCertificate(slot=slot):
            return item.slot == slot
        case t.PutTokenCertificate(), o.PutCertificate(slot=slot):
            return item.slot == slot
        case t.RemoveToken(), o.DeleteKey(slot=slot, replaces=gone):
            return item.slot == slot and item.key == gone.hex()
    return False


def _floor(state: TokenGuard, item: t.TokenItem) -> Deny | None:
    """What no plan lifts. Raises Unreadable."""
    match item:
        case t.MakeTokenKey(slot=slot) | t.PutTokenKey(slot=slot) if slot not in c.SLOTS:
            return Deny(Rule.FLOOR, "there is no such slot")
        case t.PutTokenKey(slot=slot) if slot not in c.IMPORT_SLOTS:
            return Deny(Rule.FLOOR, "only 9D and the retired slots take keys from outside")
        case t.RequestTokenCertificate(slot=slot) if slot not in state.made:
            return Deny(Rule.KEY, "no key was made in this slot in this session")
        case t.PutTokenCertificate(slot=slot, certificate=der):
            if state.keys.get(slot) != fingerprint(certificate_key(der)):
                return Deny(Rule.ITEM, "the certificate is not for the slot's key")
    return None


_RULES: Final = {t.SetSoPin: Rule.PIN, t.InitPin: Rule.PIN, t.RequestTokenCertificate: Rule.KEY}
