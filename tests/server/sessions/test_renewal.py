"""What sessions leave on the list of what is due: the end of certificates, and versions of the policy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices import store as devices
from cardwright_server.devices.due import Due, DueList, What
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.databases import Clock
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import reader

QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
DONE, NOTHING_DUE = sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE


async def issued(world: SessionWorld) -> tuple[VirtualCard, UUID]:
    world.stations.every = True
    card = blank()
    device = await world.bound(card)
    assert (await world.issue(card, device)).error == ""
    card.power_off()
    return card, device


async def due(world: SessionWorld, device: UUID) -> Due:
    return await world.database.read(lambda unit: DueList().due(unit, world.org, device))


async def version_of(world: SessionWorld, device: UUID) -> int | None:
    found = await world.database.read(lambda unit: devices.by_id(unit, world.org, device))
    assert found is not None
    return found.policy_number


def ends(card: VirtualCard) -> dict[Slot, datetime]:
    """When the certificates on the card end, by their slots."""
    seen = run(observe(EVERYTHING), reader(card))
    card.power_off()
    return {one.slot: one.not_after for one in seen.certificates}


async def test_issuance_notes_when_certificates_are_to_be_renewed(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path, "civ", QUICK)
    card, device = await issued(world)
    first = min(ends(card).values())
    found = await due(world, device)
    assert (found.what, found.until) == ((), first - timedelta(days=30))


async def test_a_version_of_the_policy_is_carried_out_without_a_request(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path, "civ", QUICK)
    card, device = await issued(world)
    before = ends(card)
    await world.publish(*QUICK, ('slot = "9c"\nalgorithm = "p256"', 'slot = "9c"\nalgorithm = "p384"'))
    assert [one.what for one in (await due(world, device)).what] == [What.POLICY]
    trip = await world.update(card, device)
    card.power_off()
    assert (trip.error, trip.outcome) == ("", DONE)
    seen = run(observe(EVERYTHING), reader(card))
    card.power_off()
    key = seen.key(Slot.SIGNATURE)
    assert key is not None
    assert key.algorithm == Algorithm.P384
    assert ends(card).keys() == before.keys()
    assert (await due(world, device)).what == ()
    assert await version_of(world, device) == 2
    trip = await world.update(card, device)
    assert (trip.error, trip.outcome) == ("", NOTHING_DUE)


async def test_a_version_that_wants_nothing_else_of_the_card_is_settled_by_a_look(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path, "civ", QUICK)
    card, device = await issued(world)
    await world.publish(*QUICK, ("max_devices = 2", "max_devices = 3"))
    keys = ends(card)
    trip = await world.update(card, device)
    card.power_off()
    assert (trip.error, trip.outcome) == ("", DONE)
    assert ends(card) == keys
    assert (await due(world, device)).what == ()
    assert await version_of(world, device) == 2


async def test_renewal_is_due_from_the_window_on_and_not_before(
    open_database: Callable[..., Database], clock: Clock, tmp_path: Path
) -> None:
    clock.now = datetime.now(UTC)
    world = await make_session_world(open_database(clock=clock), tmp_path, "civ", QUICK)
    card, device = await issued(world)
    first = min(ends(card).values())
    clock.now = first - timedelta(days=30, seconds=1)
    assert (await due(world, device)).what == ()
    clock.advance(seconds=1)
    (renewal,) = (await due(world, device)).what
    assert (renewal.what, renewal.ends_at) == (What.RENEWAL, first)


@pytest.mark.parametrize("days", [60, 1090])
async def test_what_ends_with_the_card_is_not_renewed(
    open_database: Callable[..., Database], tmp_path: Path, days: int
) -> None:
    card_ends, window = f"validity_days = {days}", f"renew_before_days = {days - 1}"
    replacing = (("validity_days = 1826", card_ends), ("renew_before_days = 30", window))
    world = await make_session_world(open_database(), tmp_path, "civ", (*QUICK, *replacing))
    card, device = await issued(world)
    last = ends(card)
    found = await due(world, device)
    assert (found.what, found.until) == ((), min(last.values()))
    trip = await world.update(card, device)
    card.power_off()
    assert (trip.error, trip.outcome) == ("", NOTHING_DUE)
    assert ends(card) == last
