"""Every codec: decode(encode(v)) == v, encode(decode(x)) is stable, any octets are read or refused with one error."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816.tlv import Tlv
from cardwright_cardops.piv import containers, objects
from cardwright_cardops.piv.objects import (
    BiometricObject,
    BitGroup,
    Ccc,
    CertificateObject,
    Chuid,
    Discovery,
    KeyHistory,
    MalformedObject,
    PairingCode,
    PinUsagePolicy,
    Printed,
    SecurityObject,
    SmSigner,
)
from cardwright_cardops.piv.objects.biometric import Cbeff
from cardwright_cardops.secret import Secret

octet = st.integers(0, 255)
few = st.binary(max_size=40)
text = st.text(max_size=20)
unknown = st.lists(st.builds(Tlv, st.sampled_from([0x9F01, 0xDF55, 0x8F]), few), max_size=2).map(tuple)
sequences = few.map(lambda body: b"\x30" + bytes((len(body),)) + body)
days = st.dates(date(1000, 1, 1))
uuids = st.uuids()


def fixed(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


headers = st.builds(
    Cbeff, fixed(8), fixed(8), fixed(8), fixed(25), st.integers(0, 65535), st.integers(0, 65535),
    st.integers(0, 0xFFFFFF), octet, st.integers(-128, 127), fixed(18), octet, octet, fixed(4),
)  # fmt: skip
groups = st.dictionaries(st.integers(1, 16), st.integers(0, 65535)).map(lambda rows: tuple(rows.items()))
VALUES: dict[int, st.SearchStrategy[Any]] = {
    0x5FC102: st.builds(
        Chuid, fixed(25), uuids, days, st.none() | uuids.filter(lambda u: u.int > 0), few, unknown=unknown
    ),
    0x5FC107: st.builds(Ccc, few, few, few, few.filter(bool), few, octet, few, unknown=unknown),
    0x5FC105: st.builds(CertificateObject, sequences, st.booleans(), unknown=unknown),
    0x5FC103: st.builds(BiometricObject, headers, few, few, unknown=unknown),
    0x5FC106: st.builds(SecurityObject, groups, few, unknown=unknown),
    0x5FC109: st.builds(Printed, text, text, days, text, text, text, text, unknown=unknown),
    0x7E: st.builds(Discovery, few, st.builds(PinUsagePolicy, octet, octet), unknown=unknown),
    0x5FC10C: st.builds(KeyHistory, octet, octet, text, unknown=unknown),
    0x7F61: st.builds(BitGroup, st.lists(few, max_size=2).map(tuple), unknown=unknown),
    0x5FC122: st.builds(SmSigner, sequences, st.just(bytes.fromhex("7F2103420100")) | st.just(b""), st.booleans()),
    0x5FC123: st.builds(PairingCode, st.text("0123456789", min_size=8, max_size=8).map(Secret.of), unknown=unknown),
}


@pytest.mark.parametrize("tag", VALUES, ids=lambda tag: f"{tag:X}")
@given(data=st.data())
def test_a_value_comes_back(tag: int, data: st.DataObject) -> None:
    value = data.draw(VALUES[tag])
    encoded = value.encode()
    again = objects.decode(tag, encoded)
    assert again == value
    assert again.encode() == encoded
    answer = containers.wrap(tag, encoded)
    assert containers.unwrap(tag, answer) == encoded
    assert answer.endswith(containers.hashed_content(tag, answer))


@pytest.mark.parametrize("tag", VALUES, ids=lambda tag: f"{tag:X}")
@given(data=st.data())
def test_damage_is_one_error(tag: int, data: st.DataObject) -> None:
    encoded = bytearray(data.draw(VALUES[tag]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change" if encoded:
                encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(octet)
            case "cut":
                del encoded[data.draw(st.integers(0, len(encoded))) :]
            case _:
                at = data.draw(st.integers(0, len(encoded)))
                encoded[at:at] = data.draw(few)
    try:
        seen = objects.decode(tag, bytes(encoded))
    except MalformedObject as refused:
        assert refused.container.tag == tag
        assert refused.code == "OBJECT_MALFORMED"
    else:
        canonical = seen.encode()
        assert objects.decode(tag, canonical).encode() == canonical


@pytest.mark.parametrize("tag", objects.CODECS, ids=lambda tag: f"{tag:X}")
@given(raw=st.binary(max_size=200))
def test_noise_is_one_error(tag: int, raw: bytes) -> None:
    try:
        objects.decode(tag, raw)
    except MalformedObject as refused:
        assert refused.container.tag == tag


def test_legacy_tags_are_read_and_not_written() -> None:
    chuid = Chuid(bytes(25), UUID(int=7), date(2030, 1, 2))
    old = bytes.fromhex("EE020010") + chuid.encode()[:27] + bytes.fromhex("3204000000003309") + bytes(9)
    seen = Chuid.decode(old + chuid.encode()[27:])
    assert seen == chuid
    assert [item.tag for item in seen.legacy] == [0xEE, 0x32, 0x33]
    assert seen.order == (0xEE, 0x30, 0x32, 0x33, 0x34, 0x35, 0x3E, 0xFE)
    assert seen.encode() == chuid.encode()


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        (0x5FC102, "3003010203FE00", "tag 30 has 3 octets instead of 25"),
        (0x5FC107, "F000FE00", "tag F5 is missing"),
        (0x5FC107, "F50110F50110FE00", "tag F5 comes twice"),
        (0x5FC109, "010141020142040932303330464542333005014306014 4FE00".replace(" ", ""), "is no day"),
        (0x5FC109, "010141020142040932303330464F42333005014306014 4FE00".replace(" ", ""), "YYYYMMMDD"),
        (0x5FC105, "7002300071 0104FE00".replace(" ", ""), "CertInfo 04 is unknown"),
        (0x5FC106, "BA020102BB0101FE00", "not a multiple of 3"),
        (0x5FC106, "BA06011000011001BB0101FE00", "comes twice"),
        (0x7F61, "7F6103020101", "1 templates announced, 0 there"),
        (0x5FC123, "99083132333435363741FE00", "not eight digits"),
        (0x7E, "7E024F00FF", "BER"),
        (0x5FC103, "BC0101FE00", "fewer than its header"),
    ],
)
def test_reasons(tag: int, value: str, reason: str) -> None:
    with pytest.raises(MalformedObject, match=reason) as caught:
        objects.decode(tag, bytes.fromhex(value))
    assert f"{tag:X}" in str(caught.value)


def test_personal_content_stays_out_of_repr() -> None:
    person = Printed("Ada Lovelace", "Employee", date(2030, 1, 1), "0123456789", "GB")
    finger = BiometricObject(
        Cbeff(bytes(8), bytes(8), bytes(8), bytes(25), 27, 0x201, 8, 128, 90, bytes(18)), b"SECRET"
    )
    shown = repr((person, finger, PairingCode(Secret.of("82736455"))))
    assert not [word for word in ("Ada", "0123456789", "SECRET", "82736455") if word in shown]


@pytest.mark.parametrize("first", range(256))
def test_pin_usage_policy_values_of_the_standard(first: int) -> None:
    allowed = {0x40, 0x48, 0x4C, 0x50, 0x58, 0x5C, 0x60, 0x68, 0x6C, 0x70, 0x78, 0x7C}
    takes_global = bool(first & 0x20)
    assert PinUsagePolicy(first, 0x00).is_allowed == (first in allowed and not takes_global)
    assert PinUsagePolicy(first, 0x20).is_allowed == (first in allowed and takes_global)
    assert PinUsagePolicy(first, 0x20).global_pin_preferred == takes_global


def test_key_history_names_its_slots() -> None:
    history = KeyHistory(2, 3, "http://x")
    assert (history.on_card_slots, history.off_card_slots) == ((0x82, 0x83), (0x95, 0x94, 0x93))
