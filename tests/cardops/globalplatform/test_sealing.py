"""Sealed batches on a virtual card: executed by an end that has no keys, rolled back, closed after a doubt."""

from __future__ import annotations

import pytest

from cardwright_cardops.globalplatform.channel import (
    Scp03Channel,
    Scp03ChannelClosed,
    Scp03CommandUnfit,
    Scp03ResponseInvalid,
    authenticate,
)
from cardwright_cardops.globalplatform.scp03 import (
    CardAnswer,
    SecurityLevel,
    StaticKeys,
    check_authenticated,
    initialize_update,
    new_host_challenge,
)
from cardwright_cardops.globalplatform.sealing import seal
from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv.commands import select
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins, TriesGuard
from cardwright_cardops.program.items import Answer, Outcome
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import TransportError
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.factory import FACTORY_CHANNEL_KEY
from cardwright_simulators.card.scp03 import SecurityDomainSession
from tests.support.scp03 import AID, VERSION, Domain, open_channel, raw_keys

PRINTED = bytes.fromhex("5FC109")
CHUID = bytes.fromhex("5FC102")


def get(tag: bytes) -> CommandAPDU:
    return CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, b"\x5c\x03" + tag, 256)


def put(tag: bytes, content: bytes) -> CommandAPDU:
    return CommandAPDU(0x00, 0xDB, 0x3F, 0xFF, b"\x5c\x03" + tag + tlv.encode(0x53, content))


class Line(DirectConnection):
    """A connection that fails once, at the ``fail_at``-th APDU: not sent, or sent and its answer lost or altered."""

    def __init__(self, card: VirtualCard) -> None:
        super().__init__(card)
        self.fail_at = 0
        self.how = ""
        self.apdus: list[bytes] = []

    def transmit(self, command: bytes) -> bytes:
        self.apdus.append(command)
        if len(self.apdus) != self.fail_at:
            return super().transmit(command)
        if self.how == "not sent":
            raise TransportError("unplugged", sent=False)
        answer = super().transmit(command)
        if self.how == "altered":
            return bytes((answer[0] ^ 1,)) + answer[1:]
        raise TransportError("unplugged", sent=True)


class Sealing:
    """A card administered through SCP03, an end that executes, and the channel's owner."""

    def __init__(self, level: SecurityLevel = SecurityLevel.ALL, *, short: bool = True) -> None:
        self.card = VirtualCard("globalplatform")
        self.line = Line(self.card)
        keys = KeyItems(FixedPins(current=None), TriesGuard(1), local=False)
        self.executor = LocalExecutor(self.line, keys, Limits(extended=not short))
        self.executor.drops_status = False
        self.channel = self.open(level)

    def open(self, level: SecurityLevel = SecurityLevel.ALL) -> Scp03Channel:
        plain = self.executor.plain
        assert plain.send(select()).sw == 0x9000
        host = new_host_challenge()
        answer = CardAnswer.parse(plain.send(initialize_update(0xFF, host)), host)
        keys = StaticKeys(*(Secret(FACTORY_CHANNEL_KEY) for _ in range(3)))
        command, channel = authenticate(keys, answer, level)
        check_authenticated(plain.send(command))
        self.line.apdus.clear()
        return channel

    def fail(self, at: int, how: str) -> None:
        self.line.apdus.clear()
        self.line.fail_at, self.line.how = at, how

    def run(self, commands: list[CommandAPDU], max_data: int = 255) -> list[tuple[str, int | None, bytes]]:
        sealed = seal(self.channel, commands, max_data=max_data)
        opened = sealed.open(self.executor.execute(sealed.batch))
        return [(answer.outcome.name, answer.sw, answer.data) for answer in opened]


@pytest.mark.parametrize("level", [level for level in SecurityLevel if level])
@pytest.mark.parametrize("short", [True, False])
def test_whole_batch(level: SecurityLevel, short: bool) -> None:
    bench = Sealing(level, short=short)
    content = bytes(range(256)) * 7
    answers = bench.run([put(PRINTED, b"small"), put(CHUID, content), get(CHUID)], max_data=255 if short else 2038)
    assert answers == [
        ("ANSWERED", 0x9000, b""),
        ("ANSWERED", 0x9000, b""),
        ("ANSWERED", 0x9000, tlv.encode(0x53, content)),
    ]
    if level.encrypts_commands:
        assert not any(b"small" in apdu or content[:32] in apdu for apdu in bench.line.apdus)
    longest = max(len(apdu) for apdu in bench.line.apdus)
    assert longest <= 261 if short else longest > 1792
    # What the card took in can be read without a channel.
    bench.card.reset()
    assert bench.executor.plain.send(select()).sw == 0x9000
    assert bench.executor.plain.send(get(CHUID)).data == tlv.encode(0x53, content)


def test_a_refused_command_stops_the_batch_and_the_rest_is_sealed_again() -> None:
    bench = Sealing()
    commands = [put(CHUID, b"one"), get(bytes.fromhex("5FC10A")), put(PRINTED, b"two"), get(CHUID)]
    assert bench.run(commands) == [
        ("ANSWERED", 0x9000, b""),
        ("ANSWERED", 0x6A82, b""),
        ("NOT_SENT", None, b""),
        ("NOT_SENT", None, b""),
    ]
    assert bench.run(commands[2:]) == [
        ("ANSWERED", 0x9000, b""),
        ("ANSWERED", 0x9000, tlv.encode(0x53, b"one")),
    ]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_command_that_was_not_sent_is_sealed_again(at: int) -> None:
    bench = Sealing()
    commands = [put(CHUID, bytes((number,))) for number in range(3)]
    bench.fail(at, "not sent")
    answers = bench.run(commands)
    assert [answer[0] for answer in answers] == ["ANSWERED"] * (at - 1) + ["NOT_SENT"] * (4 - at)
    assert bench.run(commands[at - 1 :]) == [("ANSWERED", 0x9000, b"")] * (4 - at)
    assert bench.run([get(CHUID)]) == [("ANSWERED", 0x9000, tlv.encode(0x53, b"\x02"))]


@pytest.mark.parametrize("how", ["lost", "altered"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_doubt_closes_the_channel(at: int, how: str) -> None:
    bench = Sealing()
    commands = [put(CHUID, bytes((number,))) for number in range(3)]
    bench.fail(at, how)
    sealed = seal(bench.channel, commands)
    opened = sealed.open(bench.executor.execute(sealed.batch))
    outcomes = [answer.outcome for answer in opened]
    assert outcomes[: at - 1] == [Outcome.ANSWERED] * (at - 1)
    assert outcomes[at - 1] is Outcome.IN_DOUBT
    assert isinstance(opened[at - 1].cause, Scp03ResponseInvalid if how == "altered" else TransportError)
    assert bench.channel.closed
    with pytest.raises(Scp03ChannelClosed):
        seal(bench.channel, commands)
    bench.fail(0, "")
    bench.channel = bench.open()
    assert bench.run([put(CHUID, b"again"), get(CHUID)])[1] == (
        "ANSWERED",
        0x9000,
        tlv.encode(0x53, b"again"),
    )


def test_a_chain_that_breaks_in_the_middle_is_in_doubt() -> None:
    bench = Sealing()
    bench.fail(2, "lost")
    assert [answer[0] for answer in bench.run([put(CHUID, bytes(700)), get(CHUID)])] == [
        "IN_DOUBT",
        "NOT_SENT",
    ]
    assert bench.channel.closed


def test_other_numbers_of_answers() -> None:
    for answers in ((), ((),), ((Answer(Outcome.ANSWERED, 0x9000),) * 2,), ((), ())):
        bench = Sealing()
        sealed = seal(bench.channel, [get(CHUID)])
        with pytest.raises(Scp03ResponseInvalid):
            sealed.open(answers)
        assert bench.channel.closed


def test_nothing_is_sealed_of_a_batch_with_an_unfit_command() -> None:
    bench = Sealing()
    state = bench.channel.snapshot()
    with pytest.raises(Scp03CommandUnfit):
        seal(bench.channel, [get(CHUID), CommandAPDU(0x0C, 0xCB, 0x3F, 0xFF)])
    assert bench.channel.snapshot() == state
    assert bench.run([put(CHUID, b"x")]) == [("ANSWERED", 0x9000, b"")]


def test_a_write_takes_one_apdu() -> None:
    """Its answer is a MAC, which needs no GET RESPONSE."""
    bench = Sealing()
    assert bench.run([put(CHUID, b"x"), get(CHUID)])[0] == ("ANSWERED", 0x9000, b"")
    assert len(bench.line.apdus) == 2


def test_headers_and_forms() -> None:
    channel = Sealing().channel
    long, small = put(CHUID, bytes(600)), CommandAPDU(0x80, 0xCA, 0, 0x66, b"", 65536)
    batch = seal(channel, [long, small], stage="write").batch
    assert batch.stage == "write"
    assert [item.header.hex() for item in batch.items] == ["04db3fff", "84ca0066"]
    assert [apdu[0] for apdu in batch.items[0].apdus] == [0x14, 0x14, 0x04]
    assert [len(apdu) for apdu in batch.items[0].apdus[:2]] == [5 + 255] * 2
    # Le beyond 256 would turn the command into an extended one, whose Lc the MAC does not cover.
    assert batch.items[1].apdus[0].hex().endswith("00")
    assert len(batch.items[1].apdus[0]) == 5 + 8 + 1
    assert len(seal(channel, [long], max_data=2000).batch.items[0].apdus) == 1


def test_blocks_protected_one_by_one() -> None:
    card = SecurityDomainSession(Domain({VERSION: raw_keys()}), aid=AID)
    channel = open_channel(card, raw_keys())
    sealed = seal(channel, [put(CHUID, bytes(range(200)) * 3)], each_block=True)
    parts = [card.unwrap(CommandAPDU.parse(apdu)) for apdu in sealed.batch.items[0].apdus]
    assert [part.cla for part in parts] == [0x10, 0x10, 0x00]
    assert b"".join(part.data for part in parts) == put(CHUID, bytes(range(200)) * 3).data
