"""Key material: the RSA pool, keys that cannot do what is asked, keys that are none, odd attestation keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import parse_one
from cardwright_simulators.card import KeyPool, VirtualCard, images, keypool
from cardwright_simulators.card.algorithms import Algorithm
from cardwright_simulators.card.answers import Refused
from cardwright_simulators.card.keys import from_pkcs8, generate, split, to_pkcs8, working_key
from tests.support.raw_card import RawCard, wrap

ASYMMETRIC = [
    Algorithm.RSA1024, Algorithm.P256, Algorithm.P384, Algorithm.CS2, Algorithm.CS7, Algorithm.ED25519, Algorithm.X25519
]  # fmt: skip


def test_pool_keeps_its_keys_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "keys.json"
    first = KeyPool(path, size=2)
    keys = [first.take(1024) for _ in range(3)]
    assert keys[0] != keys[1]
    assert keys[2] == keys[0]
    again = KeyPool(path, size=2)
    assert [again.take(1024), again.take(1024)] == keys[:2]
    assert path.stat().st_mode & 0o077 == 0


def test_two_pools_on_one_file_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    one, two = KeyPool(path, size=4), KeyPool(path, size=4)
    made = {one.take(1024), two.take(1024)}
    third = KeyPool(path, size=4)
    assert {third.take(1024), third.take(1024)} == made


@pytest.mark.parametrize("content", [b"", b"[]", b'{"1024": [["zz", "00"]]}', b"\xff"])
def test_unreadable_pool_file_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    p, q, e = KeyPool(path).take(1024)
    working_key(Algorithm.RSA1024, (p, q, e))


def test_pool_in_memory_and_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert keypool.default_path() == tmp_path / "cardwright" / "virtual-card-rsa.json"
    KeyPool().take(1024)
    assert list(tmp_path.iterdir()) == []
    KeyPool.shared().take(1024)
    assert keypool.default_path().is_file()


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_generated_keys_survive_pkcs8(algorithm: Algorithm) -> None:
    private = generate(algorithm, None)
    back, parts = from_pkcs8(to_pkcs8(algorithm, private))
    assert working_key(back, parts).public == working_key(algorithm, private).public


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_what_a_key_cannot_do_is_6a80(algorithm: Algorithm) -> None:
    key = working_key(algorithm, generate(algorithm, None))
    signs = algorithm not in (Algorithm.CS2, Algorithm.CS7, Algorithm.X25519)
    agrees = algorithm not in (Algorithm.RSA1024, Algorithm.ED25519)
    if not signs:
        with pytest.raises(Refused) as caught:
            key.sign(bytes(32))
        assert caught.value.sw == SW.WRONG_DATA
    for point in (b"", bytes(32), bytes(33), b"\x04" + bytes(64)) if agrees else (bytes(32),):
        with pytest.raises(Refused) as caught:
            key.agree(point)
        assert caught.value.sw == SW.WRONG_DATA


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1536),
        ec.generate_private_key(ec.SECP521R1()),
        dsa.generate_private_key(1024),
    ],
    ids=["rsa1536", "p521", "dsa"],
)
def test_keys_that_no_card_holds(key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(ValueError, match="no PIV algorithm"):
        split(key)


def test_encrypted_pkcs8_is_no_card_key() -> None:
    der = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    with pytest.raises(ValueError, match="unencrypted"):
        from_pkcs8(der)


def test_attestation_key_that_cannot_sign_certificates() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.admin()
    host.generate("9A")
    seed = x25519.X25519PrivateKey.generate().private_bytes_raw()
    assert host.sw("00FEE1F9", wrap(0x08, seed)) == 0x9000
    assert host.sw("00F99A00") == 0x6985


def test_attestation_certificate_that_is_none() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.admin()
    host.generate("9A")
    for content in (b"\x70\x03abc", b"\x71\x01\x00", b"junk"):
        assert host.put("5FFF01", content) == 0x9000
        assert host.sw("00F99A00") == 0x6985


def test_the_makers_certificate_does_not_come_back_once_deleted() -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.admin()
    host.generate("9A")
    made, sw = host.get("5FFF01")
    assert sw == 0x9000
    for _ in range(2):
        assert host.put("5FFF01", b"") == 0x9000
        assert host.get("5FFF01") == ("", 0x6A82)
        assert host.sw("00F99A00") == 0x6985
    assert host.put("5FFF01", parse_one(bytes.fromhex(made), 0x53).value) == 0x9000
    assert host.get("5FFF01") == (made, 0x9000) and host.sw("00F99A00") == 0x9000


def test_image_on_a_card_with_secure_messaging_is_certified_for_its_guid() -> None:
    guid = bytes(range(16))
    chuid = wrap(0x53, wrap(0x30, bytes(25)) + wrap(0x34, guid) + wrap(0xFE, b"")).hex()
    card = images.load({"objects": {"5FC102": chuid, "5FC122": "5300"}}, profile="secure-messaging")
    assert wrap(0x5F20, guid).hex().upper() in card.snapshot().decode()
    assert RawCard.around(card).get("5FC122")[0] != "5300"
    plain = images.load({"objects": {"5FC102": "5300"}}, profile="secure-messaging")
    assert isinstance(plain, VirtualCard)
    assert "04" not in images.save(card)["keys"]
