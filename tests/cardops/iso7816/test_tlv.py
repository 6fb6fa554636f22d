"""BER-TLV: vectors, round trips, and refusal of everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.tlv import MalformedTlv, Tlv

TAGS = st.sampled_from([0x01, 0x30, 0x53, 0x5C, 0x70, 0x7E, 0xFE, 0x5F2F, 0x7F61, 0x7F49, 0x5FC102, 0x5FFF01])


@given(st.lists(st.builds(Tlv, TAGS, st.binary(max_size=400)), max_size=6))
def test_what_is_written_reads_back(items: list[Tlv]) -> None:
    assert tlv.parse_all(tlv.join(items)) == tuple(items)


@given(st.binary(max_size=80))
def test_any_octets_are_data_objects_or_a_documented_error(raw: bytes) -> None:
    try:
        items = tlv.parse_all(raw)
    except MalformedTlv as error:
        assert 0 <= error.offset <= len(raw)
        return
    assert len(tlv.join(items)) <= len(raw)


@pytest.mark.parametrize(
    ("size", "field"),
    [(0, "00"), (127, "7f"), (128, "8180"), (255, "81ff"), (256, "820100"), (65535, "82ffff"), (65536, "83010000"),
     (0xFFFFFF, "83ffffff")],
)  # fmt: skip
def test_lengths_are_shortest(size: int, field: str) -> None:
    assert tlv.encode_length(size).hex() == field


def test_a_length_of_four_octets_is_never_written() -> None:
    with pytest.raises(MalformedTlv):
        tlv.encode_length(0x1000000)


@pytest.mark.parametrize("raw", ["5304010280", "5380", "53ff", "5384000000", "538400000001aa", "53", "5f", "5fc1", "00",
                                 "ff00", "5f00", "5f8001aa00", "5f800100", "1f8181810100", "530101ff"])  # fmt: skip
def test_damage_is_refused(raw: str) -> None:
    with pytest.raises(MalformedTlv):
        tlv.parse_all(bytes.fromhex(raw))


def test_no_indefinite_length_even_where_enough_follows() -> None:
    for length in ("80", "84000000"):
        with pytest.raises(MalformedTlv, match="indefinite, too long or cut"):
            tlv.parse_all(bytes.fromhex("53" + length) + bytes(200))


@pytest.mark.parametrize(
    ("raw", "offset", "text"),
    [("530100 53", 4, "ends before a length"), ("530100 53820a", 4, "cut"), ("530100 5380", 4, "indefinite"),
     ("5382ff", 1, "cut"), ("5383ffff", 1, "cut"), ("530100 530501", 5, "tag 53 says 5 octets, 1 follow"),
     ("530100 00", 3, "no BER tag"), ("530100 5f", 3, "no BER tag")],
)  # fmt: skip
def test_damage_is_named_with_its_place(raw: str, offset: int, text: str) -> None:
    with pytest.raises(MalformedTlv, match=text) as caught:
        tlv.parse_all(bytes.fromhex(raw))
    assert caught.value.offset == offset


def test_damage_without_a_place_is_at_the_start() -> None:
    with pytest.raises(MalformedTlv) as caught:
        tlv.parse_one(b"")
    assert caught.value.offset == 0


def test_all_tags_of_two_and_three_octets() -> None:
    for tag in (0x5F01, 0x5F7F, 0x5F8101, 0x5FFF7F):
        assert tlv.parse_one(tlv.encode(tag, b"\xaa")) == Tlv(tag, b"\xaa")


def test_long_values_are_read_wherever_they_stand() -> None:
    long = [Tlv(0x5FC102, bytes(300)), Tlv(0x53, bytes(range(200))), Tlv(0x7F49, bytes(65536)), Tlv(0x70, b"")]
    raw = "5fc102 82012c" + "00" * 300 + "53 81c8" + bytes(range(200)).hex() + "7f49 83010000" + "00" * 65536 + "70 00"
    assert tlv.join(long) == bytes.fromhex(raw)
    assert tlv.parse_all(bytes.fromhex(raw)) == tuple(long)


def test_tags_end_after_three_octets() -> None:
    for raw in ("5fc1a20200", "5fffff7f00"):
        with pytest.raises(MalformedTlv, match="no BER tag of at most 3 octets"):
            tlv.parse_all(bytes.fromhex(raw))
    with pytest.raises(MalformedTlv, match="5FC1A202"):
        tlv.encode_tag(0x5FC1A202)


def test_longer_length_fields_are_read() -> None:
    assert tlv.parse_all(bytes.fromhex("53810100")) == (Tlv(0x53, b"\x00"),)
    assert tlv.parse_all(bytes.fromhex("5382000100")) == (Tlv(0x53, b"\x00"),)
    assert tlv.parse_all(bytes.fromhex("5383000001aa")) == (Tlv(0x53, b"\xaa"),)


def test_one_data_object_means_one() -> None:
    assert tlv.parse_one(b"\x53\x01\xaa", 0x53) == Tlv(0x53, b"\xaa")
    assert tlv.parse_one(b"\x53\x01\xaa") == Tlv(0x53, b"\xaa")
    for raw in (b"", b"\x53\x01\xaa\x53\x00"):
        with pytest.raises(MalformedTlv, match="one data object"):
            tlv.parse_one(raw)
    with pytest.raises(MalformedTlv, match="expected tag 7E, found 53"):
        tlv.parse_one(b"\x53\x00", 0x7E)


def test_a_tag_twice_is_refused_where_it_must_be_unique() -> None:
    assert tlv.parse_unique(b"\x01\x01\xaa\x02\x00") == {1: b"\xaa", 2: b""}
    with pytest.raises(MalformedTlv, match="tag 1 comes twice"):
        tlv.parse_unique(b"\x01\x01\xaa\x01\x00")


@pytest.mark.parametrize("tag", [0x00, 0xFF, 0x5F, 0x1F, 0x5F80, 0x5FC1, 0x1F818181, 0x0101, 0x5F00])
def test_numbers_that_are_no_tag_are_refused(tag: int) -> None:
    with pytest.raises(MalformedTlv):
        tlv.encode(tag, b"")


def test_constructed_is_bit_6() -> None:
    assert tlv.is_constructed(0x7F49) and tlv.is_constructed(0x61)
    assert not tlv.is_constructed(0x5FC102) and not tlv.is_constructed(0x53)


def test_no_repr_shows_a_value() -> None:
    assert repr(Tlv(0x5FC102, b"abc")) == "Tlv(5FC102, 3 octets)"


def test_vectors_reproduce(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "test-vectors.json").read_text())["ber_tlv"]
    for row in vectors["lengths"]:
        assert tlv.encode_length(row["length"]).hex() == row["encoding"]
    for row in vectors["reject"]:
        with pytest.raises(MalformedTlv):
            tlv.parse_all(bytes.fromhex(row["hex"]))
    for row in vectors["accept_on_read_never_write"]:
        raw = bytes.fromhex(row["hex"])
        assert tlv.join(tlv.parse_all(raw)) != raw
    for tag, octets in vectors["multi_octet_tags"].items():
        assert len(tlv.encode_tag(int(tag, 16))) == octets
