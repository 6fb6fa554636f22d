"""Lengths, chaining, GET RESPONSE, 6Cxx, T=0 and extended length, by raw APDUs."""

from __future__ import annotations

import pytest

from cardwright_simulators.card import PROFILES
from tests.support.raw_card import ABSENT, PIV, RawCard

CHUID = "5FC102"
GET_CHUID = "00CB3FFF055C03" + CHUID


@pytest.fixture
def card() -> RawCard:
    """A standard card with an object of 600 octets: its GET DATA answer has 604."""
    host = RawCard("sp800-73-5")
    assert host.admin() == 0x9000
    assert host.put(CHUID, bytes(600)) == 0x9000
    return host


def test_long_answer_comes_in_pieces_that_count_down(card: RawCard) -> None:
    first = card.raw(GET_CHUID, "00")
    assert (len(first) // 2 - 2, first[-4:]) == (256, "6100")
    second = card.raw("00C0000000")
    assert (len(second) // 2 - 2, second[-4:]) == (256, "615C")
    third = card.raw("00C000005C")
    assert (len(third) // 2 - 2, third[-4:]) == (92, "9000")
    whole = first[:-4] + second[:-4] + third[:-4]
    assert whole == "53820258" + "00" * 600


def test_get_response_gives_never_more_than_asked(card: RawCard) -> None:
    assert card.raw(GET_CHUID, "10")[-4:] == "6100"
    assert len(card.raw("00C0000020")) // 2 == 0x20 + 2


def test_get_response_without_le_gives_the_rest(card: RawCard) -> None:
    first = card.raw(GET_CHUID, "00")
    second = card.raw("00C00000")
    third = card.raw("00C00000")
    assert [part[-4:] for part in (first, second, third)] == ["6100", "615C", "9000"]
    assert card.raw("00C00000") == "6985"


def test_get_response_beyond_the_rest_gives_the_rest(card: RawCard) -> None:
    card.raw(GET_CHUID, "00")
    card.raw("00C0000000")
    assert card.raw("00C00000F0")[-4:] == "9000"


@pytest.mark.parametrize("between", ["00200080", GET_CHUID + "00", "00FA000000", "0020", "00A4040007" + ABSENT])
def test_another_command_drops_the_pending_answer(card: RawCard, between: str) -> None:
    card.raw("00CB3FFF055C035FC1027F")
    card.raw(between)
    card.raw("00200080")
    assert card.raw("00C0000000") == "6985"


def test_get_response_with_parameters_or_data_is_refused_and_drops(card: RawCard) -> None:
    card.raw(GET_CHUID, "00")
    assert card.raw("00C0010000") == "6A86"
    assert card.raw("00C0000000") == "6985"
    card.raw(GET_CHUID, "00")
    assert card.raw("00C0000001AA") == "6700"
    assert card.raw("00C0000000") == "6985"


def test_without_le_a_standard_card_answers_only_by_get_response(card: RawCard) -> None:
    assert card.raw(GET_CHUID) == "6100"
    assert card.raw("00C0000000")[-4:] == "6100"


def test_without_le_a_usb_key_answers_at_once() -> None:
    host = RawCard("yubikey-5.7")
    assert host.raw("00A4040005A000000308").endswith("9000")
    assert host.raw("00CB3FFF035C017E").endswith("9000")


@pytest.mark.parametrize("raw", ["", "00", "00CB", "00CB3F", "00CB3FFF055C03", "00CB3FFF025C030000", "00CB3FFF0000"])
def test_octets_of_no_apdu_are_6700(card: RawCard, raw: str) -> None:
    assert card.raw(raw) == "6700"


def test_chained_put_data_is_one_command(card: RawCard) -> None:
    before = card.card.state_hash()
    assert card.raw("10DB3FFF04", "5C035FC1") == "9000"
    assert card.card.state_hash() == before
    assert card.raw("10DB3FFF02", "0753") == "9000"
    assert card.raw("00DB3FFF03", "02ABCD") == "9000"
    assert card.get("5FC107") == ("5302ABCD", 0x9000)


@pytest.mark.parametrize(
    ("between", "last"),
    [
        ("00CB3FFF055C035FC10700", "00DB3FFF0202AB"),
        ("00C0000000", "00DB3FFF0202AB"),
        ("00DB3FFE00", "00DB3FFF0202AB"),
        ("", "00DB3FFE0202AB"),
        ("", "00DA3FFF0202AB"),
        ("00DB3F", "00DB3FFF0202AB"),
        ("10DB3FFE0101", "00DB3FFF0202AB"),
    ],
)
def test_an_interrupted_chain_leaves_no_trace(card: RawCard, between: str, last: str) -> None:
    before = card.card.state_hash()
    assert card.raw("10DB3FFF06", "5C035FC10753") == "9000"
    if between:
        card.raw(between)
    assert card.raw(last) != "9000"
    assert card.card.state_hash() == before
    assert card.get("5FC107")[1] == 0x6A82


def test_commands_that_the_standard_does_not_chain_are_6884(card: RawCard) -> None:
    assert card.raw("1020008004", "31323334") == "6884"
    assert card.raw("10CB3FFF01", "5C") == "6884"
    assert card.raw("102C008001", "31") == "6884"
    assert card.raw("10A4040001", "A0") == "6D00"
    assert card.raw("10FA000001", "A0") == "6D00"


def test_a_usb_key_chains_every_command() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    assert host.raw("1020008004", "31323334") == "9000"
    assert host.raw("0020008004", "3536FFFF") == "9000"


def test_a_chain_longer_than_any_command_is_refused_and_dropped(card: RawCard) -> None:
    block = "10DB3FFFFF" + "00" * 255
    answers = {card.raw(block) for _ in range(64)}
    assert answers == {"9000"}
    assert card.raw(block) == "6A84"
    assert card.raw("00DB3FFF0100") == "6A80"


def test_extended_length_is_the_same_as_chaining(card: RawCard) -> None:
    value = bytes(range(256)) * 5
    data = bytes.fromhex("5C035FC107") + b"\x53\x82\x05\x00" + value
    assert card.raw("00DB3FFF00", f"{len(data):04X}", data.hex()) == "9000"
    short = card.get("5FC107")
    extended = card.raw("00CB3FFF000005", "5C035FC107", "0000")
    assert extended == short[0] + "9000"
    partial = card.raw("00CB3FFF000005", "5C035FC107", "0200")
    assert (len(partial) // 2 - 2, partial[-4:]) == (512, "6100")


@pytest.mark.parametrize("name", ["pivapplet", "t0-short"])
def test_cards_without_extended_length_say_6700(name: str) -> None:
    host = RawCard(name)
    host.select()
    assert host.raw("00CB3FFF000003", "5C017E", "0000") == "6700"


def test_t0_refuses_case_4_with_le_and_gives_data_by_get_response() -> None:
    host = RawCard("t0-short")
    assert host.raw("00A4040009", "A00000030800001000", "00") == "6700"
    assert host.raw("00A4040009", "A00000030800001000") == "6113"
    assert host.raw("00C0000020") == "6C13"
    assert host.raw("00C0000013") == "61114F0600001000010079074F05A0000003089000"
    assert host.raw("00C0000013") == "6985"


def test_t0_case_2_wants_the_exact_le_and_executes_once() -> None:
    host = RawCard("t0-short")
    host.raw("00A4040009", "A00000030800001000")
    assert host.raw("00FD000010") == "6C03"
    count = len(host.card.log)
    assert host.raw("00FD000003") == "0507049000"
    assert len(host.card.log) == count
    assert host.raw("00FD000003") == "0507049000"
    assert host.raw("00FD000000") == "6103"
    assert host.raw("00C0000000") == "0507049000"


def test_reset_drops_chain_and_pending_answer(card: RawCard) -> None:
    card.raw(GET_CHUID, "00")
    card.card.reset()
    assert card.raw("00C0000000") == "6985"


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_atr_is_well_formed_and_fits_the_protocol(name: str) -> None:
    for atr in (PROFILES[name].atr, PROFILES[name].atr_contactless):
        assert 2 <= len(atr) <= 33
        assert atr[0] == 0x3B
        historical = atr[1] & 0x0F
        position, indicator, protocols = 1, atr[1] >> 4, set()
        while True:
            position += bin(indicator).count("1")
            if not indicator & 0x8:
                break
            protocols.add(atr[position] & 0x0F)
            indicator = atr[position] >> 4
        check = 1 if protocols - {0} else 0
        assert len(atr) == 1 + position + historical + check
        if check:
            total = 0
            for octet in atr[1:]:
                total ^= octet
            assert total == 0
    contact_t0 = not PROFILES[name].atr[1] & 0x80
    assert contact_t0 == (PROFILES[name].transmission.value == "T=0")


def test_class_and_instruction_of_nobody(card: RawCard) -> None:
    card.select(PIV)
    assert card.raw("00FA000000") == "6D00"
    assert card.raw("80CB3FFF055C035FC10200") == "6E00"
    assert card.raw("FF20008000") == "6E00"
    assert card.raw("0CCB3FFF00") == "6882"
    assert card.raw("1CCB3FFF0100") == "6882"


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ("00CB3FFF000000", "6A80"),
        ("00CB3FFF00000000", "6700"),
        ("00CB3FFF00000500", "6700"),
        ("00CB3FFF0000055C035FC107AA", "6700"),
        ("00CB3FFF000005" + "5C035FC107", "6A82"),
        ("00CB3FFF0000", "6700"),
    ],
)
def test_forms_of_extended_length(card: RawCard, raw: str, answer: str) -> None:
    assert card.raw(raw) == answer


def test_one_extended_command_beyond_the_limit() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    assert host.raw("00DB3FFF000D00" + "00" * 0x0D00) == "6A84"
    assert host.raw("0087119A000D00" + "00" * 0x0D00) == "6700"
