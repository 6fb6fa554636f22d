"""FASC-N against published vectors and yubikit's own coder."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yubikit.piv import FascN as Stranger

from cardwright_cardops.piv.objects import Fascn, MalformedFascn
from cardwright_cardops.piv.objects.fascn import inspect

WIDTHS = (4, 4, 6, 1, 1, 10, 1, 4, 1)
numbers = st.tuples(*(st.text("0123456789", min_size=width, max_size=width) for width in WIDTHS))


@given(numbers)
def test_same_octets_as_yubikit(texts: tuple[str, ...]) -> None:
    own = Fascn(*texts)
    assert own.encode() == bytes(Stranger(*map(int, texts)))
    assert Fascn.decode(own.encode()) == own


@given(st.binary(max_size=30))
def test_any_octets_are_read_or_refused(raw: bytes) -> None:
    reading = inspect(raw)
    assert reading.raw == raw
    assert (reading.fascn is None) == bool(reading.defects)
    if reading.fascn is None:
        with pytest.raises(MalformedFascn):
            Fascn.decode(raw)
    else:
        assert reading.fascn.encode() == raw


@given(numbers, st.integers(0, 199))
def test_one_flipped_bit_is_always_found(texts: tuple[str, ...], bit: int) -> None:
    number = int.from_bytes(Fascn(*texts).encode(), "big") ^ 1 << bit
    assert "parity is wrong" in inspect(number.to_bytes(25, "big")).defects


def test_published_vectors(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "test-vectors.json").read_text())
    assert len(vectors["fascn"]) == 4
    for row in vectors["fascn"]:
        raw = bytes.fromhex(row["hex"])
        assert Fascn.decode(raw) == Fascn(**row["fields"])
        assert Fascn(**row["fields"]).encode() == raw
    parity, lrc = (inspect(bytes.fromhex(row["hex"])) for row in vectors["fascn_negative"])
    assert "parity is wrong" in parity.defects
    assert lrc.defects == ("LRC is wrong",)


@pytest.mark.parametrize("wrong", [{"agency_code": "12"}, {"system_code": "12a4"}, {"person_association": "٣"}])
def test_fields_are_digits_of_fixed_width(wrong: dict[str, str]) -> None:
    fields = {"agency_code": "0001", "system_code": "0002", "credential_number": "000003"} | wrong
    with pytest.raises(MalformedFascn) as caught:
        Fascn(**fields)
    assert caught.value.code == "FASCN_MALFORMED"


def test_identifier_and_federal() -> None:
    card = Fascn("4700", "0256", "001337")
    assert (card.identifier, card.is_federal) == ("47000256001337", True)
    assert not Fascn("9999", "9999", "999999").is_federal
    assert len("".join(astuple(card))) == 32


def characters(text: str) -> bytes:
    """25 octets of 39 characters in hexadecimal: each least significant bit first with odd parity, then the LRC."""
    lrc = 0
    for digit in text:
        lrc ^= int(digit, 16)
    bits = ""
    for digit in f"{text}{lrc:X}":
        value = f"{int(digit, 16):04b}"[::-1]
        bits += value + ("0" if value.count("1") % 2 else "1")
    return int(bits, 2).to_bytes(25, "big")


GOOD = "B0032D0001D092446D0D1D0000000000100001F"


def test_sentinels_separators_and_digits_each_count() -> None:
    assert len(GOOD) == 39
    assert Fascn.decode(characters(GOOD)) == Fascn("0032", "0001", "092446", "0", "1", "0000000000", "1", "0000", "1")
    for place, letters in ((0, "F9"), (5, "B0"), (10, "F9"), (17, "0B"), (19, "0F"), (21, "0E"), (38, "B0D9")):
        for letter in letters:
            damaged = inspect(characters(GOOD[:place] + letter + GOOD[place + 1 :]))
            assert damaged.defects == ("sentinels, separators or digits are wrong",), (place, letter)
            assert damaged.fascn is None
    for place in {*range(39)} - {0, 5, 10, 17, 19, 21, 38}:
        for letter in "ABDF":
            damaged = inspect(characters(GOOD[:place] + letter + GOOD[place + 1 :]))
            assert damaged.defects == ("sentinels, separators or digits are wrong",), (place, letter)
        assert inspect(characters(GOOD[:place] + "9" + GOOD[place + 1 :])).fascn is not None


def test_every_defect_is_named() -> None:
    assert inspect(bytes(24)).defects == ("24 octets instead of 25",)
    assert inspect(bytes(26)).defects == ("26 octets instead of 25",)
    wrong = inspect(bytes(25))
    assert wrong.defects == ("parity is wrong", "sentinels, separators or digits are wrong")
    with pytest.raises(MalformedFascn, match="no FASC-N: parity is wrong, sentinels"):
        Fascn.decode(bytes(25))
