"""The application property template: SP 800-73-5 part 2 section 3.1.1, tables 3 to 6."""

from __future__ import annotations

import pytest

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.piv.commands import select
from cardwright_cardops.piv.responses import ApplicationProperties, MalformedAnswer, parse_select
from tests.support.virtual import bench

AID = bytes.fromhex("A000000308000010000100")
LIMITS = tlv.encode(0x7F66, bytes.fromhex("020208000202FFFF"))


def answer(*parts: bytes) -> bytes:
    return tlv.encode(0x61, b"".join(parts))


def test_every_part_is_read() -> None:
    whole = answer(
        tlv.encode(0x4F, AID),
        tlv.encode(0x79, tlv.encode(0x4F, AID[:5])),
        tlv.encode(0x50, b"PIV \xe9"),
        tlv.encode(0x5F50, b"http://example.test/piv"),
        tlv.encode(0xAC, bytes.fromhex("800127 06012E 80012E 80020000")),
        LIMITS,
    )
    assert parse_select(whole) == ApplicationProperties(
        aid=AID, label="PIV \N{REPLACEMENT CHARACTER}", url="http://example.test/piv", algorithms=(0x27, 0x2E),
        extended_limits=(2048, 65535),
    )  # fmt: skip


def test_what_is_absent_is_empty() -> None:
    nothing = ApplicationProperties(aid=b"", label="", url="", algorithms=(), extended_limits=None)
    assert parse_select(answer()) == nothing
    assert parse_select(answer(tlv.encode(0x4F, AID[5:]))).aid == AID[5:]


@pytest.mark.parametrize("sizes", ["", "02020800", "020208000202080002020800", "040208000402FFFF"])
def test_limits_are_two_numbers_or_none(sizes: str) -> None:
    assert parse_select(answer(tlv.encode(0x7F66, bytes.fromhex(sizes)))).extended_limits is None


@pytest.mark.parametrize("raw", ["", "6100 00", "6F00", "61024F01", "61044F004F00", "6104AC028001", "61057F66020202"])
def test_damage_is_one_error(raw: str) -> None:
    with pytest.raises(MalformedAnswer, match="answer of SELECT is damaged"):
        parse_select(bytes.fromhex(raw))


def test_the_virtual_card_s_answer_is_read() -> None:
    found = parse_select(bench("sp800-73-5").executor.plain.send(select()).data)
    assert found.aid.endswith(bytes.fromhex("000010000100"))
