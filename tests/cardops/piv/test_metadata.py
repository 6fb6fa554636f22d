"""GET METADATA answers octet by octet: slots, PIN, PUK and management key, and what is damaged."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.piv.algorithms import PinPolicy, TouchPolicy
from cardwright_cardops.piv.responses import MalformedAnswer, encode_public_key
from cardwright_cardops.piv.vendor.yubico import KeyOrigin, Metadata, parse_metadata

KEY = ec.derive_private_key(5, ec.SECP256R1()).public_key()
POINT = tlv.encode(0x04, encode_public_key(KEY)).hex()


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        ("", {}),
        ("010103 02020001 050101", {"algorithm": 3, "pin_policy": PinPolicy.DEFAULT,
                                    "touch_policy": TouchPolicy.NEVER, "is_default": True}),
        ("01010A 02020002 050100", {"algorithm": 10, "pin_policy": PinPolicy.DEFAULT,
                                    "touch_policy": TouchPolicy.ALWAYS, "is_default": False}),
        ("0101FF 050100 06020803", {"algorithm": 255, "is_default": False, "tries": (8, 3)}),
        ("0101FF 050101 0602030F", {"algorithm": 255, "is_default": True, "tries": (3, 15)}),
        ("06020302", {"tries": (3, 2)}),
        ("060103", {}),
        ("0603030201", {}),
        ("020103", {}),
        ("0203030201", {}),
        ("02020301", {"pin_policy": PinPolicy.ALWAYS, "touch_policy": TouchPolicy.NEVER}),
        ("02020203", {"pin_policy": PinPolicy.ONCE, "touch_policy": TouchPolicy.CACHED}),
        ("010111 030101" + POINT, {"algorithm": 0x11, "origin": KeyOrigin.GENERATED, "public_key": KEY}),
        ("010199" + POINT, {"algorithm": 0x99}),
        (POINT, {}),
        ("050102", {"is_default": False}),
    ],
)  # fmt: skip
def test_what_an_answer_tells(octets: str, told: dict[str, Any]) -> None:
    assert parse_metadata(bytes.fromhex(octets)) == Metadata(**told)


@pytest.mark.parametrize(
    ("octet", "from_one", "from_zero"),
    [
        (0, None, KeyOrigin.GENERATED), (1, KeyOrigin.GENERATED, KeyOrigin.IMPORTED), (2, KeyOrigin.IMPORTED, None),
        (3, None, None),
    ],
)  # fmt: skip
def test_origins_count_from_one_or_from_zero(
    octet: int, from_one: KeyOrigin | None, from_zero: KeyOrigin | None
) -> None:
    assert parse_metadata(bytes((3, 1, octet))).origin is from_one
    assert parse_metadata(bytes((3, 1, octet)), origin_from_zero=True).origin is from_zero


@pytest.mark.parametrize(
    "octets",
    ["01", "0100", "01020011", "0300", "03020101", "0500", "05020100", "02020901", "02020109", "010101010101",
     "010111 04020000", "010111 0400"],
)  # fmt: skip
def test_damage_is_one_error(octets: str) -> None:
    with pytest.raises(MalformedAnswer):
        parse_metadata(bytes.fromhex(octets))


@given(st.binary(max_size=40))
def test_any_octets_are_metadata_or_the_documented_error(data: bytes) -> None:
    try:
        parse_metadata(data)
    except MalformedAnswer:
        return
    tlv.parse_unique(data)
