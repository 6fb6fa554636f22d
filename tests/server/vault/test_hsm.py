"""The vault over SoftHSM2: keys stay in the token, a PIN is sent once, a crash of the module costs nothing."""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.globalplatform.diversification import KeyPurpose
from cardwright_cardops.secret import Secret
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.derivation import card_key
from cardwright_server.vault.errors import (
    VaultDamaged,
    VaultLocked,
    VaultRefused,
    VaultUnavailable,
    VaultUnlockRefused,
)
from cardwright_server.vault.hsm import HsmBackend, HsmToken
from cardwright_server.vault.model import Authorization, KeyRole, LockState, MasterPurpose, PukPurpose, SigningAlgorithm
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm
from tests.support.vault import CARD, Clock, make_pki, run, subject

ACTOR = Authorization("operator-1", "request-1")

WRAPPER = """
import sys
import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
token = pkcs11.lib(sys.argv[1]).get_token(token_label=sys.argv[2])
results = []
with token.open(rw=True, user_pin=sys.argv[3]) as session:
    wrapper = session.generate_key(KeyType.AES, 256, template={Attribute.WRAP: True, Attribute.ENCRYPT: True})
    for kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
        for key in session.get_objects({Attribute.CLASS: kind, Attribute.TOKEN: True}):
            for mechanism in (Mechanism.AES_KEY_WRAP, Mechanism.AES_KEY_WRAP_PAD):
                try:
                    wrapper.wrap_key(key, mechanism=mechanism)
                    results.append("wrapped")
                except pkcs11.PKCS11Error as error:
                    results.append(type(error).__name__)
            for attribute in (Attribute.VALUE, Attribute.PRIVATE_EXPONENT):
                try:
                    results.append(f"read {key[attribute]!r}")
                except pkcs11.PKCS11Error as error:
                    results.append(type(error).__name__)
            for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
                try:
                    key[attribute] = value
                    results.append("changed")
                except pkcs11.PKCS11Error as error:
                    results.append(type(error).__name__)
print(len(results), *sorted(set(results)))
"""


def test_every_secret_is_confined_to_the_token(hsm_core: VaultCore, softhsm: SoftHsm, clock: Clock) -> None:
    pki = run(make_pki(hsm_core, clock, SigningAlgorithm.RSA2048, SigningAlgorithm.P384, softhsm.pin))
    listed = softhsm.pkcs11_tool("--list-objects")
    objects = re.split(r"\n(?=\S)", listed.strip())
    secrets = [one for one in objects if one.startswith(("Secret Key", "Private Key"))]
    assert len(secrets) == 1 + len(MasterPurpose) + 5
    for one in secrets:
        access = re.search(r"Access:\s+(.*)", one)
        assert access is not None
        words = {word.strip() for word in access[1].split(",")}
        assert {"sensitive", "always sensitive", "never extractable"} <= words, one
        assert "extractable" not in words
        use = re.search(r"Usage:\s+(.*)", one)
        # pkcs11-tool names no CKA_SIGN of secret keys, but all that would encrypt, wrap or derive.
        assert use is not None and use[1].strip() == ("none" if one.startswith("Secret") else "sign"), one
    hsm_core.lock()
    # Each secret: two ways to wrap it, two attributes to read, two to change.
    command = [sys.executable, "-c", WRAPPER, str(SOFTHSM), LABEL, softhsm.pin.reveal().decode()]
    environment = {**os.environ, **softhsm.environment}
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    assert said[0] == str(6 * len(secrets))
    assert not {"wrapped", "read", "changed"} & set(said), said
    assert {"KeyUnextractable", "AttributeSensitive"} <= set(said)
    assert pki.core.status().state is LockState.LOCKED


def test_what_is_derived_is_the_diversification_of_the_library(hsm_core: VaultCore, clock: Clock) -> None:
    """The token does single CMACs. A KBKDF over them is checked against the software backend elsewhere;
    here it is stable, and different for each purpose, card and generation."""
    document = hsm_core.document
    assert document is not None
    master = document.current(MasterPurpose.PUK).material

    def cmac(data: bytes) -> bytes:
        return hsm_core.backend.cmac(master, data)

    keys = {card_key(cmac, purpose, CARD.context, 32) for purpose in KeyPurpose for _ in range(2)}
    assert len(keys) == len(KeyPurpose)


def test_a_wrong_pin_is_sent_once(
    hsm_core: VaultCore, softhsm: SoftHsm, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsm_core.close()
    core = VaultCore(hsm_core.directory, softhsm.backend(), clock)
    sent: list[str] = []
    exchange = HsmBackend._exchange

    def noting(self: HsmBackend, request: object, seconds: float) -> object:
        sent.append(type(request).__name__)
        return exchange(self, request, seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(HsmBackend, "_exchange", noting)
    vault = LocalVault(core)
    with pytest.raises(VaultUnlockRefused, match="PinIncorrect"):
        run(vault.admin(Secret(b"000000")).unlock())
    assert sent == ["Open"]
    with pytest.raises(VaultLocked):
        run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    assert sent == ["Open"]
    run(vault.admin(softhsm.pin).unlock())
    assert len(run(vault.puk(CARD, PukPurpose.SET, ACTOR))) == 8
    core.close()


def test_a_crash_of_the_module_costs_nothing(hsm_core: VaultCore, softhsm: SoftHsm) -> None:
    vault = LocalVault(hsm_core)
    before = run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    backend = hsm_core.backend
    assert isinstance(backend, HsmBackend) and backend.pid is not None
    first = backend.pid
    os.kill(first, signal.SIGKILL)
    assert run(vault.puk(CARD, PukPurpose.SET, ACTOR)) == before
    assert backend.pid != first


def test_a_pin_that_was_changed_meanwhile_locks_the_vault(hsm_core: VaultCore, softhsm: SoftHsm) -> None:
    vault = LocalVault(hsm_core)
    softhsm.pkcs11_tool("--change-pin", "--new-pin", "11223344")
    backend = hsm_core.backend
    assert isinstance(backend, HsmBackend) and backend.pid is not None
    os.kill(backend.pid, signal.SIGKILL)
    with pytest.raises(VaultLocked):
        run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    assert run(vault.status()).state is LockState.LOCKED
    run(vault.admin(Secret(b"11223344")).unlock())
    assert len(run(vault.puk(CARD, PukPurpose.SET, ACTOR))) == 8


def test_keys_survive_a_restart_and_old_masters_can_be_destroyed(
    hsm_core: VaultCore, softhsm: SoftHsm, clock: Clock
) -> None:
    vault = LocalVault(hsm_core)
    admin = vault.admin(softhsm.pin)
    before = run(vault.puk(CARD, PukPurpose.UNLOCK, ACTOR))
    assert run(admin.rotate_master(MasterPurpose.PUK)) == 2
    hsm_core.close()
    core = VaultCore(hsm_core.directory, softhsm.backend(), clock)
    vault = LocalVault(core)
    admin = vault.admin(softhsm.pin)
    run(admin.unlock())
    assert run(vault.puk(CARD, PukPurpose.UNLOCK, ACTOR)) == before
    count = softhsm.pkcs11_tool("--list-objects").count("Secret Key Object")
    run(admin.destroy_master(MasterPurpose.PUK, 1))
    with pytest.raises(VaultRefused):
        run(vault.puk(CARD, PukPurpose.UNLOCK, ACTOR))
    assert softhsm.pkcs11_tool("--list-objects").count("Secret Key Object") == count - 1
    core.close()


def test_a_changed_key_file_is_refused(hsm_core: VaultCore, softhsm: SoftHsm, clock: Clock) -> None:
    hsm_core.close()
    core = VaultCore(hsm_core.directory, softhsm.backend(), clock)
    path = core.directory / "vault.keys"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(VaultDamaged):
        run(LocalVault(core).admin(softhsm.pin).unlock())
    # Also where the audit says that this is the file, the seal is the token's.
    core.log.marks["revision"] = hashlib.sha256(content).hexdigest()
    with pytest.raises(VaultDamaged):
        run(LocalVault(core).admin(softhsm.pin).unlock())
    core.close()


def test_nothing_leaves_by_backup_and_the_pin_is_not_ours_to_change(hsm_core: VaultCore, softhsm: SoftHsm) -> None:
    admin = LocalVault(hsm_core).admin(softhsm.pin)
    with pytest.raises(VaultRefused):
        run(admin.backup(Secret(b"another passphrase")))
    with pytest.raises(VaultRefused):
        run(admin.change_credential(Secret(b"777777")))
    run(admin.create_key("audit", KeyRole.AUDIT, SigningAlgorithm.P256))


def test_no_module_and_no_token(tmp_path: Path, softhsm: SoftHsm, clock: Clock) -> None:
    for token in (
        HsmToken(tmp_path / "none.so", LABEL),
        HsmToken(SOFTHSM, "another", softhsm.environment),
        HsmToken(Path(ctypes.util.find_library("c") or "libc.so.6"), LABEL),
    ):
        with pytest.raises(VaultUnavailable):
            VaultCore.create(tmp_path / "new", HsmBackend(token), softhsm.pin.reveal(), now=clock)
        assert not (tmp_path / "new" / "vault.keys").exists()


@pytest.mark.parametrize("algorithm", [SigningAlgorithm.RSA2048, SigningAlgorithm.P256, SigningAlgorithm.P384])
def test_signatures_of_the_token_verify(
    hsm_core: VaultCore, softhsm: SoftHsm, clock: Clock, algorithm: SigningAlgorithm
) -> None:
    pki = run(make_pki(hsm_core, clock, SigningAlgorithm.P256, algorithm, softhsm.pin))
    root, cards = pki.certificates["root"], pki.certificates["cards"]
    root.verify_directly_issued_by(root)
    cards.verify_directly_issued_by(root)
    assert isinstance(cards.public_key(), ec.EllipticCurvePublicKey)
    assert cards.subject == subject("cards") and isinstance(root, x509.Certificate)
