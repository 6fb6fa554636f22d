"""How often a card session commits, and what: exact, from the statements; docs/cost.md says why each is its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.unit import Database
from tests.support.fault_world import JOBS, make_fault_world
from tests.support.sessions import Station

_WRITTEN = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)")
OPEN, STAGE, KEY, ORDERS, DONE = "open", "stage", "key to the archive", "before signatures", "release"
COMMITS = {
    "issue": [OPEN, STAGE, KEY, ORDERS, STAGE, ORDERS, STAGE, DONE],
    "update": [OPEN, STAGE, KEY, KEY, ORDERS, ORDERS, STAGE, DONE],
    "unlock": [OPEN, STAGE, DONE],
}
"""An issuance has three stages that write, one of them with an escrowed key. An update has two; it makes one escrowed
key, and gives the old one again."""


def kind_of(tables: set[str], first: bool) -> str:
    """What a commit is, by the tables that it writes to."""
    if first:
        return OPEN
    if "card_session_transition" in tables and "outbox" in tables and "card_record" in tables:
        return DONE
    if "card_session" in tables:
        return STAGE
    return KEY if "escrow_release" in tables else ORDERS


@contextmanager
def commits(database: Database) -> Iterator[list[set[str]]]:
    """The tables that each commit wrote to."""
    seen: list[set[str]] = []
    now: set[str] = set()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if told := _WRITTEN.match(statement):
            now.add(told[1])

    def commit(_connection: object) -> None:
        if now:
            seen.append(set(now))
        now.clear()

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "commit", commit)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)
        event.remove(engine, "commit", commit)


@pytest.mark.parametrize("job", list(COMMITS))
async def test_each_stage_commits_once_and_once_more_before_each_signature(
    job: str, tmp_path: Path, sqlite_template: Path
) -> None:
    here = await make_fault_world("yubikey-5.7", job, tmp_path / "world", sqlite_template)
    wanted, card = await JOBS[job](here)
    with commits(here.database) as seen:
        async with here.serving(wanted.principal) as socket:
            trip = await here.session(wanted, Station(card), socket)
    assert trip.outcome == sessions_pb2.OUTCOME_DONE
    assert [kind_of(tables, place == 0) for place, tables in enumerate(seen)] == COMMITS[job]
    for tables in seen:
        # A signature is kept with the stage that writes its certificate, never with what is signed.
        assert not ({"issued_certificate", "card_key"} <= tables) or "card_session" in tables
    await here.close()
