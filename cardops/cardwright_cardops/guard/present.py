"""Which key of 9E binds a session to its card, where the certificate there may be another key's.

A card that tells nothing of its keys shows a certificate only. When a session broke off between a new key in 9E and its
certificate, that one is of the key before, and no proof by it can ever hold. So the card proves at the preview which of
the keys it holds that were made for it; from then on that key is asked for, as any other (rule G2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from .executor import Executes, GuardRefused
from .identity import NONCE_OCTETS, check_proof, proof_batch
from .permit import Identity, Permit
from .state import State
from .verdict import Deny

MOST_KEYS: Final = 4
_STAGE: Final = "identity"


def present_identity(
    executor: Executes,
    shown: Identity,
    keys: Sequence[bytes],
    *,
    unknown: bool,
    random: Callable[[int], bytes] = os.urandom,
) -> Identity:
    """The card of a preview, with the key in 9E that it proves now; as ``shown`` where nothing better is found.

    ``keys`` (SubjectPublicKeyInfo) are others that were made for it. ``unknown``: one was begun there that nobody saw.
    Then a card that proves none of them is taken for one that cannot prove itself: such a one needs a new preview after
    any reset or removal. Raises the cause of an answer that was lost with the card.
    """
    if shown.card_key is None:
        return shown
    candidates = tuple(dict.fromkeys((shown.card_key, *keys)))[: MOST_KEYS + 1]
    try:
        for key in candidates:
            if _proves(executor, replace(shown, card_key=key), random):
                return replace(shown, card_key=key)
        silent = replace(shown, card_key=None)
        return silent if unknown and _proves(executor, silent, random) else shown
    finally:
        executor.end_stage()


def require_same(
    executor: Executes, state: State, stage: str, random: Callable[[int], bytes] = os.urandom
) -> None:
    """Have the card show, in ``stage`` that goes on, that it is the one of ``state``, by its key in 9E if it has one.

    Raises GuardRefused, and the cause of an answer that was lost.
    """
    nonce = random(NONCE_OCTETS)
    (answers,) = executor.execute(proof_batch(state, stage, nonce))
    for answer in answers:
        if answer.cause is not None:
            raise answer.cause
    checked = check_proof(state, answers, nonce)
    if isinstance(checked, Deny):
        raise GuardRefused(checked)


def _proves(executor: Executes, identity: Identity, random: Callable[[int], bytes]) -> bool:
    """Whether the card shows this UUID and number, and proves this key, if there is one."""
    state, nonce = State.begin(Permit(b""), identity, frozenset()), random(NONCE_OCTETS)
    (answers,) = executor.execute(proof_batch(state, _STAGE, nonce))
    for answer in answers:
        if answer.cause is not None and answer.sw is None:
            raise answer.cause
    return isinstance(check_proof(state, answers, nonce), State)
