"""Other purposes over the same stream: re-issue, a forgotten PIN, and the holder's proof by the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.audit.model import SERVER
from cardwright_server.authentication.model import Assurance, Method
from cardwright_server.devices.model import DeviceState
from cardwright_server.issuance import status
from cardwright_server.issuance.model import RevocationReason
from cardwright_server.machine import Actor
from cardwright_server.requests.model import RequestState
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip, a_workstation, reader

QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
NEW_PIN = b"862095"


async def issued(open_database: Callable[..., Database], folder: Path) -> tuple[SessionWorld, VirtualCard, UUID]:
    world, card = await make_session_world(open_database(), folder, "civ", QUICK), blank()
    device = await world.bound(card)
    assert (await world.issue(card, device)).error == ""
    return world, card, device


def keys_of(card: VirtualCard) -> dict[str, str]:
    """Fingerprints by slot."""
    return {row.slot.label: row.fingerprint for row in run(observe(EVERYTHING), reader(card)).keys}


@pytest.mark.parametrize("cut", [None, 3, 4])
async def test_a_reissue_makes_every_key_anew_once(
    open_database: Callable[..., Database], tmp_path: Path, cut: int | None
) -> None:
    world, card, device = await issued(open_database, tmp_path)
    before = keys_of(card)
    opened = await world.database.transact(
        lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
    )
    async with world.serving(world.office(device)) as socket:
        if cut is not None:
            assert (await Station(card).run(socket, sessions_pb2.PURPOSE_REISSUE, cut=cut)).outcome == 0
            card.power_off()
        while (trip := await Station(card).run(socket, sessions_pb2.PURPOSE_REISSUE)).error == "CARD_IN_SESSION":
            card.power_off()
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
        if cut is None:
            assert trip.trips == 4
        after = keys_of(card)
        assert not set(before.values()) & {mark for slot, mark in after.items() if slot in before}
        assert after["82"] == before["9D"]
        assert (await world.world.request(opened.request.id)).state is RequestState.DONE
        assert await world.world.state(device) is DeviceState.ISSUED
        good = {one.holder.part: one.key for one in await world.certificates_of(device) if one.state == "good"}
        assert good == {slot.lower(): mark for slot, mark in after.items() if slot in before}
        done = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert done.outcome == sessions_pb2.OUTCOME_NOTHING_DUE
    world.issuing.core.close()


@ON_SQLITE
@pytest.mark.parametrize(
    "purpose", [sessions_pb2.PURPOSE_FORGOTTEN_PIN, sessions_pb2.PURPOSE_UNLOCK_ASSISTED], ids=["forgotten", "assisted"]
)
async def test_a_forgotten_pin_is_set_anew_and_the_puk_rotated(
    open_database: Callable[..., Database], tmp_path: Path, purpose: sessions_pb2.Purpose.ValueType
) -> None:
    world, card, device = await issued(open_database, tmp_path)
    puk = _reference(card, "81")
    helper = world.world.helper
    async with world.serving(world.office(device), helper) as socket:
        nothing = await Station(card, pin=NEW_PIN).run(socket, purpose)
        assert nothing.error == "SESSION_WITHOUT_REQUEST"
        opened = await world.database.transact(
            lambda unit: world.world.services.requests.create_unlock(unit, helper, device)
        )
        trip = await Station(card, pin=NEW_PIN).run(socket, purpose)
    assert (trip.error, trip.outcome, trip.trips) == ("", sessions_pb2.OUTCOME_DONE, 4)
    assert (await world.world.request(opened.request.id)).state is RequestState.DONE
    assert _reference(card, "80") == NEW_PIN.ljust(8, b"\xff")
    assert _reference(card, "81") != puk
    world.issuing.core.close()


async def test_a_holder_proves_who_they_are_by_the_card(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card, device = await issued(open_database, tmp_path)
    person = (await world.world.device(device)).person
    caller = a_workstation(world.org)
    async with world.serving(world.office(device), caller) as socket:
        before = card.snapshot()
        trip = await prove(card, socket)
        assert (trip.error, trip.outcome, trip.trips) == ("", sessions_pb2.OUTCOME_DONE, 2)
        assert trip.messages == ["hello", "batch", "end_stage", "finished"]
        assert card.snapshot() == before
        made = UUID(trip.authentication)
        principal = await world.database.read(lambda unit: world.authentication.principal_of(unit, caller, made))
        assert (principal.person, principal.workstation) == (person, caller.id)
        proof = principal.authentication
        assert proof is not None
        assert (proof.methods, proof.device) == (frozenset({Method.CARD}), device)
        assert proof.assurance is Assurance.HARDWARE_KEY
        for liar in (Station(card, pin=b"999999"), Station(blank(serial=9))):
            liar.guarded = False
            trip = await liar.run(socket, sessions_pb2.PURPOSE_PROVE)
            assert trip.error != "" and trip.authentication == ""
        await _revoke(world, device)
        trip = await prove(card, socket)
    assert (trip.error, trip.authentication) == ("CARD_NOT_PROVEN", "")
    assert "batch" not in trip.messages
    world.issuing.core.close()


@ON_SQLITE
async def test_a_card_proves_its_holder_after_a_reissue_that_broke_off(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """The key in 9A is another one by then, and its certificate does not count yet."""
    world, card, device = await issued(open_database, tmp_path)
    before = keys_of(card)["9A"]
    await world.database.transact(
        lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
    )
    async with world.serving(world.office(device)) as socket:
        assert (await Station(card).run(socket, sessions_pb2.PURPOSE_REISSUE, cut=4)).outcome == 0
        card.power_off()
    assert keys_of(card)["9A"] != before
    async with world.serving(world.office(device), a_workstation(world.org)) as socket:
        trip = await prove(card, socket)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
        # A certificate that is held for another reason proves nothing.
        mine = [one for one in await world.certificates_of(device) if one.holder.part == "9a"]
        await world.database.transact(lambda unit: status.hold(unit, SERVER, Actor.SERVER, mine, "suspended"))
        assert (await prove(card, socket)).error == "CARD_NOT_PROVEN"
    world.issuing.core.close()


@ON_SQLITE
async def test_another_card_with_the_same_identity_proves_nothing(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """A clone: every object is the same, the keys are its own."""
    world, card, device = await issued(open_database, tmp_path)
    memory, other = json.loads(card.snapshot()), blank(serial=2)
    second = await world.bound(other, await world.person("bob"))
    assert (await world.issue(other, second)).error == ""
    memory["keys"] = json.loads(other.snapshot())["keys"]
    clone = VirtualCard.restore(json.dumps(memory).encode())
    async with world.serving(world.office(device), a_workstation(world.org)) as socket:
        trip = await prove(clone, socket)
    assert (trip.error, trip.authentication) == ("CARD_NOT_PROVEN", "")
    world.issuing.core.close()


async def prove(card: VirtualCard, socket: str) -> Trip:
    """A session to prove, as a workstation that allows it by itself."""
    return await Station(card, guarded=False).run(socket, sessions_pb2.PURPOSE_PROVE)


async def _revoke(world: SessionWorld, device: UUID) -> None:
    async def work(unit: Unit) -> None:
        mine = [one for one in await status.of_device(unit, world.org, device) if one.holder.part == "9a"]
        await status.revoke(unit, SERVER, Actor.SERVER, mine, RevocationReason.KEY_COMPROMISE)

    await world.database.transact(work)


def _reference(card: VirtualCard, name: str) -> bytes:
    return bytes.fromhex(json.loads(card.snapshot())["references"][name]["value"])


