"""What the guard says of an item."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Rule(Enum):
    """The rules of docs/guard.md."""

    PLAN = "G2"
    """The session, the plan and the card are the ones of the preview."""
    ITEM = "G3"
    """The item is one that the preview showed, in its order and count."""
    FLOOR = "G4"
    """What no plan lifts."""
    PIN = "G5"
    """PIN, PUK and factory values."""
    KEY = "G6"
    """What card keys sign."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Refused: the rule, why (our own words, no octet of the item), and which item of the batch."""

    rule: Rule
    reason: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Allow:
    """Allowed. ``entry`` is the place of the permit's entry that pays for it, None for what is free.

    ``proof``: the card must have proved itself in this transaction before.
    """

    entry: int | None = None
    proof: bool = False


Decision = Allow | Deny
