"""Sessions through the daemon: preview, consent, execution under the guard, and going on after a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from cardwright_cardops.piv import commands
from cardwright_cardops.plan.records import Kind
from cardwright_cardops.program.items import AnyBatch, Apdu, Batch, Group, SetPuk
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_daemon import relay
from cardwright_daemon.app import Daemon
from cardwright_daemon.cards import CardState
from cardwright_daemon.link.ports import Message, Opening, Purpose
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard, parse
from tests.oracle.card import Expected, judge
from tests.support import daemon_server
from tests.support.card_init import P256
from tests.support.daemon_server import PUK, Server, an_update
from tests.support.daemons import Bench, Person, Run, config, failing, running, token

PIN = b"739146"
GOAL = {0x9A: (P256, True), 0x9C: (P256, True), 0x9D: (P256, False), 0x9E: (P256, True)}


def faults_of(server: Server, card: VirtualCard, pin: bytes = PIN, puk: bytes = PUK) -> list[str]:
    """What the judge finds wrong with the card."""
    entries = server.journal(str(card.serial)).entries()
    keys = frozenset(one.value.reveal() for one in entries if one.kind is Kind.MANAGEMENT_KEY and one.value)
    return judge(card.snapshot(), Expected(GOAL, pin, puk, keys, issuer=server.ca.public_key()))


async def preview(run: Run, card: str, purpose: pb.Purpose.ValueType = pb.PURPOSE_ISSUE) -> pb.PreviewUpdateResponse:
    request = pb.PreviewUpdateRequest(card=card, purpose=purpose)
    shown: pb.PreviewUpdateResponse = await run.client.updates.PreviewUpdate(request)
    return shown


async def start(run: Run, card: str, shown: pb.PreviewUpdateResponse) -> pb.Operation:
    """Start what was shown and wait for its end."""
    begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
    return await ended(run, begun.operation.id)


async def ended(run: Run, operation: str) -> pb.Operation:
    done = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=operation))
    return done.operation  # type: ignore[no-any-return]


async def issue(run: Run, number: int = 0) -> pb.Operation:
    """Issue the card in a reader, to the end."""
    card = (await run.client.card(number)).id
    return await start(run, card, await preview(run, card))


async def test_a_fresh_card_is_issued_from_its_preview() -> None:
    card, server = token(), Server()
    fresh = card.snapshot()
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier)
        assert run.person.asked == []
        assert [step.id for step in shown.steps][:2] == ["set-puk", "set-pin"]
        assert "Make a p256 key in slot 9A" in [step.words for step in shown.steps]
        assert (shown.asks_pin, shown.asks_new_pin, list(shown.confirmations)) == (False, True, [])
        assert server.batches == 0 and card.snapshot() == fresh
        operation = await start(run, identifier, shown)
        assert operation.phase == pb.OPERATION_PHASE_DONE, operation.error
        assert (operation.outcome, operation.percentage) == (pb.OUTCOME_DONE, 100)
        assert [one.what for one in run.person.asked] == ["new PIN", "new PIN once more"]
        again = await preview(run, identifier, pb.PURPOSE_UPDATE)
        listed = (await run.client.cards.ListCards(pb.ListCardsRequest())).cards
    assert again.nothing_due
    assert listed[0].identity.guid
    assert faults_of(server, card) == []
    assert all(session.closed for session in server.sessions)
    assert server.batches == 4


async def test_two_cards_are_issued_at_the_same_time() -> None:
    one, two, server = token(1), token(2), Server()
    both, begun = asyncio.Event(), set()

    async def meet(number: int, batch: AnyBatch) -> AnyBatch:
        begun.add(asyncio.current_task())
        if len(begun) == 2:
            both.set()
        async with asyncio.timeout(20):
            await both.wait()
        return batch

    server.on_batch = meet
    async with running(one, two, link=server, person=Person(PIN, PIN, PIN, PIN)) as run:
        done = await asyncio.gather(issue(run, 0), issue(run, 1))
    assert [operation.phase for operation in done] == [pb.OPERATION_PHASE_DONE] * 2
    assert faults_of(server, one) == faults_of(server, two) == []


async def test_nothing_is_sent_without_consent_to_this_very_plan() -> None:
    card, server = token(), Server()
    async with running(card, link=server) as run:
        identifier = (await run.client.card()).id
        none = await failing(run.client.updates.StartUpdate(pb.StartUpdateRequest(card=identifier, digest=bytes(32))))
        shown = await preview(run, identifier)
        other = await failing(run.client.updates.StartUpdate(pb.StartUpdateRequest(card=identifier, digest=bytes(32))))
        before = card.snapshot()
        await run.client.updates.DismissPreview(pb.DismissPreviewRequest(card=identifier))
        gone = await failing(
            run.client.updates.StartUpdate(pb.StartUpdateRequest(card=identifier, digest=shown.digest))
        )
        assert card.snapshot() == before
    assert {none.code, other.code, gone.code} == {"NO_SUCH_PREVIEW"}
    assert server.consented == []


async def test_a_closed_pin_dialog_ends_the_session_before_consent() -> None:
    card, server = token(), Server()
    async with running(card, link=server, person=Person(None)) as run:
        operation = await issue(run)
    assert operation.error.code == "PINENTRY_CANCELLED"
    assert (server.consented, server.batches) == ([], 0)
    assert server.sessions[0].closed


async def test_no_transaction_is_open_while_the_person_is_asked() -> None:
    """Another program works with the card the whole time that the dialog is open."""
    card, server = token(), Server()
    typing = asyncio.Event()
    async with running(card, link=server, person=Person(typing, PIN, PIN)) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier)
        waiting = asyncio.create_task(start(run, identifier, shown))
        await run.person.waits.wait()

        def use() -> bytes:
            other = run.bench.slots[0].connect()
            with other.transaction():
                return other.transmit(commands.select().encode())

        async with asyncio.timeout(5):
            assert (await asyncio.to_thread(use))[-2:] == b"\x90\x00"
        typing.set()
        assert (await waiting).phase == pb.OPERATION_PHASE_DONE
    assert faults_of(server, card) == []


async def _issued(server: Server, card: VirtualCard) -> None:
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        assert (await issue(run)).phase == pb.OPERATION_PHASE_DONE


def renewing(server: Server) -> Server:
    """The same server, later: certificates are about to end."""
    server.policy = replace(server.policy, renew_before=timedelta(days=310), replace=True)
    return server


async def test_a_wrong_pin_costs_a_question_and_not_the_session() -> None:
    card, server = token(), Server()
    await _issued(server, card)
    renewing(server)
    person = Person(b"111119", PIN)
    async with running(card, link=server, person=person) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier, pb.PURPOSE_UPDATE)
        assert (shown.asks_pin, shown.asks_new_pin) == (True, False)
        operation = await start(run, identifier, shown)
    assert operation.phase == pb.OPERATION_PHASE_DONE, operation.error
    assert [(one.tries, one.error) for one in person.asked] == [(None, ""), (2, "It was wrong.")]
    assert [one.act for one in person.asked] == ["update card 12345678"] * 2


async def test_a_clone_with_another_card_key_gets_no_pin() -> None:
    """Same CHUID, same serial number, another key in 9E: swapped in between preview and start, it is found out."""
    card, server = token(), Server()
    await _issued(server, card)
    renewing(server)
    clone = token()
    other = Server(policy=server.policy)
    await _issued(other, clone)
    state = card.snapshot()
    person = Person(PIN)
    async with running(card, link=server, person=person) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier, pb.PURPOSE_UPDATE)
        # The wire is moved to the clone, and nobody is told: no removal, no reset.
        run.bench.slots[0].card.transmit = _impostor(clone, card)  # type: ignore[union-attr,method-assign]
        verifies = len([entry for entry in clone.log if type(entry).__name__ == "Verify"])
        operation = await start(run, identifier, shown)
    assert operation.error.code == "GUARD_REFUSED"
    assert len([entry for entry in clone.log if type(entry).__name__ == "Verify"]) == verifies
    assert server.consented == server.consented[:1]
    assert card.snapshot() == state


def _impostor(clone: VirtualCard, card: VirtualCard) -> object:
    """Answers of the clone, CHUID and serial number of the card."""
    genuine = card.__class__.transmit

    def transmit(command: bytes) -> bytes:
        data_object = command[1:4] == b"\xcb\x3f\xff" and b"\x5f\xc1\x02" in command
        if data_object or command[1] in (0xF8, 0xC0):
            clone.transmit(command)
            return genuine(card, command)
        if command[1] == 0xA4:
            genuine(card, command)
        return clone.transmit(command)

    return transmit


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
        monkeypatch.setattr("cardwright_daemon.sessions.RelayedCard", _short)
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
    assert faults_of(server, card) == []


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
    server.on_batch = daemon_server.as_it_is
    async with running(card, link=server, person=Person(PIN, PIN)) as run:
        assert (await issue(run)).outcome == pb.OUTCOME_DONE
    assert faults_of(server, card) == []


async def test_an_unlock_sets_a_new_pin_through_the_server() -> None:
    card, server = token(), Server()
    await _issued(server, card)
    new = b"582047"
    async with running(card, link=server, person=Person(new, new)) as run:
        identifier = (await run.client.card()).id
        begun = await run.client.updates.Unlock(pb.UnlockRequest(card=identifier))
        operation = await ended(run, begun.operation.id)
    assert operation.phase == pb.OPERATION_PHASE_DONE, operation.error
    assert operation.kind == pb.OPERATION_KIND_UNLOCK
    assert [one.act for one in run.person.asked] == ["unlock card 12345678"] * 2
    assert faults_of(server, card, pin=new) == []


async def test_without_a_server_everything_says_so() -> None:
    async with running(token()) as run:
        card = (await run.client.card()).id
        updates = run.client.updates
        later = _in(timedelta(hours=1))
        calls = [
            (updates.GetDue, pb.GetDueRequest(card=card)),
            (updates.PreviewUpdate, pb.PreviewUpdateRequest(card=card)),
            (updates.PostponeUpdate, pb.PostponeUpdateRequest(card=card, until=later)),
            (updates.ListMethods, pb.ListMethodsRequest(card=card, purpose=pb.PURPOSE_UNLOCK)),
            (run.client.escrow.ListEscrowedKeys, pb.ListEscrowedKeysRequest(card=card)),
            (run.client.workstation.SignIn, pb.SignInRequest(card=card, link="cardwright:x")),
        ]
        codes = [(await failing(call(request))).code for call, request in calls]
        begun = await run.client.updates.Unlock(pb.UnlockRequest(card=card))
        operation = await ended(run, begun.operation.id)
        report = await run.client.workstation.GetReport(pb.GetReportRequest())
    assert codes == ["SERVER_NOT_CONFIGURED"] * len(codes)
    assert operation.error.code == "SERVER_NOT_CONFIGURED"
    assert report.link == pb.LINK_STATE_NOT_CONFIGURED


def _in(later: timedelta) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    made = Timestamp()
    made.FromDatetime(datetime.now(UTC) + later)
    return made


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
                    await run.client.until(lambda event: _settled(run))
                    if run.bench.slots[0].card is None:
                        run.bench.insert(card)
                    await issue(run)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in (
                        grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
                    ), error  # fmt: skip
                await _quiet(run)
                if not faults_of(server, card):
                    break
            assert faults_of(server, card) == [], number

    async def all_of_them() -> None:
        for number in range(1 + part, many + 1, 6):
            await pulled(number)

    asyncio.run(all_of_them())


def _settled(run: Run) -> bool:
    """Nobody is finding out who a card is."""
    return all(card.state is not CardState.READING for card in run.daemon.desk.cards.all)


async def _quiet(run: Run) -> None:
    """Every operation is over, those too that the daemon began by itself."""
    desk = run.daemon.desk
    while running_ones := [one for one in desk.operations.all if not one.over]:
        for one in running_ones:
            await desk.operations.wait(one.id)


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


async def test_what_is_due_is_asked_at_insertion_kept_and_told() -> None:
    card, server = token(), Server()
    await _issued(server, card)
    server.due_is = an_update()
    async with running(card, link=server) as run:
        event = await run.client.until(lambda event: event.HasField("due") or event.HasField("synced"))
        identifier = (await run.client.card()).id
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=identifier))).due
        asked = len(server.asked)
        await run.client.updates.GetDue(pb.GetDueRequest(card=identifier))
        assert len(server.asked) == asked
        await run.client.updates.GetDue(pb.GetDueRequest(card=identifier, refresh=True))
        assert len(server.asked) == asked + 1
        later = _in(timedelta(hours=2))
        put_off = await run.client.updates.PostponeUpdate(pb.PostponeUpdateRequest(card=identifier, until=later))
    assert event is not None
    assert [item.what for item in found.items] == ["renewal"]
    assert put_off.due.postponed_until == later


def test_an_item_that_uses_a_key_is_not_named_by_the_daemon() -> None:
    from cardwright_daemon.sessions import ITEMS

    assert "use_key" not in ITEMS
    assert isinstance(Apdu(commands.select()), Apdu)


async def test_many_light_daemons_fit_into_one_process() -> None:
    """Without the local API: no socket, no gRPC server; everything else works."""
    servers = [Server() for _ in range(10)]
    benches = [Bench(1) for _ in servers]
    cards = [token(100 + number) for number in range(10)]

    async def workstation(number: int) -> str:
        person, bench = Person(PIN, PIN), benches[number]
        made = Daemon(config(Path("/nowhere")), sources=[bench.source], link=servers[number], asker=person, api=False)
        async with made as daemon:
            bench.insert(cards[number])
            while not daemon.desk.cards.all:
                await asyncio.sleep(0)
            (card,) = daemon.desk.cards.all
            await card.met.wait()
            shown = await daemon.desk.sessions.preview(card, Purpose.ISSUE, person)
            assert shown.plan is not None
            digest = bytes.fromhex(shown.plan.digest)
            operation = daemon.desk.sessions.start(card, digest, frozenset(), person)
            return (await daemon.desk.operations.wait(operation.id)).outcome

    outcomes = await asyncio.gather(*(workstation(number) for number in range(10)))
    assert outcomes == ["done"] * 10
    assert [faults_of(server, card) for server, card in zip(servers, cards, strict=True)] == [[]] * 10
