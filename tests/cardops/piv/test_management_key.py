"""Authentication with 9B: the vectors, both protocols on virtual cards, and every way it can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.status import FunctionNotSupported, error_for
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.commands import put_data, select
from cardwright_cardops.piv.management_key import (
    DEFAULT_KEY,
    ManagementKey,
    ManagementKeyRefused,
    answer_witness,
    authenticate,
    authenticate_single,
    check_response,
)
from cardwright_cardops.piv.responses import MalformedAnswer
from cardwright_cardops.program.items import Answer, Answers, AnyBatch, Apdu, Batch, Outcome, Program, ask
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from tests.support.virtual import bench, default_management_key

PROFILES = ["yubikey-5.7", "yubikey-5.4", "pivapplet", "tdes-only", "t0-short"]


class Card:
    """An executing end that answers each item from ``answer``."""

    def __init__(self, answer: Callable[[CommandAPDU], tuple[int, bytes]]) -> None:
        self._answer = answer

    def execute(self, batch: AnyBatch) -> Answers:
        assert isinstance(batch, Batch)
        answers = []
        for item in batch.items:
            assert isinstance(item, Apdu)
            sw, data = self._answer(item.command)
            answers.append(Answer(Outcome.ANSWERED, sw, data))
        return (tuple(answers),)

    def end_stage(self) -> None:
        return


class Always:
    """The same data to every command."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self, command: CommandAPDU) -> tuple[int, bytes]:
        return 0x9000, self._data


class Fixed:
    """A random generator that is none."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __call__(self, size: int) -> bytes:
        assert size == len(self._value)
        return self._value


def test_vectors_reproduce(shared_data: Path) -> None:
    rows = json.loads((shared_data / "test-vectors.json").read_text())["mgmt_key_auth"]["items"]
    assert {row["alg"] for row in rows} == {"03", "08", "0A", "0C"}
    for row in rows:
        key = ManagementKey(ManagementAlgorithm(int(row["alg"], 16)), Secret(bytes.fromhex(row["key"])))
        witness, challenge = bytes.fromhex(row["witness"]), bytes.fromhex(row["host_challenge"])
        assert key.encrypt(witness).hex() == row["enc_witness"].lower()
        assert key.decrypt(bytes.fromhex(row["enc_witness"])) == witness
        size = key.algorithm.block_octets
        sealed = b"\x7c" + bytes((size + 2, 0x80, size)) + bytes.fromhex(row["enc_witness"])
        command, sent = answer_witness(key, sealed, Fixed(challenge))
        assert sent == challenge
        assert witness in command.data and challenge in command.data and command.data.endswith(b"\x82\x00")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("protocol", [authenticate, authenticate_single])
def test_the_right_key_opens_the_card(profile: str, protocol: Callable[..., Program[None]]) -> None:
    with_card = bench(profile)
    key = default_management_key(profile)

    def program() -> Program[Answer]:
        yield from protocol(key, stage="write")
        (answer,) = yield from ask(Apdu(put_data(0x5FC102, b"\x30\x00")), stage="write")
        return answer

    assert run(program(), with_card.executor).ok
    again = run(ask(Apdu(select()), Apdu(put_data(0x5FC102, b""))), with_card.executor)[1]
    assert again.sw == 0x6982, "the status is dropped at the end of the stage"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("protocol", [authenticate, authenticate_single])
def test_a_wrong_key_is_refused_in_words(profile: str, protocol: Callable[..., Program[None]]) -> None:
    right = default_management_key(profile)
    wrong = ManagementKey(right.algorithm, Secret(bytes(23) + b"\x02"))
    with pytest.raises(ManagementKeyRefused) as caught:
        run(protocol(wrong, stage="write"), bench(profile).executor)
    assert caught.value.code == "MANAGEMENT_KEY_WRONG" and "Nothing" in caught.value.effect


@pytest.mark.parametrize("protocol", [authenticate, authenticate_single])
def test_the_wrong_algorithm_is_named(protocol: Callable[..., Program[None]]) -> None:
    key = ManagementKey(ManagementAlgorithm.AES256, Secret(bytes(32)))
    with pytest.raises(ManagementKeyRefused, match="not of AES256"):
        run(protocol(key, stage="write"), bench("yubikey-5.7").executor)


def test_another_status_passes_through() -> None:
    card = Card(lambda command: (0x6A81, b""))
    with pytest.raises(FunctionNotSupported):
        run(authenticate(default_management_key("yubikey-5.4"), stage="write"), card)


def test_a_card_that_does_not_know_the_key_is_found_out() -> None:
    """It accepts whatever comes and answers octets of its own."""

    def answer(command: CommandAPDU) -> tuple[int, bytes]:
        tag = b"\x80" if command.data == b"\x7c\x02\x80\x00" else b"\x82"
        return 0x9000, b"\x7c\x0a" + tag + b"\x08" + bytes(8)

    with pytest.raises(ManagementKeyRefused, match="did not prove") as caught:
        run(authenticate(default_management_key("yubikey-5.4"), stage="write"), Card(answer))
    assert "do not go on" in caught.value.advice


@pytest.mark.parametrize("block", [b"", bytes(7), bytes(9), bytes(16)])
def test_a_witness_or_challenge_of_another_size_is_refused(block: bytes) -> None:
    key = default_management_key("yubikey-5.4")
    for protocol, tag in ((authenticate, 0x80), (authenticate_single, 0x81)):
        data = b"\x7c" + bytes((len(block) + 2, tag, len(block))) + block
        with pytest.raises(ManagementKeyRefused, match="not one block"):
            run(protocol(key, stage="write"), Card(Always(data)))


def test_damaged_answers_are_documented_errors() -> None:
    key = default_management_key("yubikey-5.4")
    for data in (b"", b"\x7c\x00", b"\x7c\x05\x80\x08", b"\x53\x00"):
        with pytest.raises(MalformedAnswer):
            run(authenticate(key, stage="write"), Card(Always(data)))


def test_some_cards_answer_in_tag_80() -> None:
    key = default_management_key("yubikey-5.4")
    check_response(key, bytes(8), b"\x7c\x0a\x80\x08" + key.encrypt(bytes(8)))
    check_response(key, bytes(8), b"\x7c\x0a\x82\x08" + key.encrypt(bytes(8)))


def test_a_key_of_the_wrong_length_is_none() -> None:
    for algorithm in ManagementAlgorithm:
        for size in (algorithm.key_octets - 1, algorithm.key_octets + 1):
            with pytest.raises(ValueError, match="octets"):
                ManagementKey(algorithm, Secret(bytes(size)))
    assert "0102" not in repr(ManagementKey(ManagementAlgorithm.TDES, Secret(DEFAULT_KEY)))


@pytest.mark.parametrize("sw", [0x6982, 0x6A80, 0x6300, 0x6983])
def test_every_word_for_a_wrong_key_is_understood(sw: int) -> None:
    key = default_management_key("yubikey-5.4")

    def answer(command: CommandAPDU) -> tuple[int, bytes]:
        if command.data in (b"\x7c\x02\x80\x00", b"\x7c\x02\x81\x00"):
            return 0x9000, b"\x7c\x0a" + command.data[2:3] + b"\x08" + bytes(8)
        return sw, b""

    for protocol in (authenticate, authenticate_single):
        with pytest.raises(ManagementKeyRefused, match="did not accept"):
            run(protocol(key, stage="write"), Card(answer))
    assert error_for(sw, "x").sw == sw
