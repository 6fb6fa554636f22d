"""A card is locked only where the vault has its PUK: whatever the policy says by now, nobody could open another one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.due import What
from cardwright_server.people.model import Role
from cardwright_server.policies.document import shipped
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE
from tests.support.people import make_operator
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, a_workstation

LOCK = sessions_pb2.PURPOSE_LOCK
DONE = sessions_pb2.OUTCOME_DONE
CURVES = ('algorithm = "rsa2048"', 'algorithm = "p256"')
LEAVES_PUK = (
    CURVES,
    ('unlock = ["self", "assisted", "operator"]', "unlock = []"),
    ('[[slots]]\nslot = "9a"', '[puk]\nown = false\n\n[[slots]]\nslot = "9a"'),
)


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    """An organization whose policy leaves the PUK to holders."""
    made = await make_session_world(open_database(), tmp_path, "civ", LEAVES_PUK)
    yield made
    made.issuing.core.close()


async def manage_puks(here: SessionWorld) -> None:
    """From now on the policy wants PUKs of the vault, and opens ways of unlocking."""
    author = await make_operator(here.database, here.org, Role.ADMINISTRATOR)
    policies = here.world.services.policies

    async def publish(unit: Unit) -> None:
        draft = await policies.draft(unit, author, shipped("civ").replace(*CURVES))
        await policies.publish(unit, here.world.officer, draft.id)

    await here.database.transact(publish)


@ON_SQLITE
@pytest.mark.parametrize("puk_of_holder", [True, False])
async def test_a_card_without_a_puk_of_the_vault_is_not_locked(here: SessionWorld, puk_of_holder: bool) -> None:
    card = blank()
    device = await here.bound(card)
    here.stations.every = True
    assert (await here.issue(card, device)).outcome == DONE
    if puk_of_holder:
        changed = json.loads(card.snapshot())
        changed["references"]["81"] |= {"default": False, "value": b"87654321".hex()}
        card = VirtualCard.restore(json.dumps(changed).encode())
    await manage_puks(here)
    assert (await here.update(card, device)).outcome == DONE
    here.stations.every = False
    card.power_off()
    devices, helper = here.world.services.devices, here.world.helper
    await here.database.transact(lambda unit: devices.suspend(unit, helper, device, lock_card=True))
    before = card.snapshot()
    async with here.serving(here.office(UUID(int=0)), a_workstation(here.org)) as socket:
        trip = await Station(card).run(socket, LOCK)
    now = await here.world.device(device)
    if puk_of_holder:
        assert (trip.error, card.snapshot(), now.card_locked) == ("CARD_LOCK_UNAVAILABLE", before, False)
        due = await here.database.read(lambda unit: here.world.services.due.due(unit, here.org, device))
        assert [one.what for one in due.what] == [What.LOCK], "the order stands, and is refused"
    else:
        assert (trip.outcome, now.card_locked) == (DONE, True), "the update gave it a PUK of the vault"
