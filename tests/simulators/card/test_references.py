"""VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER: checks in order, counters, statuses, formats."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import pytest

from cardwright_cardops.transport.connection import Interface
from cardwright_simulators.card import PROFILES, CardState, MemoryStore, Verify, VirtualCard
from tests.support.raw_card import OTHER, PIN, PUK, WRONG_PIN, RawCard, wrap

NEW_PIN = "383736353433FFFF"
NEW_PUK = "4142434400112233"
YUBIKEYS = ["yubikey-5.7", "yubikey-5.4", "tdes-only"]


@pytest.fixture
def card() -> RawCard:
    return RawCard("sp800-73-5")


def test_query_counts_and_changes_nothing(card: RawCard) -> None:
    before = card.card.state_hash()
    assert [card.verify(), card.verify()] == [0x63C3, 0x63C3]
    assert card.card.state_hash() == before
    assert card.card.log == []


def test_verify_right_wrong_and_logged(card: RawCard) -> None:
    assert card.verify(WRONG_PIN) == 0x63C2
    assert card.verify(PIN) == 0x9000
    assert card.verify() == 0x9000
    assert card.verify(WRONG_PIN) == 0x63C2
    assert card.verify() == 0x63C2
    assert card.card.log == [Verify(0x80, False, 2), Verify(0x80, True, 3), Verify(0x80, False, 2)]


def test_blocked_pin_is_not_compared_any_more(card: RawCard) -> None:
    assert [card.verify(WRONG_PIN) for _ in range(3)] == [0x63C2, 0x63C1, 0x63C0]
    assert len(card.card.log) == 3
    assert card.verify(PIN) == 0x6983
    assert card.verify() == 0x63C0
    assert card.sw("00240080", PIN + NEW_PIN) == 0x6983
    assert len(card.card.log) == 3


def test_blocked_query_of_usb_keys() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    for _ in range(3):
        host.verify(WRONG_PIN)
    assert host.verify() == 0x6983


@pytest.mark.parametrize(
    "value",
    [
        "3132333435FFFFFF",
        "31323334353AFFFF",
        "313233343536FF37",
        "3132333435363700",
        "FFFFFFFFFFFFFFFF",
        "313233343536",
        "31323334353637",
        "313233343536FFFFFF",
    ],
)
def test_malformed_pin_changes_nothing_on_a_standard_card(card: RawCard, value: str) -> None:
    card.verify(PIN)
    before = card.card.state_hash()
    assert card.verify(value) == 0x6A80
    assert card.verify() == 0x9000
    assert card.card.state_hash() == before


def test_usb_keys_compare_any_eight_octets() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    assert host.verify("FFFFFFFFFFFFFFFF") == 0x63C2
    assert host.verify("31323334353637") == 0x6A80
    assert host.verify() == 0x63C2


def test_logout(card: RawCard) -> None:
    card.verify(PIN)
    assert card.sw("0020FF80", PIN, le=False) == 0x6A80
    assert card.verify() == 0x9000
    assert card.sw("0020FF80", le=False) == 0x9000
    assert card.verify() == 0x63C3


@pytest.mark.parametrize("p1", ["01", "80", "FE"])
def test_other_p1_comes_before_everything(card: RawCard, p1: str) -> None:
    assert card.sw(f"0020{p1}9A", PIN, le=False) == 0x6A86


@pytest.mark.parametrize("reference", ["00", "01", "81", "82", "96", "97", "98", "9A", "FF"])
def test_unknown_references(card: RawCard, reference: str) -> None:
    assert card.verify(PIN, reference) == 0x6A88
    assert card.verify("", reference) == 0x6A88


def test_change_pin(card: RawCard) -> None:
    card.verify(WRONG_PIN)
    assert card.sw("00240080", PIN + NEW_PIN) == 0x9000
    assert card.verify() == 0x9000
    card.card.reset()
    assert card.verify() == 0x63C3
    assert card.verify(PIN) == 0x63C2
    assert card.verify(NEW_PIN) == 0x9000


@pytest.mark.parametrize("new", ["3132333435FFFFFF", "41424344454647FF", "3132333435360000"])
@pytest.mark.parametrize("old", [PIN, WRONG_PIN, "FFFFFFFFFFFFFFFF"])
def test_malformed_new_pin_is_not_even_compared(card: RawCard, old: str, new: str) -> None:
    before = card.card.state_hash()
    assert card.sw("00240080", old + new) == 0x6A80
    assert card.card.state_hash() == before
    assert card.card.log == []


def test_wrong_old_pin(card: RawCard) -> None:
    card.verify(PIN)
    assert card.sw("00240080", WRONG_PIN + NEW_PIN) == 0x63C2
    assert card.verify() == 0x63C2


def test_change_puk(card: RawCard) -> None:
    card.verify(PIN)
    assert card.sw("00240081", "FF" * 8 + NEW_PUK) == 0x63C2
    assert card.sw("00240081", PUK + NEW_PUK) == 0x9000
    assert card.verify() == 0x9000
    assert card.sw("002C0080", PUK + NEW_PIN) == 0x63C2
    assert card.sw("002C0080", NEW_PUK + NEW_PIN) == 0x9000


@pytest.mark.parametrize(
    ("header", "data", "sw"),
    [
        ("00240180", PIN + NEW_PIN, 0x6A86),
        ("00240080", PIN, 0x6A80),
        ("00240080", "", 0x6A80),
        ("00240000", PIN + NEW_PIN, 0x6A88),
        ("0024009A", PIN + NEW_PIN, 0x6A88),
        ("002C0180", PUK + NEW_PIN, 0x6A86),
        ("002C0000", PUK + NEW_PIN, 0x6A88),
        ("002C0081", PUK + NEW_PIN, 0x6A88),
        ("002C0080", PUK, 0x6A80),
    ],
)
def test_refused_forms(card: RawCard, header: str, data: str, sw: int) -> None:
    before = card.card.state_hash()
    assert card.sw(header, data) == sw
    assert card.card.state_hash() == before


def test_unblock_gives_all_tries_and_logs_nobody_in(card: RawCard) -> None:
    for _ in range(3):
        card.verify(WRONG_PIN)
    assert card.sw("002C0080", PUK + NEW_PIN) == 0x9000
    assert card.verify() == 0x63C3
    assert card.verify(NEW_PIN) == 0x9000
    assert card.sw("002C0080", PUK + PIN) == 0x9000
    assert card.verify() == 0x9000


def test_wrong_puk_ends_the_pin_status_and_blocks(card: RawCard) -> None:
    card.verify(PIN)
    assert card.sw("002C0080", "00" * 8 + NEW_PIN) == 0x63C2
    assert card.verify() == 0x63C3
    assert card.sw("002C0080", PUK + "3132333435FFFFFF") == 0x6A80
    assert [card.sw("002C0080", "00" * 8 + NEW_PIN) for _ in range(3)] == [0x63C1, 0x63C0, 0x6983]
    assert card.sw("002C0080", PUK + NEW_PIN) == 0x6983
    assert card.sw("00240081", PUK + NEW_PUK) == 0x6983


@pytest.mark.parametrize("name", YUBIKEYS)
def test_usb_keys_compare_before_they_look_at_the_new_value(name: str) -> None:
    host = RawCard(name)
    host.select()
    assert host.sw("002C0080", "FF" * 16) == 0x63C2
    assert host.sw("002C0080", PUK + "FF" * 8) == 0x6A80
    assert host.sw("002C0080", "00" * 8 + NEW_PIN) == 0x63C2


def test_usb_keys_take_any_values_of_six_to_eight_octets() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    assert host.sw("00240080", PIN + "00610062CCDDFFFF") == 0x9000
    assert host.sw("00240081", PUK + "706173730001FFFF") == 0x9000
    assert host.verify("00610062CCDDFFFF") == 0x9000
    assert host.sw("00240081", "706173730001FFFF" + "0102030405FFFFFF") == 0x6A80


def test_global_pin_survives_other_applications_but_no_reset() -> None:
    host = RawCard("sp800-73-5")
    host.admin()
    host.sw("00DB3FFF", "7E124F0BA0000003080000100001005F2F026020", le=False)
    host.put("5FC109", b"printed")
    assert host.verify("363534333231FFFF", "00") == 0x9000
    host.select(OTHER)
    host.select()
    assert host.verify(reference="00") == 0x9000
    assert host.verify() == 0x63C3
    assert host.get("5FC109")[1] == 0x9000
    assert host.sw("00240000", "363534333231FFFF" + NEW_PIN) == 0x9000
    host.card.reset()
    assert host.verify(reference="00") == 0x63C3
    assert host.verify(NEW_PIN, "00") == 0x9000


FINGER = bytes(range(30))
FINGER_TEMPLATE = wrap(0x83, b"\x96") + wrap(0xA1, wrap(0x81, b"\x08") + wrap(0xB1, bytes.fromhex("8102081E")))
BIT_GROUP = wrap(0x7F61, wrap(0x02, b"\x01") + wrap(0x7F60, FINGER_TEMPLATE))
WITH_FINGER = dataclasses.replace(PROFILES["sp800-73-5"], fingers=MappingProxyType({0x96: FINGER}))


def occ_card(interface: Interface = Interface.CONTACT) -> RawCard:
    store = MemoryStore()
    host = RawCard(WITH_FINGER, store=store)
    host.admin()
    assert host.sw("00DB3FFF", "7E124F0BA0000003080000100001005F2F025000", le=False) == 0x9000
    assert host.sw("00DB3FFF", BIT_GROUP, le=False) == 0x9000
    for tag in ("5FC109", "5FC103", "5FC123"):
        host.put(tag, b"x")
    host.generate("9A")
    host.generate("9C")
    return RawCard.around(VirtualCard(WITH_FINGER, store=store, interface=interface))


def test_on_card_comparison_opens_what_the_pin_opens_except_biometrics() -> None:
    host = occ_card()
    assert host.verify(reference="96") == 0x63C3
    assert host.verify(FINGER.hex(), "96") == 0x9000
    assert host.verify(reference="96") == 0x9000
    assert host.verify() == 0x63C3
    assert [host.get(tag)[1] for tag in ("5FC109", "5FC123", "5FC103")] == [0x9000, 0x9000, 0x6982]
    assert host.use("9A", bytes(32))[1] == 0x9000
    assert host.use("9C", bytes(32))[1] == 0x6982
    host.verify(FINGER.hex(), "96")
    assert host.use("9C", bytes(32))[1] == 0x9000


def test_on_card_comparison_limits_and_counter() -> None:
    host = occ_card()
    assert host.verify(bytes(29).hex(), "96") == 0x6A80
    assert host.verify(bytes(21).hex(), "96") == 0x6A80
    assert host.verify(bytes(93).hex(), "96") == 0x6A80
    assert [host.verify(bytes(30).hex(), "96") for _ in range(4)] == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert {host.verify(FINGER.hex(), reference) for reference in ("97", "81", "00", "98", "9A")} == {0x6A88}
    host.admin()
    assert host.sw("00DB3FFF", "7F6103020100", le=False) == 0x9000
    assert host.verify(FINGER.hex(), "96") == 0x6A88
    assert host.raw("1020009602", "0001") == "9000"
    assert host.raw("1020009601", "02") == "9000"


def test_on_card_comparison_needs_secure_messaging_without_contacts() -> None:
    host = occ_card(Interface.CONTACTLESS)
    assert host.verify(FINGER.hex(), "96") == 0x6982


def test_the_try_is_taken_before_the_comparison() -> None:
    committed: list[int] = []

    class Watching(MemoryStore):
        def commit(self, state: CardState) -> None:
            super().commit(state)
            committed.append(state.references[0x80].tries)

    host = RawCard("sp800-73-5", store=Watching())
    committed.clear()
    assert host.verify(PIN) == 0x9000
    assert committed == [2, 3]
