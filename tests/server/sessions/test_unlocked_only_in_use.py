"""A device that goes out of use while its unlocking goes on gets no PUK and no new PIN (S3), and no request is left."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.due import What
from cardwright_server.devices.model import DeviceState, Disposition, Reason
from cardwright_server.requests.errors import RequestNotPossible
from cardwright_server.requests.model import GIVEN_BACK, RequestKind, RequestState
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip, a_workstation, on_message

LOCK, ASSISTED = sessions_pb2.PURPOSE_LOCK, sessions_pb2.PURPOSE_UNLOCK_ASSISTED
DONE = sessions_pb2.OUTCOME_DONE
NEW_PIN = b"271828"
CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
ENDS: dict[str, tuple[tuple[Any, ...], dict[str, Any], DeviceState]] = {
    "suspend": ((), {"lock_card": True}, DeviceState.SUSPENDED),
    "report_incident": ((Reason.LOST,), {}, DeviceState.INVALID),
    "terminate": ((Reason.NOT_NEEDED, Disposition.NOT_COLLECTED), {}, DeviceState.TERMINATED),
}


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    made = await make_session_world(open_database(), tmp_path, "civ", CURVES)
    yield made
    made.issuing.core.close()


async def to_be_unlocked(here: SessionWorld) -> tuple[VirtualCard, UUID, Principal, UUID]:
    """A card in use, who has it, and the help desk's request to unlock it."""
    card = blank()
    device = await here.bound(card)
    here.stations.every = True
    assert (await here.issue(card, device)).outcome == DONE
    here.stations.every = False
    card.power_off()
    requests, world = here.world.services.requests, here.world
    asked = await here.database.transact(lambda unit: requests.create_unlock(unit, world.helper, device))
    person = (await world.device(device)).person
    assert person is not None
    found = await here.database.read(lambda unit: world.services.people.person(unit, here.org, person))
    return card, device, await world.proven(found, Method.LDAP_PASSWORD), asked.request.id


async def call(here: SessionWorld, name: str, device: UUID, *rest: Any, **named: Any) -> None:
    method, helper = getattr(here.world.services.devices, name), here.world.helper
    await here.database.transact(lambda unit: method(unit, helper, device, *rest, **named))


async def session(here: SessionWorld, card: VirtualCard, purpose: int, caller: Principal, **station: Any) -> Trip:
    async with here.serving(here.office(UUID(int=0)), caller) as socket:
        return await Station(card, **station).run(socket, sessions_pb2.Purpose.ValueType(purpose))


async def due(here: SessionWorld, device: UUID) -> list[What]:
    found = await here.database.read(lambda unit: here.world.services.due.due(unit, here.org, device))
    return [one.what for one in found.what]


def secrets(card: VirtualCard) -> Any:
    return json.loads(card.snapshot())["references"]


@ON_SQLITE
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("end", list(ENDS))
async def test_no_puk_leaves_for_what_went_out_of_use_meanwhile(here: SessionWorld, end: str, number: int) -> None:
    """Before consent, before the card was looked at, before it proved itself."""
    card, device, holder, asked = await to_be_unlocked(here)
    before, (rest, named, state) = secrets(card), ENDS[end]
    act = on_message(number, lambda: call(here, end, device, *rest, **named))
    trip = await session(here, card, ASSISTED, holder, pin=NEW_PIN, before=act)
    assert (trip.error, secrets(card)) == ("CARD_NOT_IN_USE", before)
    assert (await here.world.device(device)).state is state
    assert (await here.world.request(asked)).state is RequestState.CANCELLED
    assert What.REQUEST not in await due(here, device)


@ON_SQLITE
async def test_the_request_of_a_card_that_is_given_back_is_not_the_one_that_was_cut(here: SessionWorld) -> None:
    """That one ends within ten minutes of when it was made; the new one waits for a card that is elsewhere."""
    card, device, holder, asked = await to_be_unlocked(here)
    suspending = on_message(2, lambda: call(here, "suspend", device, lock_card=True))
    assert (await session(here, card, ASSISTED, holder, pin=NEW_PIN, before=suspending)).error == "CARD_NOT_IN_USE"
    card.power_off()
    assert (await session(here, card, LOCK, a_workstation(here.org))).outcome == DONE
    await call(here, "resume", device)
    (request,) = await here.world.open_requests(device)
    assert request.id != asked and request.kind is RequestKind.UNLOCK
    assert request.expires_at is not None and request.expires_at - request.created_at == GIVEN_BACK
    card.power_off()
    assert (await session(here, card, ASSISTED, holder, pin=NEW_PIN)).outcome == DONE
    assert not (await here.world.device(device)).card_locked


@ON_SQLITE
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("end", list(ENDS))
async def test_a_request_to_unlock_ends_with_the_card_and_its_holder_is_told_why(
    here: SessionWorld, end: str, named: bool
) -> None:
    """The help desk's request was open when the card was reported: no word of a copy, and nothing is left to do."""
    card, device, holder, asked = await to_be_unlocked(here)
    rest, words, state = ENDS[end]
    await call(here, end, device, *rest, **words)
    assert (await here.world.request(asked)).state is RequestState.CANCELLED
    assert not {What.REQUEST, What.UNLOCK} & set(await due(here, device))
    before = secrets(card)
    async with here.serving(here.office(UUID(int=0)), holder) as socket:
        trip = await Station(card, pin=NEW_PIN).run(socket, ASSISTED, request=str(asked) if named else "")
    assert (trip.error, secrets(card)) == ("CARD_NOT_IN_USE", before)
    assert (await here.world.device(device)).state is state
    with pytest.raises(RequestNotPossible):
        requests, helper = here.world.services.requests, here.world.helper
        await here.database.transact(lambda unit: requests.create_unlock(unit, helper, device))
