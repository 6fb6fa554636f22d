"""How sessions find their request, what a failed one is to it, what a card came with, and a second life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.model import Derivation, DeviceState, Lot, SecretName, SecretSource
from cardwright_server.devices.stock import Delivered, SecretSealer
from cardwright_server.policies.model import DeviceKind
from cardwright_server.requests.model import RequestState
from cardwright_server.sessions import store
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station

QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
LOT_KEY, LOT_PUK, LOT_PIN = bytes(range(0x40, 0x58)), b"86420975", b"975310"


async def made(open_database: Callable[..., Database], folder: Path, *changes: tuple[str, str]) -> SessionWorld:
    return await make_session_world(open_database(), folder, "civ", (*QUICK, *changes))


async def test_a_bound_blank_card_needs_no_request_s_name(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await made(open_database, tmp_path), blank()
    device = await world.bound(card)
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        other = await Station(blank(serial=5)).run(socket)
        assert other.error == "SESSION_WITHOUT_REQUEST"
        cut = await Station(card).run(socket, cut=4)
        assert cut.outcome == 0
        card.power_off()
        # The card shows a card UUID now that the device gets when its issuance is finished.
        while (trip := await Station(card).run(socket)).error == "CARD_IN_SESSION":
            await asyncio.sleep(0)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert (await world.world.request(request.id)).state is RequestState.DONE
    world.issuing.core.close()


@ON_SQLITE
async def test_plan_of_a_request_stays_the_same_until_it_is_begun(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """So that consent to the first covers the second: the card UUID is in the contents that were shown."""
    world, card = await made(open_database, tmp_path), blank()
    device = await world.bound(card)
    await world.world.issuance(device)
    shown = []
    async with world.serving(world.office(device)) as socket:
        for _ in range(2):
            while (trip := await Station(card).run(socket, cut=2)).error == "CARD_IN_SESSION":
                await asyncio.sleep(0)
            assert trip.preview is not None
            shown.append({row.tag: row.digest for row in trip.preview.contents})
    assert shown[0] and shown[0] == shown[1]
    world.issuing.core.close()


@ON_SQLITE
async def test_what_a_card_can_never_do_ends_its_request(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """It takes no key from outside, which the policy wants for 9D."""
    world, card = await made(open_database, tmp_path), blank("sp800-73-5")
    device = await world.bound(card)
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        trip = await Station(card).run(socket, request=str(request.id))
    assert trip.error == "CAPABILITY_MISSING"
    assert (await world.world.request(request.id)).state is RequestState.FAILED
    assert await world.world.state(device) is DeviceState.FAILED
    world.issuing.core.close()


@ON_SQLITE
async def test_what_another_station_may_do_leaves_the_request_to_be_tried_again(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    change = ('clear_secrets = "any"', 'clear_secrets = "trusted_station"')
    world, card = await made(open_database, tmp_path, change), blank()
    device = await world.bound(card)
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        trip = await Station(card).run(socket, request=str(request.id))
        assert trip.error == "CLEAR_SECRETS_REFUSED"
        assert (await world.world.request(request.id)).state is RequestState.RETRYABLE
        refused = await Station(card, agrees=False).run(socket, request=str(request.id))
        assert refused.error == "CLEAR_SECRETS_REFUSED"
        world.stations.every = True
        trip = await Station(card).run(socket, request=str(request.id))
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert await world.world.state(device) is DeviceState.ISSUED
    world.issuing.core.close()


@ON_SQLITE
@pytest.mark.parametrize("cut", [None, 3, 4, 5])
async def test_a_lot_s_own_secrets_are_replaced(
    open_database: Callable[..., Database], tmp_path: Path, cut: int | None
) -> None:
    world = await made(open_database, tmp_path)
    card, device = of_lot(blank()), await delivered(world)
    async with world.serving(world.office(device)) as socket:
        request = str((await world.world.issuance(device)).id)
        if cut is not None:
            assert (await Station(card).run(socket, request=request, cut=cut)).outcome == 0
            card.power_off()
        while (trip := await Station(card).run(socket, request=request)).error == "CARD_IN_SESSION":
            await asyncio.sleep(0)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    memory = json.loads(card.snapshot())
    assert memory["management"]["value"] != LOT_KEY.hex().upper()
    assert memory["references"]["81"]["value"] != LOT_PUK.hex().upper()
    assert not memory["references"]["80"]["value"].startswith(LOT_PIN.hex().upper())
    assert memory["references"]["81"]["tries"] == memory["references"]["81"]["maximum"]
    world.issuing.core.close()


@ON_SQLITE
async def test_another_life_has_a_journal_of_its_own_and_new_generations(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await made(open_database, tmp_path), blank()
    device = await world.bound(card)
    assert (await world.issue(card, device)).error == ""
    first = await journal(world, device, 1)
    second = await journal(world, device, 2)
    assert {row.kind.name for row in second.entries} == {"MANAGEMENT_KEY", "MANAGEMENT_KEY_SET", "PUK", "PUK_SET"}
    assert second.last == first.last > len(second.entries)
    keys = await world.database.read(lambda unit: store.keys(unit, world.org, device, 2))
    objects = await world.database.read(lambda unit: store.objects(unit, world.org, device, 2))
    assert (keys, objects) == ((), {})
    world.issuing.core.close()


async def journal(world: SessionWorld, device: UUID, life: int) -> store.Journal:
    return await world.database.read(lambda unit: store.records(unit, world.org, device, life))


async def delivered(world: SessionWorld) -> UUID:
    """A bound device of a lot whose cards all have the same three secrets."""
    sealer, owner, one = SecretSealer(world.issuing.vault), new_id(), Delivered(new_id(), "12345678")
    secrets = {
        SecretName.MANAGEMENT_KEY: Secret(LOT_KEY),
        SecretName.PUK: Secret(LOT_PUK),
        SecretName.PIN: Secret(LOT_PIN),
    }
    sealed = await sealer.seal(world.org, owner, secrets)
    lot = Lot(owner, world.org, "lot", DeviceKind.SMART_CARD, SecretSource.CONSTANT, Derivation.NONE)
    person = await world.person()

    async def work(unit: Unit) -> None:
        free, issuer = world.world.free, world.world.issuer
        await free.stock.register_lot(unit, issuer, lot, sealed)
        await free.stock.register(unit, issuer, DeviceKind.SMART_CARD, [one], owner)
        await world.world.services.devices.bind(unit, issuer, one.id, person.id)

    await world.database.transact(work)
    return one.id


def of_lot(card: VirtualCard) -> VirtualCard:
    """The card with the lot's secrets in the place of the factory's."""
    memory = json.loads(card.snapshot())
    memory["management"] |= {"value": LOT_KEY.hex().upper(), "default": False}
    assert memory["management"]["algorithm"] == ManagementAlgorithm.AES192
    for reference, value in (("80", LOT_PIN.ljust(8, b"\xff")), ("81", LOT_PUK)):
        memory["references"][reference] |= {"value": value.hex().upper(), "default": False}
    return VirtualCard.restore(json.dumps(memory).encode())


@ON_SQLITE
async def test_a_card_does_not_stand_for_a_phone(open_database: Callable[..., Database], tmp_path: Path) -> None:
    kinds = ('"virtual-card", "pkcs11-token"', '"virtual-card", "phone"')
    world, card = await made(open_database, tmp_path, kinds), blank()
    device = await world.bound(card, kind=DeviceKind.PHONE)
    request, before = await world.world.issuance(device), card.snapshot()
    async with world.serving(world.office(device)) as socket:
        assert (await Station(card).run(socket, request=str(request.id))).error == "SESSION_OTHER_CARD"
    assert card.snapshot() == before
    world.issuing.core.close()
