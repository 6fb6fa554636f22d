"""The server's answers to what a plan needs: from vault, issuance and escrow, within what the policy allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan import authority as ask
from cardwright_cardops.plan.capabilities import backend_of
from cardwright_cardops.plan.inventory import fingerprint
from cardwright_cardops.plan.planner import RECOVERED
from cardwright_cardops.plan.records import Kind, fold
from cardwright_cardops.plan.steps import (
    GenerateKey,
    ImportKey,
    Plan,
    SetManagementKey,
    SetPuk,
    SetRetries,
    WriteCertificate,
    WriteObject,
)
from cardwright_cardops.program.items import SignRequest

from ..issuance.service import SHORTEST
from ..policies.compliance import Act, ActKind, Place, require
from ..policies.model import ClearSecrets, Origin
from .errors import CardEnds, ClearSecretsRefused, EnrolmentMissing, OriginTooWeak, SealedSessionNeeded
from .ledger import Ledger
from .model import Purpose
from .ports import CertificateOrder, Certificates, Escrow, Task
from .secrets import CardSecrets

BIOMETRIC = frozenset((containers.FINGERPRINTS.tag, containers.FACIAL_IMAGE.tag, containers.IRIS.tag))
"""Records that are kept nowhere but in the vault's care, so not in a card's journal."""
_CLEAR = (SetPuk, SetRetries, SetManagementKey, ImportKey)
_ACTS: Mapping[Purpose, ActKind] = {
    # What is called re-issue here keeps card and numbers: to the standard it is an update.
    Purpose.UPDATE: ActKind.UPDATE,
    Purpose.REISSUE: ActKind.UPDATE,
    Purpose.UNLOCK: ActKind.RESET_PIN,
    Purpose.UNLOCK_ASSISTED: ActKind.RESET_PIN,
    Purpose.FORGOTTEN_PIN: ActKind.RESET_PIN,
}
"""What a session is to FIPS 201-3. Issuance is closed by the methods that open it; erasing and proving are free."""


def require_allowed(plan: Plan, task: Task, now: datetime, *, attests: bool) -> None:
    """Refuse before the first write what this session may never finish (S1, S2).

    ``attests``: the card can state where it made a key.
    Raises ComplianceRefused, CardEnds, ClearSecretsRefused, OriginTooWeak, EnrolmentMissing.
    """
    policy, act = task.policy, _ACTS.get(task.purpose)
    if plan and act is not None and not task.trusted:
        # At a trusted station the holder is there, and somebody who answers for what FIPS 201-3 wants.
        require(policy, Act(act, Place.REMOTE, sealed=False))
    certifies = any(isinstance(step, WriteCertificate) and step.profile != RECOVERED for step in plan.steps)
    if certifies and card_end(task) < now + SHORTEST:
        raise CardEnds(f"The card ends on {task.expires}, so no certificate is issued for it any more.")
    if any(isinstance(step, _CLEAR) for step in plan.steps) and not policy.clear_secrets.allows(trusted=task.trusted):
        never = policy.clear_secrets is ClearSecrets.NEVER
        raise (SealedSessionNeeded if never else ClearSecretsRefused)(
            f"The policy {policy.name} does not let this workstation see secrets of a card ({policy.clear_secrets})."
        )
    for step in plan.steps:
        if isinstance(step, ImportKey) or (isinstance(step, GenerateKey) and not attests):
            require_origin(task, step.slot)
    records = [step.tag for step in plan.steps if isinstance(step, WriteObject) and step.tag in BIOMETRIC]
    if records:
        names = ", ".join(containers.CONTAINERS[tag].name for tag in records)
        raise EnrolmentMissing(f"The policy {policy.name} wants {names} on the card, and no enrolment took that.")


def card_end(task: Task) -> datetime:
    """The last moment of the card's last day."""
    return datetime.combine(task.expires, time(23, 59, 59), UTC)


def origin_of(task: Task) -> Origin:
    """What an open session proves of a key: the workstation's word, if it is a trusted station.

    A station knows of a PKCS#11 module no more than the module says of itself.
    """
    return Origin.TRUSTED_STATION if task.trusted and not task.token else Origin.UNPROVEN


def require_origin(task: Task, slot: Slot) -> Origin:
    """The origin of a key of this session. Raises OriginTooWeak where the policy wants better proof."""
    origin, least = origin_of(task), task.policy.least_origin.get(slot, Origin.UNPROVEN)
    if not origin.proves(least):
        raise OriginTooWeak(f"The key of slot {slot.label} would be {origin}, the policy wants {least}.")
    return origin


def needs_statement(task: Task, slot: Slot) -> bool:
    """Whether only the card's own statement can prove of a key what the policy wants."""
    return not origin_of(task).proves(task.policy.least_origin.get(slot, Origin.UNPROVEN))


class SessionAuthority:
    """``RemoteAuthority`` of one session. ``contents`` are those that were shown."""

    def __init__(
        self,
        task: Task,
        ledger: Ledger,
        secrets: CardSecrets,
        certificates: Certificates,
        escrow: Escrow,
        contents: Mapping[int, bytes],
        now: datetime,
    ) -> None:
        self._task = task
        self._ledger = ledger
        self._secrets = secrets
        self._certificates = certificates
        self._escrow = escrow
        self._contents = contents
        self._now = now

    async def preflight(self, plan: Plan, *, attests: bool) -> None:
        """Refuse before the first write what this session may never finish.

        Raises as ``require_allowed``, and what issuance raises where a certificate lacks a name.
        """
        require_allowed(plan, self._task, self._now, attests=attests)
        issued = fold(self._ledger.entries).certificates
        due = [step for step in plan.steps if isinstance(step, WriteCertificate) and step.profile != RECOVERED]
        profiles = {step.profile for step in due if (step.slot, step.key) not in issued}
        if profiles:
            await self._certificates.require_names(self._task, profiles)

    async def answer(self, questions: tuple[ask.Question, ...]) -> tuple[ask.Reply, ...]:
        """One reply for each question. Raises OriginTooWeak, VaultError, and what issuance and escrow raise."""
        match questions[0]:
            case ask.Certify():
                return await self._certify([one for one in questions if isinstance(one, ask.Certify)])
            case ask.Signed():
                return await self._signed([one for one in questions if isinstance(one, ask.Signed)])
        return tuple([await self._one(question) for question in questions])

    async def _one(self, question: ask.Question) -> ask.Reply:
        match question:
            case ask.Preflight():
                attests = backend_of(question.inventory.features).attests
                await self.preflight(question.plan, attests=attests)
                return ask.Granted(self._task.guid)
            case ask.KeyAlgorithms():
                return await self._secrets.algorithms(question)
            case ask.AnswerWitness():
                return await self._secrets.answer(question)
            case ask.CheckWitness():
                return await self._secrets.check(question)
            case ask.NewManagementKey():
                return await self._secrets.new_management_key(question.algorithm)
            case ask.Puk():
                return await self._secrets.puk(question.name)
            case ask.KeyToImport():
                return await self._key(question)
            case ask.SignsAhead():
                return await self._sign_first(question.slot, question.profile)
            case ask.ObjectContent():
                content = self._contents.get(question.tag)
                if content is None:
                    return ask.Refused(f"the preview did not show {containers.CONTAINERS[question.tag].name}.")
                if question.tag not in BIOMETRIC:
                    self._ledger.put(question.tag, content)
                return ask.Issued(content)
        return ask.Refused("it does not know this question.")

    async def _key(self, question: ask.KeyToImport) -> ask.Reply:
        """The archived key; one that an unfinished session made, or began to import, is imported again."""
        wanted = question.fingerprint or self._begun(question)
        rows = [row for row in self._ledger.entries if row.kind is Kind.KEY and row.slot is question.slot]
        sent = {row.fingerprint for row in rows}
        key = await self._escrow.key(
            self._task, self._ledger.session.id, question.slot, question.algorithm, wanted, sent
        )
        return ask.KeyGiven(key)

    def _begun(self, question: ask.KeyToImport) -> str:
        mark = ""
        for row in self._ledger.entries:
            if row.slot is not question.slot:
                continue
            if row.kind is Kind.KEY and row.algorithm == question.algorithm:
                mark = row.fingerprint
            elif row.kind is Kind.WRITTEN:
                mark = ""
        return mark

    # -------------------------------------------------------------------------------------------- certificates

    async def _certify(self, questions: Sequence[ask.Certify]) -> tuple[ask.Reply, ...]:
        replies: list[ask.Reply | None] = []
        orders: list[CertificateOrder] = []
        for one in questions:
            kept = self._issued(one)
            if kept is not None:
                replies.append(ask.Issued(kept))
            elif one.private_key is None and not self._is_archived(one):
                replies.append(await self._sign_first(one.slot, one.profile))
            else:
                orders.append(self._order(one, b""))
                replies.append(None)
        issued = iter(await self._ordered(orders))
        return tuple([next(issued) if reply is None else reply for reply in replies])

    async def _sign_first(self, slot: Slot, profile: str) -> ask.SignFirst:
        subject = await self._certificates.subject(self._task, slot, profile)
        return ask.SignFirst(SignRequest(slot, subject), attest=needs_statement(self._task, slot))

    async def _signed(self, questions: Sequence[ask.Signed]) -> tuple[ask.Reply, ...]:
        wrong = [not _asks_for(one) for one in questions]
        good = [one for one, bad in zip(questions, wrong, strict=True) if not bad]
        orders = [self._order(one.request, one.answer, one.statement, one.signer) for one in good]
        issued = iter(await self._ordered(orders))
        refusal = ask.Refused("the request is not signed by the key that the card showed.")
        return tuple([refusal if bad else next(issued) for bad in wrong])

    async def _ordered(self, orders: Sequence[CertificateOrder]) -> tuple[ask.Issued | ask.Pending | ask.Refused, ...]:
        """Have orders carried out, and note where their keys came from: what was proven, not what was claimed."""
        replies = await self._certificates.certify(orders, self._ledger.also) if orders else ()
        for order, reply in zip(orders, replies, strict=True):
            if not isinstance(reply, ask.Refused):
                der = order.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                self._ledger.key(order.slot, fingerprint(order.public_key), der, order.origin)
        return replies

    def _order(
        self, one: ask.Certify, request: bytes, statement: bytes = b"", signer: bytes = b""
    ) -> CertificateOrder:
        if request and needs_statement(self._task, one.slot) and statement:
            origin = Origin.ATTESTED
        else:
            origin, statement, signer = require_origin(self._task, one.slot), b"", b""
        return CertificateOrder(
            self._task,
            self._ledger.session.id,
            one.slot,
            one.algorithm,
            one.profile,
            one.public_key,
            origin,
            request,
            statement,
            signer,
        )

    def _issued(self, one: ask.Certify) -> bytes | None:
        """The certificate that an earlier session recorded for this key, while it is valid."""
        mark = fingerprint(one.public_key)
        for row in reversed(self._ledger.entries):
            if row.kind is Kind.CERTIFICATE and row.slot is one.slot and row.fingerprint == mark and row.value:
                der = row.value.reveal()
                return der if x509.load_der_x509_certificate(der).not_valid_after_utc > self._now else None
        return None

    def _is_archived(self, one: ask.Certify) -> bool:
        mark = fingerprint(one.public_key)
        return any(row.kind is Kind.KEY and row.fingerprint == mark for row in self._ledger.entries)


def _asks_for(signed: ask.Signed) -> bool:
    """Whether what the workstation brought is a request of the key, in the name that was asked for."""
    if not isinstance(signed.item, SignRequest):
        return False
    try:
        request = x509.load_der_x509_csr(signed.answer)
        same = request.public_key() == signed.request.public_key
        return same and request.is_signature_valid and request.subject.public_bytes() == signed.item.subject
    except (ValueError, InvalidSignature):
        return False
