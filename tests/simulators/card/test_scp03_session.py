"""The virtual card's SCP03 against the host's: two implementations written apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.globalplatform.channel import Scp03Channel, Scp03ResponseInvalid, authenticate
from cardwright_cardops.globalplatform.put_key import put_key
from cardwright_cardops.globalplatform.scp03 import ChannelOptions, SecurityLevel, mac
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.answers import Refused
from cardwright_simulators.card.scp03 import MAX_SEQUENCE, SecurityDomainSession
from tests.support.scp03 import AID, VERSION, Domain, begin, open_channel, raw_keys, static_keys

OWN: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "data" / "scp03.json").read_text(encoding="ascii"))[
    "scp03_own"
]["sessions"]

LEVELS = list(SecurityLevel)
PROTECTED = [level for level in LEVELS if level]
WITH_R_MAC = [level for level in LEVELS if level.macs_responses]

commands = st.builds(
    CommandAPDU,
    cla=st.sampled_from([0x00, 0x80, 0x10, 0x01]),
    ins=st.integers(0, 255),
    p1=st.integers(0, 255),
    p2=st.integers(0, 255),
    data=st.one_of(st.binary(max_size=40), st.binary(min_size=230, max_size=600)),
    le=st.sampled_from([0, 256]),
)
answers = st.builds(ResponseAPDU, data=st.binary(max_size=300), sw=st.sampled_from([0x9000, 0x6282, 0x63C1]))


def pair(
    level: SecurityLevel = SecurityLevel.ALL, *, size: int = 16, s16: bool = False
) -> tuple[SecurityDomainSession, Scp03Channel]:
    keys = raw_keys(size)
    card = SecurityDomainSession(Domain({VERSION: keys}), aid=AID, s16=s16)
    return card, open_channel(card, keys, level, s16=s16)


def refusal(card: SecurityDomainSession, command: CommandAPDU, *, extended: bool = False) -> int:
    with pytest.raises(Refused) as caught:
        card.unwrap(command, extended=extended)
    return caught.value.sw


@pytest.mark.parametrize("row", OWN, ids=lambda row: f"{row['aes']}-{row['s16']}-{row['level']}")
def test_card_reproduces_own_session(row: dict[str, Any]) -> None:
    keys = tuple(bytes.fromhex(row[f"key_{name}"]) for name in ("enc", "mac", "dek"))
    enc, mac, dek = keys
    card = SecurityDomainSession(
        Domain({VERSION: (enc, mac, dek)}), aid=bytes.fromhex(row["card_challenge_aid"]), s16=row["s16"]
    )
    answer = card.initialize_update(CommandAPDU.parse(bytes.fromhex(row["init_update"])))
    assert answer.hex() == row["init_update_rsp"]
    card.external_authenticate(CommandAPDU.parse(bytes.fromhex(row["external_authenticate"])))
    assert card.level == int(row["level"], 16)
    for exchange in row["commands"]:
        plain = CommandAPDU.parse(bytes.fromhex(exchange["plain"]))
        assert card.unwrap(CommandAPDU.parse(bytes.fromhex(exchange["wrapped"]))) == plain
        sw = int(exchange["sw"], 16)
        wrapped = card.wrap(ResponseAPDU(bytes.fromhex(exchange["response_plain"]), sw))
        assert wrapped == ResponseAPDU(bytes.fromhex(exchange["response"]), sw)


def test_card_reproduces_published_challenges(shared_data: Path) -> None:
    published = json.loads((shared_data / "test-vectors.json").read_text())["scp03_published"]["sessions"]
    for row in published:
        enc, mac, dek = (bytes.fromhex(row[f"key_{name}"]) for name in ("enc", "mac", "dek"))
        expected = bytes.fromhex(row["init_update_rsp"])
        domain = Domain({row["kvn"]: (enc, mac, dek)}, sequence=int.from_bytes(expected[-3:], "big") - 1)
        card = SecurityDomainSession(
            domain, aid=bytes.fromhex("A0000005591010FFFFFFFF8900000100"), options=expected[12]
        )
        assert card.initialize_update(CommandAPDU.parse(bytes.fromhex(row["init_update"]))) == expected
        card.external_authenticate(CommandAPDU.parse(bytes.fromhex(row["external_authenticate"])))
        for exchange in row["commands"]:
            plain = CommandAPDU.parse(bytes.fromhex(exchange["plain"]))
            assert card.unwrap(CommandAPDU.parse(bytes.fromhex(exchange["wrapped"]))) == CommandAPDU(
                plain.cla, plain.ins, plain.p1, plain.p2, plain.data, plain.le
            )
            if "response_data" in exchange:
                answer = card.wrap(ResponseAPDU(bytes.fromhex(exchange["response_plain"]), 0x9000))
                assert answer.data.hex() == exchange["response_data"]


@given(
    level=st.sampled_from(LEVELS),
    size=st.sampled_from([16, 24, 32]),
    s16=st.booleans(),
    exchanges=st.lists(st.tuples(commands, answers, st.booleans()), max_size=6),
)
def test_round_trip(
    level: SecurityLevel,
    size: int,
    s16: bool,
    exchanges: list[tuple[CommandAPDU, ResponseAPDU, bool]],
) -> None:
    card, host = pair(level, size=size, s16=s16)
    for command, answer, extended in exchanges:
        wrapped = host.wrap(command, extended=extended)
        if level.encrypts_commands and len(command.data) >= 8:
            assert command.data not in wrapped.data
        assert card.unwrap(wrapped, extended=extended) == command
        sent = card.wrap(answer)
        assert sent.sw == answer.sw
        if level.encrypts_responses and len(answer.data) >= 8:
            assert answer.data not in sent.data
        assert host.unwrap(sent) == answer


@given(
    level=st.sampled_from(PROTECTED),
    command=commands,
    bit=st.integers(0, 1 << 16),
    history=st.integers(0, 2),
)
def test_any_flipped_bit_of_a_command_is_refused(
    level: SecurityLevel, command: CommandAPDU, bit: int, history: int
) -> None:
    card, host = pair(level)
    for _ in range(history):
        card.unwrap(host.wrap(CommandAPDU(0x80, 0xCA, 0, 0x66)))
    wrapped = host.wrap(command)
    octets = bytearray(wrapped.header + wrapped.data)
    at = bit % (8 * len(octets))
    octets[at // 8] ^= 1 << at % 8
    cla, ins, p1, p2 = octets[:4]
    altered = CommandAPDU(cla, ins, p1, p2, bytes(octets[4:]), wrapped.le)
    if cla ^ wrapped.cla in (1, 2):
        # The channel number is not covered (Amendment D section 6.2.4).
        assert card.unwrap(altered).data == command.data
        return
    assert refusal(card, altered) == 0x6982
    assert not card.is_open
    assert refusal(card, host.wrap(command)) == 0x6982


@given(level=st.sampled_from(WITH_R_MAC), answer=answers, bit=st.integers(0, 1 << 16))
def test_any_flipped_bit_of_a_response_is_refused(level: SecurityLevel, answer: ResponseAPDU, bit: int) -> None:
    card, host = pair(level)
    card.unwrap(host.wrap(CommandAPDU(0x80, 0xCA, 0, 0x66, b"", 256)))
    octets = bytearray(card.wrap(answer).encode())
    at = bit % (8 * len(octets))
    octets[at // 8] ^= 1 << at % 8
    with pytest.raises(Scp03ResponseInvalid):
        host.unwrap(ResponseAPDU.parse(bytes(octets)))
    assert host.closed


@pytest.mark.parametrize("level", WITH_R_MAC)
def test_replayed_and_reordered_messages_are_refused(level: SecurityLevel) -> None:
    command = CommandAPDU(0x80, 0xCA, 0, 0x66, b"\x01", 256)
    card, host = pair(level)
    first = host.wrap(command)
    card.unwrap(first)
    old = card.wrap(ResponseAPDU(b"one", 0x9000))
    host.unwrap(old)
    second = host.wrap(command)
    card.unwrap(second)
    with pytest.raises(Scp03ResponseInvalid):
        host.unwrap(old)
    assert refusal(card, first) == 0x6982

    card, host = pair(level)
    host.wrap(command)
    assert refusal(card, host.wrap(command)) == 0x6982


@pytest.mark.parametrize("level", PROTECTED)
def test_a_plain_command_ends_a_protected_channel(level: SecurityLevel) -> None:
    card, host = pair(level)
    plain = CommandAPDU(0x80, 0xCA, 0, 0x66, bytes(16))
    assert card.takes(plain)
    assert refusal(card, plain) == 0x6982
    assert not card.takes(plain)
    assert refusal(card, host.wrap(plain)) == 0x6982


def test_level_none_takes_plain_commands_only() -> None:
    card, host = pair(SecurityLevel.NONE)
    command = CommandAPDU(0x80, 0xCA, 0, 0x66, bytes(16))
    assert host.wrap(command) == command
    assert not card.takes(command)
    assert card.unwrap(command) == command
    assert host.unwrap(card.wrap(ResponseAPDU(b"x", 0x6A82))) == ResponseAPDU(b"x", 0x6A82)
    assert refusal(card, CommandAPDU(0x84, 0xCA, 0, 0x66, bytes(16))) == 0x6982


def test_lc_is_covered_in_the_form_it_was_sent() -> None:
    for host_form, card_form in ((False, True), (True, False)):
        card, host = pair()
        wrapped = host.wrap(CommandAPDU(0x80, 0xCA, 0, 0x66, b"\x01"), extended=host_form)
        assert refusal(card, wrapped, extended=card_form) == 0x6982


def test_errors_travel_bare_and_the_channel_goes_on() -> None:
    card, host = pair()
    command = CommandAPDU(0x80, 0xCA, 0, 0x66, b"", 256)
    card.unwrap(host.wrap(command))
    refused = card.wrap(ResponseAPDU(b"", 0x6A88))
    assert refused == ResponseAPDU(b"", 0x6A88)
    assert host.unwrap(refused) == refused
    assert card.unwrap(host.wrap(command)) == command


def test_empty_data_may_come_padded() -> None:
    keys = raw_keys()
    card = SecurityDomainSession(Domain({VERSION: keys}), aid=AID)
    host = open_channel(card, keys, pad_empty=True)
    command = CommandAPDU(0x80, 0xCA, 0, 0x66, b"", 256)
    wrapped = host.wrap(command)
    assert len(wrapped.data) == 16 + 8
    assert card.unwrap(wrapped) == command


@pytest.mark.parametrize("plain", [bytes(16), b"\x80" + bytes(31), b"x" * 15 + b"\x80" + bytes(16), b"x" * 16])
def test_genuine_mac_over_wrong_padding(plain: bytes) -> None:
    """A host that MACs right but pads wrong: none, only zeros, or a block too much."""
    card, host = pair()
    key = AES(host._keys.enc.reveal())
    icv = Cipher(key, ECB()).encryptor().update(bytes(15) + b"\x01")
    data = Cipher(key, CBC(icv)).encryptor().update(plain)
    head = bytes((0x84, 0xCA, 0x00, 0x66, len(data) + 8))
    full = mac(host._keys.mac, host.snapshot().chaining, head, data)
    assert refusal(card, CommandAPDU(0x84, 0xCA, 0x00, 0x66, data + full[:8])) == 0x6982


@pytest.mark.parametrize("s16", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_blocks_protected_one_by_one(level: SecurityLevel, s16: bool) -> None:
    card, host = pair(level, s16=s16)
    data = bytes(range(256)) * 3
    blocks = host.split(CommandAPDU(0x00, 0xDB, 0x3F, 0xFF, data, 256))
    assert [block.cla for block in blocks] == [0x10] * (len(blocks) - 1) + [0x00]
    assert [block.le for block in blocks] == [0] * (len(blocks) - 1) + [256]
    wrapped = [host.wrap(block) for block in blocks]
    sizes = [len(block.data) for block in wrapped]
    # 15 blocks of AES and a MAC of 8, or 14 and a MAC of 16, are the most that fit.
    assert max(sizes) == ((240 if s16 else 248) if level.encrypts_commands else 255)
    assert b"".join(card.unwrap(block).data for block in wrapped) == data


def test_host_rolls_back_to_the_last_executed_command() -> None:
    card, host = pair()
    batch = [CommandAPDU(0x80, 0xE2, 0, index, bytes((index,)) * 20, 256) for index in range(5)]
    wrapped, states = [], []
    for command in batch:
        wrapped.append(host.wrap(command))
        states.append(host.snapshot())
    answers_back = []
    for index in range(3):
        assert card.unwrap(wrapped[index]) == batch[index]
        answers_back.append(card.wrap(ResponseAPDU(bytes((index,)), 0x9000)))
    for index, answer in enumerate(answers_back):
        assert host.unwrap(answer, after=states[index]).data == bytes((index,))
    host.restore(states[2])
    assert host.wrap(batch[3]) == wrapped[3]
    host.restore(states[2])
    other = CommandAPDU(0x80, 0xCA, 0, 0x66, b"", 256)
    assert card.unwrap(host.wrap(other)) == other
    assert host.unwrap(card.wrap(ResponseAPDU(b"on", 0x9000))).data == b"on"


@given(plain=st.lists(commands, min_size=1, max_size=6), data=st.data())
def test_restoring_gives_the_same_octets_again(plain: list[CommandAPDU], data: st.DataObject) -> None:
    _, host = pair()
    states, wrapped = [host.snapshot()], []
    for command in plain:
        wrapped.append(host.wrap(command))
        states.append(host.snapshot())
    back = data.draw(st.integers(0, len(plain)))
    host.restore(states[back])
    assert [host.wrap(command) for command in plain[back:]] == wrapped[back:]
    assert host.snapshot() == states[-1]


class TestOpening:
    def test_wrong_host_cryptogram(self) -> None:
        card = SecurityDomainSession(Domain(), aid=AID)
        command, _ = authenticate(static_keys(raw_keys()), begin(card), SecurityLevel.ALL)
        altered = bytes((command.data[0] ^ 1,)) + command.data[1:]
        with pytest.raises(Refused) as caught:
            card.external_authenticate(CommandAPDU(0x84, 0x82, 0x33, 0, altered))
        assert caught.value.sw == 0x6300
        with pytest.raises(Refused) as caught:
            card.external_authenticate(command)
        assert caught.value.sw == 0x6985

    def test_wrong_mac_of_external_authenticate(self) -> None:
        card = SecurityDomainSession(Domain(), aid=AID)
        command, _ = authenticate(static_keys(raw_keys()), begin(card), SecurityLevel.ALL)
        altered = command.data[:-1] + bytes((command.data[-1] ^ 1,))
        with pytest.raises(Refused) as caught:
            card.external_authenticate(CommandAPDU(0x84, 0x82, 0x33, 0, altered))
        assert caught.value.sw == 0x6982
        with pytest.raises(Refused) as caught:
            card.external_authenticate(command)
        assert caught.value.sw == 0x6985

    def test_level_is_covered(self) -> None:
        card = SecurityDomainSession(Domain(), aid=AID)
        command, _ = authenticate(static_keys(raw_keys()), begin(card), SecurityLevel.ALL)
        with pytest.raises(Refused) as caught:
            card.external_authenticate(CommandAPDU(0x84, 0x82, 0x01, 0, command.data))
        assert caught.value.sw == 0x6982

    @pytest.mark.parametrize(
        ("cla", "level", "p2", "options", "sw"),
        [
            (0x84, 0x02, 0, 0x70, 0x6A86),
            (0x84, 0x33, 1, 0x70, 0x6A86),
            (0x84, 0x33, 0, 0x30, 0x6A86),
            (0x84, 0x11, 0, 0x10, 0x6A86),
            (0x80, 0x33, 0, 0x70, 0x6982),
        ],
    )
    def test_levels_and_classes_refused(self, cla: int, level: int, p2: int, options: int, sw: int) -> None:
        card = SecurityDomainSession(Domain(), aid=AID, options=options)
        begin(card)
        with pytest.raises(Refused) as caught:
            card.external_authenticate(CommandAPDU(cla, 0x82, level, p2, bytes(16)))
        assert caught.value.sw == sw

    def test_external_authenticate_alone(self) -> None:
        card = SecurityDomainSession(Domain(), aid=AID)
        with pytest.raises(Refused) as caught:
            card.external_authenticate(CommandAPDU(0x84, 0x82, 0x33, 0, bytes(16)))
        assert caught.value.sw == 0x6985

    @pytest.mark.parametrize(
        ("version", "p2", "size", "sequence", "sw"),
        [
            (0x31, 0, 8, 0, 0x6A88),
            (VERSION, 1, 8, 0, 0x6A86),
            (VERSION, 0, 7, 0, 0x6700),
            (VERSION, 0, 16, 0, 0x6700),
            (VERSION, 0, 8, MAX_SEQUENCE, 0x6985),
        ],
    )
    def test_initialize_update_refused(self, version: int, p2: int, size: int, sequence: int, sw: int) -> None:
        domain = Domain(sequence=sequence)
        card = SecurityDomainSession(domain, aid=AID)
        with pytest.raises(Refused) as caught:
            card.initialize_update(CommandAPDU(0x80, 0x50, version, p2, bytes(size)))
        assert caught.value.sw == sw
        assert domain.sequence == sequence

    def test_counter_and_challenge(self) -> None:
        domain = Domain(sequence=MAX_SEQUENCE - 1)
        card = SecurityDomainSession(domain, aid=AID)
        answer = begin(card)
        assert answer.sequence_counter == domain.sequence == MAX_SEQUENCE
        random_card = SecurityDomainSession(Domain(), aid=AID, options=0x60, draw=lambda size: b"\xa5" * size)
        answer = begin(random_card)
        assert answer.sequence_counter is None
        assert answer.card_challenge == b"\xa5" * 8
        assert not answer.options & ChannelOptions.PSEUDO_RANDOM_CHALLENGE

    def test_version_zero_is_the_first_key_set(self) -> None:
        card = SecurityDomainSession(Domain({0x41: raw_keys(), 0x42: raw_keys(seed=7)}), aid=AID)
        assert begin(card, version=0).key_version == 0x41

    def test_initialize_update_ends_the_channel(self) -> None:
        card, host = pair()
        begin(card)
        assert refusal(card, host.wrap(CommandAPDU(0x80, 0xCA, 0, 0x66))) == 0x6982

    def test_reset_ends_the_channel(self) -> None:
        card, host = pair()
        card.reset()
        assert card.level == 0
        assert refusal(card, host.wrap(CommandAPDU(0x80, 0xCA, 0, 0x66))) == 0x6982


class TestPutKey:
    @pytest.mark.parametrize(("size", "inner"), [(16, True), (16, False), (24, True), (32, True), (32, False)])
    def test_store_and_use(self, size: int, inner: bool) -> None:
        domain = Domain({VERSION: raw_keys(size)}, sequence=9)
        card = SecurityDomainSession(domain, aid=AID)
        host = open_channel(card, raw_keys(size))
        new = raw_keys(size, seed=99)
        request = put_key(0x31, static_keys(new), Secret(raw_keys(size)[2]), replaces=VERSION, inner_length=inner)
        data = card.put_key(card.unwrap(host.wrap(request.command)))
        request.check(host.unwrap(card.wrap(ResponseAPDU(data, 0x9000))))
        assert domain.channel_keys == {0x31: new}
        assert domain.sequence == 0
        # The channel lives on with its session keys; a new one needs the new key set.
        assert card.unwrap(host.wrap(CommandAPDU(0x80, 0xCA, 0, 0xE0))).ins == 0xCA
        open_channel(card, new, version=0x31)
        assert card.is_open

    def test_initial_key_set_goes_with_the_first_other_one(self) -> None:
        domain = Domain({0xFF: raw_keys()})
        card = SecurityDomainSession(domain, aid=AID, initial_version=0xFF)
        open_channel(card, raw_keys(), version=0xFF)
        card.put_key(put_key(1, static_keys(raw_keys(seed=5)), Secret(raw_keys()[2])).command)
        assert list(domain.channel_keys) == [1]

    def test_key_information(self) -> None:
        card = SecurityDomainSession(Domain({0x30: raw_keys(), 0x31: raw_keys(32)}), aid=AID)
        assert card.key_information().hex() == (
            "c00401308810c00402308810c00403308810" + "c00401318820c00402318820c00403318820"
        )

    def refused(self, domain: Domain, **changes: Any) -> int:
        card = SecurityDomainSession(domain, aid=AID, capacity=2)
        open_channel(card, raw_keys())
        command = put_key(
            changes.get("version", 0x31),
            static_keys(raw_keys(seed=5)),
            Secret(changes.get("dek", raw_keys()[2])),
            replaces=changes.get("replaces", 0),
        ).command
        before = dict(domain.channel_keys)
        with pytest.raises(Refused) as caught:
            card.put_key(
                CommandAPDU(0x80, 0xD8, command.p1, changes.get("p2", 0x81), command.data + changes.get("tail", b""))
            )
        assert domain.channel_keys == before
        return caught.value.sw

    def test_refusals(self) -> None:
        assert self.refused(Domain(), p2=0x01) == 0x6A86
        assert self.refused(Domain(), replaces=0x44) == 0x6A88
        assert self.refused(Domain(), version=VERSION) == 0x6A80
        assert self.refused(Domain(), dek=bytes(16)) == 0x6A80
        assert self.refused(Domain(), tail=b"\0") == 0x6A80
        full = Domain({VERSION: raw_keys(), 0x44: raw_keys(seed=1)})
        assert self.refused(full) == 0x6A84

    def test_needs_an_open_channel(self) -> None:
        card = SecurityDomainSession(Domain(), aid=AID)
        begin(card)
        with pytest.raises(Refused) as caught:
            card.put_key(put_key(0x31, static_keys(raw_keys()), Secret(bytes(16))).command)
        assert caught.value.sw == 0x6982

    @given(data=st.binary(max_size=120))
    def test_any_data_is_refused_or_stored_whole(self, data: bytes) -> None:
        domain = Domain()
        card = SecurityDomainSession(domain, aid=AID)
        open_channel(card, raw_keys())
        with pytest.raises(Refused):
            card.put_key(CommandAPDU(0x80, 0xD8, 0, 0x81, data))
        assert list(domain.channel_keys) == [VERSION]


@given(data=st.binary(max_size=40), level=st.integers(0, 255))
def test_hostile_opening(data: bytes, level: int) -> None:
    card = SecurityDomainSession(Domain(), aid=AID)
    begin(card)
    with pytest.raises(Refused):
        card.external_authenticate(CommandAPDU(0x84, 0x82, level, 0, data))
    assert not card.is_open
