"""The guard: what may be sent, what was learned. Pure: a state and a batch in, a verdict or a state out.

A batch is judged before anything of it is sent, on the assumption that its items do what they should, and only as
far as that is certain: what an item brings about counts for later ones only where they cannot be reached without
it, which is the rest of its group, or of the batch where the group is essential.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ..iso7816.status import SW
from ..program.items import Answer, Answers, AnyBatch, Apdu, Item, Outcome, SealedBatch, SealedItem
from .effects import NOT_FOUND, absent, doubted, learned, nothing_happened, sent, succeeded
from .intents import Intent, meaning_of
from .permit import Identity, Permit
from .rules import decide
from .sealed import sealed_meaning
from .state import State
from .verdict import Deny, Rule

_OK_ONLY: Final = frozenset((0x9000,))


@dataclass(frozen=True, slots=True)
class Allowed:
    """The whole batch may go. ``proof``: the card must have proved itself in the batch's transaction first."""

    proof: bool


Verdict = Allowed | Deny


def begin(
    permit: Permit, identity: Identity, *, plan: bytes | None = None, domains: frozenset[bytes] = frozenset()
) -> State | Deny:
    """The state at the start of a session.

    ``plan`` is the SHA-256 of the plan that the server says it executes, None where it only reads; ``domains``
    the AIDs of security domains that local configuration allows.
    """
    if permit.entries and (plan is None or not hmac.compare_digest(plan, permit.plan)):
        return Deny(Rule.PLAN, "the plan is not the one that was previewed")
    return State.begin(permit, identity, domains)


def judge(state: State, batch: AnyBatch) -> Verdict:
    """Whether ``batch`` may be sent: all of it or nothing."""
    if state.lost:
        return Deny(Rule.PLAN, state.lost)
    state = state.enter(batch.stage)
    proof = False
    index = 0
    for group, essential in _groups(batch):
        before = state.facts
        for item in group:
            intent = _meaning(item)
            if isinstance(intent, Deny):
                return replace(intent, index=index)
            decision = decide(state, intent, item)
            if isinstance(decision, Deny):
                return replace(decision, index=index)
            if decision.proof and not batch.stage:
                return Deny(Rule.PLAN, "only a stage changes a card: nothing may come in between", index)
            proof = proof or decision.proof
            state = sent(state, intent, decision.entry)
            if _only_ok(item):
                state = succeeded(state, intent, decision.entry)
            index += 1
        if not essential:
            state = replace(state, facts=state.facts.meet(before))
    return Allowed(proof)


def observe(state: State, batch: AnyBatch, answers: Answers) -> State:
    """The state after ``answers`` to a batch that was allowed."""
    state = state.enter(batch.stage)
    for (group, _), group_answers in zip(_groups(batch), answers, strict=True):
        for item, answer in zip(group, group_answers, strict=True):
            state = _observed(state, item, answer)
            if answer.cause is not None and answer.sw is None:
                state = state.interrupted()
    return state


def _observed(state: State, item: Item | SealedItem, answer: Answer) -> State:
    intent = _meaning(item)
    if answer.outcome is Outcome.NOT_SENT or isinstance(intent, Deny):
        return state
    decision = decide(state, intent, item)
    if isinstance(decision, Deny):
        # It was allowed under more cautious assumptions, so this is not the batch that was judged.
        return replace(state, lost="the answers do not fit the batch that was allowed")
    before, entry = state, decision.entry
    state = sent(state, intent, entry)
    if answer.outcome is Outcome.IN_DOUBT or answer.sw is None:
        return doubted(state, intent)
    if answer.sw != SW.OK:
        if nothing_happened(intent, answer.sw):
            return absent(before, intent) if answer.sw == NOT_FOUND else before
        return doubted(state, intent)
    return learned(succeeded(state, intent, entry), intent, answer.data)


def _meaning(item: Item | SealedItem) -> Intent | Deny:
    if isinstance(item, SealedItem):
        return sealed_meaning(item)
    return meaning_of(item.command) if isinstance(item, Apdu) else item


def _only_ok(item: Item | SealedItem) -> bool:
    """Whether what follows in the group is reached only after 9000; key and sealed items end it otherwise."""
    return not isinstance(item, Apdu) or item.accept == _OK_ONLY


def _groups(batch: AnyBatch) -> Iterator[tuple[tuple[Item, ...] | tuple[SealedItem, ...], bool]]:
    if isinstance(batch, SealedBatch):
        yield batch.items, True
        return
    for group in batch.groups:
        yield group.items, group.essential

