"""PUT KEY: what the host checks of the card's answer, and which keys it cannot send."""

from __future__ import annotations

import pytest

from cardwright_cardops.globalplatform.put_key import Scp03KeyCheckMismatch, key_check_value, put_key
from cardwright_cardops.globalplatform.scp03 import Scp03AnswerMalformed, Scp03KeyInvalid
from cardwright_cardops.iso7816.apdu import ResponseAPDU
from cardwright_cardops.iso7816.status import SecurityStatusNotSatisfied
from cardwright_cardops.secret import Secret
from tests.support.scp03 import raw_keys, static_keys

DEK = Secret(bytes(range(16)))


def test_forms() -> None:
    keys = static_keys(raw_keys())
    amendment = put_key(0x31, keys, DEK, replaces=0x30).command
    short = put_key(0x31, keys, DEK, inner_length=False).command
    assert (amendment.p1, amendment.p2, len(amendment.data)) == (0x30, 0x81, 1 + 3 * (2 + 17 + 4))
    assert (short.p1, short.p2, len(short.data)) == (0x00, 0x81, 1 + 3 * (2 + 16 + 4))
    assert amendment.data[:4].hex() == "31881110"
    assert short.data[:3].hex() == "318810"
    assert amendment.data[4:20] == short.data[3:19]


def test_sizes() -> None:
    for size, inner in ((24, "882118"), (32, "882120")):
        assert put_key(1, static_keys(raw_keys(size)), DEK).command.data[1:4].hex() == inner
    with pytest.raises(Scp03KeyInvalid):
        put_key(1, static_keys(raw_keys(24)), DEK, inner_length=False)
    for version, replaces in ((0, 0), (0x80, 0), (1, -1), (1, 0x80), (1, 0x100)):
        with pytest.raises(Scp03KeyInvalid):
            put_key(version, static_keys(raw_keys()), DEK, replaces=replaces)
    assert put_key(1, static_keys(raw_keys()), DEK, replaces=0xFF).command.p1 == 0xFF


def test_confirmation() -> None:
    keys = static_keys(raw_keys())
    request = put_key(0x31, keys, DEK)
    checks = b"".join(key_check_value(key) for key in (keys.enc, keys.mac, keys.dek))
    good = b"\x31" + checks
    request.check(ResponseAPDU(good, 0x9000))
    for index in range(1, len(good)):
        altered = bytearray(good)
        altered[index] ^= 1
        with pytest.raises(Scp03KeyCheckMismatch):
            request.check(ResponseAPDU(bytes(altered), 0x9000))
    for other in (b"", b"\x31", b"\x32" + checks, good + b"\0"):
        with pytest.raises(Scp03AnswerMalformed) as caught:
            request.check(ResponseAPDU(other, 0x9000))
        assert "not known" in caught.value.effect
    with pytest.raises(SecurityStatusNotSatisfied):
        request.check(ResponseAPDU(b"", 0x6982))


def test_keys_do_not_show() -> None:
    keys = raw_keys()
    shown = repr(put_key(0x31, static_keys(keys), DEK))
    assert not any(part.hex() in shown or repr(part) in shown for part in keys)
    assert key_check_value(Secret(keys[0])).hex() not in shown
