"""Which key in 9E a card has to prove, so that it is the one that the books are about."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.piv.algorithms import PublicKey
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity, Inventory
from cardwright_cardops.plan.records import Records
from cardwright_cardops.plan.steps import Plan, SetPuk

from .errors import CardNotProven
from .model import CardKey, Purpose
from .ports import Task

_SLOT = Slot.CARD_AUTHENTICATION
_MOST_CARD_KEYS = 4
"""Keys of 9E that a preview names, as the contract has it."""


def prover_for(
    task: Task, plan: Plan, card: Inventory, records: Records, keys: Sequence[CardKey], *, goes_on: bool
) -> PublicKey | None:
    """The key by which the card has to prove itself first; None where its word is enough. ``goes_on``: by the proof of
    a session that broke off. Raises CardNotProven.
    """
    rotates = task.rotate_puk and any(isinstance(step, SetPuk) for step in plan.steps)
    if task.purpose.unlocks or rotates:
        return prover_of(task, keys)
    if task.purpose is Purpose.RECYCLE:
        return _erased_by(task, card, records, keys)
    rests = goes_on or task.purpose is Purpose.LOCK
    return prover_of_rest(card.identity, records, keys, tells=card.features.metadata is True) if rests else None


def prover_of(task: Task, keys: Sequence[CardKey]) -> PublicKey:
    """The key by which the card proves itself before a PUK is released (S3). Raises CardNotProven."""
    if not task.unlockable:
        raise CardNotProven("A PUK is released only for a device that is issued, without hold or incident.")
    mine = _of_card(keys)
    if not mine:
        raise CardNotProven("This card was issued without a key in 9E to prove itself by.")
    return _loaded(mine[-1])


def prover_of_rest(
    identity: Identity, records: Records, keys: Sequence[CardKey], *, tells: bool
) -> PublicKey | None:
    """The key by which the card of a session that broke off proves that it is the one; ``tells``: it tells its keys.

    None where that key was in the middle of being made anew and nobody heard of it: such a card proves its management
    key before anything else is done (``resuming`` asks that it has one of its own). Raises CardNotProven.
    """
    mine = _of_card(keys)
    if _SLOT in records.generating:
        known = next((row for row in mine if tells and row.fingerprint == identity.card_key), None)
        return None if known is None else _loaded(known)
    if not mine:
        raise CardNotProven("This card was issued without a key in 9E to prove itself by.")
    return _loaded(mine[-1])


def prover_at_goal(
    task: Task, card: Inventory, records: Records, keys: Sequence[CardKey], *, goes_on: bool
) -> PublicKey | None:
    """The same for a card to which nothing has to be done any more. Raises CardNotProven."""
    if task.purpose is Purpose.LOCK:
        return prover_of_rest(card.identity, records, keys, tells=card.features.metadata is True)
    return prover_shown(card.identity, keys) if goes_on else None


def prover_shown(identity: Identity, keys: Sequence[CardKey]) -> PublicKey:
    """The key that a card shows in 9E, where it is one that this card was issued with. Raises CardNotProven."""
    known = next((row for row in _of_card(keys) if row.fingerprint == identity.card_key), None)
    if known is None:
        raise CardNotProven("The card does not show a key in 9E that it was issued with.")
    return _loaded(known)


def made_unseen(card: Inventory, records: Records, keys: Sequence[CardKey]) -> tuple[tuple[bytes, ...], bool]:
    """What the workstation has to know of the key in 9E, to know the card again by it: see ``Showing``."""
    if card.features.metadata or _SLOT not in records.generating:
        return (), False
    made = [row.public_key for row in _of_card(keys) if row.fingerprint != card.identity.card_key]
    return tuple(made[-_MOST_CARD_KEYS:][::-1]), True


def _erased_by(task: Task, card: Inventory, records: Records, keys: Sequence[CardKey]) -> PublicKey | None:
    """The key of a card that is erased: another card, which only says that it is this one, would go to stock for it.

    A card that was never in use, or is erased already, need not have one; a key that was made and not certified is not
    known here. Raises CardNotProven.
    """
    mine = {row.fingerprint: row for row in _of_card(keys)}
    shown = card.identity.card_key
    begun = _SLOT in records.generating or records.resetting or records.reset
    if shown in mine and not begun:
        return _loaded(mine[shown])
    if mine and task.was_issued and not begun:
        raise CardNotProven("The card does not show the key in 9E that it was issued with.")
    return None


def _of_card(keys: Sequence[CardKey]) -> list[CardKey]:
    return [row for row in keys if row.slot is _SLOT]


def _loaded(row: CardKey) -> PublicKey:
    """Raises CardNotProven."""
    key = load_der_public_key(row.public_key)
    if not isinstance(key, PublicKey):
        raise CardNotProven("This card was issued without a key in 9E to prove itself by.")
    return key
