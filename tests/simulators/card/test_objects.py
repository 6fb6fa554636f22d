"""GET DATA and PUT DATA: access rules, containers, sizes (SP 800-73-5 part 1 table 2, part 2 3.1.2 and 3.3.1)."""

from __future__ import annotations

import dataclasses

import pytest

from cardwright_cardops.transport.connection import Interface
from cardwright_simulators.card import PROFILES, MemoryStore, ProtectedRead, Write
from cardwright_simulators.card.objects import CONTAINERS, Rule
from tests.support.raw_card import PIN, RawCard

ALL = sorted(CONTAINERS)
WRAPPED = [tag for tag in ALL if tag not in (0x7E, 0x7F61)]
DISCOVERY = "7E124F0BA0000003080000100001005F2F02{}00"


def filled(store: MemoryStore, profile: str = "sp800-73-5") -> RawCard:
    """A contact card with every container holding its own tag."""
    host = RawCard(profile, store=store)
    assert host.admin() == 0x9000
    for tag in WRAPPED:
        assert host.put(f"{tag:X}", tag.to_bytes(3, "big")) == 0x9000
    assert host.sw("00DB3FFF", "7F6103020100", le=False) == 0x9000
    assert host.sw("00DB3FFF", DISCOVERY.format("40"), le=False) == 0x9000
    host.card.reset()
    return host


def test_contact_reads_without_and_with_pin() -> None:
    host = filled(MemoryStore())
    free = {tag for tag in ALL if CONTAINERS[tag].rule is Rule.ALWAYS}
    assert {tag for tag in ALL if host.get(f"{tag:X}")[1] == 0x9000} == free
    assert {tag for tag in ALL if host.get(f"{tag:X}")[1] == 0x6982} == set(ALL) - free
    assert set(ALL) - free == {0x5FC103, 0x5FC108, 0x5FC109, 0x5FC121, 0x5FC123}
    host.verify(PIN)
    host.card.log.clear()
    assert {tag for tag in ALL if host.get(f"{tag:X}")[1] == 0x9000} == set(ALL)
    assert host.card.log == [ProtectedRead(tag) for tag in ALL if tag not in free]
    assert host.get("5FC109") == ("53035FC109", 0x9000)


def test_contactless_reads_only_what_needs_no_vci() -> None:
    store = MemoryStore()
    filled(store)
    host = RawCard("sp800-73-5", store=store, interface=Interface.CONTACTLESS)
    readable = {tag for tag in ALL if host.get(f"{tag:X}")[1] == 0x9000}
    assert readable == {0x5FC101, 0x5FC102, 0x7E, 0x7F61, 0x5FC122}
    assert {host.get(f"{tag:X}")[1] for tag in set(ALL) - readable} == {0x6982}
    assert host.verify(PIN) == 0x6982
    assert host.put("5FC102", b"x") == 0x6A81


def test_usb_keys_make_no_difference_between_interfaces() -> None:
    host = RawCard("yubikey-5.7", interface=Interface.CONTACTLESS)
    assert host.card.atr == PROFILES["yubikey-5.7"].atr_contactless
    host.select()
    assert host.verify(PIN) == 0x9000
    assert host.admin() == 0x9000
    assert host.put("5FC107", b"x") == 0x9000


def test_full_minimum_capacity_of_every_container() -> None:
    host = RawCard("sp800-73-5")
    host.admin()
    for tag in WRAPPED:
        value = bytes((tag & 0xFF,)) * CONTAINERS[tag].capacity
        assert host.put(f"{tag:X}", value) == 0x9000
    host.verify(PIN)
    for tag in WRAPPED:
        answer, sw = host.get(f"{tag:X}")
        assert sw == 0x9000
        assert answer.endswith(f"{tag & 0xFF:02X}" * CONTAINERS[tag].capacity)


def test_bare_objects_come_back_bare() -> None:
    host = RawCard("sp800-73-5")
    host.admin()
    for tag, answer in (("7E", DISCOVERY.format("40")), ("7F61", "7F6103020100")):
        assert host.sw("00DB3FFF", answer, le=False) == 0x9000
        assert host.get(tag) == (answer, 0x9000)


def test_empty_value_empties_the_container() -> None:
    host = RawCard("sp800-73-5")
    host.admin()
    host.put("5FC107", b"abc")
    assert host.put("5FC107", b"") == 0x9000
    assert host.get("5FC107") == ("", 0x6A82)
    assert host.card.log[-2:] == [Write("object", 0x5FC107), Write("object deleted", 0x5FC107)]


@pytest.mark.parametrize(
    ("header", "data", "sw"),
    [
        ("00CB3FFF", "5C035FC1FF", 0x6A82),
        ("00CB3FFF", "5C035FC107", 0x6A82),
        ("00CB3FFF", "5C045FC107", 0x6A80),
        ("00CB3FFF", "5D035FC107", 0x6A80),
        ("00CB3FFF", "5C00", 0x6A80),
        ("00CB3FFF", "", 0x6A80),
        ("00CB3F00", "5C035FC107", 0x6A86),
        ("00CB0101", "5C035FC107", 0x6A86),
        ("00DB3FFE", "5C035FC1075301AA", 0x6A86),
        ("00DB3FFF", "5C035FC1075301AA", 0x6982),
    ],
)
def test_refusals_without_the_management_key(header: str, data: str, sw: int) -> None:
    assert RawCard("sp800-73-5").send(header, data) == ("", sw)


@pytest.mark.parametrize(
    ("data", "sw"),
    [
        ("", 0x6A80),
        ("5C035FC107", 0x6A80),
        ("5301AA5C035FC107", 0x6A80),
        ("5C035FC1075302AA", 0x6A80),
        ("5C035FC1075301AA00", 0x6A80),
        ("5C017E5301AA", 0x6A80),
        ("5C035FC1FF5301AA", 0x6A81),
        ("5C035FFF005301AA", 0x6A81),
        ("5C01715301AA", 0x6A81),
    ],
)
def test_refusals_with_the_management_key(data: str, sw: int) -> None:
    host = RawCard("sp800-73-5")
    host.admin()
    before = host.card.state_hash()
    assert host.sw("00DB3FFF", data, le=False) == sw
    assert host.card.state_hash() == before


def test_discovery_takes_effect_at_once() -> None:
    host = RawCard("sp800-73-5")
    host.admin()
    assert host.verify(reference="00") == 0x6A88
    assert host.sw("00DB3FFF", DISCOVERY.format("60"), le=False) == 0x9000
    assert host.verify(reference="00") == 0x63C3
    assert host.verify("363534333231FFFF", "00") == 0x9000
    assert host.put("5FC109", b"printed") == 0x9000
    assert host.get("5FC109")[1] == 0x9000
    assert host.sw("00DB3FFF", DISCOVERY.format("40"), le=False) == 0x9000
    assert host.get("5FC109")[1] == 0x6982
    assert host.verify(reference="00") == 0x6A88


def test_discovery_of_usb_keys_cannot_be_written() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.admin()
    assert host.sw("00DB3FFF", DISCOVERY.format("60"), le=False) == 0x6A81
    assert host.get("7E") == (DISCOVERY.format("40"), 0x9000)


def test_usb_keys_take_objects_outside_the_data_model() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.admin()
    assert host.put("5FFF00", b"\x80\x00") == 0x9000
    assert host.get("5FFF00") == ("53028000", 0x9000)


def test_too_large_an_object_is_6a84_and_the_old_one_stays() -> None:
    host = RawCard("yubikey-5.4")
    host.select()
    host.admin()
    assert host.put("5FC105", b"old") == 0x9000
    assert host.put("5FC105", bytes(3100)) == 0x6A84
    assert host.get("5FC105") == ("53036F6C64", 0x9000)


def test_memory_ends_at_the_profiles_limit() -> None:
    host = RawCard(dataclasses.replace(PROFILES["sp800-73-5"], memory=3000))
    host.admin()
    assert host.put("5FC105", bytes(1800)) == 0x9000
    assert host.put("5FC10A", bytes(1800)) == 0x6A84
    assert host.put("5FC105", bytes(2500)) == 0x9000
    assert host.get("5FC10A")[1] == 0x6A82


def test_memory_full_by_command() -> None:
    host = RawCard("sp800-73-5")
    host.admin()
    host.card.memory_full = True
    before = host.card.state_hash()
    assert host.put("5FC105", b"x") == 0x6A84
    assert host.send("0047009A", "AC03800111") == ("", 0x6A84)
    assert host.card.state_hash() == before
    host.card.memory_full = False
    assert host.put("5FC105", b"x") == 0x9000


def test_absent_protected_object_is_told_before_the_pin_by_pivapplet_only() -> None:
    for name, sw in (("sp800-73-5", 0x6982), ("yubikey-5.7", 0x6982), ("pivapplet", 0x6A82)):
        host = RawCard(name)
        host.select()
        assert host.get("5FC109")[1] == sw
