"""A card whose device was suspended with that is locked at its next contact, and opened when it is given back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from sqlalchemy import select

from cardwright_cardops.plan.inventory import Inventory, SecretState
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.due import What
from cardwright_server.devices.model import Device, DeviceState, Disposition, Reason
from cardwright_server.issuance.model import CertificateState
from cardwright_server.requests.model import RequestKind, RequestState
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.unit import Database
from cardwright_simulators.card import Verify, VirtualCard
from tests.support.due_questions import asked, proof_of, put
from tests.support.fault_cases import WatchedCard
from tests.support.issuance import ON_SQLITE
from tests.support.pcscd import Pcscd
from tests.support.people import make_proven
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import FREELY, PIN, STEPS, Station, Trip, a_workstation, commits_of, on_message, reader
from tests.support.strangers import Seat, ToolFailed, Tools

LOCK, UPDATE = sessions_pb2.PURPOSE_LOCK, sessions_pb2.PURPOSE_UPDATE
UNLOCK, ASSISTED = sessions_pb2.PURPOSE_UNLOCK, sessions_pb2.PURPOSE_UNLOCK_ASSISTED
DONE = sessions_pb2.OUTCOME_DONE
NEW_PIN = b"271828"
CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    """One organization; certificates, archive and requests are the real ones."""
    made = await make_session_world(open_database(), tmp_path, "civ", CURVES)
    yield made
    made.issuing.core.close()


async def issued(here: SessionWorld, profile: str = "yubikey-5.7") -> tuple[VirtualCard, UUID]:
    """A card in use, issued at a station that keeps no PUK."""
    card = blank(profile)
    device = await here.bound(card)
    here.stations.every = True
    assert (await here.issue(card, device)).outcome == DONE
    here.stations.every = False
    card.power_off()
    return card, device


async def call(here: SessionWorld, name: str, device: UUID, *rest: Any, **named: Any) -> Device:
    """The help desk calls a method of the device service."""
    method = getattr(here.world.services.devices, name)
    changed: Device = await here.database.transact(
        lambda unit: method(unit, here.world.helper, device, *rest, **named)
    )
    return changed


async def contact(
    here: SessionWorld,
    card: Any,
    purpose: sessions_pb2.Purpose.ValueType = LOCK,
    principal: Principal | None = None,
    **station: Any,
) -> Trip:
    """One session, at a workstation where nobody proved anything."""
    caller = principal or a_workstation(here.org)
    async with here.serving(here.office(UUID(int=0)), caller) as socket:
        return await Station(card, **station).run(socket, purpose)


async def due(here: SessionWorld, device: UUID) -> list[What]:
    found = await here.database.read(lambda unit: here.world.services.due.due(unit, here.org, device))
    return [one.what for one in found.what]


async def holder(here: SessionWorld, device: UUID, *methods: Method) -> Principal:
    """Who has the card, having proved it; an emergency password is for the request that is open."""
    person = (await here.world.device(device)).person
    assert person is not None
    found = await here.database.read(lambda unit: here.world.services.people.person(unit, here.org, person))
    return await here.world.proven(found, *methods)


def memory(card: VirtualCard) -> dict[str, Any]:
    """What the card keeps, but for the PIN."""
    found = json.loads(card.snapshot())
    del found["references"]["80"]
    return {name: found[name] for name in ("references", "management", "keys", "objects")}


def tries(card: VirtualCard) -> list[int]:
    """What is left of PIN and PUK."""
    references = json.loads(card.snapshot())["references"]
    return [references[name]["tries"] for name in ("80", "81")]


def verifies(card: VirtualCard, pin: bytes) -> str:
    """What the card itself says to a PIN."""
    card.power_off()
    card.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    return card.transmit(bytes.fromhex("0020008008") + pin.ljust(8, b"\xff"))[-2:].hex()


async def ordered(here: SessionWorld, profile: str = "yubikey-5.7") -> tuple[VirtualCard, UUID]:
    """A card in use that is to be locked."""
    card, device = await issued(here, profile)
    await call(here, "suspend", device, lock_card=True)
    return card, device


async def locked(here: SessionWorld, profile: str = "yubikey-5.7") -> tuple[VirtualCard, UUID]:
    """One that is."""
    card, device = await ordered(here, profile)
    assert (await contact(here, card)).outcome == DONE
    card.power_off()
    return card, device


async def events(here: SessionWorld, device: UUID) -> list[str]:
    statement = select(outbox.c.name).where(outbox.c.subject == device, outbox.c.name.like("device.card-%"))
    rows = await here.database.read(lambda unit: unit.rows(statement.order_by(outbox.c.id)))
    return [row.name for row in rows]


async def said(here: SessionWorld, device: UUID) -> list[str]:
    """Actions of the audit about a device, in order."""
    statement = select(audit_entry.c.action).where(audit_entry.c.target == device).order_by(audit_entry.c.id)
    return [row.action for row in await here.database.read(lambda unit: unit.rows(statement))]


async def test_a_card_is_locked_by_whoever_has_it_and_opened_by_its_holder(here: SessionWorld) -> None:
    card, device = await ordered(here)
    others, whole = memory(card), tries(card)
    with commits_of(here.database) as commits:
        trip = await contact(here, card)
    assert (trip.error, trip.outcome, trip.trips) == ("", DONE, 4)
    assert len(commits) == 3, "opened, before the tries, the end"
    assert trip.preview is not None and [one.WhichOneof("kind") for one in trip.preview.plan.steps] == ["lock_card"]
    assert tries(card) == [0, whole[1]] and memory(card) == others
    assert verifies(card, PIN) == "6983"
    now = await here.world.device(device)
    assert (now.state, now.card_locked, await due(here, device)) == (DeviceState.SUSPENDED, True, [])
    assert {one.state for one in await here.certificates_of(device)} == {CertificateState.HELD}
    # Nothing opens it while it is held, and no try is lost by that.
    self_proved = await holder(here, device, Method.LDAP_PASSWORD)
    callers = {LOCK: None, UNLOCK: self_proved, ASSISTED: self_proved, UPDATE: here.world.issuer}
    for purpose, principal in callers.items():
        refused = await contact(here, card, purpose, principal, pin=NEW_PIN)
        assert refused.error in ("SESSION_WITHOUT_REQUEST", "CARD_NOT_IN_USE"), (purpose, refused)
    assert tries(card) == [0, whole[1]]
    await call(here, "resume", device)
    (request,) = await here.world.open_requests(device)
    assert (request.kind, request.state) == (RequestKind.UNLOCK, RequestState.READY)
    opened = await contact(here, card, ASSISTED, self_proved, pin=NEW_PIN)
    assert (opened.error, opened.outcome, opened.trips) == ("", DONE, 4)
    assert verifies(card, NEW_PIN) == "9000" and tries(card) == whole
    now = await here.world.device(device)
    assert (now.state, now.card_locked) == (DeviceState.ISSUED, False)
    assert await due(here, device) == [What.SECRETS], "a workstation saw the PUK"
    assert (await here.world.request(request.id)).state is RequestState.DONE
    assert {one.state for one in await here.certificates_of(device)} == {CertificateState.GOOD}
    assert await events(here, device) == ["device.card-locked", "device.card-unlock-due", "device.card-unlocked"]


@ON_SQLITE
@pytest.mark.parametrize(
    ("profile", "commands"),
    [("yubikey-5.7", 19), ("yubikey-5.4", 19), ("pivapplet", 29), ("tdes-only", 17), ("t0-short", 44)],
)
async def test_every_kind_of_card_that_is_issued(here: SessionWorld, profile: str, commands: int) -> None:
    """With the exact number of commands that the session sends to the card."""
    card, device = await ordered(here, profile)
    others, whole = memory(card), tries(card)
    watched = WatchedCard(card, lambda label: None)
    read: list[int] = []

    async def said_hello(message: sessions_pb2.RunRequest) -> None:
        read.append(len(watched.commands))

    trip = await contact(here, watched, before=said_hello)
    assert (trip.error, trip.outcome) == ("", DONE)
    assert tries(card) == [0, whole[1]] and memory(card) == others
    sent = len(watched.commands) - read[0]
    assert (await contact(here, watched)).error == "SESSION_WITHOUT_REQUEST"
    await call(here, "resume", device)
    opened = await contact(here, card, ASSISTED, await holder(here, device, Method.SECURITY_ANSWERS), pin=NEW_PIN)
    assert (opened.error, opened.outcome) == ("", DONE)
    assert verifies(card, NEW_PIN) == "9000" and tries(card) == whole
    assert sent == commands


@ON_SQLITE
async def test_the_emergency_password_of_the_help_desk_opens_it(here: SessionWorld) -> None:
    card, device = await locked(here)
    await call(here, "resume", device)
    (request,) = await here.world.open_requests(device)
    person = (await here.world.device(device)).person
    assert person is not None
    found = await here.database.read(lambda unit: here.world.services.people.person(unit, here.org, person))
    proved = await make_proven(here.database, found, Method.EMERGENCY_PASSWORD, request=request.id)
    opened = await contact(here, card, ASSISTED, proved, pin=NEW_PIN)
    assert (opened.error, opened.outcome) == ("", DONE)


@ON_SQLITE
async def test_a_card_whose_pin_is_blocked_already_is_not_tried(here: SessionWorld) -> None:
    card, device = await ordered(here)
    while verifies(card, b"000000") != "6983":
        pass
    card.power_off()
    before = [row for row in card.log if isinstance(row, Verify)]
    trip = await contact(here, card)
    assert (trip.error, trip.outcome, trip.preview) == ("", DONE, None)
    assert [row for row in card.log if isinstance(row, Verify)] == before
    assert ((await here.world.device(device)).card_locked, await due(here, device)) == (True, [])
    await call(here, "resume", device)
    assert await due(here, device) == [What.UNLOCK, What.REQUEST]


@ON_SQLITE
async def test_nobody_locks_what_nobody_wants_locked(here: SessionWorld) -> None:
    card, device = await issued(here)
    before = card.snapshot()
    assert (await contact(here, card)).error == "SESSION_WITHOUT_REQUEST"
    await call(here, "suspend", device)
    assert (await contact(here, card)).error == "SESSION_WITHOUT_REQUEST"
    await call(here, "suspend", device, lock_card=True)
    await call(here, "terminate", device, Reason.NOT_NEEDED, Disposition.COLLECTED)
    assert (await contact(here, card)).error == "SESSION_WITHOUT_REQUEST"
    assert memory(VirtualCard.restore(before)) == memory(card) and tries(card)[0] > 0


@ON_SQLITE
@pytest.mark.parametrize(
    ("station", "error", "may_be_locked"),
    [
        ({"agrees": False}, "CONSENT_REFUSED", False),
        ({"confirms": False}, "GUARD_REFUSED", True),
        ({"steps": [one for one in STEPS if one != "lock-card"]}, "PEER_TOO_OLD", False),
        ({"items": ["apdu", "prove"]}, "PEER_TOO_OLD", False),
    ],
    ids=["not agreed", "not confirmed", "unknown step", "unknown item"],
)
async def test_what_is_not_done_stays_due(
    here: SessionWorld, station: dict[str, Any], error: str, may_be_locked: bool
) -> None:
    card, device = await ordered(here)
    whole = tries(card)
    assert (await contact(here, card, **station)).error == error
    assert tries(card) == whole and await due(here, device) == [What.LOCK]
    assert (await here.world.device(device)).card_locked is may_be_locked
    card.power_off()
    assert (await contact(here, card)).outcome == DONE


@ON_SQLITE
async def test_a_workstation_that_only_says_so_is_not_believed(here: SessionWorld) -> None:
    card, device = await ordered(here)

    def blocked(seen: Inventory) -> Inventory:
        return replace(seen, pin=SecretState(False, 3, 0))

    assert (await contact(here, card, inventory=blocked)).error == "SESSION_NOT_AT_GOAL"
    assert await due(here, device) == [What.LOCK] and not (await here.world.device(device)).card_locked


@ON_SQLITE
@pytest.mark.parametrize("blocked", [False, True])
async def test_a_copy_with_another_key_does_not_stand_for_the_card(here: SessionWorld, blocked: bool) -> None:
    """Same number, CHUID and certificates; the key in 9E is its own."""
    card, device = await ordered(here)
    made = json.loads(card.snapshot())
    made["keys"]["9E"] = made["keys"]["9A"]
    if blocked:
        made["references"]["80"]["tries"] = 0
    copy = VirtualCard.restore(json.dumps(made).encode())
    before = copy.snapshot()
    assert (await contact(here, copy, guarded=False)).error == "CARD_NOT_PROVEN"
    assert copy.snapshot() == before and await due(here, device) == [What.LOCK]


@ON_SQLITE
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_nothing_is_tried_once_it_was_taken_back(here: SessionWorld, number: int) -> None:
    """Before consent, before the card was looked at, before it proved itself."""
    card, device = await ordered(here)
    whole = tries(card)
    trip = await contact(here, card, before=on_message(number, lambda: call(here, "resume", device)))
    assert trip.error == "SESSION_WITHOUT_REQUEST"
    now = await here.world.device(device)
    assert (tries(card), now.state, now.card_locked) == (whole, DeviceState.ISSUED, False)
    assert await here.world.open_requests(device) == [] and await due(here, device) == []


@ON_SQLITE
async def test_taken_back_too_late_it_is_given_back_locked(here: SessionWorld) -> None:
    """When the tries are spent."""
    card, device = await ordered(here)
    trip = await contact(here, card, before=on_message(4, lambda: call(here, "resume", device)))
    assert trip.outcome == DONE
    now = await here.world.device(device)
    assert (tries(card)[0], now.state, now.card_locked) == (0, DeviceState.ISSUED, True)
    assert await due(here, device) == [What.UNLOCK, What.REQUEST]


@ON_SQLITE
async def test_a_lost_card_that_turns_up_is_locked_as_well(here: SessionWorld) -> None:
    card, device = await ordered(here)
    await call(here, "report_incident", device, Reason.LOST)
    assert (await contact(here, card)).outcome == DONE
    assert verifies(card, PIN) == "6983"


@ON_SQLITE
@pytest.mark.parametrize("cut", [3, 4])
async def test_what_broke_off_before_is_finished_afterwards(here: SessionWorld, cut: int) -> None:
    """A re-issue that was cut when the card had new keys, or everything; then the lock, and the way back."""
    card, device = await issued(here)
    requests, issuer = here.world.services.requests, here.world.issuer
    opened = await here.database.transact(lambda unit: requests.create_reissue(unit, issuer, device))
    async with here.serving(here.office(device), issuer) as socket:
        await Station(card).run(socket, sessions_pb2.PURPOSE_REISSUE, cut=cut)
        card.power_off()
        await call(here, "suspend", device, lock_card=True)
    assert (await contact(here, card)).outcome == DONE
    card.power_off()
    await call(here, "resume", device)
    last = await contact(here, card, sessions_pb2.PURPOSE_REISSUE, issuer, pin=NEW_PIN)
    assert (last.error, last.outcome) == ("", DONE)
    assert (await here.world.request(opened.request.id)).state is RequestState.DONE
    # It set a new PIN as well, so there is nothing left to unlock.
    assert verifies(card, NEW_PIN) == "9000" and not (await here.world.device(device)).card_locked
    assert await here.world.open_requests(device) == [] and What.UNLOCK not in await due(here, device)
    card.power_off()
    good = {one.key for one in await here.certificates_of(device) if one.state is CertificateState.GOOD}
    on_card = {one.key for one in run(observe(FREELY), reader(card)).certificates if not one.slot.is_retired}
    assert len(good) == 4 and good == on_card


@ON_SQLITE
async def test_what_a_workstation_is_told(here: SessionWorld) -> None:
    """To be locked at once; then nothing; then a new PIN, with the request for it, once."""
    card, device = await ordered(here)
    guid = (await here.world.device(device)).guid
    assert guid is not None

    async def told() -> list[tuple[int, int, bool, str]]:
        socket = here.serving(here.office(device), a_workstation(here.org))
        async with socket as path, grpc.aio.insecure_channel(f"unix:{path}") as channel:
            stub: Any = sessions_pb2_grpc.SessionServiceStub(channel)
            answer = await stub.Due(asked(guid, proof_of(card, guid, datetime.now(UTC))))
        assert answer.proven and answer.due is bool(answer.items)
        since = [one.since.ToDatetime() for one in answer.items]
        at_once = [one.HasField("mandatory_from") and one.mandatory_from.ToDatetime() for one in answer.items]
        assert timedelta(0) == sum((abs(a - b) for a, b in zip(since, at_once, strict=True)), timedelta(0))
        return [(one.kind, one.purpose, one.HasField("ends_at"), one.request) for one in answer.items]

    await put(here, device, What.POLICY, -1)
    assert await told() == [(sessions_pb2.DUE_KIND_LOCK, LOCK, False, "")], "an update would be refused"
    card.power_off()
    await contact(here, card)
    card.power_off()
    assert await told() == []
    await call(here, "resume", device)
    await here.database.transact(lambda unit: here.world.services.due.remove(unit, device, What.POLICY))
    (request,) = await here.world.open_requests(device)
    assert await told() == [(sessions_pb2.DUE_KIND_UNLOCK, ASSISTED, False, str(request.id))]
    requests = here.world.services.requests
    await here.database.transact(lambda unit: requests.cancel(unit, here.world.helper, request.id))
    assert await told() == [(sessions_pb2.DUE_KIND_UNLOCK, UNLOCK, False, "")]


async def test_the_audit_says_who_ordered_it_and_where_it_was_done(here: SessionWorld) -> None:
    _, device = await locked(here)
    about = [one for one in await said(here, device) if one.startswith(("device.suspend", "device.card", "session"))]
    assert about[-4:] == ["device.suspend", "session.opened", "device.card-locked", "session.done"]
    wanted = select(audit_entry.c.facts).where(audit_entry.c.target == device, audit_entry.c.action == "device.suspend")
    (row,) = await here.database.read(lambda unit: unit.rows(wanted))
    assert row.facts["lock_card"] is True


@ON_SQLITE
@pytest.mark.pcscd
async def test_ykman_and_yubico_s_tool_see_it_locked_and_opened(
    here: SessionWorld, tmp_path: Path, pcscd: Pcscd
) -> None:
    card, device = await ordered(here)
    (tmp_path / "tools").mkdir()
    tools, seat = Tools(tmp_path / "tools"), Seat(card)
    reader_name = pcscd.insert(seat)

    def tries_told() -> list[str]:
        info = tools.run("ykman", "-r", reader_name, "piv", "info")
        return [line.split(":")[1].strip() for line in info.splitlines() if "tries remaining" in line]

    def verifies_by(pin: bytes) -> str:
        return tools.run("yubico-piv-tool", "-r", reader_name, "-a", "verify-pin", "-P", pin.decode())

    before = tries_told()
    assert "Successfully verified PIN" in verifies_by(PIN)
    assert (await contact(here, card)).outcome == DONE
    assert tries_told() == [f"0/{before[0].partition('/')[2]}", before[1]]
    with pytest.raises(ToolFailed, match=r"(?i)pin code blocked"):
        verifies_by(PIN)
    await call(here, "resume", device)
    proved = await holder(here, device, Method.LDAP_PASSWORD)
    assert (await contact(here, card, ASSISTED, proved, pin=NEW_PIN)).outcome == DONE
    assert tries_told() == before
    assert "Successfully verified PIN" in verifies_by(NEW_PIN)
