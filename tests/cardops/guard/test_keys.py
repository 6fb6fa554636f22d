"""Public keys as the guard reads them from answers, imports and certificates."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.guard.keys import Unreadable, certified_key, imported_key, made_key
from cardwright_cardops.iso7816.tlv import encode, join, parse_all, parse_one, parse_unique
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.responses import encode_public_key
from cardwright_cardops.piv.vendor import yubico
from tests.support import guarded as g

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(65537, 2048),
        KEY,
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        x25519.X25519PrivateKey.generate(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_keys_are_recognized_in_every_form(key: Any) -> None:
    algorithm = Algorithm.of(key.public_key())
    wanted = g.spki(key.public_key())
    parts = parse_unique(yubico.private_components(algorithm, key))
    assert imported_key(algorithm, parts) == wanted
    template = encode_public_key(key.public_key())
    assert made_key(algorithm, encode(0x7F49, template)) == wanted
    for tag, value in parts.items():
        if tag != 0x05:
            with pytest.raises(Unreadable):
                imported_key(algorithm, {**parts, tag: value[:-1]})
        with pytest.raises(Unreadable):
            imported_key(algorithm, {})
    for wrong in (b"", template, encode(0x7F49, b""), encode(0x7F49, template)[:-1]):
        with pytest.raises(Unreadable):
            made_key(algorithm, wrong)
    other = {Algorithm.RSA1024: Algorithm.RSA2048, Algorithm.P256: Algorithm.P384}.get(algorithm, Algorithm.P256)
    with pytest.raises(Unreadable):
        made_key(other, encode(0x7F49, template))


def test_imported_rsa_key_has_the_usual_exponent() -> None:
    odd = rsa.generate_private_key(3, 1024)
    with pytest.raises(Unreadable):
        imported_key(0x06, parse_unique(yubico.private_components(Algorithm.RSA1024, odd)))


DER = g.certificate(KEY.public_key())
PLAIN = g.spki(KEY.public_key())


def test_certificates_plain_and_packed() -> None:
    assert certified_key(g.container(DER)) == PLAIN
    assert certified_key(encode(0x70, DER) + encode(0xFE, b"")) == PLAIN
    assert certified_key(encode(0x70, gzip.compress(DER)) + encode(0x71, b"\x01") + encode(0xFE, b"")) == PLAIN


def test_a_certificate_of_version_1_does_not_say_its_version() -> None:
    tbs, *rest = parse_all(parse_one(DER, 0x30).value)
    version, *fields = parse_all(tbs.value)
    assert version.tag == 0xA0
    old = encode(0x30, encode(0x30, join(fields)) + join(rest))
    assert certified_key(encode(0x70, old) + encode(0x71, b"\x00")) == certified_key(encode(0x70, DER))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        DER,
        encode(0x71, b"\x00"),
        encode(0x70, DER[:-1]) + encode(0x71, b"\x00"),
        encode(0x70, DER + b"\x00"),
        encode(0x70, DER) + encode(0x71, b"\x02"),
        encode(0x70, DER) + encode(0x71, b"\x01"),
        encode(0x70, DER) + encode(0x72, b"x"),
        encode(0x70, DER) + encode(0x70, DER),
        encode(0x70, gzip.compress(DER)) + encode(0x71, b"\x00"),
        encode(0x70, gzip.compress(DER)[:-3]) + encode(0x71, b"\x01"),
        encode(0x70, gzip.compress(DER) + b"x") + encode(0x71, b"\x01"),
        encode(0x70, gzip.compress(bytes(1 << 22))) + encode(0x71, b"\x01"),
        encode(0x70, PLAIN),
        encode(0x70, b"\x30\x00"),
        encode(0x70, encode(0x30, encode(0x30, b"") * 3)),
        encode(0x70, encode(0x30, encode(0x30, encode(0x02, b"") + encode(0x31, b"") * 5) + encode(0x30, b"") * 2)),
        encode(0x70, encode(0x30, encode(0x30, encode(0x02, b"") + encode(0x30, b"") * 4) + encode(0x30, b"") * 2)),
        encode(0x70, encode(0x30, encode(0x31, encode(0x02, b"") + encode(0x30, b"") * 5) + encode(0x30, b"") * 2)),
    ],
    ids=itertools.count(),
)
def test_what_is_no_certificate(content: bytes) -> None:
    with pytest.raises(Unreadable):
        certified_key(content)


@given(st.binary(max_size=200), st.integers(0, 255))
def test_readers_raise_only_the_documented_error(data: bytes, algorithm: int) -> None:
    readers: tuple[Callable[[], bytes], ...] = (
        lambda: certified_key(data),
        lambda: made_key(algorithm, data),
        lambda: certified_key(encode(0x70, data)),
    )
    for read in readers:
        with pytest.raises(Unreadable):
            read()
