"""The card side of vpcd: its protocol against a vpcd of a few lines, then a real one inside pcscd."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from cardwright_cardops.transport.connection import CardRemoved, CardUnresponsive
from cardwright_cardops.transport.pcsc import connect
from cardwright_simulators.reader.faults import FaultyCard
from cardwright_simulators.reader.vpicc import VpcdSilent, VpcdUnreachable, Vpicc, receive
from tests.support.cards import ATR_T1, SmallCard
from tests.support.pcscd import Pcscd

SELECT = bytes.fromhex("00A4040005A000000308")
GET = bytes.fromhex("00CB3FFF055C035FC10200")


class Vpcd:
    """What vpcd does on one port."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.card: socket.socket | None = None

    def accept(self) -> None:
        self.listener.settimeout(30)
        self.card, _ = self.listener.accept()
        self.card.settimeout(30)

    def say(self, body: bytes) -> None:
        assert self.card is not None
        self.card.sendall(len(body).to_bytes(2, "big") + body)

    def hear(self) -> bytes:
        assert self.card is not None
        head = self.card.recv(2, socket.MSG_WAITALL)
        return self.card.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if head else b""

    def ask(self, body: bytes) -> bytes:
        self.say(body)
        return self.hear()

    def close(self) -> None:
        if self.card is not None:
            self.card.close()
        self.listener.close()


@pytest.fixture
def vpcd() -> Iterator[Vpcd]:
    server = Vpcd()
    yield server
    server.close()


def test_controls_and_commands(vpcd: Vpcd) -> None:
    card = SmallCard({0xCB: bytes(300) + b"\x90\x00"})
    with Vpicc(card, port=vpcd.port):
        vpcd.accept()
        assert vpcd.ask(b"\x04") == ATR_T1
        for control in (b"\x01", b"\x02", b"\x00", b"\x7f"):
            vpcd.say(control)
        assert vpcd.ask(SELECT) == b"\x90\x00"
        assert vpcd.ask(GET) == bytes(300) + b"\x90\x00"
        assert card.log == ["on", "reset", "off", SELECT, GET]


def test_a_message_in_many_pieces(vpcd: Vpcd) -> None:
    with Vpicc(SmallCard(), port=vpcd.port):
        vpcd.accept()
        assert vpcd.card is not None
        for octet in b"\x00\x0a" + SELECT:
            vpcd.card.sendall(bytes((octet,)))
        assert vpcd.hear() == b"\x90\x00"


def test_stop_hangs_up_and_unpowers(vpcd: Vpcd) -> None:
    card = SmallCard()
    vpicc = Vpicc(card, port=vpcd.port).start()
    vpcd.accept()
    with pytest.raises(ValueError, match="in its slot"):
        vpicc.start()
    vpicc.stop()
    vpicc.stop()
    assert vpcd.hear() == b"" and vpicc.removed.is_set()
    assert card.log == ["off"]
    vpicc.start()
    vpcd.accept()
    assert vpcd.ask(b"\x04") == ATR_T1
    vpicc.stop()


def test_the_end_of_vpcd_takes_the_card_out(vpcd: Vpcd) -> None:
    with Vpicc(SmallCard(), port=vpcd.port) as vpicc:
        vpcd.accept()
        vpcd.close()
        assert vpicc.wait(30)


def test_nothing_listens(vpcd: Vpcd) -> None:
    vpcd.close()
    with pytest.raises(VpcdUnreachable) as caught:
        Vpicc(SmallCard(), port=vpcd.port).start()
    assert caught.value.code == "VPCD_UNREACHABLE" and str(vpcd.port) in str(caught.value)


def test_a_slot_that_is_taken_is_noticed(vpcd: Vpcd) -> None:
    first = Vpicc(SmallCard(), port=vpcd.port).start()
    vpcd.accept()
    second = Vpicc(SmallCard(), port=vpcd.port).start()
    try:
        vpcd.say(b"\x01")
        first.wait_for_reader(30)
        with pytest.raises(VpcdSilent) as caught:
            second.wait_for_reader(0.05)
        assert str(vpcd.port) in str(caught.value)
    finally:
        first.stop()
        second.stop()
    second.wait_for_reader(0)  # it is out, so there is nothing to wait for


@pytest.mark.parametrize("fault", ["lost", "unsent", "truncate=0"])
def test_a_broken_contact_comes_back(vpcd: Vpcd, fault: str) -> None:
    card = SmallCard()
    with Vpicc(FaultyCard(card, f"apdu=1:{fault}"), port=vpcd.port):
        vpcd.accept()
        assert vpcd.ask(SELECT) == b""
        vpcd.accept()
        assert vpcd.ask(GET) == b"\x90\x00"
    assert [entry for entry in card.log if isinstance(entry, str)][:2] == ["off", "on"]


def test_a_pulled_card_stays_out(vpcd: Vpcd) -> None:
    with Vpicc(FaultyCard(SmallCard(), "apdu=1:remove"), port=vpcd.port) as vpicc:
        vpcd.accept()
        assert vpcd.ask(SELECT) == b""
        assert vpicc.wait(30)


def test_a_reset_by_another_program_is_silent(vpcd: Vpcd) -> None:
    card = SmallCard()
    with Vpicc(FaultyCard(card, "apdu=1:reset"), port=vpcd.port):
        vpcd.accept()
        assert vpcd.ask(SELECT) == b"\x90\x00"
    assert card.log[:2] == ["reset", SELECT]


class Recorder:
    """A socket that notes its calls and gives one octet at a time."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.calls: list[tuple[object, ...]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.calls.append(("setsockopt", level, option, value))

    def recv(self, size: int) -> bytes:
        self.calls.append(("recv",))
        octet, self.data = self.data[:1], self.data[1:]
        return octet


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="this system has no TCP_QUICKACK")
def test_quick_acknowledgement_is_asked_for_before_every_receive() -> None:
    # Without it each command takes 44 ms through Debian's vpcd; the kernel forgets the option by itself.
    recorder = Recorder(b"\x00\x0a" + SELECT)
    assert receive(recorder) == SELECT  # type: ignore[arg-type]
    quick = ("setsockopt", socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    assert recorder.calls == [quick, ("recv",)] * 12


@pytest.mark.pcscd
def test_four_cards_at_once_in_a_real_pcscd(pcscd: Pcscd) -> None:
    cards = [SmallCard({0xCB: bytes((number,)) * 9 + b"\x90\x00"}) for number in range(4)]
    names = [pcscd.insert(card) for card in cards]
    connections = [connect(name) for name in names]
    answers: dict[int, list[bytes]] = {number: [] for number in range(4)}

    def use(number: int) -> None:
        with connections[number].transaction():
            answers[number].extend(connections[number].transmit(GET) for _ in range(50))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, card in enumerate(cards):
        assert answers[number] == [bytes((number,)) * 9 + b"\x90\x00"] * 50
        assert card.commands == [GET] * 50
        connections[number].close()


@pytest.mark.pcscd
def test_faults_through_a_real_pcscd(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(FaultyCard(card, "apdu=2:lost,apdu=3:corrupt"))
    with connect(reader) as connection:
        assert connection.transmit(SELECT) == b"\x90\x00"
        with pytest.raises(CardUnresponsive) as caught:
            connection.transmit(GET)
        assert caught.value.sent is True
        # So short a break goes unseen: the connection lives, the card has forgotten everything.
        assert connection.transmit(SELECT) == b"\x6f\xff"
    assert [entry for entry in card.log if entry != "off"][-4:] == [SELECT, GET, "on", SELECT]


@pytest.mark.pcscd
def test_a_fault_that_pulls_the_card_out_of_a_real_pcscd(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(FaultyCard(card, "apdu=2:remove"))
    with connect(reader) as connection:
        assert connection.transmit(SELECT) == b"\x90\x00"
        with pytest.raises(CardRemoved) as caught:
            connection.transmit(GET)
        assert caught.value.sent is True
    assert card.commands == [SELECT]
