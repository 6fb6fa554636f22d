"""The card with a security domain: SCP03 by the client's own channel, PUT KEY, OpenFIPS201 administration."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils

from cardwright_cardops.globalplatform.channel import Scp03Channel
from cardwright_cardops.globalplatform.scp03 import (
    CardAnswer,
    SecurityLevel,
    StaticKeys,
    external_authenticate,
    initialize_update,
)
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.tlv import parse_unique
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import Write
from tests.support.raw_card import OTHER, PIN, POOL, RawCard, wrap

HASH = bytes(range(32))
FACTORY = bytes(range(0x40, 0x50))


class Managed(RawCard):
    """A card with a client channel in front: ``under`` sends one protected command."""

    channel: Scp03Channel

    def open(self, level: SecurityLevel = SecurityLevel.ALL) -> None:
        keys = StaticKeys(*(Secret(FACTORY) for _ in range(3)))
        challenge = bytes(range(8))
        command = initialize_update(0xFF, challenge)
        data, sw = self.send(command.header.hex(), command.data)
        answer = CardAnswer.parse(ResponseAPDU(bytes.fromhex(data), sw), challenge)
        opening = external_authenticate(keys, answer, level)
        assert self.sw(opening.command.header.hex(), opening.command.data, le=False) == 0x9000
        self.channel = Scp03Channel(opening)

    def under(self, header: str, data: str | bytes = "", *, le: bool = True) -> tuple[str, int]:
        octets = bytes.fromhex(data) if isinstance(data, str) else data
        cla, ins, p1, p2 = bytes.fromhex(header)
        wrapped = self.channel.wrap(CommandAPDU(cla, ins, p1, p2, octets, 256 if le else 0))
        body, sw = self.send(wrapped.header.hex(), wrapped.data)
        plain = self.channel.unwrap(ResponseAPDU(bytes.fromhex(body), sw))
        return plain.data.hex().upper(), plain.sw


@pytest.fixture
def card() -> Managed:
    host = Managed("globalplatform")
    host.select()
    host.open()
    return host


LEVELS = list(SecurityLevel)


@pytest.mark.parametrize("level", LEVELS)
def test_piv_inside_the_channel(level: SecurityLevel) -> None:
    host = Managed("globalplatform")
    host.select()
    host.open(level)
    assert host.under("00200080", PIN)[1] == 0x9000
    assert host.under("00CB3FFF", "5C035FC1FF")[1] == 0x6A82
    data = bytes.fromhex("5C035FC105") + wrap(0x53, bytes(600))
    if not level.macs_commands:
        assert host.under("00DB3FFF", data)[1] == 0x6982
        return
    assert host.under("00DB3FFF", data)[1] == 0x9000
    assert host.under("00CB3FFF", "5C035FC105")[0] == (wrap(0x53, bytes(600))).hex().upper()


def test_inside_the_channel_no_management_key_is_needed(card: Managed) -> None:
    assert card.under("0047009E", "AC03800111")[1] == 0x9000
    card.select(OTHER)
    card.select()
    assert card.put("5FC107", b"x") == 0x6982


def test_objects_are_created_written_read_and_deleted(card: Managed) -> None:
    assert card.under("00DB3FFF", "5C035FFF105301AA")[1] == 0x6A81
    assert card.under("80DB3F00", "640B8B035FFF108C01018D017F")[1] == 0x9000
    assert card.under("00DB3FFF", "5C035FFF105301AA")[1] == 0x9000
    assert card.under("00CB3FFF", "5C035FFF10")[1] == 0x6982
    card.under("00200080", PIN)
    assert card.under("00CB3FFF", "5C035FFF10") == ("5301AA", 0x9000)
    assert card.under("80DB3F00", "65058B035FFF10")[1] == 0x9000
    assert card.under("00CB3FFF", "5C035FFF10")[1] == 0x6A82
    assert card.under("80DB3F00", "65058B035FFF10")[1] == 0x6A82


def test_bulk_is_all_or_nothing(card: Managed) -> None:
    one, two = "640B8B035FFF108C017F8D017F", "640B8B035FFF118C017F8D017F"
    before = card.card.state_hash()
    assert card.under("80DB3F00", wrap(0x6A, bytes.fromhex(one + "65058B035FFF99")))[1] == 0x6A82
    assert card.card.state_hash() == before
    assert card.under("80DB3F00", wrap(0x6A, bytes.fromhex(one + two)))[1] == 0x9000
    assert card.under("00DB3FFF", "5C035FFF115301AA")[1] == 0x9000


def test_key_modes_replace_the_slots_rule(card: Managed) -> None:
    assert card.under("80DB3F00", "66128B019A8C017F8D01008E01118F0104900110")[1] == 0x9000
    card.under("0047009A", "AC03800111")
    template = wrap(0x7C, b"\x82\x00" + wrap(0x81, HASH))
    assert card.under("0087119A", template)[1] == 0x9000
    assert card.under("80DB3F00", "66128B019A8C01008D01008E01118F0104900110")[1] == 0x9000
    assert card.under("0087119A", template)[1] == 0x6982
    assert card.under("80DB3F00", "67038B019A")[1] == 0x9000
    assert card.under("0087119A", template)[1] == 0x6A86


def test_curve_key_by_its_value(card: Managed) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    assert card.under("0024119E", wrap(0x30, wrap(0x87, scalar)), le=False)[1] == 0x9000
    data, sw = card.under("0087119E", wrap(0x7C, b"\x82\x00" + wrap(0x81, HASH)))
    assert sw == 0x9000
    signature = parse_unique(parse_unique(bytes.fromhex(data))[0x7C])[0x82]
    key.public_key().verify(signature, HASH, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    assert card.card.log[-2] == Write("key imported", 0x9E)


def test_rsa_key_comes_in_three_elements(card: Managed) -> None:
    p, q, e = (int.from_bytes(part, "big") for part in POOL.take(2048))
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    for tag, value in ((0x81, p * q), (0x82, e), (0x83, d)):
        element = wrap(0x30, wrap(tag, value.to_bytes((value.bit_length() + 7) // 8, "big")))
        assert card.under("0024079D", element, le=False)[1] == 0x9000
    card.under("00200080", PIN)
    data, sw = card.under("0087079D", wrap(0x7C, b"\x82\x00" + wrap(0x81, (5).to_bytes(256, "big"))))
    assert sw == 0x9000
    answer = int.from_bytes(parse_unique(parse_unique(bytes.fromhex(data))[0x7C])[0x82], "big")
    assert pow(answer, e, public.n) == 5


@pytest.mark.parametrize(
    ("header", "data", "sw"),
    [
        ("0024119E", "30228720" + "00" * 32, 0x6A80),
        ("0024119E", "300387" + "0101", 0x6A80),
        ("0024119E", "30039901" + "01", 0x6A80),
        ("0024069B", "300380" + "0101", 0x6A86),
        ("0024089B", "300380" + "0101", 0x6A80),
        ("002411F9", "3022" + "8720" + "01" * 32, 0x6A88),
        ("0024E09E", "3022" + "8720" + "01" * 32, 0x6A86),
        ("0024FF82", PIN, 0x6A88),
        ("0024FF80", "3132333435FFFFFF", 0x6A80),
        ("80DB3F00", "6F00", 0x6A80),
        ("80DB3F00", "64058B035FC102", 0x6A80),
        ("80DB3F00", "66098B01508C017F8D017F", 0x6A80),
        ("80DB3F00", "67038B0182", 0x6A88),
        ("80DB3F00", "64", 0x6A80),
    ],
)
def test_administration_refusals(card: Managed, header: str, data: str, sw: int) -> None:
    before = card.card.state_hash()
    assert card.under(header, data, le=False)[1] == sw
    assert card.card.state_hash() == before


def test_management_key_and_pin_by_the_administrator(card: Managed) -> None:
    assert card.under("00240A9B", wrap(0x30, wrap(0x80, bytes(24))), le=False)[1] == 0x9000
    for _ in range(3):
        card.under("00200080", "303030303030FFFF")
    assert card.under("0024FF80", "383736353433FFFF", le=False)[1] == 0x9000
    assert card.under("00200080", "383736353433FFFF")[1] == 0x9000
    card.select(OTHER)
    card.select()
    assert card.sw("00870A9B", "7C028100") == 0x9000
    assert card.sw("0087089B", "7C028100") == 0x6A86


def test_administration_only_inside_the_channel() -> None:
    host = RawCard("globalplatform")
    host.select()
    host.admin()
    assert host.sw("00DB3F00", "640B8B035FFF108C017F8D017F") == 0x6982
    assert host.sw("80DB3F00", "640B8B035FFF108C017F8D017F") == 0x6E00
    assert host.sw("0024119E", wrap(0x30, wrap(0x87, bytes(31) + b"\x01"))) == 0x6A86


def test_status_information(card: Managed) -> None:
    assert card.under("00CB3F00", "5C032F4756")[0].startswith("73")
    factory = card.under("00CB3F00", "5C032F4753")
    for reference, value in (("80", PIN), ("00", PIN), ("81", "3132333435363739")):
        assert card.under("0024FF" + reference, value, le=False)[1] == 0x9000
    assert card.under("00CB3F00", "5C032F4753") != factory
    assert card.under("00CB3F00", "5C032F4700")[1] == 0x6A82


def test_plain_command_and_wrong_mac_end_the_channel(card: Managed) -> None:
    assert card.get("5FC107")[1] == 0x6982
    assert card.sw("04CB3FFF", "5C035FC107" + "00" * 8) == 0x6982
    card.open()
    assert card.sw("04CB3FFF", "5C035FC107" + "00" * 8) == 0x6982
    assert card.get("5FC107")[1] == 0x6A82


def test_sequence_counter_is_kept_over_a_reset(card: Managed) -> None:
    first = card.card.snapshot()
    card.card.reset()
    card.select()
    card.open()
    assert card.card.snapshot() != first
    assert card.under("00200080")[1] == 0x63C3


def test_security_domain_answers() -> None:
    host = RawCard("globalplatform")
    fci, sw = host.send("00A40400", OTHER)
    assert (fci, sw) == ("6F108408A000000151000000A5049F6501FF", 0x9000)
    keys, sw = host.send("80CA00E0")
    assert (keys, sw) == ("E012" + "".join(f"C0040{n}FF8810" for n in (1, 2, 3)), 0x9000)
    assert host.send("80CA0066")[0].startswith("6626732406072A864886FC6B01")
    assert host.sw("80500100", bytes(8)) == 0x6A88
    assert host.sw("8482330000", "") in (0x6700, 0x6985)
