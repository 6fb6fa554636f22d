"""A card that goes out of use while it is updated or made anew: nothing more is written, and the rest waits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.model import DeviceState
from cardwright_server.issuance.model import CertificateState
from cardwright_server.requests.model import RequestState
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip, on_message

REISSUE, DONE = sessions_pb2.PURPOSE_REISSUE, sessions_pb2.OUTCOME_DONE
NEW_PIN = b"271828"
CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    """One organization; certificates, archive and requests are the real ones."""
    made = await make_session_world(open_database(), tmp_path, "civ", CURVES)
    yield made
    made.issuing.core.close()


async def blocked(here: SessionWorld) -> tuple[VirtualCard, UUID]:
    """A card in use that is to be made anew, and whose holder spent every try of its PIN."""
    card = blank()
    device = await here.bound(card)
    assert (await here.issue(card, device)).outcome == DONE
    card.power_off()
    card.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    while card.transmit(bytes.fromhex("0020008008303030303030FFFF")) != b"\x69\x83":
        pass
    card.power_off()
    requests, issuer = here.world.services.requests, here.world.issuer
    await here.database.transact(lambda unit: requests.create_reissue(unit, issuer, device))
    return card, device


async def made_anew(here: SessionWorld, card: VirtualCard, caller: Principal, **station: object) -> Trip:
    async with here.serving(here.office(UUID(int=0)), caller) as socket:
        return await Station(card, pin=NEW_PIN, **station).run(socket, REISSUE)  # type: ignore[arg-type]


async def act(here: SessionWorld, name: str, device: UUID) -> None:
    method = getattr(here.world.services.devices, name)
    await here.database.transact(lambda unit: method(unit, here.world.helper, device))


@ON_SQLITE
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_card_held_meanwhile_gets_nothing_more_until_it_is_back(here: SessionWorld, number: int) -> None:
    card, device = await blocked(here)
    references = json.loads(card.snapshot())["references"]
    suspending = on_message(number, lambda: act(here, "suspend", device))
    trip = await made_anew(here, card, here.world.issuer, before=suspending)
    assert trip.error == "CARD_NOT_IN_USE"
    assert json.loads(card.snapshot())["references"] == references
    assert (await here.world.device(device)).state is DeviceState.SUSPENDED
    (request,) = await here.world.open_requests(device)
    assert request.state in (RequestState.READY, RequestState.RETRYABLE)
    await act(here, "resume", device)
    card.power_off()
    assert (await made_anew(here, card, here.world.issuer)).outcome == DONE
    assert (await here.world.device(device)).state is DeviceState.ISSUED
    assert CertificateState.HELD not in {one.state for one in await here.certificates_of(device)}
