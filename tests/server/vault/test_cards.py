"""Card secrets: the library's derivation, behind typed acts and quotas."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cardwright_cardops.globalplatform.diversification import CardContext, KeyPurpose, diversify
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.secret import Secret
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.derivation import card_key, card_puk, derive
from cardwright_server.vault.errors import VaultQuota, VaultRefused
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import Authorization, MasterPurpose, PukPurpose, VaultCard
from cardwright_server.vault.software import SoftwareBackend
from tests.support.vault import CARD, PASSPHRASE, Clock, run

ACTOR = Authorization("operator-1", "request-1", "session-1")


@given(
    st.binary(min_size=32, max_size=32),
    st.sampled_from(KeyPurpose),
    st.builds(
        CardContext,
        st.text(min_size=1, max_size=20),
        st.text(min_size=1, max_size=20),
        st.integers(0, 0xFFFFFFFF),
    ),
    st.integers(1, 32),
)
def test_single_cmacs_make_the_librarys_derivation(
    master: bytes, purpose: KeyPurpose, card: CardContext, size: int
) -> None:
    backend = SoftwareBackend()
    made = card_key(lambda data: backend.cmac(master, data), purpose, card, size)
    assert Secret(made) == diversify(Secret(master), purpose, card, size)


def test_derivation_is_that_of_sp_800_108_with_two_blocks() -> None:
    blocks: list[bytes] = []

    def cmac(data: bytes) -> bytes:
        blocks.append(data)
        return bytes((len(blocks),)) * 16

    assert derive(cmac, b"L", b"C", 24) == b"\x01" * 16 + b"\x02" * 8
    assert blocks == [bytes((0, 0, 0, n)) + b"L\0C" + bytes((0, 0, 0, 192)) for n in (1, 2)]


def test_puk_is_eight_digits() -> None:
    assert card_puk(lambda data: b"\0" * 16, CARD.context) == b"00000000"
    assert card_puk(lambda data: b"\xff" * 16, CARD.context) == str(((1 << 128) - 1) % 10**8).zfill(8).encode()


@pytest.mark.parametrize("algorithm", ManagementAlgorithm)
def test_mutual_authentication_with_a_card(either: VaultCore, algorithm: ManagementAlgorithm) -> None:
    vault = LocalVault(either)
    written = ManagementKey(algorithm, run(vault.new_management_key(CARD, algorithm, ACTOR)))
    witness = bytes(range(algorithm.block_octets))
    answer = run(vault.answer_management_key(CARD, algorithm, written.encrypt(witness)))
    assert answer.response == witness
    assert len(answer.challenge) == algorithm.block_octets
    proof = written.encrypt(answer.challenge)
    assert run(vault.check_management_key(CARD, algorithm, answer.challenge, proof)) is True
    with pytest.raises(VaultRefused) as caught:
        run(vault.check_management_key(CARD, algorithm, answer.challenge, proof))
    assert caught.value.reason == "challenge"
    again = run(vault.answer_management_key(CARD, algorithm, written.encrypt(witness)))
    assert again.challenge != answer.challenge
    assert run(vault.check_management_key(CARD, algorithm, again.challenge, proof)) is False


def test_secrets_differ_by_everything_that_names_them(core: VaultCore) -> None:
    vault = LocalVault(core)
    run(vault.admin(PASSPHRASE).rotate_master(MasterPurpose.PUK))
    cards = [VaultCard(*values) for values in product(("o1", "o2"), ("c1", "c2"), (1, 2), (1, 2))]
    puks = {run(vault.puk(card, PukPurpose.UNLOCK, replace(ACTOR, actor=card.card))).reveal() for card in cards}
    assert len(puks) == len(cards)


def test_new_secrets_are_written_under_the_newest_master_only(core: VaultCore) -> None:
    vault = LocalVault(core)
    before = run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    key = run(vault.new_management_key(CARD, ManagementAlgorithm.AES128, ACTOR))
    admin = vault.admin(PASSPHRASE)
    for purpose in (MasterPurpose.PUK, MasterPurpose.MANAGEMENT_KEY):
        assert run(admin.rotate_master(purpose)) == 2
    assert run(vault.status()).masters[MasterPurpose.PUK] == 2
    for act in (
        vault.puk(CARD, PukPurpose.SET, ACTOR),
        vault.new_management_key(CARD, ManagementAlgorithm.AES128, ACTOR),
    ):
        with pytest.raises(VaultRefused) as caught:
            run(act)
        assert caught.value.reason == "master"
    assert run(vault.puk(CARD, PukPurpose.UNLOCK, ACTOR)) == before
    block = ManagementKey(ManagementAlgorithm.AES128, key).encrypt(bytes(16))
    assert run(vault.answer_management_key(CARD, ManagementAlgorithm.AES128, block)).response == bytes(16)
    with pytest.raises(VaultRefused):
        run(vault.puk(replace(CARD, master=3), PukPurpose.SET, ACTOR))


def test_a_block_of_another_algorithm_is_refused(core: VaultCore) -> None:
    vault = LocalVault(core)
    for size in (8, 15):
        with pytest.raises(VaultRefused) as caught:
            run(vault.answer_management_key(CARD, ManagementAlgorithm.AES256, bytes(size)))
        assert caught.value.reason == "block"


def test_quotas_of_actor_card_and_vault(core: VaultCore, clock: Clock) -> None:
    vault = LocalVault(core)
    admin = vault.admin(PASSPHRASE)
    run(admin.set_limit("puk.unlock.card", Limit(2, 3)))
    run(admin.set_limit("puk.unlock.actor", Limit(3, None)))
    run(admin.set_limit("puk.unlock", Limit(5, None)))

    def unlock(card: str, actor: str = "a") -> str:
        try:
            run(vault.puk(VaultCard("o", card, 1, 1), PukPurpose.UNLOCK, Authorization(actor, "r")))
        except VaultQuota as quota:
            assert 0 < quota.retry_after <= 86_700
            return quota.limit
        return ""

    assert [unlock("1"), unlock("1"), unlock("1")] == ["", "", "puk.unlock.card"]
    assert [unlock("2"), unlock("3")] == ["", "puk.unlock.actor"]
    assert [unlock("3", "b"), unlock("4", "c"), unlock("5", "d")] == ["", "", "puk.unlock"]
    clock.now += 3600 + 300
    assert [unlock("1", "e"), unlock("1", "e")] == ["", "puk.unlock.card"]
    clock.now -= 7200
    assert unlock("1", "f") == "puk.unlock.card"
    clock.now += 7200 + 86_400 + 300
    assert unlock("1", "g") == ""
    # Writing is another quota than unlocking.
    assert len(run(vault.puk(VaultCard("o", "1", 1, 1), PukPurpose.SET, ACTOR))) == 8
