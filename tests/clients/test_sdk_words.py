"""Words for people: what cannot be put off, and how operations ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cardwright_clients.cli.watch import _words
from cardwright_clients.sdk.values import (
    Due,
    DueChanged,
    DueItem,
    Operation,
    OperationChanged,
    OperationKind,
    Outcome,
    Phase,
)
from cardwright_clients.sdk.words import ended, mandatory_words

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
ITEM = (DueItem("renewal"),)


@pytest.mark.parametrize(
    ("due", "words"),
    [
        (Due(ITEM), ""),
        (Due(mandatory_from=NOW - DAY), ""),
        (Due(ITEM, mandatory_from=NOW - DAY), "It is mandatory and cannot be put off."),
        (Due(ITEM, mandatory_from=NOW - DAY, begins_at=NOW), "It is mandatory: it begins by itself."),
        (Due(ITEM, mandatory_from=NOW + DAY), f"From {NOW + DAY:%Y-%m-%d} on it cannot be put off."),
        (
            Due(ITEM, mandatory_from=NOW + DAY, begins_at=NOW + DAY),
            f"From {NOW + DAY:%Y-%m-%d} on it begins by itself.",
        ),
    ],
)
def test_what_cannot_be_put_off_is_said(due: Due, words: str) -> None:
    assert mandatory_words(due) == words
    line = _words(DueChanged("1", due), {"1": "card 7"})
    assert line is not None and line.startswith("due        card 7: ") and line.endswith(words)


def test_more_than_was_agreed_to_is_said() -> None:
    again = Operation("1", OperationKind.UPDATE, "1", "reader", Phase.DONE, 100, outcome=Outcome.SHOWN_AGAIN)
    assert ended(again) == "More is due than was agreed to. Nothing was done; it is shown again."
    assert _words(OperationChanged(again), {"1": "card 7"}) == f"operation  card 7: {ended(again)}"


def test_what_began_by_itself_is_said() -> None:
    begun = Operation("1", OperationKind.UPDATE, "1", "reader", Phase.PROMPTING, unasked=True)
    assert _words(OperationChanged(begun), {}) == "operation  reader: update (mandatory) 0 %, prompting"
