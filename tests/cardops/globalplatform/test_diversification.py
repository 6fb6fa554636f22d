"""Diversified keys: fixed values, an independent computation, and that no two contexts meet."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.globalplatform.diversification import (
    LABEL,
    CardContext,
    KeyPurpose,
    diversify,
    diversify_scp03,
)
from cardwright_cardops.globalplatform.scp03 import Scp03KeyInvalid
from cardwright_cardops.secret import Secret

MASTER = Secret(bytes(range(32)))
CARD = CardContext("org-1", "card-7", 3)

texts = st.text(min_size=1, max_size=12)
contexts = st.builds(CardContext, texts, texts, st.integers(0, 0xFFFFFFFF))


def openssl_kbkdf(master: bytes, context: bytes, size: int) -> bytes:
    """SP 800-108 as openssl computes it: counter first, separator and length as the standard has them."""
    options = {
        "mac": "CMAC",
        "cipher": f"AES-{8 * len(master)}-CBC",
        "mode": "COUNTER",
        "hexkey": master.hex(),
        "hexsalt": LABEL.hex(),
        "hexinfo": context.hex(),
    }
    arguments = [part for name, value in options.items() for part in ("-kdfopt", f"{name}:{value}")]
    done = subprocess.run(
        ["openssl", "kdf", "-keylen", str(size), *arguments, "KBKDF"], capture_output=True, check=True
    )
    return bytes.fromhex(done.stdout.decode().replace(":", ""))


@pytest.mark.parametrize("purpose", list(KeyPurpose))
@pytest.mark.parametrize("size", [16, 24, 32])
def test_openssl_computes_the_same(purpose: KeyPurpose, size: int) -> None:
    expected = openssl_kbkdf(MASTER.reveal(), CARD.encode(purpose), size)
    assert diversify(MASTER, purpose, CARD, size).reveal() == expected


def test_encoding_is_fixed() -> None:
    """Issued cards depend on these octets: this test only ever gains rows."""
    assert CARD.encode(KeyPurpose.MANAGEMENT_KEY).hex() == (
        "000e" + b"management-key".hex() + "0005" + b"org-1".hex() + "0006" + b"card-7".hex() + "00000003"
    )
    assert [purpose.value for purpose in KeyPurpose] == [
        "scp03-enc",
        "scp03-mac",
        "scp03-dek",
        "management-key",
        "puk",
    ]
    assert LABEL == b"cardwright.diversified-key.1"


@given(one=st.tuples(st.sampled_from(KeyPurpose), contexts), other=st.tuples(st.sampled_from(KeyPurpose), contexts))
def test_encoding_is_injective(one: tuple[KeyPurpose, CardContext], other: tuple[KeyPurpose, CardContext]) -> None:
    assert (one[1].encode(one[0]) == other[1].encode(other[0])) == (one == other)


@given(text=st.text(min_size=3, max_size=9), cuts=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_a_border_that_moves_changes_the_context(text: str, cuts: tuple[int, int]) -> None:
    first, second = (min(cut, len(text) - 1) for cut in cuts)
    one, other = (CardContext(text[:cut], text[cut:], 0) for cut in (first, second))
    assert (one.encode(KeyPurpose.PUK) == other.encode(KeyPurpose.PUK)) == (first == second)


@given(context=contexts, size=st.sampled_from([16, 24, 32]))
def test_encoding_reads_back(context: CardContext, size: int) -> None:
    octets, fields = context.encode(KeyPurpose.PUK), []
    for _ in range(3):
        length = int.from_bytes(octets[:2], "big")
        fields.append(octets[2 : 2 + length].decode())
        octets = octets[2 + length :]
    assert fields == ["puk", context.organization, context.card]
    assert int.from_bytes(octets, "big") == context.generation


def test_keys_are_unrelated() -> None:
    keys = [
        diversify(MASTER, purpose, CardContext(organization, card, generation), size).reveal()[:16]
        for purpose in KeyPurpose
        for organization in ("a", "b")
        for card in ("1", "2")
        for generation in (0, 1)
        for size in (16, 24, 32)
    ]
    assert len(set(keys)) == 5 * 2 * 2 * 2 * 3


def test_scp03_set() -> None:
    keys = diversify_scp03(MASTER, CARD, 24)
    assert [len(key) for key in (keys.enc, keys.mac, keys.dek)] == [24] * 3
    assert keys.dek == diversify(MASTER, KeyPurpose.SCP03_DEK, CARD, 24)
    assert len({keys.enc.reveal(), keys.mac.reveal(), keys.dek.reveal()}) == 3


@pytest.mark.parametrize(
    ("master", "card", "size"),
    [
        (Secret(bytes(20)), CARD, 16),
        (MASTER, CARD, 0),
        (MASTER, CARD, 33),
        (MASTER, CardContext("", "c", 0), 16),
        (MASTER, CardContext("o", "", 0), 16),
        (MASTER, CardContext("o", "c" * 65536, 0), 16),
        (MASTER, CardContext("o", "c", -1), 16),
        (MASTER, CardContext("o", "c", 1 << 32), 16),
    ],
)
def test_refusals(master: Secret, card: CardContext, size: int) -> None:
    with pytest.raises(Scp03KeyInvalid):
        diversify(master, KeyPurpose.PUK, card, size)
