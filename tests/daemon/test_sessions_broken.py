"""Sessions that are cut, pulled, cancelled or overdone: the card is right in the end, and nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from cardwright_cardops.piv import commands
from cardwright_cardops.program.items import AnyBatch, Apdu, Batch, Group, SetPuk
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_daemon import relay
from cardwright_daemon.link.ports import EndStage, Message, Opening
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard, parse
from tests.support import daemon_server
from tests.support.daemon_server import PUK, Server
from tests.support.daemon_sessions import (
    PIN,
    ended,
    faults_of,
    issue,
    preview,
    quiet,
    settled,
    start,
)
from tests.support.daemons import PATIENCE, Person, failing, running, token


async def test_the_guard_stops_a_server_that_asks_for_more() -> None:
    card, server = token(), Server()

    async def greedy(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 2 and isinstance(batch, Batch):
            more = Group((SetPuk(Secret(b"12345678"), Secret(b"66666666")), SetPuk(Secret(b"66666666"), Secret(PUK))))
            return Batch((*batch.groups, *(more,) * 5), batch.stage)
        return batch

    server.on_batch = greedy
    fresh = card.snapshot()
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        operation = await issue(run)
        report = await run.client.workstation.GetReport(pb.GetReportRequest())
    assert operation.phase == pb.OPERATION_PHASE_FAILED
    assert operation.error.code == "GUARD_REFUSED"
    assert card.snapshot() == fresh
    assert "GUARD_REFUSED" in {error.code for error in report.errors}


async def test_a_lost_line_ends_the_stage_and_drops_the_pin() -> None:
    """The line goes after the PIN was verified: the card has forgotten it, and others get at the card at once."""
    card, server = token(), Server()

    async def cut(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 4:
            raise ConnectionError
        return batch

    server.on_batch = cut
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        operation = await issue(run)
        assert operation.error.code == "SERVER_UNREACHABLE"
        other = DirectConnection(card)
        other.transmit(commands.select().encode())
        assert other.transmit(commands.pin_state().encode())[:1] == b"\x63"


async def test_a_stage_without_batches_ends_after_its_time_and_the_rest_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, server = token(), Server()
    ended_stage = asyncio.Event()
    real = relay.RelayedCard._end

    async def end(self: relay.RelayedCard) -> None:
        open_stage = bool(self._stage)
        await real(self)
        if open_stage:
            ended_stage.set()

    async def dawdle(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 2:
            async with asyncio.timeout(10):
                await ended_stage.wait()
        return batch

    server.on_batch = dawdle
    monkeypatch.setattr(relay.RelayedCard, "stage_seconds", 0.05)
    monkeypatch.setattr(relay.RelayedCard, "_end", end)
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        monkeypatch.setattr("cardwright_daemon.relay.RelayedCard", _short)
        operation = await issue(run)
    assert operation.error.code == "STAGE_ENDED"


class _short(relay.RelayedCard):
    def __post_init__(self) -> None:
        self.stage_seconds = 0.05
        super().__post_init__()


async def test_a_session_is_cancelled_where_that_is_safe_and_nowhere_else() -> None:
    """Not while a stage is open; before it, and the card is as it was."""
    card, server = token(), Server()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stop(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 2:
            reached.set()
            await go_on.wait()
        return batch

    server.on_batch = stop
    typing = asyncio.Event()
    fresh = card.snapshot()
    async with running(card, link=server, person=Person(typing, PIN, PIN)) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier)
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=identifier, digest=shown.digest))
        await run.person.waits.wait()
        wanted = pb.CancelOperationRequest(operation=begun.operation.id)
        assert (await run.client.operations.CancelOperation(wanted)).operation.phase == pb.OPERATION_PHASE_CANCELLED
        assert card.snapshot() == fresh
        run.person.answers = [PIN, PIN]
        shown = await preview(run, identifier)
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=identifier, digest=shown.digest))
        await reached.wait()
        wanted = pb.CancelOperationRequest(operation=begun.operation.id)
        assert (await failing(run.client.operations.CancelOperation(wanted))).code == "OPERATION_NOT_CANCELLABLE"
        go_on.set()
        assert (await ended(run, begun.operation.id)).outcome == pb.OUTCOME_DONE
    assert (faults_of(server, card), server.left) == ([], 0)


async def test_a_server_that_ends_without_a_word_is_an_error() -> None:
    card, server = token(), Server()

    class Silent(daemon_server.Session):
        async def messages(self) -> AsyncIterator[Message]:
            return
            yield

    async def opened(opening: Opening) -> Silent:
        return Silent(server, opening)

    server.open = opened  # type: ignore[method-assign]
    async with running(card, link=server) as run:
        identifier = (await run.client.card()).id
        request = pb.PreviewUpdateRequest(card=identifier, purpose=pb.PURPOSE_ISSUE)
        assert (await failing(run.client.updates.PreviewUpdate(request))).code == "STAGE_ENDED"


async def test_stopping_the_daemon_ends_a_session_and_the_next_one_finishes_it() -> None:
    card, server = token(), Server()
    reached = asyncio.Event()

    async def stop(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 3:
            reached.set()
            await asyncio.Event().wait()
        return batch

    server.on_batch = stop
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier)
        await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=identifier, digest=shown.digest))
        await reached.wait()
    assert faults_of(server, card) != []
    # Nobody ended it: the server hears nothing, so that the holder may go on with what they proved.
    assert server.left == 1
    server.on_batch = daemon_server.as_it_is
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        assert (await issue(run)).outcome == pb.OUTCOME_DONE
    assert faults_of(server, card) == []


def _apdus_of_an_issuance() -> int:
    """How many commands there are from the insertion to the end of an issuance, as the card counts them."""
    counted = 0

    class Counting(VirtualCard):
        def transmit(self, command: bytes) -> bytes:
            nonlocal counted
            counted += 1
            return super().transmit(command)

    async def once() -> None:
        async with running(Counting("yubikey-5.7", serial=77), link=Server(), person=Person(PIN, PIN)) as run:
            assert (await issue(run)).phase == pb.OPERATION_PHASE_DONE

    asyncio.run(once())
    return counted


@pytest.mark.parametrize("part", range(6))
@pytest.mark.parametrize("effect", ["remove", "remove-after"])
def test_a_card_pulled_at_any_command_of_an_issuance_is_finished_after_it_is_put_back(effect: str, part: int) -> None:
    """Consent covers what is left: the daemon goes on by itself, asks for the PIN if it must, and the card is right."""
    many = _apdus_of_an_issuance()
    assert many > 60

    async def pulled(number: int) -> None:
        card, server = VirtualCard("yubikey-5.7", serial=77), Server()
        faulty = FaultyCard(card, parse(f"apdu={number}:{effect}"))
        person = Person(*[PIN] * 12)
        async with running(faulty, link=server, person=person, readers=1) as run:
            for _ in range(4):
                try:
                    await run.client.until(lambda event: settled(run))
                    if run.bench.slots[0].card is None:
                        run.bench.insert(card)
                    await issue(run)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in (
                        grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
                    ), error  # fmt: skip
                await quiet(run)
                if not faults_of(server, card):
                    break
            assert faults_of(server, card) == [], number

    async def all_of_them() -> None:
        for number in range(1 + part, many + 1, 6):
            await pulled(number)

    asyncio.run(all_of_them())


async def test_a_pulled_card_goes_on_by_itself_when_it_is_put_back() -> None:
    card, server = VirtualCard("yubikey-5.7", serial=77), Server()
    faulty = FaultyCard(card, parse("ins=DB@3:remove"))
    async with running(faulty, link=server, person=Person(*[PIN] * 4), readers=1) as run:
        operation = await issue(run)
        assert operation.error.code == "CARD_REMOVED"
        before = len(server.consented)
        run.bench.insert(card)
        event = await run.client.until(
            lambda event: event.HasField("operation")
            and event.operation.operation.id != operation.id
            and event.operation.operation.phase == pb.OPERATION_PHASE_DONE
            and event.operation.operation.kind == pb.OPERATION_KIND_ISSUE
        )
        assert event.operation.operation.outcome == pb.OUTCOME_DONE
    assert len(server.consented) == before + 1
    assert faults_of(server, card) == []


async def test_a_pin_is_asked_for_again_before_another_stage_begins() -> None:
    """It was forgotten with the stage that ended."""
    card, server = token(), Server()

    async def anew(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 3 and isinstance(batch, Batch):
            server.sessions[-1]._out.put_nowait(EndStage())
            return Batch((Group((Apdu(commands.select()),), essential=True), *batch.groups), "another")
        return batch

    server.on_batch = anew
    async with running(card, link=server, person=Person(PIN, PIN, PIN, PIN)) as run:
        await issue(run)
    assert [one.what for one in run.person.asked] == ["new PIN", "new PIN once more"] * 2


@pytest.mark.parametrize("how", ["done", "lost line", "refused PIN", "dismissed", "taken out", "guard"])
async def test_every_connection_is_closed_however_a_session_ends(how: str) -> None:
    card, server = token(), Server()
    opened: list[_Kept] = []

    async def harm(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 3 and how == "lost line":
            raise ConnectionError
        if number == 2 and how == "guard" and isinstance(batch, Batch):
            return Batch((*batch.groups, Group((SetPuk(Secret(PUK), Secret(PUK)),) * 9)), batch.stage)
        return batch

    server.on_batch = harm
    person = Person(None) if how == "refused PIN" else Person(PIN, PIN)
    async with running(card, link=server, person=person) as run:
        source = run.bench.source
        identifier = (await run.client.card()).id
        connect = source.connect

        def counted(reader: str) -> Any:
            opened.append(_Kept(connect(reader)))
            return opened[-1]

        source.connect = counted  # type: ignore[method-assign]
        shown = await preview(run, identifier)
        # What asks by itself what is due may have had one of its own meanwhile.
        assert [one.closed for one in opened].count(False) >= 1
        if how == "dismissed":
            await run.client.updates.DismissPreview(pb.DismissPreviewRequest(card=identifier))
        elif how == "taken out":
            run.bench.remove()
        else:
            await start(run, identifier, shown)
        await quiet(run)
        async with asyncio.timeout(PATIENCE):
            # Asking what is due afterwards opens one of its own for a moment, to prove that the card is here.
            while not all(one.closed for one in opened):
                await asyncio.sleep(0)
        assert opened
        assert all(session.closed for session in server.sessions)


class _Kept:
    """A connection that tells whether it was closed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_a_server_that_says_nothing_for_too_long_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    card, server = token(), Server()

    async def silent(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 2:
            await asyncio.Event().wait()
        return batch

    class Impatient(relay.RelayedCard):
        def __post_init__(self) -> None:
            self.stage_seconds, self.silence_seconds = 0.05, 0.05
            super().__post_init__()

    server.on_batch = silent
    monkeypatch.setattr("cardwright_daemon.relay.RelayedCard", Impatient)
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        operation = await issue(run)
    assert operation.error.code == "SERVER_UNREACHABLE"
    assert server.sessions[0].closed
