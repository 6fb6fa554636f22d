"""card init on fresh cards of every kind, judged by the raw memory of the card."""

from __future__ import annotations

import pytest

from cardwright_cardops.plan.records import MemoryJournal
from tests.support.card_init import CASES, Case


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_fresh_card_becomes_good_and_stays_so(case: Case) -> None:
    card, journal = case.card(), MemoryJournal()
    report = case.run(card, journal)
    assert case.faults_of(card, journal) == []
    assert report.done
    before = card.state_hash()
    again = case.run(card, journal)
    assert again.done == ()
    assert card.state_hash() == before
