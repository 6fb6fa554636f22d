"""What only the holder of the passphrase (or of the HSM's PIN) may do. Every request carries it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from asn1crypto import x509 as asn1_x509
from msgspec.structs import replace

from cardwright_cardops import asn1
from cardwright_cardops.durable import write_whole

from . import messages as m
from . import vendor
from .audit_log import AuditLog, Draft
from .core import Held, VaultCore, digest_of
from .document import AUDIT_FOLDER, KEY_FILE, Document, KeyFile, Master, SigningKey
from .errors import VaultError, VaultExists, VaultLocked, VaultRefused, VaultUnavailable, VaultUnlockRefused
from .model import KeyRole, MasterPurpose, PublicKeyInfo
from .profiles import Holder
from .proofs import Peer
from .quotas import DEFAULT_LIMITS, UNLOCK_FAILED, Charge
from .software import SoftwareBackend

Action: TypeAlias = Callable[[VaultCore, Document, Any], object]

_CAS = (KeyRole.ROOT, KeyRole.ISSUING)
_CA_HOLDERS = (Holder.ROOT, Holder.CA)


def administer(core: VaultCore, request: m.AdminMessage, peer: Peer | None = None) -> object:
    """Carry out one request of ``peer``. Raises VaultError; a wrong credential is audited and counted."""
    failures = Charge(UNLOCK_FAILED)
    core.log.counters.require([failures], DEFAULT_LIMITS, core.log.milliseconds)
    name = f"admin.{type(request).__name__}"
    try:
        if isinstance(request, m.Unlock):
            _unlock(core, request, peer)
            return None
        if core.document is None:
            raise VaultLocked("The vault is locked.")
        _require_proof(core, request, peer)
        return ACTIONS[type(request)](core, core.document, request)
    except VaultUnlockRefused:
        _note(core, Draft(name, "refused: credential", charges={failures.key: 1}))
        raise
    except VaultRefused as refusal:
        _note(core, Draft(name, f"refused: {refusal.reason}"))
        raise


def _note(core: VaultCore, draft: Draft) -> None:
    try:
        core.log.commit(core.log.add(draft))
    except (OSError, VaultError) as cause:
        raise VaultUnavailable("The vault cannot write its audit.") from cause


def _require_proof(core: VaultCore, request: m.AdminMessage, peer: Peer | None) -> None:
    if core.proofs.hold(peer, request.credential):
        return
    if not core.backend.knows(request.credential):
        raise VaultUnlockRefused("The passphrase or PIN is wrong.")
    core.proofs.note(peer, request.credential)


def _unlock(core: VaultCore, request: m.Unlock, peer: Peer | None) -> None:
    if core.document is not None:
        _require_proof(core, request, peer)
        return
    core.load_file()
    document = core.backend.unlock(core.file, request.credential, spend_last_try=request.spend_last_try)
    try:
        _note(core, Draft("admin.Unlock"))
    except VaultError:
        core.lock()
        raise
    core.document = document
    core.proofs.note(peer, request.credential)


def _lock(core: VaultCore, document: Document, request: m.Lock) -> None:
    core.lock()
    _note(core, Draft("admin.Lock"))


def _create_key(core: VaultCore, document: Document, request: m.CreateKey) -> PublicKeyInfo:
    _require_sound_key(document, request)
    material, public = core.backend.new_signing_key(request.algorithm)
    info = PublicKeyInfo(request.name, request.role, request.algorithm, public, request.subject, request.profiles)
    about: dict[str, str | int] = {"key": request.name, "role": request.role.value}
    _save(core, replace(document, keys=(*document.keys, SigningKey(info, material))), request, about)
    return info


def _require_sound_key(document: Document, request: m.CreateKey) -> None:
    if document.key(request.name) is not None:
        raise VaultRefused("key", "There is a key of this name.")
    if (request.role is KeyRole.AUDIT) is bool(request.subject):
        raise VaultRefused("subject", "Every key but the audit's has a subject.")
    if request.subject:
        _require_name(request.subject)
        alike = [one.info for one in document.keys if one.info.subject == request.subject]
        if any(request.role in _CAS or one.role in _CAS for one in alike):
            raise VaultRefused("subject", "A CA shares its name with no other key.")
    if (request.role in _CAS) is not bool(request.profiles):
        raise VaultRefused("profile", "CAs have profiles, other keys have none.")
    for name in request.profiles:
        rule = document.rules.get(name)
        if rule is None:
            raise VaultRefused("profile", f"There is no profile '{name}'.")
        if rule.holder in _CA_HOLDERS and request.role is not KeyRole.ROOT:
            raise VaultRefused("profile", f"Only a root signs under '{name}'.")


def _require_name(subject: bytes) -> None:
    try:
        name = asn1.load(asn1_x509.Name, subject)
    except asn1.MalformedAsn1:
        raise VaultRefused("subject", "The subject is no DER Name.") from None
    if not len(name.chosen):
        raise VaultRefused("subject", "The subject is empty.")


def _rotate(core: VaultCore, document: Document, request: m.RotateMaster) -> int:
    if request.purpose is MasterPurpose.COMMIT:
        raise VaultRefused("purpose", "Commitments have to stay comparable; their key is not rotated.")
    version = document.current(request.purpose).version + 1
    master = Master(request.purpose, version, core.backend.new_master(), core.log.milliseconds)
    about: dict[str, str | int] = {"purpose": request.purpose.value, "version": version}
    _save(core, replace(document, masters=(*document.masters, master)), request, about)
    return version


def _destroy(core: VaultCore, document: Document, request: m.DestroyMaster) -> None:
    master = document.master(request.purpose, request.version)
    if master is None:
        raise VaultRefused("master", "There is no such version of this master key.")
    if master is document.current(request.purpose):
        raise VaultRefused("master", "Only an old version of a master key is destroyed.")
    kept = tuple(one for one in document.masters if one is not master)
    about: dict[str, str | int] = {"purpose": request.purpose.value, "version": request.version}
    _save(core, replace(document, masters=kept), request, about)
    core.backend.destroy(master.material)


def _import_vendor_master(core: VaultCore, document: Document, request: m.ImportVendorMaster) -> bytes:
    document, check = vendor.admit(document, request)
    about: dict[str, str | int] = {"vendor": request.name, "kdf": request.kdf.value, "check": check.hex()}
    _save(core, document, request, about)
    return check


def _set_rule(core: VaultCore, document: Document, request: m.SetRule) -> None:
    if request.rule.holder in _CA_HOLDERS and any(
        request.name in one.info.profiles and one.info.role is not KeyRole.ROOT for one in document.keys
    ):
        raise VaultRefused("profile", "A CA that is no root signs under this profile.")
    rules = {**document.rules, request.name: request.rule}
    _save(core, replace(document, rules=rules), request, {"rule": request.name})


def _set_limit(core: VaultCore, document: Document, request: m.SetLimit) -> None:
    if request.name not in document.limits:
        raise VaultRefused("limit", "There is no quota of this name.")
    limits = {**document.limits, request.name: request.limit}
    _save(core, replace(document, limits=limits), request, {"limit": request.name})


def _change_credential(core: VaultCore, document: Document, request: m.ChangeCredential) -> None:
    core.backend.change_credential(request.new)
    core.proofs.forget()
    _save(core, document, request, {})


def _backup(core: VaultCore, document: Document, request: m.Backup) -> bytes:
    content = core.backend.export(replace(document, marks=dict(core.log.marks)), request.passphrase).encode()
    _note(core, Draft("admin.Backup", about={"digest": digest_of(content)}))
    return content


def _new_epoch(core: VaultCore, document: Document, request: m.NewEpoch) -> int:
    epoch = document.epoch + 1
    _save(core, replace(document, epoch=epoch), request, {"epoch": epoch})
    return epoch


def _save(core: VaultCore, document: Document, request: m.AdminMessage, about: dict[str, str | int]) -> None:
    draft = Draft(f"admin.{type(request).__name__}", about=about)
    core.write_document(replace(document, revision=document.revision + 1), draft)


ACTIONS: Final[dict[type[m.AdminMessage], Action]] = {
    m.Lock: _lock,
    m.CreateKey: _create_key,
    m.RotateMaster: _rotate,
    m.DestroyMaster: _destroy,
    m.ImportVendorMaster: _import_vendor_master,
    m.SetRule: _set_rule,
    m.SetLimit: _set_limit,
    m.ChangeCredential: _change_credential,
    m.Backup: _backup,
    m.NewEpoch: _new_epoch,
}


def restore(directory: Path, backup: bytes, passphrase: bytes, now: Callable[[], float]) -> int:
    """Put a backup of a software vault in place, under the backup's passphrase; the new epoch's number.

    The vault must not run. An audit that is there is kept and goes on; what it remembers wins over the backup, but CRL
    numbers never go back. Raises VaultUnlockRefused, VaultDamaged, VaultExists, OSError.
    """
    backend = SoftwareBackend()
    document = backend.unlock(KeyFile.read(backup), passphrase, spend_last_try=False)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = Held(directory)
    try:
        (directory / AUDIT_FOLDER).mkdir(mode=0o700, exist_ok=True)
        log = AuditLog(directory / AUDIT_FOLDER, now)
        if log.marks.get("vault", document.vault_id) != document.vault_id:
            raise VaultExists(f"The audit in {directory} is another vault's.")
        epoch = max(document.epoch, int(log.marks.get("epoch", "0"))) + 1
        restored = replace(document, epoch=epoch, revision=document.revision + 1, marks={})
        content = backend.seal(restored).encode()
        marks = _merged(document.marks, log.marks)
        marks.update(vault=document.vault_id, epoch=str(epoch), prepared=digest_of(content))
        log.commit(log.add(Draft("restore", about={"epoch": epoch, "backup": digest_of(backup)}, marks=marks)))
        write_whole(directory / KEY_FILE, content)
        log.commit(log.add(Draft("restored", marks={"revision": digest_of(content)})))
        log.close()
    finally:
        held.close()
    return epoch


def _merged(backup: dict[str, str], here: dict[str, str]) -> dict[str, str]:
    files = ("revision", "prepared")
    marks = {**{key: value for key, value in backup.items() if key not in files}, **here}
    for key in marks:
        if key.startswith("crl:"):
            both = [found[key] for found in (backup, here) if key in found]
            marks[key] = max(both, key=lambda value: int(value.partition(":")[0]))
    return marks
