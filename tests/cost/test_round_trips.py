"""How often a session crosses the line, counted between workstation and server by what neither of them is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.unit import Database
from tests.support.delay import delayed_socket
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import blank, make_session_world
from tests.support.sessions import Station, fresh_card, make_office, policy, serving

ONE_WAY = 0.1
"""Seconds. More than what lies between two messages that go together; only that makes counts what they are."""


@ON_SQLITE
async def test_a_full_issuance_takes_five_round_trips_and_nothing_due_one(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """Four keys, one of them escrowed; CHUID, CCC, Key History, Security Object; PUK, PIN, management key."""
    world, card = await make_session_world(open_database(), tmp_path, "civ"), blank()
    device = await world.bound(card)
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        async with delayed_socket(socket, ONE_WAY) as line:
            trip = await Station(card).run(line.address, request=str(request.id))
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
        assert line.round_trips == 5
        async with delayed_socket(socket, ONE_WAY) as line:
            trip = await Station(card).run(line.address, sessions_pb2.PURPOSE_UPDATE)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_NOTHING_DUE)
        assert line.round_trips == 1
    world.issuing.core.close()


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_renewal_of_two_certificates_takes_four_round_trips(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path, short=frozenset({"9A", "9C"})), fresh_card()
    async with serving(database, office) as socket:
        await Station(card).run(socket)
        office.short, office.policy = frozenset(), policy(renew=60)
        async with delayed_socket(socket, ONE_WAY) as line:
            trip = await Station(card).run(line.address, sessions_pb2.PURPOSE_UPDATE)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert line.round_trips == 4
