"""What the passphrase holder does, and that nobody else does it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from cardwright_cardops.secret import Secret
from cardwright_server.vault import messages as m
from cardwright_server.vault.administration import ACTIONS, restore
from cardwright_server.vault.audit_log import Draft
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.core import OPERATIONS, VaultCore
from cardwright_server.vault.document import Derivation, KeyFile
from cardwright_server.vault.errors import (
    VaultDamaged,
    VaultExists,
    VaultLocked,
    VaultQuota,
    VaultRefused,
    VaultUnavailable,
    VaultUnlockRefused,
)
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import (
    Authorization,
    KeyRole,
    LockState,
    MasterPurpose,
    PukPurpose,
    SigningAlgorithm,
    VendorKdf,
)
from cardwright_server.vault.profiles import DEFAULT_RULES, CertificateRule, Holder
from cardwright_server.vault.software import SoftwareBackend
from tests.support.vault import CARD, PASSPHRASE, QUICK, WRONG, Clock, make_core, reopen, run, subject

ACTOR = Authorization("operator-1", "request-1")
NEW = Secret(b"another long passphrase")
NAME = subject("one").public_bytes()


def test_every_message_has_somebody_who_carries_it_out() -> None:
    asked = set(m.AnyRequest.__args__) - {m.Status, m.PublicKey}
    assert asked == set(OPERATIONS)
    assert set(m.AnyAdminRequest.__args__) - {m.Unlock} == set(ACTIONS)


def test_locked_at_first_and_a_wrong_passphrase_changes_nothing(core: VaultCore, clock: Clock) -> None:
    before = (core.directory / "vault.keys").read_bytes()
    core = reopen(core, clock)
    vault = LocalVault(core)
    status = run(vault.status())
    assert (status.state, status.masters, status.keys) == (LockState.LOCKED, {}, ())
    for act in (vault.puk(CARD, PukPurpose.SET, ACTOR), vault.public_key("x"), vault.admin(PASSPHRASE).new_epoch()):
        with pytest.raises(VaultLocked):
            run(act)
    with pytest.raises(VaultUnlockRefused):
        run(vault.admin(WRONG).unlock())
    assert (core.directory / "vault.keys").read_bytes() == before
    run(vault.admin(PASSPHRASE).unlock())
    run(vault.admin(PASSPHRASE).unlock())
    with pytest.raises(VaultUnlockRefused):
        run(vault.admin(WRONG).unlock())
    run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    run(vault.admin(PASSPHRASE).lock())
    with pytest.raises(VaultLocked):
        run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    core.close()


def test_no_act_of_the_administrator_without_the_passphrase(core: VaultCore) -> None:
    admin = LocalVault(core).admin(WRONG)
    before = (core.directory / "vault.keys").read_bytes()
    acts = (
        admin.lock(),
        admin.create_key("x", KeyRole.AUDIT, SigningAlgorithm.P256),
        admin.rotate_master(MasterPurpose.PUK),
        admin.destroy_master(MasterPurpose.PUK, 1),
        admin.import_vendor_master("lot", VendorKdf.VISA2, Secret(bytes(range(24)))),
        admin.set_rule("x", DEFAULT_RULES["ocsp"]),
        admin.set_limit("puk.set", Limit()),
        admin.change_credential(NEW),
        admin.backup(NEW),
        admin.new_epoch(),
    )
    assert len(acts) == len(ACTIONS)
    for act in acts:
        with pytest.raises(VaultUnlockRefused):
            run(act)
    assert (core.directory / "vault.keys").read_bytes() == before
    assert core.status().state is LockState.UNLOCKED


def test_guessing_is_limited(core: VaultCore) -> None:
    vault = LocalVault(core)
    for _ in range(20):
        with pytest.raises(VaultUnlockRefused):
            run(vault.admin(WRONG).lock())
    with pytest.raises(VaultQuota):
        run(vault.admin(PASSPHRASE).lock())
    # The server goes on.
    run(vault.puk(CARD, PukPurpose.SET, ACTOR))


def test_passphrase_change(core: VaultCore, clock: Clock) -> None:
    admin = LocalVault(core).admin(PASSPHRASE)
    before = run(LocalVault(core).puk(CARD, PukPurpose.SET, ACTOR))
    run(admin.change_credential(NEW))
    run(admin.set_limit("puk.set", Limit(50, 50)))
    core = reopen(core, clock)
    vault = LocalVault(core)
    with pytest.raises(VaultUnlockRefused):
        run(vault.admin(PASSPHRASE).unlock())
    run(vault.admin(NEW).unlock())
    assert run(vault.puk(CARD, PukPurpose.SET, ACTOR)) == before
    core.close()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("one", KeyRole.CONTENT, SigningAlgorithm.P256, NAME), "key"),
        (("two", KeyRole.CONTENT, SigningAlgorithm.P256, b""), "subject"),
        (("two", KeyRole.AUDIT, SigningAlgorithm.P256, NAME), "subject"),
        (("two", KeyRole.CONTENT, SigningAlgorithm.P256, b"rubbish"), "subject"),
        (("two", KeyRole.CONTENT, SigningAlgorithm.P256, b"\x30\x00"), "subject"),
        (("two", KeyRole.CONTENT, SigningAlgorithm.P256, NAME), "subject"),
        (("two", KeyRole.ISSUING, SigningAlgorithm.P256, NAME, ("signature",)), "subject"),
        (("two", KeyRole.ISSUING, SigningAlgorithm.P256, subject("two").public_bytes()), "profile"),
        (("two", KeyRole.ISSUING, SigningAlgorithm.P256, subject("two").public_bytes(), ("none",)), "profile"),
        (("two", KeyRole.ISSUING, SigningAlgorithm.P256, subject("two").public_bytes(), ("ca",)), "profile"),
        (("two", KeyRole.OCSP, SigningAlgorithm.P256, subject("two").public_bytes(), ("ocsp",)), "profile"),
    ],
)
def test_keys_that_are_not_made(core: VaultCore, arguments: tuple[object, ...], reason: str) -> None:
    admin = LocalVault(core).admin(PASSPHRASE)
    run(admin.create_key("one", KeyRole.ROOT, SigningAlgorithm.P256, NAME, ("root", "ca")))
    with pytest.raises(VaultRefused) as caught:
        run(admin.create_key(*arguments))  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert core.status().keys == ("one",)


def test_rules_and_limits(core: VaultCore) -> None:
    admin = LocalVault(core).admin(PASSPHRASE)
    rule = CertificateRule(max_days=5, public_keys=("p256",), key_usage=(("digital_signature",),))
    run(admin.set_rule("short", rule))
    run(admin.create_key("one", KeyRole.ISSUING, SigningAlgorithm.P256, NAME, ("short",)))
    ca_rule = CertificateRule(holder=Holder.CA, max_days=5, public_keys=("p256",), key_usage=(("key_cert_sign",),))
    with pytest.raises(VaultRefused):
        run(admin.set_rule("short", ca_rule))
    with pytest.raises(VaultRefused):
        run(admin.set_limit("no such limit", Limit()))


def test_an_older_key_file_is_noticed(core: VaultCore, clock: Clock) -> None:
    path = core.directory / "vault.keys"
    older = path.read_bytes()
    run(LocalVault(core).admin(PASSPHRASE).rotate_master(MasterPurpose.PUK))
    newer = path.read_bytes()
    core = reopen(core, clock)
    path.write_bytes(older)
    with pytest.raises(VaultDamaged):
        run(LocalVault(core).admin(PASSPHRASE).unlock())
    path.write_bytes(newer)
    run(LocalVault(core).admin(PASSPHRASE).unlock())
    assert core.status().masters[MasterPurpose.PUK] == 2
    core.close()


def test_a_damaged_key_file_is_one_error(core: VaultCore, clock: Clock) -> None:
    path = core.directory / "vault.keys"
    good = path.read_bytes()
    run(LocalVault(core).puk(CARD, PukPurpose.SET, ACTOR))
    core.close()
    for content in (b"", b"\x00", good[:-1], good[:50], b"\x93" * 4000, bytes(17 * 1024 * 1024)):
        path.write_bytes(content)
        with pytest.raises(VaultDamaged):
            broken = VaultCore(core.directory, SoftwareBackend(QUICK), clock)
            broken.close()
            run(LocalVault(broken).admin(PASSPHRASE).unlock())
    path.unlink()
    with pytest.raises(VaultDamaged):
        VaultCore(core.directory, SoftwareBackend(QUICK), clock)
    # The audit of a vault that was used is no creation that did not finish.
    with pytest.raises(VaultExists):
        make_core(core.directory, clock)


@pytest.mark.parametrize("changes", [{"memory": 8 * 1024 * 1024}, {"iterations": 1000}, {"lanes": 0}])
def test_costs_of_a_foreign_file_are_bounded(core: VaultCore, changes: dict[str, int]) -> None:
    file = KeyFile(backend="software", vault_id="x", derivation=Derivation(bytes(16), **changes), sealed=bytes(60))
    with pytest.raises(VaultDamaged):
        KeyFile.read(file.encode())


def test_one_process_at_a_time(core: VaultCore, clock: Clock) -> None:
    with pytest.raises(VaultExists):
        VaultCore(core.directory, SoftwareBackend(QUICK), clock)
    with pytest.raises(VaultExists):
        make_core(core.directory, clock)


def test_files_are_the_owners_only(core: VaultCore) -> None:
    for path in (core.directory, *core.directory.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_save_that_fails_locks_and_loses_nothing(
    core: VaultCore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = LocalVault(core)
    before = run(vault.puk(CARD, PukPurpose.SET, ACTOR))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(VaultUnavailable):
            run(vault.admin(PASSPHRASE).rotate_master(MasterPurpose.PUK))
    assert core.status().state is LockState.LOCKED
    run(vault.admin(PASSPHRASE).unlock())
    assert core.status().masters[MasterPurpose.PUK] == 1
    assert run(vault.puk(CARD, PukPurpose.SET, ACTOR)) == before


def test_backup_and_restore_elsewhere(core: VaultCore, clock: Clock, tmp_path: Path) -> None:
    vault = LocalVault(core)
    admin = vault.admin(PASSPHRASE)
    run(admin.create_key("audit", KeyRole.AUDIT, SigningAlgorithm.P256))
    before = run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    backup = run(admin.backup(NEW))
    assert PASSPHRASE.reveal() not in backup and NEW.reveal() not in backup
    with pytest.raises(VaultUnlockRefused):
        restore(tmp_path / "new", backup, PASSPHRASE.reveal(), clock)
    for broken in (backup[:-1], b"", backup[:100]):
        with pytest.raises((VaultDamaged, VaultUnlockRefused)):
            restore(tmp_path / "new", broken, NEW.reveal(), clock)
    assert restore(tmp_path / "new", backup, NEW.reveal(), clock) == 2
    restored = VaultCore(tmp_path / "new", SoftwareBackend(QUICK), clock)
    again = LocalVault(restored)
    run(again.admin(NEW).unlock())
    assert run(again.puk(CARD, PukPurpose.SET, ACTOR)) == before
    assert run(again.status()).epoch == 2
    assert run(again.status()).vault_id == run(vault.status()).vault_id
    with pytest.raises(VaultExists):
        restore(core.directory, backup, NEW.reveal(), clock)
    restored.close()


def test_a_restore_goes_on_with_the_audit_that_is_there(core: VaultCore, clock: Clock, tmp_path: Path) -> None:
    backup = run(LocalVault(core).admin(PASSPHRASE).backup(NEW))
    run(LocalVault(core).admin(PASSPHRASE).new_epoch())
    core.log.commit(core.log.add(Draft("crl", marks={"crl:cards": "9:abc"})))
    count = core.log.entries
    core.close()
    assert restore(core.directory, backup, NEW.reveal(), clock) == 3
    restored = VaultCore(core.directory, SoftwareBackend(QUICK), clock)
    run(LocalVault(restored).admin(NEW).unlock())
    assert restored.status().crl_numbers == {"cards": 9}
    assert restored.log.entries == count + 3
    restored.close()
    other = make_core(tmp_path / "other", clock)
    other.close()
    with pytest.raises(VaultExists):
        restore(tmp_path / "other", backup, NEW.reveal(), clock)


def test_how_old_a_master_is_at_least(core: VaultCore, clock: Clock) -> None:
    """A key file of an older program does not tell; then it is as old as the vault has been open."""
    clock.now += 30
    run(LocalVault(core).admin(PASSPHRASE).rotate_master(MasterPurpose.PUK))
    clock.now += 90
    assert core.status().ages[MasterPurpose.PUK] == {1: 120, 2: 90}
    core = reopen(core, clock)
    run(LocalVault(core).admin(PASSPHRASE).unlock())
    clock.now += 60
    # The first version's age was in no key file.
    assert core.status().ages[MasterPurpose.PUK] == {1: 60, 2: 150}
    assert core.document is not None
    masters = tuple(replace(one, made_at=0) for one in core.document.masters)
    core.document = replace(core.document, masters=masters)
    assert core.status().ages[MasterPurpose.PUK] == {1: 60, 2: 60}
    # A clock that is set back makes nothing older.
    clock.now -= 5000
    assert core.status().ages[MasterPurpose.PUK] == {1: 0, 2: 0}
    core.close()


def test_only_an_old_version_that_is_there_is_destroyed(core: VaultCore) -> None:
    admin = LocalVault(core).admin(PASSPHRASE)
    run(admin.rotate_master(MasterPurpose.PUK))
    for version, says in ((2, "Only an old version"), (3, "no such version")):
        with pytest.raises(VaultRefused, match=says):
            run(admin.destroy_master(MasterPurpose.PUK, version))
    run(admin.destroy_master(MasterPurpose.PUK, 1))
    with pytest.raises(VaultRefused, match="no such version"):
        run(admin.destroy_master(MasterPurpose.PUK, 1))
