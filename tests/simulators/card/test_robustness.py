"""Any octets get an answer of at least two octets, and nothing ever raises; timing and footprint."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.transport.connection import Interface
from cardwright_simulators.card import PROFILES, CardState, Durations, MemoryStore, Timing, VirtualCard
from tests.support.raw_card import PIN, PIV, RawCard

INSTRUCTIONS = [
    0x20, 0x24, 0x2C, 0x47, 0x50, 0x82, 0x87, 0xA4, 0xC0, 0xCA, 0xCB, 0xD8, 0xDB,
    0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFD, 0xFE, 0xFF, 0x1D,
]  # fmt: skip
PARAMETERS = [
    0x00,
    0x04,
    0x11,
    0x14,
    0x27,
    0x3F,
    0x80,
    0x81,
    0x82,
    0x96,
    0x98,
    0x9A,
    0x9B,
    0x9C,
    0x9D,
    0xE0,
    0xF9,
    0xFF,
]
DATA = [
    b"",
    bytes.fromhex("5C035FC102"),
    bytes.fromhex("5C035FC10253025555"),
    bytes.fromhex("AC03800111"),
    bytes.fromhex("7C028100"),
    bytes.fromhex("7C028000"),
    bytes.fromhex(PIN),
    bytes.fromhex(PIN + PIN),
    bytes.fromhex(PIV),
    bytes(8),
    bytes(16),
]

headers = st.builds(
    lambda cla, ins, p1, p2: bytes((cla, ins, p1, p2)),
    st.sampled_from([0x00, 0x10, 0x04, 0x0C, 0x1C, 0x80, 0x84, 0x94, 0xFF]),
    st.sampled_from(INSTRUCTIONS) | st.integers(0, 255),
    st.sampled_from(PARAMETERS) | st.integers(0, 255),
    st.sampled_from(PARAMETERS) | st.integers(0, 255),
)
bodies = st.sampled_from(DATA) | st.binary(max_size=60)
plausible = st.builds(
    lambda head, body, le: head + (bytes((len(body),)) + body if body else b"") + le,
    headers,
    bodies,
    st.sampled_from([b"", b"\0", b"\x10"]),
)


def prepared(name: str, interface: Interface) -> VirtualCard:
    """A card whose administrator and user are present, so that much of what it can do is open."""
    host = RawCard(name, interface=interface)
    host.select()
    if interface is Interface.CONTACT:
        host.admin()
    host.verify(PIN)
    return host.card


@given(
    name=st.sampled_from(sorted(PROFILES)),
    interface=st.sampled_from(Interface),
    commands=st.lists(st.binary(max_size=40) | plausible, max_size=25),
)
def test_any_octets_are_answered(name: str, interface: Interface, commands: list[bytes]) -> None:
    card = prepared(name, interface)
    for command in commands:
        # RSA generation is slow and says nothing new here.
        if command[1:2] == b"\x47" and any(bytes((0x80, 1, a)) in command for a in (5, 6, 7, 0x16)):
            continue
        answer = card.transmit(command)
        assert len(answer) >= 2
        assert answer[-2] in range(0x61, 0x70) or answer[-2:] == b"\x90\x00"
        assert VirtualCard.restore(card.snapshot()).state_hash() == card.state_hash()


def test_timing_adds_up_and_sleeps_once_for_each_apdu() -> None:
    slept: list[float] = []
    table = Durations(apdu=1.0, octet=0.5, write=10.0, write_octet=0.0, generate={0x11: 100.0}, use={0x11: 7.0})
    host = RawCard("sp800-73-5", timing=Timing(table, slept.append))
    host.verify()
    assert slept == [1.0 + 0.5 * (4 + 2)]
    host.admin()
    slept.clear()
    data = host.generate("9E")
    assert slept == [1.0 + 0.5 * (4 + 1 + 5 + 1 + len(data) + 3 + 2) + 100.0 + 10.0]
    slept.clear()
    answer, _ = host.use("9E", bytes(32))
    assert slept == [1.0 + 0.5 * (4 + 1 + 38 + 1 + len(answer) // 2 + 2) + 7.0]
    before = host.card.busy_seconds
    host.verify()
    assert host.card.busy_seconds == before + slept[-1]


def test_named_timings_wait_and_the_default_does_not() -> None:
    slept: list[float] = []
    for name in ("usb-key", "smart-card"):
        RawCard("sp800-73-5", timing=Timing(name, slept.append)).verify()
    assert len(slept) == 2
    host = RawCard("sp800-73-5")
    host.verify()
    assert host.card.busy_seconds == 0


def test_thousand_cards_fit_into_one_process() -> None:
    program = (
        "from cardwright_simulators.card import VirtualCard\n"
        "select = bytes.fromhex('00A4040009A00000030800001000')\n"
        "cards = [VirtualCard('yubikey-5.7') for _ in range(1000)]\n"
        "assert {card.transmit(select)[-2:] for card in cards} == {b'\\x90\\x00'}\n"
        # The kernel's peak would count what the parent held at the fork, before the new program began.
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(status['VmRSS'].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 300 * 1024


def test_reads_keep_nothing() -> None:
    kept: list[CardState] = []

    class Counting(MemoryStore):
        def commit(self, state: CardState) -> None:
            kept.append(state)
            super().commit(state)

    host = RawCard("sp800-73-5", store=Counting())
    host.admin()
    host.put("5FC102", bytes(60))
    assert len(kept) == 2
    assert host.get("5FC102")[1] == 0x9000
    assert host.get("5FC107")[1] == 0x6A82
    assert host.verify() == 0x63C3
    assert len(kept) == 2
