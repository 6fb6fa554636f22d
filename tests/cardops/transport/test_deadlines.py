"""Deadlines by command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.transport.deadlines import Deadlines, algorithm_of

DEADLINES = Deadlines()


def generate(algorithm: int, *, extended: bool = False, cla: int = 0, more: bytes = b"") -> bytes:
    template = b"\x80\x01" + bytes((algorithm,)) + more
    data = b"\xac" + bytes((len(template),)) + template
    return CommandAPDU(cla, 0x47, 0, 0x9A, data, 256).encode(extended=extended)


@pytest.mark.parametrize("algorithm", [0x06, 0x07, 0x05, 0x16, 0x11, 0x14, 0xE0, 0xE1])
@pytest.mark.parametrize("extended", [False, True])
def test_the_algorithm_is_found(algorithm: int, extended: bool) -> None:
    command = generate(algorithm, extended=extended, more=b"\xaa\x01\x02\xab\x01\x01")
    assert algorithm_of(command) == algorithm
    assert DEADLINES.of(command) == DEADLINES.by_algorithm[algorithm]


def test_longer_keys_get_longer() -> None:
    seconds = [DEADLINES.of(generate(algorithm)) for algorithm in (0x11, 0x06, 0x07, 0x05, 0x16)]
    assert seconds == sorted(set(seconds)) and seconds[-1] >= 300


def test_what_cannot_be_seen_gets_the_longest() -> None:
    longest = DEADLINES.of(generate(0x16))
    assert DEADLINES.of(generate(0x07, cla=0x0C)) == longest
    assert DEADLINES.of(generate(0x42)) == longest
    assert DEADLINES.of(b"\x00\x47\x00\x9a") == longest


def test_reading_gets_the_default_and_writing_gets_more() -> None:
    assert DEADLINES.of(bytes.fromhex("00CB3FFF055C035FC10200")) == DEADLINES.default == DEADLINES.shortest == 10.0
    assert DEADLINES.of(bytes.fromhex("00DB3FFF00")) > DEADLINES.default
    assert Deadlines(waiting=1.0, by_instruction={0xDB: 2.0}).shortest == 1.0


@given(st.binary(max_size=40))
def test_any_octets_get_a_deadline(command: bytes) -> None:
    assert DEADLINES.default <= DEADLINES.of(command) <= 600.0
