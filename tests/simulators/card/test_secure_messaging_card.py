"""The whole card under secure messaging, driven by the client's session: VCI, pairing code, errors."""

from __future__ import annotations

import pytest

from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.tlv import parse_unique
from cardwright_cardops.piv.cvc import ContentSigner
from cardwright_cardops.piv.secure_messaging import SmHandshake, SmSession, SmSuite
from cardwright_cardops.transport.connection import Interface
from cardwright_simulators.card import PROFILES, MemoryStore, VirtualCard
from tests.support.raw_card import ABSENT, PIN, WRONG_PIN, RawCard, wrap

HASH = bytes(range(32))
PAIRING = PROFILES["secure-messaging"].pairing_code.hex()
POLICY = "7E124F0BA0000003080000100001005F2F02{}00"
SUITES = {"secure-messaging": SmSuite.CS2, "secure-messaging-cs7": SmSuite.CS7}


class ProtectedCard(RawCard):
    """A raw card with a client session in front: ``under`` sends one protected command."""

    session: SmSession

    def open(self) -> None:
        """Establish session keys and check the card's certificate."""
        content, sw = self.get("5FC122")
        assert sw == 0x9000
        signer = ContentSigner.load(parse_unique(parse_unique(bytes.fromhex(content))[0x53])[0x70])
        handshake = SmHandshake(SUITES[self.card.profile.name])
        data, sw = self.send(handshake.command.header.hex(), handshake.command.data)
        self.session = handshake.finish(ResponseAPDU(bytes.fromhex(data), sw), signer)
        assert self.session.card.proven

    def under(self, header: str, data: str | bytes = "", *, le: bool = False) -> tuple[str, int]:
        octets = bytes.fromhex(data) if isinstance(data, str) else data
        cla, ins, p1, p2 = bytes.fromhex(header)
        wrapped = self.session.wrap(CommandAPDU(cla, ins, p1, p2, octets, 256 if le else 0))
        body, sw = self.send(wrapped.header.hex(), wrapped.data)
        answer = self.session.unwrap(ResponseAPDU(bytes.fromhex(body), sw))
        return answer.data.hex().upper(), answer.sw

    def read(self, tag: str) -> int:
        return self.under("00CB3FFF", f"5C{len(tag) // 2:02X}{tag}", le=True)[1]


def contactless(name: str = "secure-messaging", policy: str = "48") -> ProtectedCard:
    """A personalized card on the contactless interface, session keys established."""
    profile = PROFILES[name]
    store = MemoryStore()
    host = RawCard(profile, store=store)
    host.admin()
    assert host.sw("00DB3FFF", POLICY.format(policy), le=False) == 0x9000
    for tag in ("5FC102", "5FC103", "5FC109"):
        assert host.put(tag, b"content") == 0x9000
    assert host.put("5FC105", bytes(900)) == 0x9000
    for slot in ("9A", "9C", "9D", "9E"):
        host.generate(slot)
    card = ProtectedCard.around(VirtualCard(profile, store=store, interface=Interface.CONTACTLESS))
    assert isinstance(card, ProtectedCard)
    card.open()
    return card


@pytest.mark.parametrize("name", SUITES)
def test_vci_opens_with_the_pairing_code(name: str) -> None:
    card = contactless(name)
    assert [card.read(tag) for tag in ("5FC102", "5FC105", "5FC109")] == [0x9000, 0x6982, 0x6982]
    assert card.under("00200080", PIN)[1] == 0x6982
    assert card.under("00200098", PAIRING)[1] == 0x9000
    data, sw = card.under("00CB3FFF", "5C035FC105", le=True)
    assert (len(data) // 2, sw) == (904, 0x9000)
    assert card.read("5FC103") == 0x6982
    assert card.under("00200080")[1] == 0x63C3
    assert card.under("00200080", PIN)[1] == 0x9000
    assert [card.read(tag) for tag in ("5FC103", "5FC109", "5FC123")] == [0x9000] * 3
    template = wrap(0x7C, b"\x82\x00" + wrap(0x81, HASH))
    assert card.under("0087119A", template, le=True)[1] == 0x9000
    assert card.under("0087119C", template, le=True)[1] == 0x6982
    card.under("00200080", PIN)
    assert card.under("0087119C", template, le=True)[1] == 0x9000
    assert card.under("00240080", PIN + "383736353433FFFF")[1] == 0x9000


def test_wrong_pairing_code_never_blocks() -> None:
    card = contactless()
    assert {card.under("00200098", "3030303030303030")[1] for _ in range(20)} == {0x6300}
    assert card.under("00200098", "30303030303030")[1] == 0x6A80
    assert card.under("00200098", PAIRING)[1] == 0x9000
    assert card.under("00200098")[1] == 0x9000
    assert card.under("00200098", "3030303030303030")[1] == 0x6300
    assert card.under("00200098")[1] == 0x6300
    assert card.read("5FC105") == 0x6982


def test_without_the_policy_bit_there_is_no_vci() -> None:
    card = contactless(policy="40")
    assert card.under("00200098", PAIRING)[1] == 0x6A88
    assert card.read("5FC105") == 0x6982


def test_with_the_other_policy_bit_no_pairing_code_is_needed() -> None:
    card = contactless(policy="4C")
    assert card.read("5FC105") == 0x9000
    assert card.under("00200080", PIN)[1] == 0x9000


def test_pairing_code_without_secure_messaging() -> None:
    card = contactless()
    assert card.verify(PAIRING, "98") == 0x6982


def test_contactless_keeps_a_try_for_the_contacts() -> None:
    card = contactless(policy="4C")
    assert [card.under("00200080", WRONG_PIN)[1] for _ in range(3)] == [0x63C2, 0x63C1, 0x6983]
    assert card.under("00200080", PIN)[1] == 0x6983
    host = RawCard.around(VirtualCard.restore(card.card.snapshot()))
    assert host.verify() == 0x63C1
    assert host.verify(PIN) == 0x9000


@pytest.mark.parametrize("header", ["002C0080", "00DB3FFF", "0047009A", "00A40400"])
def test_what_secure_messaging_does_not_carry(header: str) -> None:
    card = contactless(policy="4C")
    assert card.sw("0C" + header[2:], bytes(16)) == 0x6882
    assert card.sw("0CCB3FFF", "00") == 0x6982


@pytest.mark.parametrize(
    ("data", "sw"),
    [("970100", 0x6987), ("5C035FC102", 0x6987), ("9701008E080000000000000000", 0x6988), ("8E07", 0x6988)],
)
def test_unprotected_or_broken_commands_end_the_session(data: str, sw: int) -> None:
    card = contactless()
    assert card.send("0CCB3FFF", data) == ("", sw)
    assert card.sw("0CCB3FFF", "9701008E080000000000000000") == 0x6982


def test_replay_ends_the_session() -> None:
    card = contactless()
    wrapped = card.session.wrap(CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, bytes.fromhex("5C035FC102"), 256))
    assert card.sw(wrapped.header.hex(), wrapped.data) == 0x9000
    assert card.sw(wrapped.header.hex(), wrapped.data) == 0x6988
    assert card.sw(wrapped.header.hex(), wrapped.data) == 0x6982


@pytest.mark.parametrize("between", ["00CB3FFF055C035FC10200", "00200080", "00A4040007" + ABSENT])
def test_a_plain_command_ends_the_session(between: str) -> None:
    card = contactless()
    card.raw(between)
    assert card.sw("0CCB3FFF", "970100") == 0x6982


def test_a_new_establishment_replaces_the_session() -> None:
    card = contactless()
    old = card.session
    card.open()
    assert card.read("5FC102") == 0x9000
    wrapped = old.wrap(CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, bytes.fromhex("5C035FC102"), 256))
    assert card.sw(wrapped.header.hex(), wrapped.data) == 0x6988


def test_reset_ends_session_and_pairing() -> None:
    card = contactless()
    assert card.under("00200098", PAIRING)[1] == 0x9000
    card.card.reset()
    assert card.sw("0CCB3FFF", "970100") == 0x6982
    card.open()
    assert card.read("5FC105") == 0x6982


@pytest.mark.parametrize(
    ("header", "data", "sw"),
    [
        ("00871104", "", 0x6A86),
        ("00872E04", "", 0x6A86),
        ("00872704", "7C028200", 0x6A80),
        ("00872704", "7C4E814A" + "F0" + "00" * 8 + "04" + "01" * 64 + "8200", 0x6A80),
        ("00872704", "7C4E814A" + "00" + "00" * 8 + "04" + "01" * 64 + "8200", 0x6A80),
    ],
)
def test_establishment_refusals(header: str, data: str, sw: int) -> None:
    assert RawCard("secure-messaging").send(header, data) == ("", sw)


def test_a_new_key_04_gets_a_certificate() -> None:
    host = ProtectedCard("secure-messaging")
    host.admin()
    first = host.card.snapshot()
    public = host.generate("04", "27")
    assert host.card.snapshot() != first
    host.open()
    assert host.session.card.proven
    assert public != host.generate("04", "11")
    assert host.send("00470004", "AC03800114") == ("", 0x6A80)
    host.open()
    assert host.read("5FC102") == 0x6A82


def test_card_use_of_secure_messaging_on_contact() -> None:
    host = ProtectedCard("secure-messaging")
    host.open()
    assert host.under("00200080", PIN)[1] == 0x9000
    assert host.under("00200080", WRONG_PIN)[1] == 0x63C2
    assert host.under("00CB3FFF", "5C035FC1FF", le=True) == ("", 0x6A82)
