"""The strict reading of commands: each form with its meaning, and its neighbours, which have none."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cardwright_cardops.guard import Deny, Rule
from cardwright_cardops.guard import intents as i
from cardwright_cardops.guard.intents import CommandIntent, meaning_of
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.tlv import parse_all
from cardwright_cardops.piv.algorithms import PinPolicy, TouchPolicy
from cardwright_cardops.piv.vendor import yubico
from tests.support import guarded as g

KEY = ec.derive_private_key(7, ec.SECP256R1())
IMPORT = yubico.import_key(0x9D, KEY, pin_policy=PinPolicy.ALWAYS, touch_policy=TouchPolicy.CACHED).data.hex()
FACTORY = "0102030405060708" * 3
SLOTS = (0x9A, 0x9C, 0x9D, 0x9E, *range(0x82, 0x96))

# Header and data to what it means.
FORMS: dict[tuple[str, str], CommandIntent] = {
    ("00A40400", "A000000308"): i.Select(bytes.fromhex("A000000308")),
    ("00A40400", ""): i.Select(b""),
    ("00CB3FFF", "5C035FC102"): i.Read(0x5FC102),
    ("00CB3FFF", "5C017E"): i.Read(0x7E),
    ("00CB3FFF", "5C027F61"): i.Read(0x7F61),
    ("00200080", ""): i.Ask(0x20, 0x80),
    ("00200000", ""): i.Ask(0x20, 0x00),
    ("0020FF80", ""): i.Forget(),
    ("0020FF00", ""): i.Forget(),
    ("00F80000", ""): i.Ask(0xF8),
    ("00FD0000", ""): i.Ask(0xFD),
    ("00F70080", ""): i.Ask(0xF7, 0x80),
    ("00F70081", ""): i.Ask(0xF7, 0x81),
    ("00F7009B", ""): i.Ask(0xF7, 0x9B),
    ("0087039B", "7C028000"): i.Authenticate(0x03, answers=False),
    ("00870A9B", "7C028100"): i.Authenticate(0x0A, answers=False),
    ("0087039B", "7C0A8208" + "00" * 8): i.Authenticate(0x03, answers=True),
    ("00870A9B", "7C128210" + "00" * 16): i.Authenticate(0x0A, answers=True),
    ("0087089B", "7C248010" + "00" * 16 + "8110" + "00" * 16): i.Authenticate(0x08, answers=True),
    ("00870C9B", "7C268010" + "00" * 16 + "8110" + "00" * 16 + "8200"): i.Authenticate(0x0C, answers=True),
    ("0047009A", "AC03800111"): i.Generate(0x9A, 0x11, 0, 0),
    ("0047009E", "AC09800114AA0103AB0102"): i.Generate(0x9E, 0x14, 3, 2),
    ("00470082", "AC06800107AB0101"): i.Generate(0x82, 0x07, 0, 1),
    ("00FE119D", IMPORT): i.Import(0x9D, 0x11, 3, 3, g.fingerprint(KEY.public_key())),
    ("00DB3FFF", "5C035FC1025302AABB"): i.Put(0x5FC102, b"\xaa\xbb"),
    ("00DB3FFF", "5C035FC1055300"): i.Put(0x5FC105, b""),
    ("00DB3FFF", "7E00"): i.Put(0x7E, b"\x7e\x00"),
    ("00DB3FFF", "7F6101AA"): i.Put(0x7F61, b"\x7f\x61\x01\xaa"),
    ("00FFFFFF", "039B18" + FACTORY): i.Manager(0x03, touch=False, factory=True),
    ("00FFFFFE", "0A9B18" + "11" * 24): i.Manager(0x0A, touch=True, factory=False),
    ("00FFFFFF", "089B10" + FACTORY[:32]): i.Manager(0x08, touch=False, factory=True),
    ("00FFFFFF", "0C9B20" + FACTORY + FACTORY[:16]): i.Manager(0x0C, touch=False, factory=True),
    ("00FFFFFF", "0C9B20" + FACTORY + FACTORY[:14] + "09"): i.Manager(0x0C, touch=False, factory=False),
    ("00F6829D", ""): i.Move(0x9D, 0x82),
    ("00F6FF9D", ""): i.Move(0x9D, None),
    ("00FA0305", ""): i.Retries(3, 5),
    ("00FA01FF", ""): i.Retries(1, 255),
    ("00FB0000", ""): i.ResetAll(),
    ("00F99A00", ""): i.Statement(0x9A),
    ("80500000", "00" * 8): i.Channel(answers=False),
    ("80503000", "00" * 16): i.Channel(answers=False),
    ("84823300", "00" * 16): i.Channel(answers=True),
    ("84820100", "00" * 32): i.Channel(answers=True),
}

# Each differs from a form in one point.
NEIGHBOURS: list[tuple[str, str]] = [
    ("00A40000", "A000000308"), ("00A40401", "A000000308"), ("00A40500", ""), ("00A40300", ""),
    ("00CB3FFE", "5C035FC102"), ("00CB3EFF", "5C035FC102"), ("00CB40FF", "5C035FC102"), ("00CB3FFF", "5D035FC102"),
    ("00CB3FFF", "5C045FC10200"), ("00CB3FFF", "5C00"), ("00CB3FFF", "5C02007E"), ("00CB3FFF", "5C017E5C017E"),
    ("00CB3FFF", ""), ("00CB3FFF", "5C025F"),
    ("00200081", ""), ("00200096", ""), ("00200098", ""), ("00200080", "313233343536FFFF"), ("00200180", ""),
    ("0020FE80", ""), ("0020FF81", ""), ("0020FF80", "00"),
    ("00F80001", ""), ("00F80100", ""), ("00F80000", "00"), ("00FD0001", ""), ("00FD0100", ""), ("00FD0000", "00"),
    ("00F7019A", ""), ("00F7009A", "00"), ("00F70000", ""), ("00F70096", ""), ("00F700F9", ""), ("00F7009F", ""),
    ("0087039A", "7C028000"), ("0087119B", "7C028000"), ("0087009B", "7C028000"), ("0087039B", "7C028200"),
    ("0087039B", "7C0A8108" + "00" * 8), ("0087039B", "7C098207" + "00" * 7), ("0087039B", "7C128210" + "00" * 16),
    ("0087039B", "7C0480008100"), ("0087039B", "7C0A8008" + "00" * 8), ("0087039B", "7D028000"), ("0087039B", "7C00"),
    ("00870A9B", "7C238010" + "00" * 16 + "810F" + "00" * 15), ("0087039B", "7C028000 7C00".replace(" ", "")),
    ("0047019A", "AC03800111"), ("0047009B", "AC03800111"), ("004700F9", "AC03800111"), ("0047009A", "AC03800112"),
    ("0047009A", "AC00"), ("0047009A", "AC03AA0101"), ("0047009A", "AC06800111810101"), ("0047009A", "AD03800111"),
    ("0047009A", "AC0480021111"), ("0047009A", "AC07800111AA020101"), ("0047009A", "AC05800111AB00"),
    ("0047009A", "AC0380011180"), ("0047009A", "AC06800111800111"),
    ("00FE119B", IMPORT), ("00FE11F9", IMPORT), ("00FE149D", IMPORT), ("00FE129D", IMPORT), ("00FE119D", ""),
    ("00FE119D", IMPORT + "090100"), ("00FE119D", IMPORT + "AC0100"), ("00FE119D", IMPORT + "0600"),
    ("00DB3FFE", "5C035FC1025302AABB"), ("00DB40FF", "5C035FC1025302AABB"), ("00DB4000", "7E00"),
    ("00DB3EFF", "5C035FC1025302AABB"), ("00DB3FFF", "5302AABB5C035FC102"),
    ("00DB3FFF", "5C035FC1025402AABB"), ("00DB3FFF", "5C035FC102"), ("00DB3FFF", "5C035FC10253007E00"),
    ("00DB3FFF", "5C017E5300"), ("00DB3FFF", "5C027F615300"), ("00DB3FFF", "5C04005FC1025300"), ("00DB3FFF", "5300"),
    ("00DB3FFF", "7E007E00"), ("00DB3FFF", ""),
    ("00FFFEFF", "039B18" + FACTORY), ("00FFFFFD", "039B18" + FACTORY), ("00FFFF00", "039B18" + FACTORY),
    ("00FFFFFF", "039A18" + FACTORY), ("00FFFFFF", "049B18" + FACTORY), ("00FFFFFF", "039B17" + FACTORY[:46]),
    ("00FFFFFF", "039B18" + FACTORY[:46]), ("00FFFFFF", "039B18" + FACTORY + "00"), ("00FFFFFF", "089B18" + FACTORY),
    ("00FFFFFF", "039B"), ("00FFFFFF", ""),
    ("00F69D9D", ""), ("00F6829D", "00"), ("00F6FF9B", ""), ("00F6F99D", ""), ("00F6FFF9", ""), ("00F6FE9D", ""),
    ("00F6829F", ""), ("00F6009D", ""),
    ("00FA0003", ""), ("00FA0300", ""), ("00FA0000", ""), ("00FA0303", "00"),
    ("00FB0001", ""), ("00FB0100", ""), ("00FB0000", "00"),
    ("00F99A01", ""), ("00F99B00", ""), ("00F9F900", ""), ("00F99A00", "00"),
    ("80500001", "00" * 8), ("80500000", "00" * 7), ("80500000", "00" * 15), ("80500000", ""), ("80500000", "00" * 32),
    ("84820001", "00" * 16), ("84820000", "00" * 8), ("84820000", "00" * 31), ("84820000", ""),
]  # fmt: skip


def read(header: str, data: str) -> CommandIntent | Deny:
    cla, ins, p1, p2 = bytes.fromhex(header)
    return meaning_of(CommandAPDU(cla, ins, p1, p2, bytes.fromhex(data)))


@pytest.mark.parametrize(("header", "data"), list(FORMS))
def test_each_form_has_its_meaning(header: str, data: str) -> None:
    assert read(header, data) == FORMS[header, data]


@pytest.mark.parametrize(("header", "data"), NEIGHBOURS)
def test_its_neighbours_have_none(header: str, data: str) -> None:
    seen = read(header, data)
    assert isinstance(seen, Deny) and seen.rule is Rule.ITEM
    assert f"instruction {header[2:4]}" in seen.reason and "not of the known form" in seen.reason


def test_what_has_no_row_is_refused() -> None:
    known = {header[:4] for header, _ in FORMS}
    for cla in (0x00, 0x01, 0x04, 0x0C, 0x10, 0x80, 0x84, 0xFF):
        for ins in range(256):
            if f"{cla:02X}{ins:02X}" in known:
                continue
            seen = meaning_of(CommandAPDU(cla, ins, 0x04, 0x00))
            assert isinstance(seen, Deny) and seen.rule is Rule.ITEM
            assert f"no rule for instruction {ins:02X} of class {cla:02X}" in seen.reason


def test_rsa_keys_are_imported_with_all_their_parts() -> None:
    key = rsa.generate_private_key(65537, 1024)
    data = yubico.import_key(0x82, key).data
    assert [item.tag for item in parse_all(data)] == [1, 2, 3, 4, 5]
    assert read("00FE0682", data.hex()) == i.Import(0x82, 0x06, 0, 0, g.fingerprint(key.public_key()))
    for foreign in ("0900", "0A0100", "0001AA"):
        assert isinstance(read("00FE0682", data.hex() + foreign), Deny)


def test_keys_are_named_by_slots_of_the_standard_only() -> None:
    for reference in range(256):
        generated = read(f"004700{reference:02X}", "AC03800111")
        asked = read(f"00F700{reference:02X}", "")
        stated = read(f"00F9{reference:02X}00", "")
        if reference in SLOTS:
            assert generated == i.Generate(reference, 0x11, 0, 0)
            assert asked == i.Ask(0xF7, reference)
            assert stated == i.Statement(reference)
        else:
            assert isinstance(generated, Deny) and isinstance(stated, Deny)
            assert isinstance(asked, Deny) == (reference not in (0x80, 0x81, 0x9B))


def test_no_repr_shows_content() -> None:
    assert repr(i.Put(0x5FC102, b"abc")) == "Put(5FC102, 3 octets)"
