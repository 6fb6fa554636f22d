"""Cards that go back to stock over a session: erased, their certificates revoked before, ready for somebody else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from cardwright_cardops import wire
from cardwright_cardops.check import Level
from cardwright_cardops.guard.preview import permit_for
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.model import Method
from cardwright_server.devices.model import (
    Derivation,
    DeviceState,
    Disposition,
    Lot,
    Reason,
    SecretName,
    SecretSource,
)
from cardwright_server.devices.stock import Delivered, SecretSealer
from cardwright_server.issuance.model import CertificateState
from cardwright_server.machine import GuardRefused
from cardwright_server.people.model import Role
from cardwright_server.policies.model import DeviceKind
from cardwright_server.requests.errors import RequestNotPossible
from cardwright_server.requests.model import Request, RequestState
from cardwright_server.sessions import store
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.lifecycles import as_operator
from tests.support.people import make_operator
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip, a_workstation, reader

RECYCLE = sessions_pb2.PURPOSE_RECYCLE
CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
FACTORY = ("references", "management", "keys", "objects")


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    """One organization; certificates, archive and requests are the real ones."""
    made = await make_session_world(open_database(), tmp_path, "civ", CURVES)
    yield made
    made.issuing.core.close()


@pytest.fixture
def engine_name() -> str:
    """What a session does to a card is the same on both engines; requests and devices have tests of their own."""
    return "sqlite"


async def issued(here: SessionWorld, profile: str = "yubikey-5.7") -> tuple[VirtualCard, UUID]:
    """A card in use."""
    card = blank(profile)
    device = await here.bound(card)
    trip = await here.issue(card, device)
    assert trip.outcome == sessions_pb2.OUTCOME_DONE, trip
    card.power_off()
    return card, device


async def ended(
    here: SessionWorld, device: UUID, reason: Reason = Reason.LEFT, disposition: Disposition = Disposition.COLLECTED
) -> None:
    """The device is at its end."""
    devices, helper = here.world.services.devices, here.world.helper
    await here.database.transact(lambda unit: devices.terminate(unit, helper, device, reason, disposition))


async def asked(here: SessionWorld, device: UUID, *, found: bool = False) -> Request:
    """An operator asks that it be recycled."""
    requests, issuer = here.world.services.requests, here.world.issuer
    opened = await here.database.transact(lambda unit: requests.create_recycle(unit, issuer, device, found=found))
    return opened.request


async def recycled(here: SessionWorld, card: Any, device: UUID, request: Request | None, **station: Any) -> Trip:
    """One session."""
    async with here.serving(here.office(device)) as socket:
        named = "" if request is None else str(request.id)
        return await Station(card, **station).run(socket, RECYCLE, request=named)


def memory(card: VirtualCard) -> dict[str, Any]:
    """What the card keeps."""
    found = json.loads(card.snapshot())
    return {name: found[name] for name in FACTORY}


@pytest.mark.parametrize("profile", ["yubikey-5.7", "pivapplet", "tdes-only"])
async def test_a_card_goes_to_somebody_else(here: SessionWorld, profile: str) -> None:
    card, device = await issued(here, profile)
    before = await here.world.device(device)
    archived = await here.database.read(lambda unit: here.archive.history(unit, here.org, before.person))  # type: ignore[arg-type]
    await ended(here, device)
    request = await asked(here, device)
    assert request.state is RequestState.READY
    trip = await recycled(here, card, device, request)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert trip.preview is not None and [one.WhichOneof("kind") for one in trip.preview.plan.steps] == ["reset_card"]
    assert memory(card) == memory(blank(profile))
    device_now = await here.world.device(device)
    assert (device_now.state, device_now.reason, device_now.life) == (DeviceState.STOCK, Reason.RECYCLED, 2)
    assert (device_now.person, device_now.guid, device_now.session) == (None, None, None)
    assert {one.state for one in await here.certificates_of(device)} == {CertificateState.REVOKED}
    assert (await here.world.request(request.id)).state is RequestState.DONE
    # Nobody works on it any more, and the next holder gets a card of their own.
    assert (await recycled(here, card, device, request)).error == "SESSION_WITHOUT_REQUEST"
    other = await here.person("grace")
    devices, issuer = here.world.services.devices, here.world.issuer
    await here.database.transact(lambda unit: devices.bind(unit, issuer, device, other.id))
    again = await here.issue(card, device)
    assert (again.error, again.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert (await here.judged(card, Level.BASIC)).good
    second = await here.world.device(device)
    assert second.guid not in (None, before.guid)
    good = [one for one in await here.certificates_of(device) if one.state is CertificateState.GOOD]
    assert {one.holder.person for one in good} == {other.id} and len(good) == 4
    # Keys of the first holder are in the archive as they were, and none of them on the card.
    still = await here.database.read(lambda unit: here.archive.history(unit, here.org, before.person))  # type: ignore[arg-type]
    assert [one.fingerprint for one in still] == [one.fingerprint for one in archived] != []
    seen = run(observe(EVERYTHING), reader(card))
    assert not {one.fingerprint for one in archived} & {one.fingerprint for one in seen.keys}
    # No generation of a secret comes twice.
    entries = (await here.database.read(lambda unit: store.records(unit, here.org, device, 2))).entries
    names = [row.reference for row in entries if row.kind.name == "PUK" and "." in row.reference]
    assert len(names) == len(set(names)) == 2


async def test_certificates_are_revoked_and_the_reset_recorded_before_the_card_loses_anything(
    here: SessionWorld,
) -> None:
    card = blank()
    device = await here.bound(card)
    request = await here.world.issuance(device)
    async with here.serving(here.office(device)) as socket:
        faulty = FaultyCard(card, "ins=DB@5:remove")
        cut = await Station(faulty).run(socket, request=str(request.id))
    assert cut.outcome == 0 and faulty.struck
    card.power_off()
    await here.database.transact(
        lambda unit: here.world.services.requests.cancel(unit, here.world.issuer, request.id)
    )
    assert await here.world.state(device) is DeviceState.FAILED
    wanted = await asked(here, device)
    whole, told = memory(card), []

    async def note(message: sessions_pb2.RunRequest) -> None:
        states = {one.state.value for one in await here.certificates_of(device)}
        life = await here.database.read(lambda unit: store.records(unit, here.org, device))
        recorded = any(row.kind.name == "RESET" for row in life.entries)
        told.append((message.WhichOneof("kind"), await here.world.state(device), states, recorded))
        assert memory(card) == whole or recorded

    trip = await recycled(here, card, device, wanted, before=note)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert told[0] == ("hello", DeviceState.FAILED, {"revoked"}, False)
    assert told[1] == ("consent", DeviceState.TERMINATED, {"revoked"}, False)
    assert told[-1] == ("answers", DeviceState.TERMINATED, {"revoked"}, True)
    assert memory(card) == memory(blank())
    assert await here.world.state(device) is DeviceState.STOCK


@pytest.mark.parametrize("profile", ["yubikey-5.7", "tdes-only"])
async def test_a_card_of_a_lot_has_its_factory_secrets_afterwards(here: SessionWorld, profile: str) -> None:
    """The lot's own value opened it once; a reset brings the maker's published one, whatever the lot says."""
    stock, issuer = here.world.free.stock, here.world.issuer
    key, puk = bytes(range(24)), b"87654321"
    lot = Lot(new_id(), here.org, "Lot", DeviceKind.SMART_CARD, SecretSource.CONSTANT, Derivation.NONE)
    sealer = SecretSealer(here.issuing.vault)
    sealed = await sealer.seal(
        here.org, lot.id, {SecretName.MANAGEMENT_KEY: Secret(key), SecretName.PUK: Secret(puk)}
    )
    one = Delivered(new_id(), "12345678")
    first, second = await here.person("ada"), await here.person("grace")
    devices = here.world.services.devices

    async def work(unit: Unit) -> None:
        await stock.register_lot(unit, issuer, lot, sealed)
        await stock.register(unit, issuer, DeviceKind.SMART_CARD, [one], lot.id)
        await devices.bind(unit, issuer, one.id, first.id)

    await here.database.transact(work)
    card = blank(profile)
    raw = json.loads(card.snapshot())
    raw["management"] |= {"value": key.hex(), "default": False}
    raw["references"]["81"] |= {"value": puk.hex(), "default": False}
    card = VirtualCard.restore(json.dumps(raw).encode())
    assert (await here.issue(card, one.id)).outcome == sessions_pb2.OUTCOME_DONE
    card.power_off()
    await ended(here, one.id)
    assert (await recycled(here, card, one.id, await asked(here, one.id))).outcome == sessions_pb2.OUTCOME_DONE
    card.power_off()
    await here.database.transact(lambda unit: devices.bind(unit, issuer, one.id, second.id))
    again = await here.issue(card, one.id)
    assert (again.error, again.outcome) == ("", sessions_pb2.OUTCOME_DONE)


# -------------------------------------------------------------------------------------------------------- refusals


async def test_what_is_not_asked_for(here: SessionWorld) -> None:
    card, device = await issued(here)
    with pytest.raises(RequestNotPossible, match="a device that is issued is not asked for recycle"):
        await asked(here, device)
    await ended(here, device, Reason.STOLEN, Disposition.LOST)
    with pytest.raises(RequestNotPossible, match="not at hand unless"):
        await asked(here, device)
    request = await asked(here, device, found=True)
    assert (await asked(here, device, found=True)).id == request.id
    trip = await recycled(here, card, device, request)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    with pytest.raises(RequestNotPossible, match="a device that is stock"):
        await asked(here, device)


async def test_what_was_destroyed_is_not_used_again(here: SessionWorld) -> None:
    _, device = await issued(here)
    await ended(here, device, Reason.DAMAGED, Disposition.DESTROYED)
    with pytest.raises(RequestNotPossible, match="destroyed"):
        await asked(here, device, found=True)


async def test_other_cards_are_left_alone(here: SessionWorld) -> None:
    card, device = await issued(here)
    await ended(here, device)
    request = await asked(here, device)
    stranger = blank(serial=87654321)
    kept = memory(stranger)
    assert (await recycled(here, stranger, device, request)).error == "JOURNAL_OTHER_CARD"
    assert (await recycled(here, stranger, device, None)).error == "SESSION_WITHOUT_REQUEST"
    # One that shows the same names, with another key in 9E, or with none.
    for change in ("other", "none"):
        raw = json.loads(card.snapshot())
        if change == "other":
            raw["keys"]["9E"], raw["keys"]["9A"] = raw["keys"]["9A"], raw["keys"]["9E"]
        else:
            del raw["keys"]["9E"], raw["objects"]["5FC101"]
        clone = VirtualCard.restore(json.dumps(raw).encode())
        before = memory(clone)
        assert (await recycled(here, clone, device, request)).error == "CARD_NOT_PROVEN"
        assert memory(clone) == before
    assert memory(stranger) == kept
    now = await here.world.device(device)
    assert (now.state, now.session) == (DeviceState.TERMINATED, None)
    assert (await here.world.request(request.id)).state is not RequestState.DONE
    assert (await recycled(here, card, device, request)).outcome == sessions_pb2.OUTCOME_DONE


async def test_without_the_confirmation_nothing_is_erased(here: SessionWorld) -> None:
    card, device = await issued(here)
    await ended(here, device)
    request = await asked(here, device)
    before = memory(card)
    trip = await recycled(here, card, device, request, confirms=False)
    assert trip.error == "GUARD_REFUSED" and memory(card) == before
    card.power_off()
    refused = await recycled(here, card, device, request, agrees=False)
    assert refused.error == "CONSENT_REFUSED" and memory(card) == before
    card.power_off()
    assert (await recycled(here, card, device, request)).outcome == sessions_pb2.OUTCOME_DONE


async def test_who_may_recycle(here: SessionWorld) -> None:
    card, device = await issued(here)
    holder = (await here.world.device(device)).person
    assert holder is not None
    await ended(here, device)
    request = await asked(here, device)
    org, database = here.org, here.database
    person = await here.world.proven(await here.person("grace"), Method.LDAP_PASSWORD)
    own = await make_operator(database, org, Role.ISSUANCE, person=holder)
    station = a_workstation(org)
    refusals = {}
    for name, who in {
        "its holder, as an operator": own,
        "a person": person,
        "the help desk": here.world.helper,
        "any workstation": station,
        "a person at an issuance station": replace(person, workstation=station.id),
    }.items():
        here.stations.named = {station.id} if "issuance" in name else set()
        async with here.serving(here.office(device), who) as socket:
            refusals[name] = (await Station(card).run(socket, RECYCLE, request=str(request.id))).error
    assert refusals == {
        "its holder, as an operator": "OWN_TARGET_REFUSED",
        "a person": "ACCESS_DENIED",
        "the help desk": "ACCESS_DENIED",
        "any workstation": "RECYCLED_ELSEWHERE",
        "a person at an issuance station": "ACCESS_DENIED",
    }
    here.stations.named = {station.id}
    async with here.serving(here.office(device), station) as socket:
        trip = await Station(card).run(socket, RECYCLE, request=str(request.id))
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)


async def test_nobody_else_moves_a_device_that_is_being_erased(here: SessionWorld) -> None:
    card, device = await issued(here)
    await ended(here, device)
    request = await asked(here, device)
    refused: list[str] = []
    devices, issuer = here.world.services.devices, here.world.issuer

    async def meddle(message: sessions_pb2.RunRequest) -> None:
        if message.WhichOneof("kind") != "consent":
            return
        for act in (devices.recycle, devices.dispose):
            with pytest.raises(GuardRefused):
                await here.database.transact(lambda unit: act(unit, issuer, device))  # noqa: B023
            refused.append(act.__name__)
        async with here.serving(here.office(device)) as other:
            refused.append((await Station(blank()).run(other, RECYCLE, request=str(request.id))).error)

    trip = await recycled(here, card, device, request, before=meddle)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert refused == ["recycle", "dispose", "CARD_IN_SESSION"]


async def test_a_failed_device_that_is_issued_after_all_is_not_recycled_any_more(here: SessionWorld) -> None:
    card = blank()
    device = await here.bound(card)
    first = await here.world.issuance(device)
    session = uuid4()
    requests, issuer = here.world.services.requests, here.world.issuer
    await here.database.transact(lambda unit: requests.start(unit, as_operator(issuer), first.id, session))
    await here.database.transact(
        lambda unit: requests.fail(unit, here.org, first.id, session, retryable=False, consistent=False)
    )
    wanted = await asked(here, device)
    assert (await here.issue(card, device)).outcome == sessions_pb2.OUTCOME_DONE
    assert (await here.world.request(wanted.id)).state is RequestState.SUPERSEDED
    card.power_off()
    assert (await recycled(here, card, device, wanted)).error == "ILLEGAL_TRANSITION"
    assert await here.world.state(device) is DeviceState.ISSUED


async def test_a_disposed_device_leaves_no_request(here: SessionWorld) -> None:
    _, device = await issued(here)
    await ended(here, device)
    request = await asked(here, device)
    devices, issuer = here.world.services.devices, here.world.issuer
    await here.database.transact(lambda unit: devices.dispose(unit, issuer, device))
    assert (await here.world.request(request.id)).state is RequestState.CANCELLED


async def test_a_card_that_cannot_be_erased_ends_the_request_with_the_reason(here: SessionWorld) -> None:
    card, device = await issued(here)
    await ended(here, device)
    request = await asked(here, device)

    def plain(seen: Any) -> Any:
        return replace(seen, features=replace(seen.features, version="", label=""))

    trip = await recycled(here, card, device, request, inventory=plain)
    assert trip.error == "CAPABILITY_MISSING"
    assert (await here.world.request(request.id)).state is RequestState.FAILED
    now = await here.world.device(device)
    assert (now.state, now.session) == (DeviceState.TERMINATED, None)


async def test_the_permit_of_a_recycle_is_nothing_but_the_reset(here: SessionWorld) -> None:
    card, device = await issued(here)
    await ended(here, device)
    seen = run(observe(EVERYTHING), reader(card))
    trip = await recycled(here, card, device, await asked(here, device))
    assert trip.preview is not None
    plan = wire.plan_from_wire(trip.preview.plan)
    shown = replace(plan, card=seen.identity)
    permit = permit_for(shown.document(), seen.document(), wipes=True)
    assert [type(one.operation).__name__ for one in permit.entries] == ["Block", "Block", "Reset"]
