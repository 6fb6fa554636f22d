"""The local executing end: groups, outcomes, stages, and what is dropped when a stage ends."""

from __future__ import annotations

import hashlib

import pytest

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.exchange import BrokenExchange, Limits
from cardwright_cardops.iso7816.status import NoSpace, NotFound
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins, TriesGuard
from cardwright_cardops.program.items import (
    Apdu,
    Batch,
    Group,
    ItemNotSent,
    ItemRefused,
    Outcome,
    Program,
    SealedBatch,
    SealedItem,
    UnexpectedAnswer,
    UseKey,
    VerifyPin,
    Want,
    ask,
)
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardBusy, CardRemoved, TransportError
from tests.support.scripted import ScriptedCard

GET_CHUID = "00cb3fff055c035fc10200"
GET_CCC = "00cb3fff055c035fc10700"
SELECT_OTHER = "00a4040008a00000015100000000"
VERIFY = "0020008008313233343536ffff"
CHUID = Apdu(commands.get_data(0x5FC102))
CCC = Apdu(commands.get_data(0x5FC107))


def executor(card: ScriptedCard, *, keep: int = 0, local: bool = True) -> LocalExecutor:
    items = KeyItems(FixedPins(current=Secret(b"123456")), TriesGuard(keep), local=local)
    return LocalExecutor(card, items, Limits(extended=False))


def outcomes(card: ScriptedCard, batch: Batch | SealedBatch) -> list[list[str]]:
    answers = executor(card).execute(batch)
    card.done()
    return [[answer.outcome.value for answer in group] for group in answers]


def test_an_unexpected_status_ends_its_group_only() -> None:
    card = ScriptedCard([(GET_CHUID, "6a82"), (GET_CCC, "53009000")])
    assert outcomes(card, Batch((Group((CHUID, CCC)), Group((CCC,))))) == [["answered", "not sent"], ["answered"]]
    assert card.events == ["begin", "transmit", "transmit", "end"]


def test_an_essential_group_ends_the_batch() -> None:
    card = ScriptedCard([(GET_CHUID, "6a82")])
    batch = Batch((Group((CHUID,), essential=True), Group((CCC, CCC))))
    assert outcomes(card, batch) == [["answered"], ["not sent", "not sent"]]


def test_an_accepted_status_goes_on() -> None:
    card = ScriptedCard([(GET_CHUID, "6a82"), (GET_CCC, "53009000")])
    maybe = Apdu(CHUID.command, accept=frozenset((0x9000, 0x6A82)))
    assert outcomes(card, Batch((Group((maybe, CCC)),))) == [["answered", "answered"]]


@pytest.mark.parametrize(("sent", "word"), [(True, "in doubt"), (False, "not sent")])
def test_a_lost_card_ends_everything(sent: bool, word: str) -> None:
    lost = CardRemoved("gone", sent=sent)
    card = ScriptedCard([(GET_CHUID, lost)])
    answers = executor(card).execute(Batch((Group((CHUID, CCC)), Group((CCC,)))))
    assert [[a.outcome.value for a in g] for g in answers] == [[word, "not sent"], ["not sent"]]
    with pytest.raises(CardRemoved):
        answers[0][0].require("reading")
    with pytest.raises(ItemNotSent, match="reading: not tried"):
        answers[0][1].require("reading")


def test_a_broken_chain_is_in_doubt_with_its_word_and_ends_its_group() -> None:
    put = Apdu(commands.put_data(0x5FC105, bytes(300)))
    raw = put.command.data
    card = ScriptedCard([("10db3fffff" + raw[:255].hex(), "6a84"), (GET_CCC, "53009000")])
    answers = executor(card).execute(Batch((Group((put, CHUID)), Group((CCC,)))))
    assert (answers[0][0].outcome, answers[0][0].sw) == (Outcome.IN_DOUBT, 0x6A84)
    assert answers[0][1].outcome is Outcome.NOT_SENT and answers[1][0].ok
    with pytest.raises(NoSpace, match=r"^writing 9A: .*6A84") as caught:
        answers[0][0].require("writing 9A")
    assert caught.value.code == "CARD_FULL"
    assert caught.value.effect.startswith("The card did not take all of it; the object may be empty or as before")
    card.done()


@pytest.mark.parametrize("word", ["6f00", "6581", "6a89"])
def test_a_broken_chain_whose_word_says_nothing_more_stays_broken(word: str) -> None:
    put = Apdu(commands.put_data(0x5FC105, bytes(300)))
    card = ScriptedCard([("10db3fffff" + put.command.data[:255].hex(), word)])
    ((answer,),) = executor(card).execute(Batch((Group((put,)),)))
    with pytest.raises(BrokenExchange):
        answer.require("writing 9A")


def test_an_answer_can_be_asked_for_as_digest_or_status_only() -> None:
    card = ScriptedCard([(GET_CHUID, "5301aa9000"), (GET_CCC, "5301bb9000")])
    batch = Batch((Group((Apdu(CHUID.command, want=Want.DIGEST), Apdu(CCC.command, want=Want.STATUS))),))
    (digest, status), = executor(card).execute(batch)
    assert digest.data == hashlib.sha256(bytes.fromhex("5301aa")).digest()
    assert status.data == b"" and status.ok


def test_a_pinned_answer_that_differs_ends_the_batch() -> None:
    pinned = Apdu(CHUID.command, expect=hashlib.sha256(bytes.fromhex("5301aa")).digest())
    good = ScriptedCard([(GET_CHUID, "5301aa9000"), (GET_CCC, "53009000")])
    assert outcomes(good, Batch((Group((pinned,)), Group((CCC,))))) == [["answered"], ["answered"]]
    other = ScriptedCard([(GET_CHUID, "5301ab9000")])
    answers = executor(other).execute(Batch((Group((pinned,)), Group((CCC,)))))
    assert answers[1][0].outcome is Outcome.NOT_SENT
    assert isinstance(answers[0][0].cause, UnexpectedAnswer)


@pytest.mark.parametrize(
    "command",
    [
        commands.verify(0x80, Secret(b"123456")),
        commands.change_reference_data(0x80, Secret(b"123456"), Secret(b"654321")),
        commands.change_reference_data(0x81, Secret(b"12345678"), Secret(b"87654321")),
        commands.reset_retry_counter(Secret(b"12345678"), Secret(b"123456")),
        commands.use_key(0x11, 0x9A, bytes(32)),
        commands.use_key(0x11, 0x9D, bytes(65), agree=True),
        CommandAPDU(0x0C, 0x20, 0, 0x80, b"wrapped"),
        CommandAPDU(0x10, 0x24, 0, 0x80),
    ],
)
def test_pins_and_key_uses_are_no_apdu_items_and_nothing_is_sent(command: CommandAPDU) -> None:
    card = ScriptedCard([])
    with pytest.raises(ItemRefused):
        executor(card).execute(Batch((Group((CHUID,)), Group((Apdu(command),)))))
    assert card.events == []


def test_the_batches_of_a_stage_share_a_transaction_and_status_is_dropped_at_its_end() -> None:
    card = ScriptedCard([(VERIFY, "9000"), (GET_CHUID, "53009000"), ("0020ff80", "9000")])
    end = executor(card)
    end.execute(Batch((Group((VerifyPin(),)),), "write"))
    end.execute(Batch((Group((CHUID,)),), "write"))
    end.end_stage()
    end.end_stage()
    card.done()
    assert card.events == ["begin", "transmit", "transmit", "transmit", "end"]


def test_another_stage_begins_another_transaction() -> None:
    card = ScriptedCard([(GET_CHUID, "53009000"), (GET_CHUID, "53009000"), (GET_CHUID, "53009000")])
    end = executor(card)
    for stage in ("one", "two", ""):
        end.execute(Batch((Group((CHUID,)),), stage))
    assert card.events == ["begin", "transmit", "end"] * 3


def test_a_card_that_cannot_forget_its_pin_gets_another_application_then_a_reset() -> None:
    script: list[tuple[str, str | TransportError]] = [(VERIFY, "9000"), ("0020ff80", "6a86"), (SELECT_OTHER, "9000")]
    card = ScriptedCard(script)
    executor(card).execute(Batch((Group((VerifyPin(),)),)))
    assert card.events[-2:] == ["transmit", "end"]
    card.done()
    stubborn = ScriptedCard([*script[:2], (SELECT_OTHER, "6a82")])
    executor(stubborn).execute(Batch((Group((VerifyPin(),)),)))
    assert stubborn.events[-2:] == ["reset", "end"]


def test_management_status_is_dropped_by_another_application_not_by_verify() -> None:
    witness = Apdu(CommandAPDU(0, 0x87, 3, 0x9B, bytes.fromhex("7c028000"), 256))
    card = ScriptedCard([("0087039b047c02800000", "7c009000"), (SELECT_OTHER, "6a82")])
    executor(card).execute(Batch((Group((witness,)),)))
    assert card.events[-2:] == ["reset", "end"]
    card.done()


def test_reads_leave_nothing_to_drop() -> None:
    card = ScriptedCard([(GET_CHUID, "53009000")])
    executor(card).execute(Batch((Group((CHUID,)),)))
    card.done()


def test_a_card_lost_at_the_drop_is_not_an_error() -> None:
    card = ScriptedCard([(VERIFY, "9000"), ("0020ff80", CardRemoved("gone"))])
    assert executor(card).execute(Batch((Group((VerifyPin(),)),)))[0][0].ok
    assert card.events[-1] == "end"


def test_a_transaction_that_cannot_begin_sends_nothing() -> None:
    class Busy(ScriptedCard):
        def transaction(self) -> object:  # type: ignore[override]
            raise CardBusy("held")

    answers = executor(Busy([])).execute(Batch((Group((CHUID, CCC)), Group((CCC,)))))
    assert [[a.outcome for a in g] for g in answers] == [[Outcome.NOT_SENT] * 2, [Outcome.NOT_SENT]]
    assert isinstance(answers[0][0].cause, CardBusy)


def test_any_status_but_9000_of_a_key_item_ends_the_batch() -> None:
    card = ScriptedCard([(VERIFY, "63c2")])
    answers = executor(card).execute(Batch((Group((VerifyPin(), CHUID)), Group((CCC,)))))
    assert answers[0][0].sw == 0x63C2
    assert {a.outcome for a in (answers[0][1], answers[1][0])} == {Outcome.NOT_SENT}
    card.done()


def test_free_key_use_is_for_local_programs_only() -> None:
    card = ScriptedCard([])
    batch = Batch((Group((UseKey(0x9A, 0x11, bytes(32)),)),))
    answer = executor(card, local=False).execute(batch)[0][0]
    assert isinstance(answer.cause, ItemRefused) and answer.outcome is Outcome.NOT_SENT


def test_run_hands_answers_back_and_ends_the_stage() -> None:
    def program() -> Program[tuple[bytes, int]]:
        (chuid,) = yield from ask(CHUID, stage="read")
        try:
            (yield from ask(CCC, stage="read"))[0].require("reading the CCC")
        except NotFound as error:
            return chuid.data, error.sw
        return b"", 0

    card = ScriptedCard([(GET_CHUID, "53009000"), (GET_CCC, "6a82")])
    assert run(program(), executor(card)) == (b"\x53\x00", 0x6A82)
    assert card.events == ["begin", "transmit", "transmit", "end"]


def test_an_error_of_the_program_ends_the_stage_too() -> None:
    def program() -> Program[None]:
        (yield from ask(CHUID, stage="read"))[0].require("reading the CHUID")

    card = ScriptedCard([(GET_CHUID, "6a82")])
    with pytest.raises(NotFound):
        run(program(), executor(card))
    assert card.events == ["begin", "transmit", "end"]


def test_a_refused_batch_is_thrown_into_the_program() -> None:
    def program() -> Program[str]:
        try:
            yield from ask(Apdu(commands.verify(0x80, Secret(b"123456"))))
        except ItemRefused:
            return "refused"
        return ""

    assert run(program(), executor(ScriptedCard([]))) == "refused"


def test_a_sealed_batch_is_sent_as_it_is_and_stops_at_the_first_refusal() -> None:
    first = SealedItem(b"\x84\xdb\x3f\xff", (bytes.fromhex("94db3fff01aa"), bytes.fromhex("84db3fff01bb")))
    second = SealedItem(b"\x84\x47\x00\x9a", (bytes.fromhex("8447009a01cc00"),))
    card = ScriptedCard([("94db3fff01aa", "9000"), ("84db3fff01bb", "9000"), ("8447009a01cc00", "dd9000")])
    answers, = executor(card).execute(SealedBatch((first, second)))
    assert [a.outcome for a in answers] == [Outcome.ANSWERED] * 2 and answers[1].data == b"\xdd"
    refused = ScriptedCard([("94db3fff01aa", "9000"), ("84db3fff01bb", "6982")])
    assert outcomes(refused, SealedBatch((first, second))) == [["answered", "not sent"]]
    doubtful = ScriptedCard([("94db3fff01aa", "6982")])
    assert outcomes(doubtful, SealedBatch((first, second))) == [["in doubt", "not sent"]]
    lost = ScriptedCard([("94db3fff01aa", "9000"), ("84db3fff01bb", CardRemoved("gone", sent=False))])
    assert outcomes(lost, SealedBatch((first,))) == [["in doubt"]]
