"""Readers and cards: what is there, what happens to them, and what is on them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from cardwright_cardops import wire
from cardwright_cardops.piv.commands import get_data
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard, parse
from cardwright_simulators.reader.slot import SlotReader
from tests.support.daemons import Person, failing, running, token


async def test_cards_are_known_by_number_with_their_readers() -> None:
    async with running(token(1001), token(1002)) as run:
        await run.client.card(0)
        await run.client.card(1)
        readers = (await run.client.cards.ListReaders(pb.ListReadersRequest())).readers
        cards = (await run.client.cards.ListCards(pb.ListCardsRequest())).cards
    assert [reader.name for reader in readers] == ["Virtual reader 00", "Virtual reader 01"]
    assert [reader.card for reader in readers] == [card.id for card in cards]
    assert [card.identity.serial for card in cards] == ["1001", "1002"]
    assert {card.state for card in cards} == {pb.CARD_STATE_READY}


async def test_a_card_put_back_has_another_id_and_the_old_one_is_no_card() -> None:
    async with running(token()) as run:
        first = await run.client.card()
        card = run.bench.remove()
        run.bench.insert(card)
        second = await run.client.card()
        error = await failing(run.client.cards.GetInventory(pb.GetInventoryRequest(card=first.id)))
    assert first.id != second.id
    assert first.identity == second.identity
    assert error.code == "NO_SUCH_CARD"


async def test_an_inventory_is_read_once_and_again_when_it_is_asked_for() -> None:
    card = token()
    async with running(card) as run:
        identifier = (await run.client.card()).id
        one = await run.client.cards.GetInventory(pb.GetInventoryRequest(card=identifier))
        reads = len(card.log)
        two = await run.client.cards.GetInventory(pb.GetInventoryRequest(card=identifier))
        assert len(card.log) == reads
        assert two == one
        three = await run.client.cards.GetInventory(pb.GetInventoryRequest(card=identifier, refresh=True))
        assert three.inventory == one.inventory
        assert three.observed_at.ToDatetime() > one.observed_at.ToDatetime()
    seen = wire.inventory_from_wire(one.inventory)
    assert seen.identity.serial == "12345678"
    assert seen.pin.tries_left == 3


async def test_events_tell_what_is_there_then_what_happens() -> None:
    async with running() as run:
        call = run.client.cards.WatchEvents(pb.WatchEventsRequest())
        first = [await call.read() for _ in range(3)]
        assert [event.WhichOneof("event") for event in first] == ["reader", "reader", "synced"]
        run.bench.insert(token(7))
        came = await call.read()
        assert came.card.present and came.card.card.state in (pb.CARD_STATE_READING, pb.CARD_STATE_READY)
        while came.card.card.state == pb.CARD_STATE_READING:
            came = await call.read()
        assert came.card.card.identity.serial == "7"
        run.bench.remove()
        gone = await call.read()
        assert not gone.card.present
        assert gone.card.card.id == came.card.card.id
        run.bench.source.unplug("Virtual reader 01")
        assert not (await call.read()).reader.present
        run.bench.source.add(SlotReader("Another reader"))
        assert (await call.read()).reader.reader.name == "Another reader"
        call.cancel()


async def test_a_card_that_is_no_piv_card_says_so_and_hides_nothing() -> None:
    class Mute(VirtualCard):
        def transmit(self, command: bytes) -> bytes:
            return b"\x6a\x82"

    async with running(Mute("yubikey-5.7"), token(5)) as run:
        bad, good = await run.client.card(0), await run.client.card(1)
        report = await run.client.workstation.GetReport(pb.GetReportRequest())
    assert bad.state == pb.CARD_STATE_UNREADABLE
    assert bad.problem.code == "NOT_PIV"
    assert good.identity.serial == "5"
    assert [reader.problem for reader in report.readers] == ["NOT_PIV", ""]


@pytest.mark.parametrize("fault", ["reset", "select"])
async def test_another_program_in_the_middle_of_a_look_costs_nothing(fault: str) -> None:
    """Reset or deselected before the third command: the look is right all the same, or begun anew."""
    async with running(FaultyCard(token(), parse(f"apdu=3:{fault}"))) as run:
        card = await run.client.card()
        found = await run.client.cards.GetInventory(pb.GetInventoryRequest(card=card.id, refresh=True))
    assert found.inventory.pin.tries_left == 3


async def test_a_card_that_could_not_be_reached_is_tried_again_by_itself() -> None:
    async with running(FaultyCard(token(), parse("apdu=1:unsent"))) as run:
        bad = await run.client.until(
            lambda event: event.HasField("card") and event.card.card.state != pb.CARD_STATE_READING
        )
        good = await run.client.until(
            lambda event: event.HasField("card") and event.card.card.state == pb.CARD_STATE_READY
        )
    assert bad.card.card.id == good.card.card.id
    assert not good.card.card.HasField("problem")


async def test_the_check_reads_the_card_and_the_pin_only_when_asked() -> None:
    async with running(token(), person=Person(b"123456")) as run:
        card = await run.client.card()
        plain = await run.client.cards.CheckCard(pb.CheckCardRequest(card=card.id))
        assert run.person.asked == []
        full = await run.client.cards.CheckCard(pb.CheckCardRequest(card=card.id, with_pin=True))
        assert [asked.act for asked in run.person.asked] == ["check card 12345678"]
    assert not plain.good
    assert {finding.severity for finding in full.findings} >= {pb.SEVERITY_ERROR}


async def test_the_trace_shows_commands_and_no_secret() -> None:
    async with running(token(), person=Person(b"123456", b"639174", b"639174")) as run:
        card = await run.client.card()
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card.id))
        trace = await run.client.cards.TraceCard(pb.TraceCardRequest(card=card.id))
    names = [entry.instruction for entry in trace.entries]
    assert names[0] == "SELECT"
    (change,) = [entry for entry in trace.entries if entry.instruction == "CHANGE REFERENCE DATA"]
    assert change.data == b"" and change.lc == 16 and change.sw == 0x9000


async def test_octets_that_are_no_message_are_refused() -> None:
    async with running() as run:
        cards: Any = run.client.channel.unary_unary("/cardwright.agent.v1.CardService/ListCards")
        error = await failing(cards(b"\xff\xff"))
        events: Any = run.client.channel.unary_stream("/cardwright.agent.v1.CardService/WatchEvents")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await events(b"\xff\xff").read()
    assert error.code == "REQUEST_INVALID"
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_unknown_fields_are_refused() -> None:
    async with running() as run:
        raw: Any = run.client.channel.unary_unary("/cardwright.agent.v1.CardService/ListReaders")
        error = await failing(raw(b"\x98\x06\x01"))
    assert error.code == "WIRE_UNSUPPORTED"


async def test_what_nobody_foresaw_is_told_by_its_kind_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(token()) as run:
        card = await run.client.card()

        def broken(*arguments: object, **named: object) -> None:
            raise RuntimeError("canary 739146")

        monkeypatch.setattr(run.daemon.desk.cards, "inventory", broken)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await run.client.cards.GetInventory(pb.GetInventoryRequest(card=card.id))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "canary" not in str(caught.value) + caplog.text
    assert "RuntimeError at edge.py" in caplog.text


async def test_two_cards_are_read_at_the_same_time() -> None:
    """Each card waits for the other in the middle of its look: with one worker for both, neither would end."""
    both = threading.Barrier(2, timeout=10)

    class Meeting(VirtualCard):
        met = False

        def transmit(self, command: bytes) -> bytes:
            if not self.met and command[1] == get_data(0x5FC102).ins:
                self.met = True
                both.wait()
            return super().transmit(command)

    async with running(Meeting("yubikey-5.7", serial=1), Meeting("yubikey-5.7", serial=2)) as run:
        found = await asyncio.gather(run.client.card(0), run.client.card(1))
    assert [card.identity.serial for card in found] == ["1", "2"]
    assert not both.broken
