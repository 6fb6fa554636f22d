"""The vault itself: one directory, one backend, one thread. Everything that answers goes through here."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError

from . import messages as m
from . import vendor
from .audit_log import AuditLog, Draft
from .backend import Backend
from .document import AUDIT_FOLDER, KEY_FILE, MAX_KEY_FILE, Document, KeyFile, Master
from .errors import VaultDamaged, VaultError, VaultExists, VaultLocked, VaultQuota, VaultRefused, VaultUnavailable
from .files import read_bounded
from .model import LockState, MasterPurpose, PublicKeyInfo, VaultStatus
from .operations import archive, cards, signatures
from .operations.act import Act, Challenges
from .profiles import CertificateRule
from .proofs import Proofs
from .quotas import REFUSED, Charge

Operation: TypeAlias = Callable[[Act, Any], object]

OPERATIONS: Final[dict[type[m.Message], tuple[str, Operation]]] = {
    m.AnswerManagementKey: ("management-key.answer", cards.answer_management_key),
    m.CheckManagementKey: ("management-key.check", cards.check_management_key),
    m.AnswerVendorKey: ("vendor-key.answer", vendor.answer_vendor_key),
    m.CheckVendorKey: ("vendor-key.check", vendor.check_vendor_key),
    m.NewManagementKey: ("management-key.write", cards.new_management_key),
    m.Puk: ("puk", cards.puk),
    m.SignCertificate: ("certificate", signatures.sign_certificate),
    m.SignCrl: ("crl", signatures.sign_crl),
    m.SignOcsp: ("ocsp", signatures.sign_ocsp),
    m.SignContent: ("content", signatures.sign_content),
    m.SignAuditBlock: ("audit-block", signatures.sign_audit_block),
    m.GenerateForEscrow: ("escrow.generate", archive.generate_for_escrow),
    m.WrapForArchive: ("archive.wrap", archive.wrap_for_archive),
    m.BindCertificate: ("archive.bind", archive.bind_certificate),
    m.Rewrap: ("archive.rewrap", archive.rewrap),
    m.RewrapData: ("data.rewrap", archive.rewrap_data),
    m.UnwrapForCard: ("archive.card", archive.unwrap_for_card),
    m.UnwrapForPfx: ("archive.pfx", archive.unwrap_for_pfx),
    m.SealData: ("data.seal", archive.seal_data),
    m.OpenData: ("data.open", archive.open_data),
    m.HmacCommit: ("commit", archive.hmac_commit),
}
"""Each audited operation: its name in the audit, and what carries it out."""


class VaultCore:
    """Opens a vault's directory; locked at first. Not safe for two threads; a second process is refused."""

    def __init__(self, directory: Path, backend: Backend, now: Callable[[], float] = time.time) -> None:
        """Raises VaultExists if another process has it open, VaultDamaged."""
        self.directory = directory
        self.backend = backend
        self.document: Document | None = None
        self.challenges = Challenges()
        self.proofs = Proofs()
        self._closed = False
        self._held = Held(directory)
        try:
            self.file = KeyFile.read(read_bounded(directory / KEY_FILE, MAX_KEY_FILE))
            self.log = AuditLog(directory / AUDIT_FOLDER, now)
        except BaseException:
            self._held.close()
            raise
        self._opened_at = self.log.milliseconds

    @classmethod
    def create(
        cls,
        directory: Path,
        backend: Backend,
        credential: bytes,
        *,
        now: Callable[[], float] = time.time,
        rules: Mapping[str, CertificateRule] | None = None,
        limits: Mapping[str, m.Limit] | None = None,
    ) -> VaultCore:
        """A new vault with a first version of every master key; unlocked. ``rules`` and ``limits`` replace defaults.

        Raises VaultExists, VaultUnlockRefused, OSError.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_empty(directory, now)
        vault_id = str(uuid4())
        backend.create(vault_id, credential)
        masters = tuple(Master(purpose, 1, backend.new_master()) for purpose in MasterPurpose)
        document = Document(vault_id=vault_id, revision=1, masters=masters)
        document.rules.update(rules or {})
        document.limits.update(limits or {})
        file = backend.seal(document)
        content = file.encode()
        # The audit first: one entry and no key file is a creation that did not finish, and may begin again.
        (directory / AUDIT_FOLDER).mkdir(mode=0o700)
        log = AuditLog(directory / AUDIT_FOLDER, now)
        marks = {"vault": vault_id, "epoch": str(document.epoch), "revision": digest_of(content)}
        log.commit(log.add(Draft("create", about={"vault": vault_id}, marks=marks)))
        log.close()
        write_whole(directory / KEY_FILE, content)
        core = cls(directory, backend, now)
        core.document = document
        return core

    def close(self) -> None:
        """Lock, and give the directory free; again does nothing."""
        if self._closed:
            return
        self._closed = True
        self.lock()
        self.log.close()
        self._held.close()

    def lock(self) -> None:
        """Forget every key."""
        self.document = None
        self.proofs.forget()
        self.backend.lock()

    # The server's requests.

    def perform(self, requests: Sequence[m.Message]) -> list[object]:
        """Carry out requests, write the audit of all of them at once, and only then give the answers.

        Each place of the answer is a value or a VaultError.
        """
        answers: list[object] = []
        audited: list[bool] = []
        lines = b""
        for request in requests:
            answer, line = self._one(request)
            answers.append(answer)
            audited.append(bool(line))
            lines += line
        if lines:
            try:
                self.log.commit(lines)
            except (OSError, VaultError) as cause:
                failed = VaultUnavailable("The vault cannot write its audit.")
                failed.__cause__ = cause
                return [failed if wrote else answer for answer, wrote in zip(answers, audited, strict=True)]
        return answers

    def _one(self, request: m.Message) -> tuple[object, bytes]:
        if isinstance(request, m.Status):
            return self.status(), b""
        if self.document is None:
            return VaultLocked("The vault is locked."), b""
        if isinstance(request, m.PublicKey):
            return self._public_key(self.document, request.name), b""
        name, operation = OPERATIONS[type(request)]
        act = Act(self.document, self.backend, self.log, self.challenges, Draft(name))
        try:
            answer = operation(act, request)
        except (VaultRefused, VaultQuota) as refusal:
            return self._refused(act, refusal)
        except CardwrightError as error:
            if isinstance(error, VaultLocked):
                # An HSM that does not take its PIN any more.
                self.lock()
            if isinstance(error, VaultError):
                return error, b""
            return self._refused(act, VaultRefused("request", error.message))
        return answer, self.log.add(act.draft)

    def _refused(self, act: Act, refusal: VaultRefused | VaultQuota) -> tuple[object, bytes]:
        """Refusals are audited as far as their own quota goes, so that nobody fills the disk with them."""
        draft = act.draft
        draft.outcome = f"refused: {refusal.reason if isinstance(refusal, VaultRefused) else refusal.limit}"
        draft.charges, draft.marks = {}, {}
        try:
            act.charge(Charge(REFUSED))
        except VaultQuota:
            return refusal, b""
        return refusal, self.log.add(draft)

    def status(self) -> VaultStatus:
        """See ``Vault.status``."""
        audit = (self.log.entries, bytes.fromhex(self.log.head))
        if self.document is None:
            return VaultStatus(LockState.LOCKED, self.backend.name, self.file.vault_id, *audit)
        document = self.document
        crls = {key[4:]: int(value.partition(":")[0]) for key, value in self.log.marks.items() if key[:4] == "crl:"}
        return VaultStatus(
            LockState.UNLOCKED,
            self.backend.name,
            document.vault_id,
            *audit,
            epoch=document.epoch,
            masters={purpose: document.current(purpose).version for purpose in MasterPurpose},
            ages={purpose: self._ages(document, purpose) for purpose in MasterPurpose},
            keys=tuple(one.info.name for one in document.keys),
            vendors=tuple(one.name for one in document.vendors),
            crl_numbers=crls,
        )

    def _ages(self, document: Document, purpose: MasterPurpose) -> dict[int, float]:
        """Seconds since each version was made. Where that is not known it was before this vault was opened."""
        now = self.log.milliseconds
        versions = [one for one in document.masters if one.purpose is purpose]
        return {one.version: (now - (one.made_at or self._opened_at)) / 1000 for one in versions}

    @staticmethod
    def _public_key(document: Document, name: str) -> PublicKeyInfo | VaultRefused:
        key = document.key(name)
        return VaultRefused("key", "There is no key of this name.") if key is None else key.info

    # The key file.

    def write_document(self, document: Document, draft: Draft) -> None:
        """Replace the key file: announced in the audit before, and settled after. A failure locks the vault.

        Raises VaultUnavailable.
        """
        try:
            file = self.backend.seal(document)
            content = file.encode()
            begin = Draft("save", marks={"prepared": digest_of(content)})
            self.log.commit(self.log.add(begin))
            write_whole(self.directory / KEY_FILE, content)
            draft.marks.update(revision=digest_of(content), epoch=str(document.epoch))
            self.log.commit(self.log.add(draft))
        except (OSError, VaultError) as cause:
            self.lock()
            raise VaultUnavailable("The vault could not save its keys and is locked; unlock it again.") from cause
        self.file, self.document = file, document

    def load_file(self) -> None:
        """Read the key file anew. Raises VaultDamaged if it is not the one that the audit knows."""
        content = read_bounded(self.directory / KEY_FILE, MAX_KEY_FILE)
        _require_known(content, self.log)
        self.file = KeyFile.read(content)


def _require_empty(directory: Path, now: Callable[[], float]) -> None:
    """Raises VaultExists, VaultDamaged. What a creation left that did not finish is removed."""
    audit = directory / AUDIT_FOLDER
    if (directory / KEY_FILE).exists():
        raise VaultExists(f"There is a vault in {directory}.")
    if audit.exists():
        log = AuditLog(audit, now)
        log.close()
        if log.entries > 1:
            raise VaultExists(f"There is the audit of a vault in {directory}, but not its key file.")
        for path in audit.iterdir():
            path.unlink()
        audit.rmdir()


def _require_known(content: bytes, log: AuditLog) -> None:
    """Raises VaultDamaged if a key file is not the last one that was saved, or was about to be."""
    digest = digest_of(content)
    if digest not in (log.marks.get("revision"), log.marks.get("prepared")):
        raise VaultDamaged("The key file is not the one that the vault's audit saw last: one of the two is older.")
    if digest != log.marks.get("revision"):
        log.commit(log.add(Draft("save.found", marks={"revision": digest})))


def digest_of(content: bytes) -> str:
    """A key file as the audit names it."""
    return hashlib.sha256(content).hexdigest()


class Held:
    """An exclusive lock on a directory, while this is open."""

    def __init__(self, directory: Path) -> None:
        """Raises VaultExists if another process, or another object here, has it."""
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise VaultExists(f"Another process has the vault in {directory} open.") from None

    def close(self) -> None:
        """Give it free."""
        os.close(self._descriptor)
