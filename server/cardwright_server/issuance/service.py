"""Issuing: a request is checked, its serial and TBSCertificate are committed, and only then the vault signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..audit.model import AuditEntry, Outcome, Target, Who
from ..machine import Actor
from ..notify.model import DomainEvent
from ..policies.model import Origin
from ..store.unit import Database, Unit
from ..vault.errors import VaultRefused
from ..vault.protocol import Vault
from . import names, store
from .backend import EMBEDDED, AuthorityBackend, BackendAnswer, Declined, Later, Signed, issuer_info, sign_embedded
from .card_keys import PIN_SLOT
from .errors import CertificateRefused, NoSuchAuthority, OriginRefused, RequestReused
from .journal import issue_event, revoke_event, signed_event
from .model import (
    CERTIFICATE,
    ORDER,
    UNRELEASED,
    WITHOUT_HOLD,
    Answer,
    Authority,
    Certificate,
    CertificateEvent,
    CertificateState,
    Holder,
    HolderKind,
    Issued,
    Order,
    OrderEvent,
    OrderState,
    Pending,
    Purpose,
    Refused,
    RevocationReason,
    key_fingerprint,
)
from .names import HolderNames
from .origin import evaluate
from .profiles import Profile, Profiles
from .requests import CertificateRequest, check_key, check_proof, policies_for
from .tbs import BACKDATED, Draft, Places, build, hexadecimal, new_serial

STALE = timedelta(hours=20)
"""A TBSCertificate older than this is signed no more: the vault wants one of about now."""
SHORTEST = timedelta(days=1)
IN_FLIGHT = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was committed and waits for a signature: by ``IssuanceService.sign``, after the commit.

    ``certificate`` and ``authority`` are None where another authority makes it.
    """

    order: Order
    certificate: Certificate | None
    authority: Authority | None


@dataclass(frozen=True, slots=True)
class Settings:
    """What an installation decides. ``base``: the part of subjects that all have.

    ``known`` are roots and intermediates of makers of tokens. ``routes``: profiles that another backend certifies, and
    the name of its authority, whose certificate judges what comes back.
    """

    places: Places
    base: x509.Name
    known: tuple[x509.Certificate, ...] = ()
    routes: Mapping[str, str] = field(default_factory=dict)


class IssuanceService:
    """Issues certificates. Stateless but for what it is made with."""

    def __init__(
        self, profiles: Profiles, vault: Vault, settings: Settings, backends: Sequence[AuthorityBackend] = ()
    ) -> None:
        self.profiles = profiles
        self.settings = settings
        self._vault = vault
        self._backends = {one.name: one for one in backends}

    def require_names(self, name: str, holder: HolderNames, *, strict: bool) -> None:
        """Refuse what a certificate of this profile could not say, before anybody makes a key for it.

        What another authority says besides the subject it knows by itself. Raises NameMissing, CertificateRefused.
        """
        profile = self.profiles.pick(name, strict=strict)
        if profile.name in self.settings.routes:
            names.subject(profile, holder, self.settings.base)
        else:
            names.require_names(profile, holder, self.settings.base)

    async def certify(self, database: Database, who: Who, request: CertificateRequest) -> Answer:
        """Issue, or go on where an earlier call with the same ``request.id`` stopped.

        Raises RequestReused, NoSuchAuthority, VaultError, StoreError; none of them harms: call again.
        """
        try:
            prepared = await database.transact(partial(self.prepare, who=who, request=request))
        except (CertificateRefused, OriginRefused) as refusal:
            await database.transact(partial(_note_refusal, who=who, request=request, reason=refusal.reason))
            return Refused(refusal.reason, refusal.message)
        if not isinstance(prepared, Prepared):
            return prepared
        return await self.complete(database, who, prepared)

    async def complete(self, database: Database, who: Who, prepared: Prepared) -> Answer:
        """The rest of ``certify``, after the commit of ``prepare``. Raises as that."""
        answer = await self.sign(prepared)
        return await database.transact(partial(self.record, who=who, prepared=prepared, answer=answer))

    async def prepare(self, unit: Unit, who: Who, request: CertificateRequest) -> Prepared | Answer:
        """Check a request, and record what will be signed. Several may share a unit.

        Raises CertificateRefused, OriginRefused, RequestReused, NoSuchAuthority.
        """
        order = await store.order_by_request(unit, request.org, request.id)
        if order is not None:
            if order.asked != request.digest:
                raise RequestReused("a request of this id asked for something else")
            return await self._again(unit, order)
        profile = self.profiles.pick(request.profile, strict=request.strict)
        public_key = check_key(request, profile)
        check_proof(request)
        made = await store.certificate_by_request(unit, request.org, request.id)
        if made is not None:
            return await _made_before(unit, request, profile, made)
        origin = evaluate(request.evidence, request.expected, self.settings.known)
        policies = policies_for(request, profile, origin)
        await _refuse_shared_key(unit, request)
        backend = self.settings.routes.get(profile.name, EMBEDDED)
        if backend != EMBEDDED:
            if backend not in self._backends:
                raise NoSuchAuthority(f"there is no authority backend '{backend}'")
            return Prepared(await _ask(unit, request, profile, backend, origin, None), None, None)
        authority = await active_authority(unit, request.org, profile.purpose)
        begin = (unit.now - BACKDATED).replace(microsecond=0)
        draft = Draft(
            profile=profile,
            issuer=issuer_info(authority, profile),
            public_key=public_key,
            subject=names.subject(profile, request.names, self.settings.base),
            serial=new_serial(),
            not_before=begin,
            not_after=await _end(unit, request, profile, authority, begin),
            policies=policies,
            extensions=tuple(names.extensions(profile, request.names)),
        )
        certificate = await keep(unit, who, request, authority, draft, origin, self.settings.places)
        order = await _ask(unit, request, profile, backend, origin, certificate)
        return Prepared(order, certificate, authority)

    async def sign_certificate(self, certificate: Certificate, authority: Authority) -> BackendAnswer:
        """Have the vault sign what was committed. What the vault refuses is declined. Raises other VaultErrors."""
        if certificate.certificate:
            return Signed(certificate.certificate)
        try:
            rule = self.profiles.pick(certificate.profile).rule
            return await sign_embedded(self._vault, authority, certificate, rule)
        except VaultRefused as refusal:
            return Declined(f"vault-{refusal.reason}")

    async def sign(self, prepared: Prepared) -> BackendAnswer:
        """Have it signed; after the commit of ``prepare`` only. Touches no table.

        Raises VaultError and what a backend raises. What the vault refuses is declined.
        """
        order, certificate, authority = prepared.order, prepared.certificate, prepared.authority
        if certificate is None or authority is None:
            backend = self._backends[order.backend]
            return await (backend.collect(order) if order.state is OrderState.PENDING else backend.submit(order))
        return await self.sign_certificate(certificate, authority)

    async def record(self, unit: Unit, who: Who, prepared: Prepared, answer: BackendAnswer) -> Answer:
        """Keep what ``sign`` brought. The first signature counts; others get what it made."""
        order = prepared.order
        if prepared.certificate is not None:
            return await self.record_certificate(unit, who, prepared.certificate, order, answer)
        match answer:
            case Later():
                ORDER.next(order.state, OrderEvent.WAIT, Actor.SERVER)
                values = {"state": OrderState.PENDING, "reference": answer.reference[:200]}
                await store.answer_order(unit, order.id, values)
            case Declined():
                await _refuse(unit, who, order, answer.reason)
            case Signed():
                try:
                    await self._adopt(unit, who, order, answer.certificate)
                except CertificateRefused as refusal:
                    await _refuse(unit, who, order, refusal.reason)
        present = await store.order_by_request(unit, order.org, order.request)
        assert present is not None
        result = await self._again(unit, present)
        return result if not isinstance(result, Prepared) else Pending(order.id)

    async def collect(self, database: Database, who: Who, limit: int = 100) -> list[Answer]:
        """Ask other authorities for what is pending. Raises what backends raise, and StoreError."""
        orders = await database.read(lambda unit: store.open_orders(unit, [OrderState.PENDING], limit))
        return [await self.complete(database, who, Prepared(order, None, None)) for order in orders]

    async def recover(self, database: Database, who: Who, limit: int = 100) -> int:
        """Sign what a crash left prepared; what is too old for that is revoked. Gives the number of both.

        Raises VaultError, StoreError.
        """

        async def find(unit: Unit) -> list[tuple[Certificate, Authority, bool]]:
            rows = await store.unsigned(unit, unit.now - IN_FLIGHT, limit)
            stale = unit.now - STALE
            return [(one, await store.authority_by_id(unit, one.authority), one.not_before < stale) for one in rows]

        found = await database.read(find)
        for certificate, authority, stale in found:
            answer = Declined("stale") if stale else await self.sign_certificate(certificate, authority)

            async def settle(
                unit: Unit, certificate: Certificate = certificate, answer: BackendAnswer = answer
            ) -> Answer:
                order = await store.order_by_request(unit, certificate.org, certificate.request)
                return await self.record_certificate(unit, who, certificate, order, answer)

            await database.transact(settle)
        return len(found)

    async def _again(self, unit: Unit, order: Order) -> Prepared | Answer:
        match order.state:
            case OrderState.REFUSED:
                return Refused(order.refusal, f"This request was refused: {order.refusal}.")
            case OrderState.ISSUED:
                assert order.certificate is not None
                return Issued(await _required(unit, order.org, order.certificate))
        if order.certificate is None:
            return Prepared(order, None, None)
        certificate = await _required(unit, order.org, order.certificate)
        return Prepared(order, certificate, await store.authority_by_id(unit, certificate.authority))

    async def record_certificate(
        self, unit: Unit, who: Who, certificate: Certificate, order: Order | None, answer: BackendAnswer
    ) -> Answer:
        """Keep the signature of one that the embedded authority makes, or give it up."""
        present = await _required(unit, certificate.org, certificate.id)
        if present.state is CertificateState.PREPARED:
            if isinstance(answer, Signed):
                present = await _keep_signed(unit, who, present, answer.certificate)
            else:
                reason = answer.reason if isinstance(answer, Declined) else "later"
                await _give_up(unit, who, present, reason)
        if not present.certificate:
            reason = answer.reason if isinstance(answer, Declined) else "given-up"
            if order is not None and order.state is not OrderState.REFUSED:
                await _refuse(unit, who, order, reason)
            return Refused(reason, f"It was not signed ({reason}); ask under a new request.")
        if order is not None and order.state is not OrderState.ISSUED:
            ORDER.next(order.state, OrderEvent.ISSUE, Actor.SERVER)
            await store.answer_order(
                unit, order.id, {"state": OrderState.ISSUED, "answered_at": unit.now, "certificate": present.id}
            )
        return Issued(present)

    async def _adopt(self, unit: Unit, who: Who, order: Order, der: bytes) -> None:
        """Take over what another authority made, if it is what was asked for. Raises CertificateRefused."""
        present = await store.order_by_request(unit, order.org, order.request)
        if present is None or present.state in ORDER.final:
            return  # answered to another process meanwhile, in whatever way: the first answer counts
        authority = await store.authority_by_name(unit, order.backend)
        if authority is None or not authority.foreign or not authority.certificate:
            raise NoSuchAuthority(f"the certificate of the authority {order.backend} is not known")
        try:
            made = x509.load_der_x509_certificate(der)
            made.verify_directly_issued_by(authority.x509)
            key = made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, TypeError, InvalidSignature) as cause:
            raise CertificateRefused("issuer", "What came back is not by that authority.") from cause
        if key != order.public_key:
            raise CertificateRefused("key", "What came back is for another key.")
        now = unit.now
        if not made.not_valid_before_utc <= now + BACKDATED or made.not_valid_after_utc <= now:
            raise CertificateRefused("validity", "What came back is not valid now.")
        held = order.holder.kind not in WITHOUT_HOLD
        values = {
            "org": order.org,
            "request": order.request,
            "authority": authority.id,
            "serial": hexadecimal(made.serial_number),
            "profile": order.profile,
            "profile_version": order.profile_version,
            **store.holder_values(order.holder),
            "key": key_fingerprint(key),
            "origin": order.origin,
            "state": CertificateState.HELD if held else CertificateState.GOOD,
            "holds": [UNRELEASED] if held else [],
            "status_at": now,
            "reason": None,
            "not_before": made.not_valid_before_utc,
            "not_after": made.not_valid_after_utc,
            "session": order.session,
            "tbs": made.tbs_certificate_bytes,
            "certificate": der,
        }
        certificate = await store.insert_certificate(unit, values)
        unit.beforehand(issue_event(certificate, authority))
        ORDER.next(order.state, OrderEvent.ISSUE, Actor.SERVER)
        await store.answer_order(
            unit, order.id, {"state": OrderState.ISSUED, "answered_at": now, "certificate": certificate.id}
        )
        _note(unit, who, certificate, "certificate.issue")


async def active_authority(unit: Unit, org: UUID, purpose: Purpose) -> Authority:
    """The authority that certifies for a purpose now. Raises NoSuchAuthority."""
    authority = await store.authority_for(unit, org, purpose)
    if authority is None or not authority.certificate:
        raise NoSuchAuthority(f"there is no authority for {purpose}")
    return authority


async def keep(
    unit: Unit,
    who: Who,
    request: CertificateRequest,
    authority: Authority,
    draft: Draft,
    origin: Origin,
    places: Places,
) -> Certificate:
    """Record serial and TBSCertificate, here and on the second medium, before anybody signs."""
    transition = CERTIFICATE.next(None, CertificateEvent.PREPARE, Actor.SERVER)
    values = {
        "org": request.org,
        "request": request.id,
        "authority": authority.id,
        "serial": hexadecimal(draft.serial),
        "profile": draft.profile.name,
        "profile_version": draft.profile.version,
        **store.holder_values(request.holder),
        "key": key_fingerprint(request.expected.public_key),
        "origin": origin,
        "state": transition.target,
        "holds": [] if request.holder.kind in WITHOUT_HOLD else [UNRELEASED],
        "status_at": unit.now,
        "reason": None,
        "not_before": draft.not_before,
        "not_after": draft.not_after,
        "session": request.session,
        "tbs": build(draft, places),
        "certificate": b"",
    }
    certificate = await store.insert_certificate(unit, values)
    unit.beforehand(issue_event(certificate, authority))
    _note(unit, who, certificate, "certificate.prepare")
    return certificate


async def _ask(
    unit: Unit,
    request: CertificateRequest,
    profile: Profile,
    backend: str,
    origin: Origin,
    certificate: Certificate | None,
) -> Order:
    transition = ORDER.next(None, OrderEvent.ASK, Actor.SERVER)
    values = {
        "org": request.org,
        "request": request.id,
        "asked": request.digest,
        "backend": backend,
        "state": transition.target,
        "certificate": certificate.id if certificate is not None else None,
        "reference": "",
        "refusal": "",
        "profile": profile.name,
        "profile_version": profile.version,
        **store.holder_values(request.holder),
        "origin": origin,
        "public_key": request.expected.public_key,
        "csr": request.proof,
        "session": request.session,
    }
    return await store.insert_order(unit, values)


async def _made_before(
    unit: Unit, request: CertificateRequest, profile: Profile, made: Certificate
) -> Prepared | Answer:
    """The answer where the certificate is known and the order is not: a restore puts back the one only (S11)."""
    same = (made.holder, made.key, made.profile) == (
        request.holder, key_fingerprint(request.expected.public_key), profile.name,
    )  # fmt: skip
    if not same:
        raise RequestReused("a request of this id asked for something else")
    if made.certificate:
        return Issued(made)
    order = await _ask(unit, request, profile, EMBEDDED, made.origin, made)
    return Prepared(order, made, await store.authority_by_id(unit, made.authority))


async def _keep_signed(unit: Unit, who: Who, certificate: Certificate, der: bytes) -> Certificate:
    held = bool(certificate.holds)
    transition = CERTIFICATE.next(certificate.state, CertificateEvent.SIGN, Actor.SERVER, lambda guard: held)
    values = {"state": transition.target, "certificate": der, "status_at": unit.now}
    if not await store.keep_signed(unit, certificate.id, values):
        return await _required(unit, certificate.org, certificate.id)
    unit.beforehand(signed_event(certificate, der))
    _note(unit, who, certificate, "certificate.issue")
    return replace(
        certificate, state=transition.target, certificate=der, status_at=unit.now, version=certificate.version + 1
    )


async def _give_up(unit: Unit, who: Who, certificate: Certificate, reason: str) -> None:
    """A signature over it may exist, even if it was never seen: it is revoked, not forgotten."""
    transition = CERTIFICATE.next(certificate.state, CertificateEvent.REVOKE, Actor.SERVER)
    why = RevocationReason.CESSATION_OF_OPERATION
    unit.beforehand(revoke_event(certificate, why))
    values = {"state": transition.target, "holds": [], "reason": why, "status_at": unit.now}
    await store.update_certificate(unit, certificate, values)
    _note(unit, who, certificate, "certificate.give-up", reason=reason)


async def _refuse(unit: Unit, who: Who, order: Order, reason: str) -> None:
    ORDER.next(order.state, OrderEvent.REFUSE, Actor.SERVER)
    values = {"state": OrderState.REFUSED, "refusal": reason[:60], "answered_at": unit.now}
    if await store.answer_order(unit, order.id, values):
        target = Target("certificate-order", order.id)
        facts = {"reason": reason[:60], "profile": order.profile}
        unit.audit(AuditEntry(order.org, who, "certificate.refuse", target, Outcome.REFUSED, facts=facts))


async def _note_refusal(unit: Unit, who: Who, request: CertificateRequest, reason: str) -> None:
    target = Target(request.holder.kind, request.holder.id)
    facts = {"reason": reason, "profile": request.profile[:60], "request": str(request.id)}
    entry = AuditEntry(
        request.org, who, "certificate.refuse", target, Outcome.REFUSED, facts=facts, session=request.session
    )
    unit.audit(entry)


def _note(unit: Unit, who: Who, certificate: Certificate, action: str, **facts: str) -> None:
    holder = str(certificate.holder.id)
    about = {"serial": certificate.serial, "profile": certificate.profile, "holder": holder, **facts}
    target = Target("certificate", certificate.id)
    unit.audit(AuditEntry(certificate.org, who, action, target, facts=about, session=certificate.session))
    if action == "certificate.issue":
        data = {"serial": certificate.serial, "holder": str(certificate.holder.id), "part": certificate.holder.part}
        person = certificate.holder.person
        unit.emit(DomainEvent(certificate.org, "certificate.issued", "certificate", certificate.id, person, data))


async def _required(unit: Unit, org: UUID, identifier: UUID) -> Certificate:
    certificate = await store.certificate_by_id(unit, org, identifier)
    assert certificate is not None
    return certificate


async def _refuse_shared_key(unit: Unit, request: CertificateRequest) -> None:
    """A key has one holder and one part there (slot); in it, it may be certified again.

    A person's card may also be what they connect with as an operator: its login key then has a certificate for that.
    """
    for other in await store.certificates_of_key(unit, key_fingerprint(request.expected.public_key)):
        mine = (request.org, request.holder.kind, request.holder.id, request.holder.part)
        if (other.org, other.holder.kind, other.holder.id, other.holder.part) == mine:
            continue
        if other.org != request.org or not _is_operators_card(request.holder, other.holder):
            raise CertificateRefused("key-in-use", "This key is already another holder's, or another slot's.")


def _is_operators_card(*holders: Holder) -> bool:
    """Whether these two are an operator's account and the login key of a card, of one person."""
    parts = {(one.kind, one.part) for one in holders}
    persons = {one.person for one in holders}
    wanted = {(HolderKind.OPERATOR, ""), (HolderKind.DEVICE_SLOT, PIN_SLOT)}
    return parts == wanted and len(persons) == 1 and None not in persons


async def _end(
    unit: Unit, request: CertificateRequest, profile: Profile, authority: Authority, begin: datetime
) -> datetime:
    ends = [begin + profile.validity, authority.x509.not_valid_after_utc]
    if profile.within_card and request.until is not None:
        ends.append(request.until)
    if profile.within_signer:
        signers = await store.certificates_of_holder(unit, request.org, HolderKind.CONTENT_SIGNER, authority.id)
        ends += [one.not_after for one in signers if one.state is CertificateState.GOOD][:1]
    end = min(ends).replace(microsecond=0)
    if end < unit.now + SHORTEST:
        raise CertificateRefused("validity", "Card, authority or content signer end within a day: renew that first.")
    return end
