"""Sessions through the daemon: preview, consent, execution under the guard."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import commands, containers
from cardwright_cardops.piv.objects import KeyHistory
from cardwright_cardops.piv.references import RETIRED_SLOTS
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.program.items import AnyBatch, Apdu
from cardwright_daemon.answers import Answers
from cardwright_daemon.app import Daemon
from cardwright_daemon.config import Pins
from cardwright_daemon.link.ports import Purpose
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from tests.support.daemon_server import Server, an_update
from tests.support.daemon_sessions import (
    PIN,
    ended,
    faults_of,
    in_future,
    issue,
    issued_card,
    preview,
    renewing,
    start,
)
from tests.support.daemons import Bench, Person, config, failing, running, token


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


async def test_a_wrong_pin_costs_a_question_and_not_the_session() -> None:
    card, server = token(), Server()
    await issued_card(server, card)
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
    await issued_card(server, card)
    renewing(server)
    clone = token()
    other = Server(policy=server.policy)
    await issued_card(other, clone)
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


async def test_an_unlock_sets_a_new_pin_through_the_server() -> None:
    card, server = token(), Server()
    await issued_card(server, card)
    new = b"582047"
    async with running(card, link=server, person=Person(new, new)) as run:
        identifier = (await run.client.card()).id
        begun = await run.client.updates.Unlock(pb.UnlockRequest(card=identifier))
        operation = await ended(run, begun.operation.id)
    assert operation.phase == pb.OPERATION_PHASE_DONE, operation.error
    assert operation.kind == pb.OPERATION_KIND_UNLOCK
    assert [one.act for one in run.person.asked] == ["unlock card 12345678"] * 2
    assert faults_of(server, card, pin=new) == []


async def test_the_rules_of_the_policy_are_shown_and_kept_while_a_pin_is_chosen() -> None:
    """What breaks them is asked for again, and no command of it reaches the card."""
    rules = PinRules(7, 8, digits_only=False, refuse_trivial=False)
    card, server = token(), Server(pin_rules=rules)
    await issued_card(server, card, pin=b"Kx7!pqz")
    new = b"7x!Kpqz9"
    person = Person(PIN, b"iloveyou", new, new)
    async with running(card, link=server, person=person) as run:
        identifier = (await run.client.card()).id
        begun = await run.client.updates.Unlock(pb.UnlockRequest(card=identifier))
        operation = await ended(run, begun.operation.id)
    assert operation.phase == pb.OPERATION_PHASE_DONE, operation.error
    note = "It has 7 to 8 characters, not a common one."
    assert [(one.note, one.error) for one in person.asked] == [
        (note, ""), (note, "It is too short."), (note, "Too many people choose it."), ("", ""),
    ]  # fmt: skip
    assert faults_of(server, card, pin=new) == []


async def test_the_rules_of_the_policy_hold_also_without_a_session(tmp_path: Path) -> None:
    """A PIN that is changed later, by another daemon that was started meanwhile."""
    card, server = token(), Server(pin_rules=PinRules(8, 8))
    first, second = b"73914628", b"84025739"
    kept = Answers(tmp_path / "due.json", lambda: b"server")
    async with running(card, link=server, person=Person(first, first), answers=kept) as run:
        assert (await issue(run)).phase == pb.OPERATION_PHASE_DONE
    again = Answers(tmp_path / "due.json", lambda: b"server")
    person = Person(first, b"840257", second, second)
    async with running(card, link=server, person=person, answers=again) as run:
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=(await run.client.card()).id))
    assert [one.error for one in person.asked] == ["", "", "It is too short.", ""]
    assert person.asked[1].note == "It has 8 digits, not a regular or common one and not the old one."
    assert faults_of(server, card, pin=second) == []


async def test_a_session_takes_pins_from_its_caller_only_where_that_is_configured() -> None:
    card, server = token(), Server()
    given = pb.Asking(headless=pb.HeadlessPins(new=PIN))
    async with running(card, link=server, asks=False) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier)
        refused = pb.StartUpdateRequest(card=identifier, digest=shown.digest, asking=given)
        assert (await failing(run.client.updates.StartUpdate(refused))).code == "HEADLESS_PIN_REFUSED"
        assert server.batches == 0
    async with running(card, link=server, asks=False, pins=Pins(headless=True)) as run:
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier)
        begun = pb.StartUpdateRequest(card=identifier, digest=shown.digest, asking=given)
        operation = await ended(run, (await run.client.updates.StartUpdate(begun)).operation.id)
        assert operation.phase == pb.OPERATION_PHASE_DONE, operation.error
    assert faults_of(server, card) == []


async def test_without_a_server_everything_says_so() -> None:
    async with running(token()) as run:
        card = (await run.client.card()).id
        updates = run.client.updates
        later = in_future(timedelta(hours=1))
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


async def test_what_is_due_is_asked_at_insertion_kept_and_told() -> None:
    card, server = token(), Server()
    await issued_card(server, card)
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
        later = in_future(timedelta(hours=2))
        put_off = await run.client.updates.PostponeUpdate(pb.PostponeUpdateRequest(card=identifier, until=later))
    assert event is not None
    assert [item.what for item in found.items] == ["renewal"]
    assert put_off.due.postponed_until == later


async def test_the_server_is_told_of_keys_in_retired_slots_where_there_are_some() -> None:
    """It need not look for itself before it plans, which would cross the line once more."""
    card, server = token(), Server()
    await issued_card(server, card)
    objects = card._core.state.objects
    objects[0x5FC10D] = objects[containers.CERT_9D.tag]
    objects[containers.KEY_HISTORY.tag] = encode(0x53, KeyHistory(on_card=1).encode())
    async with running(card, link=server) as run:
        await preview(run, (await run.client.card()).id, pb.PURPOSE_UPDATE)
    told = server.openings[-1].card
    assert told.retired_counts == (1, 0)
    assert [row.slot for row in told.certificates if row.slot.is_retired] == [RETIRED_SLOTS[0]]


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
