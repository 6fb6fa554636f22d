"""A PUK leaves the vault only for a card that proved itself, a device in use, a request, and a channel that may."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cardwright_server.devices.due import What
from cardwright_server.devices.errors import PukRefused
from cardwright_server.devices.puk import PukOccasion, PukRelease
from cardwright_server.requests.of_device import RequestsOfDevice
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.unit import Database, Unit
from tests.support.lifecycles import World, as_operator, make_world


async def unlocking(world: World) -> tuple[PukRelease, PukOccasion, UUID]:
    device = await world.issued()
    request = (
        await world.database.transact(lambda unit: world.services.requests.create_unlock(unit, world.helper, device.id))
    ).request
    occasion = PukOccasion(request.id, uuid4(), uuid4(), card_proved=True, trusted=True)
    permission = as_operator(world.helper)
    await world.database.transact(
        lambda unit: world.services.requests.start(unit, permission, request.id, occasion.session)
    )
    return PukRelease(world.services.lifecycle, RequestsOfDevice(), world.services.due), occasion, device.id


@pytest.mark.parametrize(
    ("policy", "channel", "refused"),
    [
        ("civ", {}, set()),
        ("civ", {"trusted": False}, set()),
        ("piv", {}, {"CLEAR_CHANNEL"}),
        ("piv", {"sealed": True}, set()),
        ("civ", {"card_proved": False}, {"CARD_NOT_PROVED"}),
        ("civ", {"session": uuid4()}, {"NO_REQUEST"}),
        ("piv", {"card_proved": False, "request": uuid4()}, {"CARD_NOT_PROVED", "NO_REQUEST", "CLEAR_CHANNEL"}),
    ],
)
async def test_conditions(database: Database, policy: str, channel: dict[str, object], refused: set[str]) -> None:
    world = await make_world(database, policy)
    release, occasion, device = await unlocking(world)
    tried = replace(occasion, **channel)  # type: ignore[arg-type]

    async def work(unit: Unit) -> None:
        await release.record(unit, world.helper, device, tried)

    told = select(outbox.c.person).where(outbox.c.name == "device.puk-released")
    if refused:
        with pytest.raises(PukRefused) as error:
            await database.transact(work)
        assert set(error.value.reasons) == refused
        assert await database.read(lambda unit: unit.rows(told)) == []
        return
    await database.transact(work)
    assert len(await database.read(lambda unit: unit.rows(told))) == 1
    found = await database.read(lambda unit: world.services.due.due(unit, world.org, device))
    assert (What.SECRETS in {item.what for item in found.what}) is not tried.sealed


async def test_not_for_a_device_that_is_held(database: Database) -> None:
    world = await make_world(database)
    release, occasion, device = await unlocking(world)

    async def work(unit: Unit) -> None:
        await world.services.devices.suspend(unit, world.helper, device)
        await release.record(unit, world.helper, device, occasion)

    with pytest.raises(PukRefused) as error:
        await database.transact(work)
    assert error.value.reasons == ("NOT_IN_USE",)
