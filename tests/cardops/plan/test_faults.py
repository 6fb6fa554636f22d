"""Both faults at every APDU of card init: one more run with the same inputs reaches the goal."""

from __future__ import annotations

from contextlib import suppress
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.records import MemoryJournal
from cardwright_simulators.card import Verify
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.card_init import CASES, Case


@pytest.mark.parametrize("fault", ["apdu={0}+:remove", "apdu={0}:remove-after,apdu={1}+:remove", "apdu={0}:lost"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_more_run_reaches_the_goal(case: Case, fault: str) -> None:
    for number in count(1):
        card, journal = case.card(), MemoryJournal()
        faulty = FaultyCard(card, fault.format(number, number + 1))
        try:
            case.run(faulty, journal)
        except CardwrightError as error:
            assert error.explain()
        if not faulty.struck:
            assert number > 20
            break
        card.power_off()
        case.run(card, journal)
        assert case.faults_of(card, journal) == [], f"after a fault at APDU {number}"
        tries = [record for record in card.log if isinstance(record, Verify) and not record.ok]
        assert all(record.tries_left > 0 for record in tries)
        assert len(tries) <= 1
        assert case.run(card, journal).done == (), f"not finished after a fault at APDU {number}"


EFFECTS = ("remove", "remove-after", "lost", "unsent", "sw=6F00", "full", "truncate", "reset", "select")


@given(
    st.sampled_from(sorted(CASES)),
    st.lists(st.tuples(st.integers(4, 60), st.sampled_from(EFFECTS)), min_size=1, max_size=4),
)
def test_any_number_of_bad_sessions_before_a_good_one(name: str, bad: list[tuple[int, str]]) -> None:
    case = CASES[name]
    card, journal = case.card(), MemoryJournal()
    for number, effect in bad:
        with suppress(CardwrightError):
            case.run(FaultyCard(card, f"apdu={number}:{effect}"), journal)
        card.power_off()
    case.run(card, journal)
    assert case.faults_of(card, journal) == []
    assert case.run(card, journal).done == ()
