"""PIV secure messaging through the whole stack: exchange, chaining, GET RESPONSE, virtual card."""

from __future__ import annotations

import pytest

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.exchange import BrokenExchange, Exchange, Limits
from cardwright_cardops.piv.commands import select
from cardwright_cardops.piv.cvc import ContentSigner
from cardwright_cardops.piv.objects.sm_signer import SmSigner
from cardwright_cardops.piv.secure_messaging import (
    SmExchange,
    SmHandshake,
    SmSession,
    SmSessionClosed,
    SmSessionLost,
    SmSuite,
)
from cardwright_cardops.transport.connection import TransportError
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from tests.support.virtual import POOL

SUITES = {SmSuite.CS2: "secure-messaging", SmSuite.CS7: "secure-messaging-cs7"}
PAIRING_CODE = b"20260731"


def get(tag: str) -> CommandAPDU:
    octets = bytes.fromhex(tag)
    return CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, bytes((0x5C, len(octets))) + octets, 256)


class Line(DirectConnection):
    """A connection that counts APDUs and can lose the answer of one."""

    def __init__(self, card: VirtualCard) -> None:
        super().__init__(card)
        self.sent: list[bytes] = []
        self.lose: int | None = None

    def transmit(self, command: bytes) -> bytes:
        self.sent.append(command)
        answer = super().transmit(command)
        if self.lose == len(self.sent):
            raise TransportError("unplugged")
        return answer


class Bench:
    def __init__(self, suite: SmSuite, *, short: bool = True) -> None:
        self.card = VirtualCard(SUITES[suite], key_pool=POOL)
        self.line = Line(self.card)
        self.plain = Exchange(self.line, Limits(extended=not short))
        assert self.plain.send(select()).sw == 0x9000
        self.session = self.establish(suite)
        self.protected = SmExchange(self.plain, self.session)
        self.line.sent.clear()

    def establish(self, suite: SmSuite) -> SmSession:
        item = SmSigner.decode(tlv.parse_one(self.plain.send(get("5FC122")).data, 0x53).value)
        signer = ContentSigner.load(item.der, item.intermediate_cvc)
        handshake = SmHandshake(suite)
        return handshake.finish(self.plain.send(handshake.command), signer)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("short", [True, False])
def test_the_card_proves_itself_and_answers_protected(suite: SmSuite, short: bool) -> None:
    bench = Bench(suite, short=short)
    assert bench.session.card.proven
    assert len(bench.session.card.guid) == 16
    assert bench.protected.send(get("7E")).data[:1] == b"\x7e"
    # More than 256 octets: the rest is fetched by plain GET RESPONSE, which the session survives.
    signer = bench.protected.send(get("5FC122"))
    assert len(signer.data) > 300
    assert bench.protected.send(get("5FC101")) == ResponseAPDU(b"", 0x6A82)
    verify = CommandAPDU(0x00, 0x20, 0x00, 0x98, PAIRING_CODE)
    assert bench.protected.send(CommandAPDU(0x00, 0x20, 0x00, 0x98, b"00000000")).sw == 0x6300
    assert bench.protected.send(verify) == ResponseAPDU(b"", 0x9000)
    assert not any(PAIRING_CODE in apdu for apdu in bench.line.sent)
    assert {apdu[0] for apdu in bench.line.sent if apdu[1] != 0xC0} == {0x0C}
    assert bench.plain.send(get("5FC122")).data == signer.data


def test_a_long_command_is_chained_with_its_classes() -> None:
    bench = Bench(SmSuite.CS2)
    long = CommandAPDU(0x00, 0x87, 0x07, 0x9A, tlv.encode(0x7C, tlv.encode(0x81, bytes(256)) + b"\x82\x00"), 256)
    assert bench.protected.send(long).sw in (0x6982, 0x6A86, 0x6A80, 0x6A88)
    assert [apdu[0] for apdu in bench.line.sent] == [0x1C, 0x0C]
    assert bench.protected.send(get("7E")).sw == 0x9000


def test_a_plain_command_ends_the_session() -> None:
    bench = Bench(SmSuite.CS2)
    bench.plain.send(get("7E"))
    with pytest.raises(SmSessionLost):
        bench.protected.send(get("7E"))
    with pytest.raises(SmSessionClosed):
        bench.protected.send(get("7E"))


def test_a_reset_ends_the_session() -> None:
    bench = Bench(SmSuite.CS7)
    bench.card.reset()
    bench.plain.send(select())
    with pytest.raises(SmSessionLost):
        bench.protected.send(get("7E"))


def test_a_lost_answer_closes_the_session() -> None:
    bench = Bench(SmSuite.CS2)
    bench.line.lose = 1
    with pytest.raises(TransportError):
        bench.protected.send(get("7E"))
    assert bench.session.closed
    bench = Bench(SmSuite.CS2)
    bench.line.lose = 2
    with pytest.raises(BrokenExchange):
        bench.protected.send(get("5FC122"))
    assert bench.session.closed
