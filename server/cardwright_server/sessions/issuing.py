"""``Certificates`` by the issuance domain: one transaction before the vault signs for a stage, one after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from uuid import UUID, uuid5

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan import authority as ask
from cardwright_cardops.plan.inventory import fingerprint

from ..audit.model import SERVER
from ..authentication.principal import Principal
from ..issuance import status
from ..issuance.backend import Signed as Made
from ..issuance.errors import CertificateRefused, NameMissing, OriginRefused
from ..issuance.model import Answer, CertificateState, Holder, HolderKind, Issued, Pending, Refused, RevocationReason
from ..issuance.names import subject
from ..issuance.origin import Attested, Evidence, Expected, MadeHere, Station
from ..issuance.requests import CertificateRequest
from ..issuance.service import IssuanceService, Prepared
from ..machine import Actor
from ..policies.model import Origin
from ..store.errors import StaleVersion
from ..store.unit import Database, Unit
from .authority import card_end
from .ports import Also, CertificateOrder, Names, Task

_REVOKED = CertificateState.REVOKED


class IssuedCertificates:
    """The embedded or another authority, behind ``IssuanceService``."""

    def __init__(self, database: Database, service: IssuanceService, names: Names) -> None:
        self._database = database
        self._service = service
        self._names = names

    async def subject(self, task: Task, slot: Slot, profile: str) -> bytes:
        """See ``Certificates``. Raises CertificateRefused."""
        chosen = self._service.profiles.pick(profile, strict=task.policy.strict)
        return subject(chosen, await self._names.names(task), self._service.settings.base).public_bytes()

    async def require_names(self, task: Task, profiles: Set[str]) -> None:
        """See ``Certificates``. Raises NameMissing, CertificateRefused, NoSuchPerson, FieldMissing, StoreError."""
        names = await self._names.names(task)
        for profile in sorted(profiles):
            try:
                self._service.require_names(profile, names, strict=task.policy.strict)
            except NameMissing as lacks:
                raise NameMissing(lacks.profile, lacks.missing, self._names.made_of(lacks.missing)) from lacks

    async def certify(
        self, orders: Sequence[CertificateOrder], also: Also | None = None
    ) -> tuple[ask.Issued | ask.Pending | ask.Refused, ...]:
        """See ``Certificates``. Raises RequestReused, NoSuchAuthority, VaultError, StoreError."""
        requests = [await self._request(order) for order in orders]

        async def prepare(unit: Unit) -> list[Prepared | Answer]:
            found: list[Prepared | Answer] = []
            for request in requests:
                try:
                    found.append(await self._prepared(unit, request))
                except (CertificateRefused, OriginRefused) as refusal:
                    found.append(Refused(refusal.reason, refusal.message))
            return found

        prepared = await self._database.transact(prepare)
        waiting = [one for one in prepared if isinstance(one, Prepared)]
        signed = [(one, await self._service.sign(one)) for one in waiting]

        async def record(unit: Unit) -> list[Answer]:
            return [await self._service.record(unit, SERVER, one, answer) for one, answer in signed]

        # Only what the embedded authority signed is sure to be kept as it is.
        whole = [answer.certificate for one, answer in signed if isinstance(answer, Made) and one.certificate]
        if also is not None and len(whole) == len(signed):
            if whole:
                also(partial(_as_signed, record, whole))
            here = iter(whole)
            return tuple([ask.Issued(next(here)) if isinstance(one, Prepared) else _reply(one) for one in prepared])
        recorded = iter(await self._database.transact(record) if signed else ())
        return tuple([_reply(next(recorded) if isinstance(one, Prepared) else one) for one in prepared])

    async def revoked(self, unit: Unit, task: Task) -> frozenset[str]:
        """See ``Certificates``."""
        mine = await status.of_device(unit, task.org, task.device)
        return frozenset({one.key for one in mine} - {one.key for one in mine if one.state is not _REVOKED})

    async def settle(
        self, unit: Unit, principal: Principal, task: Task, session: UUID, keys: Mapping[Slot, str], bare: Set[str]
    ) -> None:
        """See ``Certificates``."""
        mine = await status.of_device(unit, task.org, task.device)
        here = {(slot.label.lower(), mark) for slot, mark in keys.items()}
        gone = [one for one in mine if (one.holder.part, one.key) not in here and one.key not in bare]
        await status.revoke(unit, principal.who, Actor.SERVER, gone, RevocationReason.SUPERSEDED)
        if task.waits:
            return
        kept = {one.session for one in mine if one not in gone and one.state is CertificateState.HELD}
        for made_in in kept - {None}:
            assert made_in is not None
            await status.release(unit, principal.who, task.org, made_in)

    async def _prepared(self, unit: Unit, request: CertificateRequest) -> Prepared | Answer:
        """The request, or what it became. What was revoked since, with an issuance that failed, is asked for anew."""
        while True:
            found = await self._service.prepare(unit, SERVER, request)
            if not isinstance(found, Issued) or found.certificate.state is not _REVOKED:
                return found
            request = replace(request, id=uuid5(request.id, found.certificate.serial))

    async def _request(self, order: CertificateOrder) -> CertificateRequest:
        task, row = order.task, order.task.policy.card.slot(order.slot)
        public = order.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        part = order.slot.label.lower()
        trusted = order.origin is Origin.TRUSTED_STATION
        evidence: Evidence = MadeHere(trusted)
        if order.statement:
            evidence = Attested(order.statement, order.signer)
        elif order.request:
            evidence = Station(trusted)
        return CertificateRequest(
            # The same key in the same slot is the same request, whichever session asks.
            id=uuid5(task.device, f"{part} {fingerprint(order.public_key)} {task.guid}"),
            org=task.org,
            profile=order.profile,
            holder=Holder(HolderKind.DEVICE_SLOT, task.device, part, task.person),
            names=await self._names.names(task),
            expected=Expected(public, order.slot, serial=task.serial)
            if row is None
            else Expected(public, order.slot, row.pin_policy, row.touch_policy, task.serial),
            proof=order.request,
            evidence=evidence,
            least_origin=task.policy.least_origin.get(order.slot, Origin.UNPROVEN),
            strict=task.policy.strict,
            until=card_end(task),
            session=order.session,
        )


async def _as_signed(record: Callable[[Unit], Awaitable[list[Answer]]], whole: Sequence[bytes], unit: Unit) -> None:
    """Keep signatures that the session holds already. Raises StaleVersion if others came first: those count."""
    for answer, der in zip(await record(unit), whole, strict=True):
        if not isinstance(answer, Issued) or answer.certificate.certificate != der:
            raise StaleVersion("A certificate of this session was signed, or given up, by another act.")


def _reply(answer: Answer) -> ask.Issued | ask.Pending | ask.Refused:
    match answer:
        case Issued():
            return ask.Issued(answer.certificate.certificate)
        case Pending():
            return ask.Pending()
        case Refused():
            return ask.Refused(answer.message)
