"""The virtual card's secure messaging against the host's: two implementations written apart."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.piv.secure_messaging import (
    SmHandshake,
    SmResponseInvalid,
    SmSession,
    SmSessionClosed,
    SmSuite,
)
from cardwright_simulators.card.answers import Refused
from cardwright_simulators.card.secure_messaging import CardSession
from tests.support.secure_messaging import GUID, answer_to, genuine_cryptogram, genuine_mac, open_session, sm_card

SUITES = list(SmSuite)
GET_CHUID = CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, bytes.fromhex("5C035FC102"), 256)

suites = st.sampled_from(SUITES)
commands = st.builds(
    CommandAPDU,
    cla=st.just(0),
    ins=st.sampled_from([0xCB, 0x20, 0x24, 0x87]),
    p1=st.integers(0, 255),
    p2=st.integers(0, 255),
    data=st.one_of(st.binary(max_size=40), st.binary(min_size=200, max_size=700)),
    le=st.sampled_from([0, 256]),
)
answers = st.builds(ResponseAPDU, data=st.binary(max_size=300), sw=st.sampled_from([0x9000, 0x6A82, 0x63C2, 0x6982]))


def refusal(card: CardSession, command: CommandAPDU) -> int:
    with pytest.raises(Refused) as caught:
        card.unwrap(command)
    assert not card.active
    return caught.value.sw


@given(suite=suites, exchanges=st.lists(st.tuples(commands, answers), max_size=6))
def test_round_trip(suite: SmSuite, exchanges: list[tuple[CommandAPDU, ResponseAPDU]]) -> None:
    host, card = open_session(suite)
    for command, answer in exchanges:
        wrapped = host.wrap(command)
        assert (wrapped.cla, wrapped.le) == (0x0C, 256)
        if len(command.data) >= 8:
            assert command.data not in wrapped.data
        assert card.unwrap(wrapped) == command
        sent = card.wrap(answer)
        assert sent.sw == 0x9000
        if len(answer.data) >= 8:
            assert answer.data not in sent.data
        assert host.unwrap(sent) == answer
    assert card.active


@given(suite=suites, command=commands, history=st.integers(0, 2), bit=st.integers(0, 1 << 16))
def test_any_flipped_bit_of_a_command_is_refused(suite: SmSuite, command: CommandAPDU, history: int, bit: int) -> None:
    host, card = open_session(suite)
    for _ in range(history):
        card.unwrap(host.wrap(GET_CHUID))
        host.unwrap(card.wrap(ResponseAPDU(b"", 0x9000)))
    wrapped = host.wrap(command)
    octets = bytearray(wrapped.header + wrapped.data)
    at = bit % (8 * len(octets))
    octets[at // 8] ^= 1 << at % 8
    cla, ins, p1, p2 = octets[:4]
    sw = refusal(card, CommandAPDU(cla, ins, p1, p2, bytes(octets[4:]), wrapped.le))
    if at < 16:
        assert sw in (0x6882, 0x6988)
    else:
        assert sw in (0x6987, 0x6988)
    assert refusal(card, host.wrap(command)) == 0x6982


@given(suite=suites, answer=answers, bit=st.integers(0, 1 << 16))
def test_any_flipped_bit_of_a_response_is_refused(suite: SmSuite, answer: ResponseAPDU, bit: int) -> None:
    host, card = open_session(suite)
    card.unwrap(host.wrap(GET_CHUID))
    octets = bytearray(card.wrap(answer).data)
    at = bit % (8 * len(octets))
    octets[at // 8] ^= 1 << at % 8
    with pytest.raises(SmResponseInvalid):
        host.unwrap(ResponseAPDU(bytes(octets), 0x9000))
    assert host.closed
    with pytest.raises(SmSessionClosed):
        host.wrap(GET_CHUID)


@pytest.mark.parametrize("suite", SUITES)
def test_replayed_messages_are_refused(suite: SmSuite) -> None:
    host, card = open_session(suite)
    first = host.wrap(GET_CHUID)
    card.unwrap(first)
    old = card.wrap(ResponseAPDU(b"one", 0x9000))
    assert host.unwrap(old).data == b"one"
    card.unwrap(host.wrap(GET_CHUID))
    with pytest.raises(SmResponseInvalid):
        host.unwrap(old)
    assert refusal(card, first) == 0x6988


@pytest.mark.parametrize("suite", SUITES)
def test_same_plain_text_never_looks_the_same(suite: SmSuite) -> None:
    host, card = open_session(suite)
    seen = set()
    for _ in range(4):
        wrapped = host.wrap(GET_CHUID)
        card.unwrap(wrapped)
        answer = card.wrap(ResponseAPDU(bytes(16), 0x9000))
        host.unwrap(answer)
        seen |= {wrapped.data, answer.data, wrapped.data[3:19], answer.data[3:35]}
    assert len(seen) == 16


def test_host_rolls_back_to_the_last_executed_command() -> None:
    host, card = open_session(SmSuite.CS2)
    batch = [CommandAPDU(0, 0xCB, 0x3F, 0xFF, bytes((0x5C, 0x03, 0x5F, 0xC1, index)), 256) for index in range(5)]
    wrapped, states = [], []
    for command in batch:
        wrapped.append(host.wrap(command))
        states.append(host.snapshot())
    back = []
    for index in range(3):
        assert card.unwrap(wrapped[index]) == batch[index]
        back.append(card.wrap(ResponseAPDU(bytes((index,)) * 20, 0x9000)))
    for index, answer in enumerate(back):
        assert host.unwrap(answer, after=states[index]).data == bytes((index,)) * 20
    host.restore(states[2])
    assert host.wrap(batch[3]) == wrapped[3]
    host.restore(states[2])
    assert card.unwrap(host.wrap(GET_CHUID)) == GET_CHUID
    assert host.unwrap(card.wrap(ResponseAPDU(b"on", 0x9000))).data == b"on"


@given(plain=st.lists(commands, min_size=1, max_size=6), data=st.data())
def test_restoring_gives_the_same_octets_again(plain: list[CommandAPDU], data: st.DataObject) -> None:
    host, _ = open_session(SmSuite.CS2)
    states, wrapped = [host.snapshot()], []
    for command in plain:
        wrapped.append(host.wrap(command))
        states.append(host.snapshot())
    back = data.draw(st.integers(0, len(plain)))
    host.restore(states[back])
    assert [host.wrap(command) for command in plain[back:]] == wrapped[back:]
    assert host.snapshot() == states[-1]


class TestEstablishing:
    def test_a_new_establishment_ends_the_session(self) -> None:
        host, card = open_session(SmSuite.CS2)
        with pytest.raises(Refused):
            card.establish(b"", 0x27, sm_card(SmSuite.CS2).key, b"")
        assert refusal(card, host.wrap(GET_CHUID)) == 0x6982

    def test_suite_must_fit_the_key(self) -> None:
        key = sm_card(SmSuite.CS2).key
        for algorithm in (0x2E, 0x11, 0x00):
            with pytest.raises(Refused) as caught:
                CardSession().establish(SmHandshake(SmSuite.CS2).command.data, algorithm, key, b"")
            assert caught.value.sw == 0x6A86

    @pytest.mark.parametrize("suite", SUITES)
    def test_bad_requests(self, suite: SmSuite) -> None:
        card = sm_card(suite)
        good = tlv.parse_unique(tlv.parse_one(SmHandshake(suite).command.data, 0x7C).value)[0x81]

        def request(value: bytes, *, rest: bytes = b"\x82\x00") -> bytes:
            return tlv.encode(0x7C, tlv.encode(0x81, value) + rest)

        assert CardSession().establish(request(good), suite.value, card.key, card.cvc)
        bad = [
            b"",
            request(b""),
            request(good[:-1]),
            request(good + b"\0"),
            request(b"\x10" + good[1:]),
            request(good[:9] + b"\x02" + good[10:]),
            request(good[:-1] + bytes((good[-1] ^ 1,))),
            request(good, rest=b""),
            request(good, rest=b"\x82\x01\x00"),
            request(good, rest=b"\x82\x00\x82\x00"),
            request(good)[:-1],
        ]
        for data in bad:
            session = CardSession()
            with pytest.raises(Refused) as caught:
                session.establish(data, suite.value, card.key, card.cvc)
            assert caught.value.sw == 0x6A80
            assert not session.active

    def test_low_nibble_of_the_control_octet_is_the_hosts(self) -> None:
        card, session = sm_card(SmSuite.CS2), CardSession()
        request = bytearray(SmHandshake(SmSuite.CS2).command.data)
        request[4] = 0x0F
        answer = session.establish(bytes(request), 0x27, card.key, card.cvc)
        assert tlv.parse_one(tlv.parse_one(answer, 0x7C).value, 0x82).value[0] == 0x00

    def test_every_session_has_its_own_nonce(self) -> None:
        card, handshake = sm_card(SmSuite.CS2), SmHandshake(SmSuite.CS2)
        assert len({answer_to(handshake, card, CardSession()).data for _ in range(5)}) == 5

    @given(data=st.binary(max_size=120))
    def test_hostile_requests(self, data: bytes) -> None:
        session = CardSession()
        with pytest.raises(Refused) as caught:
            session.establish(data, 0x27, sm_card(SmSuite.CS2).key, b"")
        assert caught.value.sw == 0x6A80


class TestUnwrapping:
    @pytest.fixture
    def pair(self) -> tuple[SmSession, CardSession]:
        return open_session(SmSuite.CS2)

    def test_without_session(self) -> None:
        host, _ = open_session(SmSuite.CS2)
        assert refusal(CardSession(), host.wrap(GET_CHUID)) == 0x6982

    @pytest.mark.parametrize("ins", [0xA4, 0x2C, 0xDB, 0x47, 0xC0])
    def test_commands_that_never_come_protected(self, pair: tuple[SmSession, CardSession], ins: int) -> None:
        host, card = pair
        wrapped = host.wrap(GET_CHUID)
        assert refusal(card, CommandAPDU(0x0C, ins, 0x3F, 0xFF, wrapped.data)) == 0x6882

    def test_missing_and_misplaced_objects(self, pair: tuple[SmSession, CardSession]) -> None:
        wrapped = pair[0].wrap(GET_CHUID)
        data, le, mac = (item.encode() for item in tlv.parse_all(wrapped.data))
        for body, sw in (
            (b"", 0x6987),
            (data + le, 0x6987),
            (le + data + mac, 0x6988),
            (data + mac + le, 0x6988),
            (mac + data + le, 0x6988),
            (data + data + le + mac, 0x6988),
            (le + mac, 0x6988),
            (data + mac, 0x6988),
            (data + le + mac + mac, 0x6988),
            (data + le + mac[:-1], 0x6988),
            (data + le + b"\x85\x00" + mac, 0x6988),
        ):
            _, card = open_session(SmSuite.CS2)
            assert refusal(card, CommandAPDU(0x0C, 0xCB, 0x3F, 0xFF, body)) == sw

    @pytest.mark.parametrize(
        ("indicator", "padded", "le", "good"),
        [
            (0x01, b"\x80" + bytes(15), b"\x97\x01\x00", True),
            (0x01, b"\x80" + bytes(15), b"\x97\x01\x05", False),
            (0x01, b"\x80" + bytes(15), b"\x97\x00", False),
            (0x02, b"\x80" + bytes(15), b"", False),
            (0x01, bytes(16), b"", False),
            (0x01, b"x" * 16, b"", False),
            (0x01, b"\x80" + bytes(31), b"", False),
            (0x01, b"x" * 15 + b"\x80" + bytes(16), b"", False),
        ],
    )
    def test_genuine_mac_over_wrong_content(
        self, pair: tuple[SmSession, CardSession], indicator: int, padded: bytes, le: bytes, good: bool
    ) -> None:
        """A host that MACs right but codes or pads wrong."""
        host, card = pair
        cryptogram = genuine_cryptogram(host, bytes(15) + b"\x01", padded)
        body = tlv.encode(0x87, bytes((indicator,)) + cryptogram) + le
        mac = genuine_mac(host._keys.mac, bytes.fromhex("0CCB3FFF80") + bytes(11) + body)
        command = CommandAPDU(0x0C, 0xCB, 0x3F, 0xFF, body + mac)
        if good:
            assert card.unwrap(command) == CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, b"", 256)
        else:
            assert refusal(card, command) == 0x6988

    def test_erasing(self, pair: tuple[SmSession, CardSession]) -> None:
        host, card = pair
        assert card.active
        card.erase()
        assert not card.active
        assert card.wrap(ResponseAPDU(b"x", 0x9000)) == ResponseAPDU(b"x", 0x9000)
        assert refusal(card, host.wrap(GET_CHUID)) == 0x6982

    @given(data=st.binary(max_size=80))
    def test_hostile_commands(self, data: bytes) -> None:
        _, card = open_session(SmSuite.CS2)
        assert refusal(card, CommandAPDU(0x0C, 0xCB, 0x3F, 0xFF, data)) in (0x6987, 0x6988)


def test_inner_errors_do_not_end_the_session() -> None:
    host, card = open_session(SmSuite.CS7)
    for sw in (0x63C2, 0x6982, 0x6A82):
        card.unwrap(host.wrap(GET_CHUID))
        assert host.unwrap(card.wrap(ResponseAPDU(b"", sw))) == ResponseAPDU(b"", sw)
    assert card.active
    assert not host.closed


@pytest.mark.parametrize("suite", SUITES)
def test_card_key_and_guid_are_what_the_host_sees(suite: SmSuite) -> None:
    host, _ = open_session(suite)
    assert host.card.guid == GUID
    key = host.card.certificate.public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.public_numbers() == sm_card(suite).key.public_key().public_numbers()
