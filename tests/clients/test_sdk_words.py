"""Words for people: what cannot be put off, and how operations ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cardwright_cardops.plan.inventory import Identity
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
from cardwright_clients.sdk.words import DUE, due_words, ended, mandatory_words
from cardwright_daemon.link.server import due_of
from cardwright_proto.cms.v1 import sessions_pb2

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


def test_everything_that_a_server_can_call_due_reaches_people_in_words() -> None:
    """From the contract over the daemon to the SDK: no kind is told as something else."""
    told = {}
    for kind in sessions_pb2.DueKind.values():
        if kind == sessions_pb2.DUE_KIND_UNSPECIFIED:
            continue
        answer = sessions_pb2.DueResponse(due=True, proven=True)
        answer.items.add(kind=kind).since.FromDatetime(NOW)
        (item,) = due_of(answer, Identity()).items
        name = sessions_pb2.DueKind.Name(kind).removeprefix("DUE_KIND_").lower().replace("_", "-")
        assert item.what == name
        told[name] = due_words(Due((DueItem(item.what),)))
    assert len(set(told.values())) == len(told) == len(DUE)
    assert "an update is due" not in told.values()


def test_what_there_is_to_start() -> None:
    revoked, renewal, waits = DueItem("revoked"), DueItem("renewal"), DueItem("activation")
    cases = ((), (revoked,), (revoked, renewal), (waits,), (waits, renewal))
    assert [Due(items).is_over for items in cases] == [False, True, False, False, False]
    assert [Due(items).activates for items in cases] == [False, False, False, True, True]
