"""A card is locked by workstation and server together: suspended with that, locked at its contact, given back, opened.

Server, daemon and pcscd are processes; programs of others say what the card does. The daemon is killed in the middle,
with ``CARDWRIGHT_DAEMON_FAULTS=1`` at all the moments instead of half of them.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cardwright_cardops.piv.references import PinReference
from cardwright_daemon.link.server import GrpcLink
from cardwright_daemon.machine import Machine
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_simulators.card.state import CardState
from tests.support.daemon_sessions import begun
from tests.support.daemons import Client, Person, failing, running
from tests.support.staged import Moment
from tests.support.strangers import ToolFailed, Tools
from tests.support.whole_judge import books_of
from tests.support.whole_place import station_of
from tests.support.whole_station import UNLOCK, Held, Station, ending

pytestmark = pytest.mark.pcscd

LOCK = pb.PURPOSE_LOCK
VALUES = [0x63C2, 0x63C1, 0x63C0]
"""What the card says to the values that block it."""
NEW_PIN = b"628174"


async def suspend(station: Station, held: Held) -> None:
    """The help desk takes it out of use, and wants it locked."""
    await station.helper_anew()
    wanted = devices.SuspendDeviceRequest(id=held.device, lock_card=True, remark="left in a train")
    await station.ask("DeviceService", "Suspend", wanted, station.helper)


async def device_of(station: Station, held: Held) -> Any:
    return (await station.ask("DeviceService", "Get", devices.GetDeviceRequest(id=held.device))).device


def tries(held: Held, reference: PinReference = PinReference.PIN) -> int:
    return CardState.decode(held.card.inside.snapshot()).references[reference].tries


async def card_of(station: Station, held: Held) -> str:
    return str((await station.known(station.cards_in[held.card.serial])).id)


async def due_for(station: Station, client: Client, held: Held) -> pb.Due:
    asked = pb.GetDueRequest(card=await card_of(station, held), refresh=True)
    return (await client.updates.GetDue(asked)).due  # type: ignore[no-any-return]


async def locking(station: Station, client: Client, held: Held) -> pb.Operation:
    """Preview, confirmation and end of a lock; an operation without an id where nothing was left to do."""
    card = await card_of(station, held)
    shown = await client.updates.PreviewUpdate(pb.PreviewUpdateRequest(card=card, purpose=LOCK))
    if shown.nothing_due:
        return pb.Operation(outcome=pb.OUTCOME_NOTHING_DUE)
    assert [one.kind for one in shown.steps] == ["lock-card"]
    wanted = pb.StartUpdateRequest(card=card, digest=shown.digest, confirmed=["lock card"])
    return await station.over((await client.updates.StartUpdate(wanted)).operation)


async def test_suspended_locked_given_back_and_unlocked(station: Station, tmp_path: Path) -> None:
    held, tools = await station.issued(), Tools(tmp_path)
    asked = len(station.daemon.typing.asked)
    reader = await station.insert(held)

    async def pin(value: bytes) -> str:
        words = ("yubico-piv-tool", "-r", reader, "-a", "verify-pin", "-P", value.decode())
        return await asyncio.to_thread(tools.run, *words)

    async with station.open() as client:
        await card_of(station, held)
        assert "Successfully verified PIN." in await pin(held.pin)
        await suspend(station, held)
        due = await due_for(station, client, held)
        assert (due.purpose, [one.what for one in due.items]) == (LOCK, ["lock"])
        assert due.HasField("mandatory_from") and due.suspended
        operation = await locking(station, client, held)
        assert (operation.kind, operation.outcome) == (pb.OPERATION_KIND_LOCK, pb.OUTCOME_DONE), operation.error
        assert (tries(held), tries(held, PinReference.PUK)) == (0, 3)
        assert held.card.refused == VALUES
        for value in (held.pin, b"123456"):
            with pytest.raises(ToolFailed, match="blocked"):
                await pin(value)
        words = ("opensc-tool", "-r", reader, "-s", "00A404000BA000000308000010000100", "-s", "00200080")
        assert "(SW1=0x69, SW2=0x83)" in await asyncio.to_thread(tools.run, *words)
        found = await device_of(station, held)
        assert (found.state, found.card_locked) == (devices.DEVICE_STATE_SUSPENDED, True)
        # At every later contact nothing is due, it says why, and nobody unlocks it.
        due = await due_for(station, client, held)
        assert (list(due.items), due.suspended) == ([], True)
        card = await card_of(station, held)
        refused = await station.over((await client.updates.Unlock(pb.UnlockRequest(card=card))).operation)
        assert refused.error.code == "PROOF_REQUIRED", refused.error
        again = pb.PreviewUpdateRequest(card=card, purpose=LOCK)
        assert (await failing(client.updates.PreviewUpdate(again))).code == "SESSION_WITHOUT_REQUEST"
        assert len(station.daemon.typing.asked) == asked, "a dialog was shown"
        assert tries(held, PinReference.PUK) == 3
        held.card.refused.clear()

        await station.ask("DeviceService", "Resume", devices.ResumeDeviceRequest(id=held.device), station.helper)
        due = await due_for(station, client, held)
        assert (due.purpose, [one.what for one in due.items], due.suspended) == (UNLOCK, ["unlock"], False)
        held.request, held.pin = due.request, NEW_PIN
        station.daemon.typing.types(new=NEW_PIN)
        held.proofs = 0
        done = await station.through(held, UNLOCK)
        assert done.outcome == pb.OUTCOME_DONE, done.error
        assert "Successfully verified PIN." in await pin(NEW_PIN)
        found = await device_of(station, held)
        assert (found.state, found.card_locked) == (devices.DEVICE_STATE_ISSUED, False)
        over = await station.ask("RequestService", "Get", requests.GetRequestRequest(id=held.request))
        assert over.request.state == requests.REQUEST_STATE_DONE
        assert not (await due_for(station, client, held)).items
    await station.settle(held)


async def test_a_lock_that_was_taken_back_is_not_done(station: Station) -> None:
    """Before it began, and between its preview and its consent."""
    held = await station.issued()
    before = held.card.inside.snapshot()
    await station.insert(held)
    async with station.open() as client:
        for shown in (False, True):
            await suspend(station, held)
            card = await card_of(station, held)
            digest = b""
            if shown:
                asked = pb.PreviewUpdateRequest(card=card, purpose=LOCK)
                digest = (await client.updates.PreviewUpdate(asked)).digest
            wanted = devices.ResumeDeviceRequest(id=held.device)
            await station.ask("DeviceService", "Resume", wanted, station.helper)
            assert not (await due_for(station, client, held)).items
            if digest:
                start = pb.StartUpdateRequest(card=card, digest=digest, confirmed=["lock card"])
                operation = await station.over((await client.updates.StartUpdate(start)).operation)
                assert operation.error.code == "SESSION_WITHOUT_REQUEST", operation
        found = await device_of(station, held)
        assert (found.state, found.card_locked) == (devices.DEVICE_STATE_ISSUED, False)
    assert held.card.pin_commands == 0
    assert held.card.inside.snapshot() == before


async def test_it_begins_by_itself_and_the_audit_says_that_nobody_was_asked(station: Station, tmp_path: Path) -> None:
    held, person = await station.issued(), Person()
    await suspend(station, held)
    await station_of(station.here, tmp_path / "here")
    link = GrpcLink(station.here.process.addresses["calls"], tmp_path / "here", check_seconds=30.0)
    async with running(held.card, person=person, link=link, machine=Machine(begin_mandatory=True)) as run:
        operation = await begun(run)
    assert (operation.kind, operation.outcome) == (pb.OPERATION_KIND_LOCK, pb.OUTCOME_DONE), operation.error
    assert (tries(held), person.asked) == (0, [])
    assert held.card.refused == VALUES
    assert (await device_of(station, held)).card_locked
    books = await books_of(station.here)
    (session,) = books.of("card_session", purpose="lock", device=UUID(held.device).hex)
    said = {row["action"] for row in books.of("audit_entry", session=session["id"])}
    assert {"session.agreed-unasked", "device.card-locked", "session.done"} <= said


AT = {0: (0, 10), 1: (0, 5, 6, 7)}
"""For each stage of the books, before which of its commands the daemon is killed: in the second one, values are tried
from the fifth on, and the last is the question how many tries are left."""
MOMENTS = [Moment(stage, at) for stage, moments in AT.items() for at in moments]
SHARE = MOMENTS if os.environ.get("CARDWRIGHT_DAEMON_FAULTS") == "1" else MOMENTS[1::2]


@pytest.mark.parametrize("moment", SHARE, ids=str)
async def test_daemon_killed_in_the_middle(station: Station, moment: Moment) -> None:
    held = await station.issued()
    await suspend(station, held)
    await station.insert(held)
    lost = moment.command % 2 == 1
    async with station.open() as client:
        await card_of(station, held)
        reached = held.card.hold(moment.of(lambda: station.recorded(held), "lock"))
        work = asyncio.create_task(ending(locking(station, client, held)))
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert reached.is_set(), await work
        station.daemon.kill()
        held.card.release(lost=lost)
        assert await work == "UNAVAILABLE"
        if lost:
            await station.remove(held)
    station.daemon.start()  # here: it ends with the thread that started it
    if held.card.serial not in station.cards_in:
        await station.insert(held)
    async with station.open() as client:
        due = await due_for(station, client, held)
        assert (due.purpose, due.continues) == (LOCK, False)
        operation = await locking(station, client, held)
        assert operation.outcome in (pb.OUTCOME_DONE, pb.OUTCOME_NOTHING_DUE), operation.error
        assert not (await due_for(station, client, held)).items
        assert (await device_of(station, held)).card_locked
    assert (tries(held), tries(held, PinReference.PUK)) == (0, 3)
    assert held.card.refused == VALUES
