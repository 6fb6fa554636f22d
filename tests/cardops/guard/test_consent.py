"""Consent that lasts: what is left of a plan after a session broke off, and nothing beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cardwright_cardops.guard import Act, Entry, Permit, covers, in_order
from cardwright_cardops.guard import operations as o

KEYS = {0x9A: bytes([0x9A] * 32), 0x9C: bytes([0x9C] * 32)}
PUTS = (o.PutObject(0x5FC102, bytes(32)), o.PutObject(0x5FC109, bytes(31) + b"1"))
MADE = o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A])
WHOLE = Permit(bytes(32), (*in_order(MADE, o.MakeKey(0x9C, 0x11), *PUTS), Entry(o.EnterPin(), None, 2)), KEYS)
NEW = bytes(range(32))
REST: dict[str, tuple[tuple[Entry, ...], bool]] = {
    "all of it": (WHOLE.entries, True),
    "nothing": ((), True),
    "the end": (in_order(*PUTS), True),
    "with gaps": (in_order(MADE, PUTS[1]), True),
    "made again over the key of this session": (in_order(replace(MADE, replaces=NEW), *PUTS), True),
    "made again over nothing": (in_order(replace(MADE, replaces=None)), True),
    "another key overwritten": (in_order(o.MakeKey(0x9C, 0x11, replaces=NEW)), False),
    "another algorithm": (in_order(replace(MADE, algorithm=0x14)), False),
    "weaker": (in_order(replace(MADE, pin_policy=1)), False),
    "imported": (in_order(o.ImportKey(0x9A, 0x11, replaces=KEYS[0x9A])), False),
    "backwards": (in_order(*reversed(PUTS)), False),
    "twice": (in_order(PUTS[0], PUTS[0]), False),
    "more attempts": ((Entry(PUTS[0], 0, 2),), False),
    "something new": (in_order(*PUTS, o.ChangePuk()), False),
    "fewer PINs": ((Entry(o.EnterPin(), None, 1),), True),
    "more PINs": ((Entry(o.EnterPin(), None, 3),), False),
    "another PIN": ((Entry(o.EnterPin(0), None),), False),
    "out of its place": ((Entry(PUTS[0], None),), False),
}


@pytest.mark.parametrize(("entries", "covered"), REST.values(), ids=REST)
def test_consent_covers_what_is_left_and_nothing_else(entries: tuple[Entry, ...], covered: bool) -> None:
    assert covers(WHOLE, Permit(NEW, entries, KEYS), frozenset((0x9A,))) is covered


def test_consent_covers_no_confirmation_that_was_not_typed() -> None:
    confirmed = replace(WHOLE, confirmed=frozenset((Act.RESET,)))
    assert covers(confirmed, WHOLE, frozenset())
    assert not covers(WHOLE, confirmed, frozenset())
    sealed = replace(WHOLE, sealed=True)
    assert covers(sealed, WHOLE, frozenset())
    assert covers(sealed, sealed, frozenset())
    assert not covers(WHOLE, sealed, frozenset())
