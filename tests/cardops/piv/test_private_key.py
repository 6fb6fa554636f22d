"""Card keys over a card that leaves out leading zeros of its answers, as numbers allow."""

from __future__ import annotations

import copy
from itertools import count

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.algorithms import UnsupportedAlgorithm
from cardwright_cardops.piv.private_key import CardECKey, CardRSAKey, card_private_key

KEY = rsa.generate_private_key(65537, 1024)
SHA256 = hashes.SHA256()


class Stripping:
    """The private key operation, with the shortest answer that is the same number."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, data: bytes, agree: bool) -> bytes:
        assert not agree
        numbers = KEY.private_numbers()
        result = pow(int.from_bytes(data, "big"), numbers.d, numbers.public_numbers.n)
        answer = result.to_bytes((result.bit_length() + 7) // 8, "big")
        self.sizes.append((len(data), len(answer)))
        return answer


@pytest.mark.parametrize(
    "how", [padding.PKCS1v15(), padding.OAEP(padding.MGF1(SHA256), SHA256, None)], ids=["pkcs1", "oaep"]
)
def test_decrypted_blocks_get_their_zeros_back(how: AsymmetricPadding) -> None:
    card = Stripping()
    key = CardRSAKey(KEY.public_key(), card)
    assert key.decrypt(KEY.public_key().encrypt(b"secret", how), how) == b"secret"
    assert card.sizes == [(128, 127)]


def test_signatures_get_their_zeros_back() -> None:
    card = Stripping()
    key = CardRSAKey(KEY.public_key(), card)
    for number in count():
        message = b"%d" % number
        signature = key.sign(message, padding.PKCS1v15(), SHA256)
        assert len(signature) == 128
        if card.sizes[-1][1] < 128:
            assert signature[0] == 0
            KEY.public_key().verify(signature, message, padding.PKCS1v15(), SHA256)
            break


def test_pss_salt_is_as_long_as_asked_for() -> None:
    key = CardRSAKey(KEY.public_key(), Stripping())
    for length, octets in ((padding.PSS.MAX_LENGTH, 94), (padding.PSS.DIGEST_LENGTH, 32), (7, 7), (0, 0)):
        signature = key.sign(b"m", padding.PSS(padding.MGF1(SHA256), length), SHA256)
        KEY.public_key().verify(signature, b"m", padding.PSS(padding.MGF1(SHA256), octets), SHA256)


def test_hash_may_be_made_before() -> None:
    digest = hashes.Hash(SHA256)
    digest.update(b"m")
    hashed = digest.finalize()
    signature = CardRSAKey(KEY.public_key(), Stripping()).sign(hashed, padding.PKCS1v15(), Prehashed(SHA256))
    KEY.public_key().verify(signature, b"m", padding.PKCS1v15(), SHA256)
    software = ec.generate_private_key(ec.SECP256R1())
    key = CardECKey(software.public_key(), lambda data, agree: software.sign(data, ec.ECDSA(Prehashed(SHA256))))
    software.public_key().verify(key.sign(hashed, ec.ECDSA(Prehashed(SHA256))), b"m", ec.ECDSA(SHA256))


def test_other_paddings_are_refused() -> None:
    key = CardRSAKey(KEY.public_key(), Stripping())
    with pytest.raises(UnsupportedAlgorithm):
        key.decrypt(bytes(128), padding.PSS(padding.MGF1(SHA256), 20))
    with pytest.raises(UnsupportedAlgorithm):
        key.sign(b"m", padding.OAEP(padding.MGF1(SHA256), SHA256, None), SHA256)


@pytest.mark.parametrize(
    "public",
    [
        KEY.public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_copy_is_the_same_key_on_the_same_card(
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey,
) -> None:
    key = card_private_key(public, Stripping())
    assert copy.copy(key) is key and copy.deepcopy(key) is key
    assert key.public_key() == public
    if isinstance(key, CardRSAKey | CardECKey):
        assert key.key_size == (1024 if isinstance(key, CardRSAKey) else 384)


def test_agreement_asks_the_card_to_agree() -> None:
    asked: list[tuple[bytes, bool]] = []

    def use(data: bytes, agree: bool) -> bytes:
        asked.append((data, agree))
        return b"shared"

    curve = ec.generate_private_key(ec.SECP256R1())
    key = card_private_key(curve.public_key(), use)
    assert isinstance(key, CardECKey)
    assert key.exchange(ec.ECDH(), curve.public_key()) == b"shared"
    other = x25519.X25519PrivateKey.generate()
    modern = card_private_key(other.public_key(), use)
    assert isinstance(modern, x25519.X25519PrivateKey)
    assert modern.exchange(other.public_key()) == b"shared"
    point = curve.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert asked == [(point, True), (other.public_key().public_bytes_raw(), True)]
