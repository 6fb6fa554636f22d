"""Recorded sessions with every field, order and item changed: the card's own log shows nothing beyond the permit.

Each mutant is executed through the guard at its place in a live session. Where the guard refuses, the card must
not have seen a single command; where it allows, the honest rest of the session follows, and then the card's log
and state are compared with what the preview showed. The guard's own answer is never the judge.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.program.items import Answers, Batch, ItemRefused
from tests.support import guarded as g
from tests.support.batch_mutants import Change, kinds_with

IMPORTED = ec.generate_private_key(ec.SECP256R1())
ISSUED = g.issue()
BATCHES = 6


@dataclass
class Place:
    """A live session just before its batch number ``index``."""

    index: int

    def __post_init__(self) -> None:
        self.refused = self.allowed = 0
        self.restart()

    def restart(self) -> None:
        """The session again from its start."""
        self.bench = g.bench(ISSUED, IMPORTED)
        self.program = g.session(IMPORTED)
        self.batch = next(self.program)
        for _ in range(self.index):
            self.batch = self.program.send(self.bench.execute(self.batch))

    def attempt(self, change: Change, what: str) -> None:
        """Execute a mutant of this place's batch, and judge by the card."""
        card = self.bench.card
        seen = card.apdu_count, len(card.log)
        try:
            answers = self.bench.execute(change(self.batch))
        except ItemRefused:
            assert (card.apdu_count, len(card.log)) == seen, what
            self.refused += 1
            return
        self.allowed += 1
        self.rest(answers)
        assert g.beyond(self.bench) == [], what
        self.restart()

    def rest(self, answers: Answers) -> None:
        """The rest of the session, until the honest server has no use for the answers, or the guard none for it."""
        with contextlib.suppress(StopIteration, CardwrightError, IndexError, ValueError):
            while True:
                answers = self.bench.execute(self.program.send(answers))


def recorded() -> list[Batch]:
    """The batches of one honest session on another copy of the card."""
    bench, program = g.bench(ISSUED, IMPORTED), g.session(IMPORTED)
    batches: list[Batch] = []
    answers: Answers | None = None
    while True:
        try:
            batch = next(program) if answers is None else program.send(answers)
        except StopIteration:
            return batches
        answers = bench.local.execute(batch)
        batches.append(batch)


KINDS = kinds_with(recorded())


def test_honest_session_is_allowed_whole() -> None:
    bench, program = g.bench(ISSUED, IMPORTED), g.session(IMPORTED)
    batch, count = next(program), 1
    with pytest.raises(StopIteration):
        while True:
            answers = bench.execute(batch)
            assert all(answer.ok for one in answers for answer in one)
            batch = program.send(answers)
            count += 1
    bench.guarded.end_stage()
    assert count == BATCHES
    assert g.beyond(bench) == []
    state = bench.guarded.state
    # The ranked operations once each, then management key, PIN twice, two requests.
    assert state.facts.done == state.used == (*[1] * 10, 1, 2, 1, 1)


@pytest.mark.parametrize("index", range(BATCHES))
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_do_nothing_beyond_the_permit(kind: str, index: int) -> None:
    place = Place(index)
    for what, change in KINDS[kind](place.batch):
        place.attempt(change, f"{kind}: {what}")


def test_witness_sees_what_the_guard_prevents() -> None:
    """The same mutants without the guard: for each kind there are some that the card's log tells of."""
    felt: dict[str, int] = dict.fromkeys(KINDS, 0)
    for kind, index in itertools.product(KINDS, (2, 4, 5)):
        mutants = list(KINDS[kind](Place(index).batch))
        for _, change in mutants[:: len(mutants) // 25 + 1]:
            place = Place(index)
            with contextlib.suppress(ItemRefused, ValueError):  # without the guard nobody looks at the size of a PUK
                place.bench.execute(change(place.batch), guarded=False)
            felt[kind] += g.beyond(place.bench) != []
    assert {kind for kind, times in felt.items() if times} >= {
        "headers", "contents", "key_item_mutants", "orders", "structures", "strangers"
    }  # fmt: skip
    assert sum(felt.values()) > 60
