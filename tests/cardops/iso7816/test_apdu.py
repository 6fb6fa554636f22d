"""Command and response APDUs in all forms of ISO 7816-4 section 5.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816.apdu import CommandAPDU, MalformedApdu, ResponseAPDU

FORMS = [
    (CommandAPDU(0, 0x20, 0, 0x80), False, "00200080"),
    (CommandAPDU(0, 0xFD, 0, 0, b"", 256), False, "00fd000000"),
    (CommandAPDU(0, 0xC0, 0, 0, b"", 18), False, "00c0000012"),
    (CommandAPDU(0, 0x20, 0, 0x80, b"12345678"), False, "00200080083132333435363738"),
    (CommandAPDU(0, 0xA4, 4, 0, b"\xa0", 256), False, "00a4040001a000"),
    (CommandAPDU(0, 0xA4, 4, 0, b"\xa0", 1), False, "00a4040001a001"),
    (CommandAPDU(0, 0xFD, 0, 0, b"", 65536), True, "00fd0000000000"),
    (CommandAPDU(0, 0xFD, 0, 0, b"", 300), True, "00fd000000012c"),
    (CommandAPDU(0, 0xDB, 0x3F, 0xFF, b"\x01"), True, "00db3fff00000101"),
    (CommandAPDU(0, 0xCB, 0x3F, 0xFF, b"\x01", 65536), True, "00cb3fff000001010000"),
]


@pytest.mark.parametrize(("command", "extended", "wire"), FORMS)
def test_every_form_is_written_and_read(command: CommandAPDU, extended: bool, wire: str) -> None:
    assert command.encode(extended=extended).hex() == wire
    assert CommandAPDU.parse(bytes.fromhex(wire)) == command


@given(
    head=st.tuples(*[st.integers(0, 255)] * 4),
    data=st.binary(max_size=600),
    le=st.integers(0, 65536),
    extended=st.booleans(),
)
def test_what_is_written_reads_back(head: tuple[int, int, int, int], data: bytes, le: int, extended: bool) -> None:
    command = CommandAPDU(*head, data, le)
    if not extended and (len(data) > 255 or le > 256):
        with pytest.raises(MalformedApdu):
            command.encode()
        return
    assert CommandAPDU.parse(command.encode(extended=extended)) == command


@given(st.binary(max_size=64))
def test_any_octets_are_a_command_or_a_documented_error(raw: bytes) -> None:
    try:
        command = CommandAPDU.parse(raw)
    except MalformedApdu:
        return
    assert raw in (command.encode(extended=True), command.encode() if len(command.data) <= 255 else b"")


@pytest.mark.parametrize(
    "wire",
    [
        "", "00a404", "00a4040003a000", "00a4040001a00000", "00a404000000", "00a40400000001", "00a40400000000a0",
        "00a404000000020102030405", "00a4040000000201", "00a404000000010100",
    ],
)  # fmt: skip
def test_lengths_that_do_not_fit_are_refused(wire: str) -> None:
    raw = bytes.fromhex(wire)
    if wire == "00a40400000001":
        assert CommandAPDU.parse(raw).le == 1
        return
    with pytest.raises(MalformedApdu):
        CommandAPDU.parse(raw)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ("00a4040003a000", "says 3 octets, 2 follow"),
        ("00a4040000000501", "says 5 octets, 1 follow"),
        ("00a404", "not 3"),
    ],
)
def test_lengths_that_do_not_fit_are_named(wire: str, text: str) -> None:
    with pytest.raises(MalformedApdu, match=text):
        CommandAPDU.parse(bytes.fromhex(wire))


def test_too_large_for_extended_is_refused() -> None:
    with pytest.raises(MalformedApdu):
        CommandAPDU(0, 1, 0, 0, bytes(65536)).encode(extended=True)
    with pytest.raises(MalformedApdu):
        CommandAPDU(0, 1, 0, 0, b"", 65537).encode(extended=True)
    assert len(CommandAPDU(0, 1, 0, 0, bytes(65535), 65536).encode(extended=True)) == 4 + 3 + 65535 + 2


def test_a_response_is_data_and_a_status_word() -> None:
    response = ResponseAPDU.parse(bytes.fromhex("0102036a82"))
    assert (response.data, response.sw) == (b"\x01\x02\x03", 0x6A82)
    assert response.encode().hex() == "0102036a82"
    for short in (b"", b"\x90"):
        with pytest.raises(MalformedApdu) as caught:
            ResponseAPDU.parse(short)
        assert "not known" in caught.value.effect


def test_no_repr_shows_data() -> None:
    assert "313233" not in repr(CommandAPDU(0, 0x20, 0, 0x80, b"12345678"))
    assert repr(CommandAPDU(0, 0x20, 0, 0x80, b"12345678", 5)) == "CommandAPDU(00200080 Lc=8 Le=5)"
    assert repr(ResponseAPDU(b"secret", 0x9000)) == "ResponseAPDU(6 octets, 9000)"
    assert CommandAPDU(0, 0x20, 0, 0x80).header == bytes.fromhex("00200080")


def test_example_commands_reproduce(shared_data: Path) -> None:
    items = json.loads((shared_data / "test-vectors.json").read_text())["apdus"]["items"]
    checked = 0
    for name, value in items.items():
        for wire in [value] if isinstance(value, str) else value:
            raw = bytes.fromhex(wire)
            assert CommandAPDU.parse(raw).encode(extended=name.endswith("extended")) == raw
            checked += 1
    assert checked >= 22
