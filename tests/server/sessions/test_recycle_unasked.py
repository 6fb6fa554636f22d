"""Virtual cards at their end that come again: the server has them erased by itself, where nothing is against it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from sqlalchemy import update

from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc
from cardwright_server.devices.model import DeviceState, Disposition, Reason
from cardwright_server.issuance.model import CertificateState
from cardwright_server.policies.model import DeviceKind
from cardwright_server.requests.model import Request, RequestKind, RequestState
from cardwright_server.store.devices_tables import device as devices
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.due_questions import asked, proof_of
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip, a_workstation

RECYCLE, DONE = sessions_pb2.PURPOSE_RECYCLE, sessions_pb2.OUTCOME_DONE
CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
FACTORY = ("references", "management", "keys", "objects")
VIRTUAL = DeviceKind.VIRTUAL_CARD
pytestmark = ON_SQLITE


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    made = await make_session_world(open_database(), tmp_path, "civ", CURVES)
    yield made
    made.issuing.core.close()


class Desktop:
    """Somebody's own computer, which is no issuance station."""

    def __init__(self, here: SessionWorld, card: VirtualCard) -> None:
        self.here, self.card = here, card
        self.principal = a_workstation(here.org)

    @asynccontextmanager
    async def server(self, device: UUID) -> AsyncIterator[str]:
        async with self.here.serving(self.here.office(device), self.principal) as socket:
            yield socket

    async def due(self, device: UUID, guid: UUID | None = None) -> sessions_pb2.DueResponse:
        """What the server says of the card, which proves itself where it has a card UUID."""
        proof = b"" if guid is None else proof_of(self.card, guid, datetime.now(UTC))
        self.card.power_off()
        question = asked("" if guid is None else guid, proof, str(self.card.serial))
        async with self.server(device) as socket, grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub: Any = sessions_pb2_grpc.SessionServiceStub(channel)
            answer: sessions_pb2.DueResponse = await stub.Due(question)
        return answer

    async def recycle(self, device: UUID, request: str = "") -> Trip:
        async with self.server(device) as socket:
            trip = await Station(self.card).run(socket, RECYCLE, request=request)
        self.card.power_off()
        return trip


async def issued(here: SessionWorld, card: VirtualCard, kind: DeviceKind = VIRTUAL) -> UUID:
    device = await here.bound(card, kind=kind)
    assert (await here.issue(card, device)).outcome == DONE
    card.power_off()
    return device


async def failed(here: SessionWorld, card: VirtualCard, kind: DeviceKind = VIRTUAL, fault: str = "ins=DB@5") -> UUID:
    """Somebody pulled it in the middle and took the request back."""
    device = await here.bound(card, kind=kind)
    request = await here.world.issuance(device)
    async with here.serving(here.office(device)) as socket:
        assert (await Station(FaultyCard(card, f"{fault}:remove")).run(socket, request=str(request.id))).outcome == 0
    card.power_off()
    requests, issuer = here.world.services.requests, here.world.issuer
    await here.database.transact(lambda unit: requests.cancel(unit, issuer, request.id))
    assert await here.world.state(device) is DeviceState.FAILED
    return device


async def ended(
    here: SessionWorld, device: UUID, reason: Reason = Reason.LEFT, disposition: Disposition = Disposition.COLLECTED
) -> None:
    services, helper = here.world.services.devices, here.world.helper
    await here.database.transact(lambda unit: services.terminate(unit, helper, device, reason, disposition))


async def recyclings(here: SessionWorld, device: UUID) -> list[Request]:
    requests, issuer = here.world.services.requests, here.world.issuer
    return await here.database.read(
        lambda unit: requests.find(unit, issuer, kinds=[RequestKind.RECYCLE], device=device)
    )


def memory(card: VirtualCard) -> dict[str, Any]:
    """What the card keeps."""
    found = json.loads(card.snapshot())
    return {name: found[name] for name in FACTORY}


async def test_one_that_was_ended_is_erased_at_its_holder_s_computer_and_issued_anew(here: SessionWorld) -> None:
    card = blank()
    device, desktop = await issued(here, card), Desktop(here, card)
    guid = (await here.world.device(device)).guid
    assert not (await desktop.due(device, guid)).due and await recyclings(here, device) == []
    await ended(here, device)
    told = await desktop.due(device, guid)
    (request,) = await recyclings(here, device)
    assert (request.state, request.made_by_kind) == (RequestState.READY, "system")
    asked = [(one.purpose, one.request) for one in told.items if one.request]
    assert told.proven and asked == [(RECYCLE, str(request.id))]
    assert [one.id for one in await recyclings(here, device)] == [request.id]
    trip = await desktop.recycle(device, str(request.id))
    assert (trip.error, trip.outcome) == ("", DONE)
    assert memory(card) == memory(blank())
    now = await here.world.device(device)
    assert (now.state, now.life, now.person) == (DeviceState.STOCK, 2, None)
    other, issuer = await here.person("grace"), here.world.issuer
    await here.database.transact(lambda unit: here.world.services.devices.bind(unit, issuer, device, other.id))
    assert (await here.issue(card, device)).outcome == DONE
    card.power_off()
    # The end of its second life is another one.
    await ended(here, device)
    assert (await desktop.recycle(device)).outcome == DONE
    assert [one.state for one in await recyclings(here, device)] == [RequestState.DONE] * 2


@pytest.mark.parametrize("fault", ["ins=DB@1", "ins=DB@5"])
async def test_one_whose_issuance_failed_is_erased(here: SessionWorld, fault: str) -> None:
    """With and without a card UUID, which its device never got."""
    card = blank()
    device, desktop = await failed(here, card, fault=fault), Desktop(here, card)
    shown = [row for row in json.loads(card.snapshot())["objects"] if row.upper() == "5FC102"]
    guid = await written_guid(here, device) if shown else None
    assert (await desktop.due(device, guid)).due
    trip = await desktop.recycle(device)
    assert (trip.error, trip.outcome) == ("", DONE)
    assert memory(card) == memory(blank()) and await here.world.state(device) is DeviceState.STOCK
    assert {one.state for one in await here.certificates_of(device)} <= {CertificateState.REVOKED}


async def written_guid(here: SessionWorld, device: UUID) -> UUID:
    from cardwright_server.sessions import store

    life = await here.database.read(lambda unit: store.records(unit, here.org, device))
    return next(row.guid for row in life.entries if row.guid is not None)


async def test_an_operator_s_no_is_kept(here: SessionWorld) -> None:
    card = blank()
    device, desktop = await issued(here, card), Desktop(here, card)
    guid = (await here.world.device(device)).guid
    await ended(here, device)
    await desktop.due(device, guid)
    (request,) = await recyclings(here, device)
    requests, issuer = here.world.services.requests, here.world.issuer
    await here.database.transact(lambda unit: requests.cancel(unit, issuer, request.id))
    assert [one.request for one in (await desktop.due(device, guid)).items if one.request] == []
    assert (await desktop.recycle(device)).error == "SESSION_WITHOUT_REQUEST"
    assert len(await recyclings(here, device)) == 1
    # Their word is worth more than what the server asks by itself.
    opened = await here.database.transact(lambda unit: requests.create_recycle(unit, issuer, device))
    assert (await desktop.recycle(device, str(opened.request.id))).outcome == DONE


async def test_an_issuance_that_may_go_on_goes_on(here: SessionWorld) -> None:
    card = blank()
    device, desktop = await failed(here, card, fault="ins=DB@1"), Desktop(here, card)
    request = await here.world.issuance(device)
    await desktop.due(device)
    assert (await desktop.recycle(device)).error == "SESSION_WITHOUT_REQUEST"
    assert await recyclings(here, device) == []
    async with here.serving(here.office(device)) as socket:
        assert (await Station(card).run(socket, request=str(request.id))).outcome == DONE


async def test_another_card_that_says_so_is_left_alone(here: SessionWorld) -> None:
    card = blank()
    device = await issued(here, card)
    await ended(here, device)
    raw = json.loads(card.snapshot())
    raw["keys"]["9E"], raw["keys"]["9A"] = raw["keys"]["9A"], raw["keys"]["9E"]
    clone = VirtualCard.restore(json.dumps(raw).encode())
    before = memory(clone)
    assert (await Desktop(here, clone).recycle(device)).error == "CARD_NOT_PROVEN"
    assert memory(clone) == before


async def test_cards_that_operators_have_at_hand_wait_for_them(here: SessionWorld) -> None:
    card = blank()
    device, desktop = await issued(here, card, DeviceKind.SMART_CARD), Desktop(here, card)
    guid = (await here.world.device(device)).guid
    await ended(here, device)
    assert [one.request for one in (await desktop.due(device, guid)).items] == [""]
    assert (await desktop.recycle(device)).error == "SESSION_WITHOUT_REQUEST"
    assert await recyclings(here, device) == []
    requests, issuer = here.world.services.requests, here.world.issuer
    await here.database.transact(lambda unit: requests.create_recycle(unit, issuer, device))
    assert (await desktop.recycle(device)).error == "RECYCLED_ELSEWHERE"


class Undone(Exception):
    """What was tried is not kept."""


def standings() -> Iterator[tuple[DeviceKind, DeviceState, Reason, str]]:
    reasons = (Reason.LEFT, Reason.LOST, Reason.STOLEN, Reason.NONE)
    yield from product(DeviceKind, DeviceState, reasons, ("", Disposition.COLLECTED, Disposition.DESTROYED))


async def test_every_standing_of_a_device(here: SessionWorld) -> None:
    """In whatever way a device came to be so: what the rules say, in their own words."""
    device, wrong = await here.bound(blank()), []
    requests = here.world.services.requests
    for kind, state, reason, disposition in standings():
        asked = False

        async def work(unit: Unit) -> None:
            nonlocal asked
            values = {"kind": kind, "state": state, "reason": reason, "disposition": disposition}  # noqa: B023
            await unit.execute(update(devices).where(devices.c.id == device).values(**values))
            asked = await requests.recycle_unasked(unit, here.org, device) is not None
            raise Undone

        with pytest.raises(Undone):
            await here.database.transact(work)
        over = state in (DeviceState.TERMINATED, DeviceState.FAILED)
        at_hand = reason not in (Reason.LOST, Reason.STOLEN) and disposition != Disposition.DESTROYED
        if asked is not (kind is VIRTUAL and over and at_hand):
            wrong.append((kind, state, reason, disposition, asked))
    assert not wrong
