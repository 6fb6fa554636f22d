"""Public keys as data objects 81, 82 and 86: octet for octet, and what is none."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.responses import (
    MalformedAnswer,
    dynamic_authentication,
    encode_public_key,
    parse_public_key,
    public_key_of,
)

MODULI = {Algorithm.RSA1024: 1024, Algorithm.RSA2048: 2048, Algorithm.RSA3072: 3072, Algorithm.RSA4096: 4096}


@pytest.mark.parametrize("algorithm", list(MODULI))
def test_rsa_keys_have_no_octet_more_than_they_need(algorithm: Algorithm) -> None:
    bits = MODULI[algorithm]
    numbers = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1)
    template = encode_public_key(numbers.public_key())
    octets = tlv.encode_length(bits // 8).hex()
    assert template.hex() == "81" + octets + "80" + "00" * (bits // 8 - 2) + "01" + "8203010001"
    found = parse_public_key(algorithm, tlv.encode(0x7F49, template))
    assert isinstance(found, rsa.RSAPublicKey) and found.public_numbers() == numbers
    short = tlv.encode(0x81, ((1 << (bits - 9)) + 1).to_bytes(bits // 8, "big")) + bytes.fromhex("8203010001")
    with pytest.raises(MalformedAnswer, match="another size"):
        public_key_of(algorithm, short)


def test_points_and_raw_keys() -> None:
    p256, p384 = (ec.generate_private_key(curve).public_key() for curve in (ec.SECP256R1(), ec.SECP384R1()))
    assert encode_public_key(p256)[:3].hex() == "864104" and encode_public_key(p384)[:3].hex() == "866104"
    edwards, montgomery = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    pairs = (
        (Algorithm.P256, p256), (Algorithm.P384, p384),
        (Algorithm.ED25519, edwards.public_key()), (Algorithm.X25519, montgomery.public_key()),
    )  # fmt: skip
    for algorithm, key in pairs:
        assert public_key_of(algorithm, encode_public_key(key)) == key
    raw = edwards.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert encode_public_key(edwards.public_key()) == b"\x86\x20" + raw
    for algorithm, key in ((Algorithm.P384, p256), (Algorithm.P256, p384)):
        with pytest.raises(MalformedAnswer):
            public_key_of(algorithm, encode_public_key(key))


@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.P256, Algorithm.ED25519, Algorithm.X25519])
@pytest.mark.parametrize("template", ["", "8600", "86020405", "8101008203010001", "86", "81", "850100"])
def test_what_is_no_key_is_one_error(algorithm: Algorithm, template: str) -> None:
    with pytest.raises(MalformedAnswer):
        public_key_of(algorithm, bytes.fromhex(template))
    with pytest.raises(MalformedAnswer):
        parse_public_key(algorithm, b"\x7f\x49\x05" + bytes.fromhex(template))


def test_the_first_wanted_part_of_an_authentication_is_given() -> None:
    data = bytes.fromhex("7C07 8001AA 8202BBCC".replace(" ", ""))
    assert dynamic_authentication(data, 0x82) == b"\xbb\xcc"
    assert dynamic_authentication(data, 0x81, 0x80, 0x82) == b"\xaa"
    with pytest.raises(MalformedAnswer, match="lacks what was asked for"):
        dynamic_authentication(data, 0x81)
    for raw in ("", "7C02", "7B028200", "7C0482008200"):
        with pytest.raises(MalformedAnswer, match="damaged"):
            dynamic_authentication(bytes.fromhex(raw), 0x82)
