"""DER and nothing but DER."""

from __future__ import annotations

import pytest
from asn1crypto import core
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.asn1 import MalformedAsn1, load, require_der


@pytest.mark.parametrize(
    "value",
    ["0101FF", "020100", "02020080", "0201FF", "0202FF7F", "0500", "3003020105", "3106020101020102", "1F1F00",
     "A003020105", "03020780", "0A0103"],
)  # fmt: skip
def test_der_is_accepted(value: str) -> None:
    require_der(bytes.fromhex(value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("010101", "BOOLEAN"),
        ("0200", "INTEGER"),
        ("02020001", "INTEGER"),
        ("0202FF80", "INTEGER"),
        ("0A020001", "INTEGER"),
        ("05010 0".replace(" ", ""), "NULL"),
        ("0300", "BIT STRING"),
        ("030108", "BIT STRING"),
        ("3080020105 0000".replace(" ", ""), "indefinite"),
        ("30810302010 5".replace(" ", ""), "shortest"),
        ("30820003020105", "shortest"),
        ("3003020105FF", "follow"),
        ("3004020105", "cut"),
        ("3106020102020101", "DER order"),
        ("2403040100", "not DER"),
        ("1003020105", "not DER"),
        ("1F1E00", "long tag"),
        ("1F801F00", "zeros"),
        ("30", "cut"),
        ("", "cut"),
        ("30" * 3, "cut"),
    ],
)
def test_ber_is_refused(value: str, why: str) -> None:
    with pytest.raises(MalformedAsn1, match=why):
        require_der(bytes.fromhex(value))


def test_depth_and_size_are_bounded() -> None:
    nested = b""
    for _ in range(60):
        nested = b"\x30" + bytes((len(nested),)) + nested
    with pytest.raises(MalformedAsn1, match="nested"):
        require_der(nested)
    with pytest.raises(MalformedAsn1, match="too many"):
        require_der(b"\x04\x83\x10\x00\x00" + bytes(0x100000))


def test_the_wanted_structure_only() -> None:
    assert load(core.Integer, b"\x02\x01\x05").native == 5
    with pytest.raises(MalformedAsn1, match="no Integer"):
        load(core.Integer, b"\x04\x01\x05")


@given(st.binary(max_size=120))
def test_noise_never_raises_anything_else(raw: bytes) -> None:
    try:
        require_der(raw)
    except MalformedAsn1 as refused:
        assert refused.code == "ASN1_MALFORMED"


def test_a_certificate_is_der() -> None:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "x")])
    require_der(name.public_bytes())
