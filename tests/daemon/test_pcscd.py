"""The daemon on a real pcscd: cards come and go, the service is killed and comes back, other programs use the card."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cardwright_cardops.transport import pcsc
from cardwright_cardops.transport.deadlines import Deadlines
from cardwright_daemon.app import Daemon
from cardwright_daemon.readers import PcscReaders
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.cards import HangingCard
from tests.support.daemon_pcscd import Stream, on_pcsc, ready
from tests.support.daemon_server import Server
from tests.support.daemons import Client, Person, client_of, config, failing, short_folder, token
from tests.support.pcscd import Pcscd

pytestmark = pytest.mark.pcscd

OLD, NEW = b"123456", b"639174"


async def test_a_pin_is_changed_and_ykman_agrees(pcscd: Pcscd) -> None:
    card = token()
    async with on_pcsc(Person(OLD, NEW, NEW)) as (_, client):
        reader = await asyncio.to_thread(pcscd.insert, card)
        found = await client.until(ready(reader))
        await client.pins.ChangePin(pb.ChangePinRequest(card=found.card.card.id))
        # A stranger, while the daemon runs: the card is shared and let go.
        tool = str(Path(sys.executable).with_name("ykman"))
        act = ("piv", "access", "change-pin", "--pin", NEW.decode(), "--new-pin", "582047")
        command = [tool, "-r", reader, *act]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        status = await client.pins.GetPinStatus(pb.GetPinStatusRequest(card=found.card.card.id))
    assert status.pin.tries_left == 3


async def test_pcscd_killed_and_restarted_is_survived(pcscd: Pcscd) -> None:
    async with on_pcsc(Person()) as (daemon, client):
        reader = await asyncio.to_thread(pcscd.insert, token(41))
        stream = Stream(client)
        first = await stream.until(ready(reader))
        await asyncio.to_thread(pcscd.kill)
        gone = await stream.until(lambda event: event.HasField("card") and not event.card.present)
        assert gone.card.card.id == first.card.card.id
        lost = await stream.until(lambda event: event.HasField("service"))
        assert lost.service.error.code == "PCSC_NOT_RUNNING"
        assert (await client.cards.ListReaders(pb.ListReadersRequest())).service.code == "PCSC_NOT_RUNNING"
        assert (await failing(client.pins.GetPinStatus(pb.GetPinStatusRequest(card=first.card.card.id)))).code == (
            "NO_SUCH_CARD"
        )
        pcscd.start()  # here: it ends with the thread that started it
        await stream.until(lambda event: event.HasField("service") and not event.service.HasField("error"))
        again = await asyncio.to_thread(pcscd.insert, token(42))
        assert (await stream.until(ready(again))).card.card.identity.serial == "42"
        report = await client.workstation.GetReport(pb.GetReportRequest())
    assert report.service == ""
    assert "PCSC_NOT_RUNNING" in {error.code for error in report.errors}
    assert daemon.desk.hub.listeners == 0


async def test_pcscd_killed_in_the_middle_of_an_operation_costs_that_operation(pcscd: Pcscd) -> None:
    typing = asyncio.Event()
    person = Person(typing, OLD, NEW, NEW)
    async with on_pcsc(person) as (_, client):
        reader = await asyncio.to_thread(pcscd.insert, card := token(43))
        found = await client.until(ready(reader))
        change = asyncio.create_task(failing(client.pins.ChangePin(pb.ChangePinRequest(card=found.card.card.id))))
        await person.waits.wait()
        await asyncio.to_thread(pcscd.kill)
        assert (await change).code in ("CARD_REMOVED", "PCSC_NOT_RUNNING")
        pcscd.start()  # here: it ends with the thread that started it
        again = await asyncio.to_thread(pcscd.insert, card)
        found = await client.until(ready(again))
        person.answers = [OLD, NEW, NEW]
        await client.pins.ChangePin(pb.ChangePinRequest(card=found.card.card.id))


async def test_the_daemon_starts_without_a_service_and_finds_it_later(pcscd: Pcscd) -> None:
    await asyncio.to_thread(pcscd.kill)
    async with on_pcsc(Person()) as (_, client):
        await client.until(lambda event: event.HasField("service"))
        pcscd.start()  # here: it ends with the thread that started it
        reader = await asyncio.to_thread(pcscd.insert, token(44))
        assert (await client.until(ready(reader))).card.card.identity.serial == "44"


async def test_a_program_that_keeps_the_card_makes_others_wait_and_not_fail(pcscd: Pcscd) -> None:
    """Another program is in a transaction when the card is looked at: the look waits for its end."""
    async with on_pcsc(Person()) as (_, client):
        reader = await asyncio.to_thread(pcscd.insert, token(45))
        found = await client.until(ready(reader))
        other = await asyncio.to_thread(pcsc.connect, reader)
        held = other.transaction()
        await asyncio.to_thread(held.__enter__)
        look = asyncio.create_task(
            _inventory(client, pb.GetInventoryRequest(card=found.card.card.id, refresh=True))
        )
        await client.until(
            lambda event: event.HasField("operation") and event.operation.operation.kind == pb.OPERATION_KIND_READ
        )
        assert not look.done()
        await asyncio.to_thread(held.__exit__, None, None, None)
        await asyncio.to_thread(other.close)
        assert (await look).inventory.identity.serial == "45"


async def _inventory(client: Client, request: pb.GetInventoryRequest) -> pb.GetInventoryResponse:
    found: pb.GetInventoryResponse = await client.cards.GetInventory(request)
    return found


async def test_g2_a_card_without_a_key_of_its_own_needs_a_new_preview_after_a_reset(pcscd: Pcscd) -> None:
    card, server = token(48), Server()
    async with on_pcsc(Person(*[b"739146"] * 4), server) as (_, client):
        reader = await asyncio.to_thread(pcscd.insert, card)
        identifier = (await client.until(ready(reader))).card.card.id
        asked = pb.PreviewUpdateRequest(card=identifier, purpose=pb.PURPOSE_ISSUE)
        shown = await client.updates.PreviewUpdate(asked)
        before = card.snapshot()
        with await asyncio.to_thread(pcsc.connect, reader) as other:
            await asyncio.to_thread(other.reset)
        refused = await _started(client, identifier, shown.digest)
        assert refused.error.code == "GUARD_REFUSED"
        assert card.snapshot() == before
        shown = await client.updates.PreviewUpdate(asked)
        assert (await _started(client, identifier, shown.digest)).outcome == pb.OUTCOME_DONE


async def _started(client: Client, card: str, digest: bytes) -> pb.Operation:
    """A started update, once it is over."""
    begun = await client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=digest))
    done = await client.operations.WaitOperation(pb.WaitOperationRequest(operation=begun.operation.id))
    return done.operation  # type: ignore[no-any-return]


async def test_a_card_that_hangs_costs_its_own_call_and_is_let_go(pcscd: Pcscd) -> None:
    """W5 through the daemon: the deadline passes, the other reader is served, the late answer harms nobody."""
    hanging = HangingCard(0xFD)
    deadlines = Deadlines(default=0.5, waiting=0.5)
    folder = short_folder()
    try:
        async with (
            Daemon(config(folder), sources=[PcscReaders(deadlines)]) as daemon,
            client_of(daemon.socket) as client,
        ):
            reader = await asyncio.to_thread(pcscd.insert, hanging)
            stuck = await client.until(
                lambda event: event.HasField("card") and event.card.card.state == pb.CARD_STATE_UNREADABLE
            )
            assert stuck.card.card.problem.code == "CARD_DEADLINE"
            other = await asyncio.to_thread(pcscd.insert, token(46))
            assert (await client.until(ready(other))).card.card.identity.serial == "46"
            hanging.release.set()
            await asyncio.to_thread(pcscd.remove, reader)
            again = await asyncio.to_thread(pcscd.insert, token(47), reader)
            assert (await client.until(ready(again))).card.card.identity.serial == "47"
    finally:
        hanging.release.set()
        shutil.rmtree(folder.parent)


async def test_two_cards_are_issued_through_pcscd_at_once(pcscd: Pcscd) -> None:
    pin = b"739146"
    server = Server()
    async with on_pcsc(Person(*[pin] * 4), server) as (_, client):
        readers = [await asyncio.to_thread(pcscd.insert, token(serial)) for serial in (51, 52)]

        async def issue(reader: str) -> pb.Operation:
            card = (await client.until(ready(reader))).card.card.id
            shown = await client.updates.PreviewUpdate(
                pb.PreviewUpdateRequest(card=card, purpose=pb.PURPOSE_ISSUE)
            )
            return await _started(client, card, shown.digest)

        done = await asyncio.gather(*map(issue, readers))
    assert [one.outcome for one in done] == [pb.OUTCOME_DONE] * 2, done
