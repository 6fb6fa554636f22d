"""One person's blank card, issued over a stream and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.sessions.model import Outcome
from cardwright_server.store.unit import Database
from tests.support.sessions import (
    PIN,
    Station,
    commits_of,
    faults_of,
    fresh_card,
    make_office,
    policy,
    secrets_of,
    serving,
)


async def test_a_blank_card_is_issued_in_five_round_trips_and_five_commits(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    async with serving(database, office) as socket:
        with commits_of(database) as commits:
            trip = await Station(card).run(socket)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert [kind for kind in trip.messages if kind not in ("progress", "end_stage")] == [
        "hello",
        "preview",
        *["batch"] * 4,
        "finished",
    ]
    assert (trip.trips, len(commits)) == (5, 5)
    assert trip.percentages == sorted(trip.percentages)
    assert trip.percentages[-1] == 100
    assert await faults_of(card, office, database) == []
    assert office.finished_with == [Outcome.DONE]
    assert {place[0] for place in office.good} == {"9A", "9C", "9D", "9E"}


async def test_the_rules_of_the_policy_for_a_pin_come_with_the_preview(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    office.policy = replace(office.policy, pin=PinRules(7, 8, digits_only=False, refuse_common=False, differs=False))
    async with serving(database, office) as socket:
        trip = await Station(card).run(socket)
    assert trip.preview is not None
    assert trip.preview.pin_rules == sessions_pb2.PinRules(
        min_length=7, max_length=8, digits_only=False, refuse_trivial=True, refuse_common=False, refuse_old=False
    )


async def test_nothing_due_takes_one_round_trip(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    async with serving(database, office) as socket:
        await Station(card).run(socket)
        before = card.snapshot()
        trip = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert (trip.trips, trip.messages) == (1, ["hello", "finished"])
    assert trip.outcome == sessions_pb2.OUTCOME_NOTHING_DUE
    assert card.snapshot() == before


async def test_due_certificates_are_renewed_with_new_keys_and_old_ones_revoked(
    database: Database, tmp_path: Path
) -> None:
    office, card = make_office(tmp_path, short=frozenset({"9A", "9C"})), fresh_card()
    async with serving(database, office) as socket:
        await Station(card).run(socket)
        first = office.good
        office.short, office.policy = frozenset(), policy(renew=60)
        with commits_of(database) as commits:
            trip = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert (trip.trips, len(commits)) == (4, 4)
    assert await faults_of(card, office, database) == []
    assert {place[0] for place in office.good & first} == {"9D", "9E"}
    assert {office.states[place] for place in first - office.good} == {"revoked"}


async def test_no_secret_is_in_the_database(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    async with serving(database, office) as socket:
        await Station(card).run(socket)
    puk, keys = await secrets_of(office, database)
    text = ""
    async with database.engine.connect() as connection:
        from cardwright_server.store.tables import load

        for table in load().sorted_tables:
            text += repr((await connection.execute(table.select())).all())
    assert "1.1" in text
    for secret in (PIN, puk, *keys):
        assert secret not in text.encode()
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text


async def test_a_late_authority_s_certificates_are_written_later_for_the_same_keys(
    database: Database, tmp_path: Path
) -> None:
    office, card = make_office(tmp_path, late=True), fresh_card()
    async with serving(database, office) as socket:
        trip = await Station(card).run(socket)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_PENDING)
        assert {place[0] for place in office.good} == {"9D"}
        before = card.snapshot()
        waiting = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
        assert (waiting.outcome, card.snapshot()) == (sessions_pb2.OUTCOME_NOTHING_DUE, before)
        office.late = False
        last = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert (last.error, last.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert json.loads(card.snapshot())["keys"] == json.loads(before)["keys"]
    assert await faults_of(card, office, database) == []
