"""What the issuer signs: numbers of data groups, their limits, and lengths that have to fit."""

from __future__ import annotations

from uuid import UUID

import pytest

from cardwright_cardops.piv import containers, signed
from cardwright_cardops.piv.content_signing import sign_biometric, sign_security_object
from cardwright_cardops.piv.objects import KeyHistory
from cardwright_cardops.piv.objects.biometric import BiometricObject
from cardwright_cardops.piv.objects.security_object import HashTable
from tests.support.piv_card import PivCard, key

GUID = UUID("00000000-0000-4000-8000-000000000001")

CHUID_ANSWER = containers.wrap(0x5FC102, b"chuid")
HISTORY_ANSWER = containers.wrap(0x5FC10C, KeyHistory().encode())


def signer() -> signed.Signer:
    profile = PivCard().profiles["signer"]
    return signed.Signer(profile.make(), key(profile.public))


def test_data_groups_count_from_one_in_the_order_given() -> None:
    made = sign_security_object({0x5FC10C: HISTORY_ANSWER, 0x5FC102: CHUID_ANSWER}, signer())
    assert made.groups == ((1, 0x6060), (2, 0x3000))
    table = HashTable.decode(signed.read(made.signed).content or b"")
    assert [number for number, _ in table.hashes] == [1, 2]
    assert table.matches(1, containers.hashed_content(0x5FC10C, HISTORY_ANSWER)) is True
    assert table.matches(2, containers.hashed_content(0x5FC102, CHUID_ANSWER)) is True
    assert table.matches(1, b"other") is False
    assert table.matches(3, b"other") is None


@pytest.mark.parametrize("tag", [0x5FFF00, 0x5FC1FF])
def test_only_containers_of_the_standard_are_covered(tag: int) -> None:
    with pytest.raises(ValueError, match=f"{tag:X} has no container identifier"):
        sign_security_object({tag: b"\x53\x00"}, signer())


def test_there_are_sixteen_data_groups() -> None:
    whole = HashTable.over(dict.fromkeys(range(16, 0, -1), b"x"))
    assert [number for number, _ in whole.hashes] == list(range(1, 17))
    assert HashTable.decode(whole.encode()) == whole
    for number in (0, 17):
        with pytest.raises(ValueError, match="1 to 16"):
            HashTable.over({1: b"x", number: b"x"})
    with pytest.raises(ValueError, match="is unknown"):
        HashTable("md5", ((1, bytes(16)),)).matches(1, b"x")


def test_the_header_says_how_long_the_signature_is() -> None:
    answer = PivCard().data().objects[0x5FC103]
    assert answer is not None
    record = BiometricObject.decode(containers.unwrap(0x5FC103, answer))
    for _ in range(5):
        made = sign_biometric(record.header, b"template", signer(), fascn=None, uuid=GUID)
        assert BiometricObject.decode(made.encode()) == made
        assert made.data == b"template" and made.header == record.header


def test_a_card_without_retired_keys_says_so() -> None:
    assert KeyHistory().encode().hex() == "c10100c20100fe00"
