"""PIN and PUK through the daemon: what is asked, what is sent, and what it costs when something goes wrong."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_daemon.config import Pins
from cardwright_daemon.prompts import Asked
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import Verify
from cardwright_simulators.reader.faults import FaultyCard, parse
from tests.support.daemon_server import Server
from tests.support.daemons import Person, Run, failing, running, token

OLD, NEW, PUK = b"123456", b"639174", b"12345678"


async def status(run: Run, card: str) -> tuple[int, int]:
    """Tries left of PIN and PUK."""
    found = await run.client.pins.GetPinStatus(pb.GetPinStatusRequest(card=card))
    return found.pin.tries_left, found.puk.tries_left


async def opens(run: Run, card: str, pin: bytes) -> bool:
    """Whether ``pin`` is the PIN, as the card itself says."""
    run.person.answers = [pin]
    try:
        await run.client.cards.CheckCard(pb.CheckCardRequest(card=card, with_pin=True))
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_a_pin_is_changed_with_the_act_the_tries_and_the_rules_named() -> None:
    async with running(token(), person=Person(OLD, NEW, NEW)) as run:
        card = (await run.client.card()).id
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card))
        asked = [one.sentence for one in run.person.asked]
        assert await opens(run, card, NEW)
    assert asked == [
        "Enter the current PIN to change the PIN of card 12345678. 3 tries left.",
        "Enter the new PIN to change the PIN of card 12345678. "
        "It has 6 to 8 digits, not a regular or common one and not the old one.",
        "Enter the new PIN once more to change the PIN of card 12345678.",
    ]


async def test_a_wrong_pin_is_asked_for_again_and_the_last_try_is_never_spent() -> None:
    wrong = [b"999999", NEW, NEW]
    async with running(token(), person=Person(*wrong, *wrong, *wrong)) as run:
        card = (await run.client.card()).id
        error = await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))
        left = await status(run, card)
        again = await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))
    assert [(one.tries, one.error) for one in run.person.asked if one.what == "current PIN"] == [
        (3, ""),
        (2, "It was wrong."),
    ]
    assert left == (1, 3)
    assert error.tries_left == 1
    assert again.code == "LAST_TRY"
    assert len(run.person.answers) == 3  # nobody was asked a third time


async def test_the_last_try_is_spent_when_the_person_says_so() -> None:
    wrong = [b"999999", NEW, NEW]
    async with running(token(), person=Person(*wrong, *wrong, OLD, NEW, NEW)) as run:
        card = (await run.client.card()).id
        await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card, allow_last_try=True))
        assert await status(run, card) == (3, 3)


async def test_new_pins_keep_the_rules_and_are_entered_twice() -> None:
    answers = (OLD, b"825", b"111111", OLD, NEW, b"000000", NEW, NEW)
    async with running(token(), person=Person(*answers)) as run:
        card = (await run.client.card()).id
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card))
    errors = [one.error for one in run.person.asked]
    assert errors[2] == "It is too short."
    assert "too regular" in errors[3]
    assert "It is the old one." in errors[4]
    assert errors[6] == "The two entries differ."
    assert run.person.answers == []


async def test_five_bad_choices_end_it_and_nothing_was_sent() -> None:
    card = token()
    async with running(card, person=Person(OLD, *[b"111111"] * 5)) as run:
        identifier = (await run.client.card()).id
        error = await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=identifier)))
    assert error.code == "PIN_NOT_GIVEN"
    assert [entry for entry in card.log if isinstance(entry, Verify)] == []


async def test_a_blocked_pin_is_unblocked_with_the_puk() -> None:
    wrong = [b"999999", NEW, NEW]
    async with running(token(), person=Person(*wrong, *wrong, b"999999", NEW, NEW)) as run:
        card = (await run.client.card()).id
        await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))
        await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card, allow_last_try=True)))
        assert await status(run, card) == (0, 3)
        assert (await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card)))).code == "ALREADY_BLOCKED"
        run.person.answers = [b"00000000", NEW, NEW, PUK, NEW, NEW]
        await run.client.pins.UnblockPin(pb.UnblockPinRequest(card=card))
        assert await status(run, card) == (3, 3)
        assert await opens(run, card, NEW)


async def test_a_puk_is_changed() -> None:
    async with running(token(), person=Person(PUK, b"1234", b"98125634", b"98125634")) as run:
        card = (await run.client.card()).id
        puk = pb.PIN_REFERENCE_PUK
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card, reference=puk))
        run.person.answers = [b"98125634", NEW, NEW]
        await run.client.pins.UnblockPin(pb.UnblockPinRequest(card=card))
        assert await opens(run, card, NEW)


async def test_a_closed_dialog_sends_nothing() -> None:
    card = token()
    async with running(card, person=Person(None)) as run:
        identifier = (await run.client.card()).id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await run.client.pins.ChangePin(pb.ChangePinRequest(card=identifier))
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert await status(run, identifier) == (3, 3)


class Remembering(Person):
    """What was typed is in ``typed``, as the daemon holds it."""

    def __init__(self, *answers: bytes | asyncio.Event | None) -> None:
        super().__init__(*answers)
        self.typed: list[Secret] = []

    async def ask(self, asked: Asked) -> Secret:
        """See ``Prompter``."""
        self.typed.append(await super().ask(asked))
        return self.typed[-1]


@pytest.mark.parametrize("call", ["ChangePin", "UnblockPin"])
@pytest.mark.parametrize("answers", [(b"123456", None), (b"123456", b"739146", None)])
async def test_what_was_typed_before_a_dialog_was_closed_is_wiped(call: str, answers: tuple[bytes | None]) -> None:
    person = Remembering(*answers)
    request = {"ChangePin": pb.ChangePinRequest, "UnblockPin": pb.UnblockPinRequest}[call]
    async with running(VirtualCard("yubikey-5.7", serial=1), person=person) as run:
        card = (await run.client.card()).id
        assert (await failing(getattr(run.client.pins, call)(request(card=card)))).code == "PINENTRY_CANCELLED"
    assert len(person.typed) == len(answers) - 1
    assert not [one for one in person.typed if any(one.reveal())]


async def test_taking_the_card_out_closes_the_dialog() -> None:
    never = asyncio.Event()
    async with running(token(), person=Person(never)) as run:
        card = (await run.client.card()).id
        call = asyncio.create_task(failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card))))
        await run.person.waits.wait()
        run.bench.remove()
        assert (await call).code == CardRemoved.code


async def test_the_card_may_not_be_swapped_while_the_person_types() -> None:
    """Another card in the same reader, its removal not yet heard of: it gets no PIN."""
    first, second = token(1), token(2)
    typing = asyncio.Event()
    async with running(first, person=Person(typing, OLD, NEW, NEW)) as run:
        card = (await run.client.card()).id
        call = asyncio.create_task(failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card))))
        await run.person.waits.wait()
        run.bench.slots[0].remove()
        run.bench.slots[0].insert(second)
        typing.set()
        error = await call
    assert error.code == CardRemoved.code
    assert [entry for entry in second.log if isinstance(entry, Verify)] == []


@pytest.mark.parametrize("act", ["change", "unblock", "check", "inventory", "update"])
async def test_what_is_meant_for_one_card_is_not_done_on_another(act: str) -> None:
    """The card was swapped and nobody heard of it yet: the other one is looked at, and sent nothing."""
    first, second = token(1), token(2)
    async with running(first, person=Person(*[OLD] * 4), link=Server()) as run:
        card = (await run.client.card()).id
        run.bench.slots[0].remove()
        run.bench.slots[0].insert(second)
        calls = {
            "change": (run.client.pins.ChangePin, pb.ChangePinRequest(card=card)),
            "unblock": (run.client.pins.UnblockPin, pb.UnblockPinRequest(card=card)),
            "check": (run.client.cards.CheckCard, pb.CheckCardRequest(card=card, with_pin=True)),
            "inventory": (run.client.cards.GetInventory, pb.GetInventoryRequest(card=card)),
            "update": (run.client.updates.PreviewUpdate, pb.PreviewUpdateRequest(card=card)),
        }
        call, request = calls[act]
        error = await failing(call(request))
    assert error.code == "ANOTHER_CARD"
    assert [entry for entry in second.log if isinstance(entry, Verify)] == []


async def test_a_second_operation_on_a_busy_card_is_refused_and_another_card_is_free() -> None:
    never = asyncio.Event()
    async with running(token(1), token(2), person=Person(never)) as run:
        busy, free = (await run.client.card(0)).id, (await run.client.card(1)).id
        call = asyncio.create_task(failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=busy))))
        await run.person.waits.wait()
        refused = await failing(run.client.pins.GetPinStatus(pb.GetPinStatusRequest(card=busy)))
        assert refused.code == "CARD_IN_OPERATION"
        assert await status(run, free) == (3, 3)
        (operation,) = [
            one
            for one in (await run.client.operations.ListOperations(pb.ListOperationsRequest())).operations
            if one.kind == pb.OPERATION_KIND_CHANGE_PIN
        ]
        assert operation.phase == pb.OPERATION_PHASE_PROMPTING and operation.cancellable
        ended = await run.client.operations.CancelOperation(pb.CancelOperationRequest(operation=operation.id))
        assert ended.operation.phase == pb.OPERATION_PHASE_CANCELLED
        assert (await call).code == "OPERATION_CANCELLED"
        assert await status(run, busy) == (3, 3)
        over = await failing(run.client.operations.CancelOperation(pb.CancelOperationRequest(operation=operation.id)))
        assert over.code == "OPERATION_NOT_CANCELLABLE"


async def test_a_caller_that_goes_away_closes_the_dialog_and_frees_the_card() -> None:
    never = asyncio.Event()
    async with running(token(), person=Person(never)) as run:
        card = (await run.client.card()).id
        call = run.client.pins.ChangePin(pb.ChangePinRequest(card=card))
        waiting = asyncio.ensure_future(_finished(call))
        await run.person.waits.wait()
        call.cancel()
        await waiting
        await run.client.until(
            lambda event: event.HasField("synced")
            or (event.HasField("operation") and event.operation.operation.phase == pb.OPERATION_PHASE_CANCELLED)
        )
        (operation,) = [one for one in run.daemon.desk.operations.all if one.kind.value == "change-pin"]
        await run.daemon.desk.operations.wait(operation.id)
        assert await status(run, card) == (3, 3)


async def _finished(call: object) -> None:
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call  # type: ignore[misc]


async def test_a_pin_in_a_call_is_refused_unless_configured() -> None:
    asking = pb.Asking(headless=pb.HeadlessPins(current=OLD, new=NEW))
    async with running(token()) as run:
        card = (await run.client.card()).id
        error = await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card, asking=asking)))
        assert error.code == "HEADLESS_PIN_REFUSED"
        assert await status(run, card) == (3, 3)
    async with running(token(), pins=Pins(headless=True)) as run:
        card = (await run.client.card()).id
        await run.client.pins.ChangePin(pb.ChangePinRequest(card=card, asking=asking))
        assert await opens(run, card, NEW)


async def test_a_wrong_pin_in_a_call_is_sent_once() -> None:
    asking = pb.Asking(headless=pb.HeadlessPins(current=b"999999", new=NEW))
    async with running(token(), pins=Pins(headless=True)) as run:
        card = (await run.client.card()).id
        error = await failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card, asking=asking)))
        assert error.code == "PIN_NOT_GIVEN"
        assert await status(run, card) == (2, 3)


def _apdus_of_a_change() -> int:
    """How many commands a change takes from the insertion on, counted at the card."""
    counted = 0

    class Counting(VirtualCard):
        def transmit(self, command: bytes) -> bytes:
            nonlocal counted
            counted += 1
            return super().transmit(command)

    async def change() -> None:
        async with running(Counting("yubikey-5.7", serial=9), person=Person(OLD, NEW, NEW)) as run:
            card = (await run.client.card()).id
            await run.client.pins.ChangePin(pb.ChangePinRequest(card=card))

    asyncio.run(change())
    return counted


@pytest.mark.parametrize("effect", ["remove", "remove-after"])
def test_a_card_pulled_at_any_command_keeps_its_tries_and_has_the_old_or_the_new_pin(effect: str) -> None:
    """One more insertion tells which; the daemon is none the worse, and no try is lost."""
    many = _apdus_of_a_change()
    assert many > 15

    async def pulled(number: int) -> None:
        card = VirtualCard("yubikey-5.7", serial=9)
        faulty = FaultyCard(card, parse(f"apdu={number}:{effect}"))
        person = Person(OLD, NEW, NEW)
        async with running(faulty, person=person, readers=1) as run:
            if number <= 6:
                await run.client.until(lambda event: event.HasField("synced"))
            try:
                found = (await run.client.cards.ListCards(pb.ListCardsRequest())).cards
                if found:
                    await run.client.pins.ChangePin(pb.ChangePinRequest(card=found[0].id))
            except grpc.aio.AioRpcError:
                pass
            if run.bench.slots[0].card is not None:
                run.bench.remove()
            run.bench.insert(card)
            again = (await run.client.card()).id
            assert await status(run, again) == (3, 3), number
            assert (await opens(run, again, NEW)) or (await opens(run, again, OLD)), number

    async def all_of_them() -> None:
        for number in range(1, many + 1):
            await pulled(number)

    asyncio.run(all_of_them())
