"""What is said of counters: who can help, and how many tries there are."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.pins import AlreadyBlocked, LastTry
from cardwright_cardops.piv.references import PinReference

NAMES = {PinReference.PIN: "PIN", PinReference.GLOBAL_PIN: "Global PIN", PinReference.PUK: "PUK"}


@pytest.mark.parametrize("reference", list(NAMES))
def test_a_blocked_value_and_its_way_out(reference: PinReference) -> None:
    error = AlreadyBlocked(reference)
    assert str(error) == f"The {NAMES[reference]} is blocked."
    assert ("issuer" in error.advice) is (reference is not PinReference.PIN)
    assert ("with the PUK" in error.advice) is (reference is PinReference.PIN)


@pytest.mark.parametrize(("left", "words"), [(0, "0 tries"), (1, "1 try"), (2, "2 tries"), (15, "15 tries")])
def test_the_last_tries_are_counted(left: int, words: str) -> None:
    error = LastTry(PinReference.PIN, left)
    assert str(error) == f"Only {words} left for the PIN."
    assert error.advice.startswith("Unblock the PIN instead")
