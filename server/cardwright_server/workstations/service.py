"""Rules of enrolment, renewal and revocation of workstations (security model, S8)."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import UUID

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal, PrincipalKind
from ..machine import Actor
from ..notify.model import DomainEvent
from ..store.ids import new_id
from ..store.unit import Database, Unit
from . import store
from .errors import BadRequest, NoSuchWorkstation, RenewalTooEarly, TokenExpired, TokenRefused, TokenUsed
from .issuer import CertificateIssuer, IssuedStation, StationRequest, proven_key, spki_hash
from .journal import REVOKED, certificate_event, claim_event, revoke_event
from .model import (
    CERTIFICATE_LIFETIME,
    STATION,
    TOKEN,
    TOKEN_LIFETIME,
    EnrolmentToken,
    StationCertificate,
    StationClass,
    StationEvent,
    StationState,
    TokenEvent,
    TokenState,
    Workstation,
    folded_host,
    reason_code,
)

MOST_RESULTS = 201
"""One more than a page shows, so that its reader sees whether anything follows."""


class WorkstationService:
    """Tokens, certificates, revocation. ``revoked`` is called after each revocation (``RevocationWatch.nudge``)."""

    def __init__(
        self,
        database: Database,
        authorize: Authorize,
        issuer: CertificateIssuer,
        revoked: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._authorize = authorize
        self._issuer = issuer
        self._revoked = revoked

    async def create_token(
        self, principal: Principal, host: str, station_class: StationClass
    ) -> tuple[EnrolmentToken, datetime]:
        """A token for one host, and its end. Shown once. Raises AuthorizationError, BadHost."""
        token = EnrolmentToken.new(new_id(), await self._issuer.root())
        folded = folded_host(host)

        async def work(unit: Unit) -> datetime:
            await self._authorize(unit, principal, Call("WorkstationService.CreateToken"), CallTarget(principal.org))
            TOKEN.next(None, TokenEvent.OFFER, Actor.ADMINISTRATOR)
            ends = unit.now + TOKEN_LIFETIME
            await store.insert_token(unit, principal.org, token, folded, station_class, ends)
            facts: dict[str, Fact] = {"class": station_class}
            self._record(unit, principal, "workstation.token-offered", token.id, facts, {"host": folded})
            return ends

        return token, await self._database.transact(work)

    async def enrol(self, principal: Principal, token: EnrolmentToken, host: str, request: bytes) -> StationCertificate:
        """Trade a token and a certificate request (PKCS#10, DER) for a certificate.

        The token belongs to the first key that comes with it; that key may come again, if the answer was lost or the
        CA was away, until the token's end. Raises AuthorizationError, BadHost, BadRequest, TokenRefused,
        TokenExpired, TokenUsed, and what the issuer raises.
        """
        public_key = proven_key(request)
        folded = folded_host(host)

        async def claim(unit: Unit) -> Workstation:
            await self._authorize(unit, principal, Call("WorkstationService.Enrol"), CallTarget(principal.org))
            return await self._claim(unit, principal, token, folded, spki_hash(public_key))

        station = await self._database.transact(claim)
        if (known := await self._certificate(station, public_key)) is not None:
            return known
        issued = await self._issue(token.id, station, public_key, request)
        return await self._database.transact(
            lambda unit: self._certified(unit, principal, token.id, station.id, public_key, issued)
        )

    async def renew(self, principal: Principal, request: bytes) -> StationCertificate:
        """A certificate for a new key of the calling workstation, from two thirds of the old one's life on.

        A request that was answered before gets the same certificate. Raises AuthorizationError, BadRequest,
        RenewalTooEarly, NoSuchWorkstation, and what the issuer raises.
        """
        public_key = proven_key(request)
        if principal.kind is not PrincipalKind.WORKSTATION:
            raise NoSuchWorkstation("only a workstation renews its certificate")

        async def check(unit: Unit) -> Workstation:
            target = CallTarget(principal.org, workstation=principal.id)
            await self._authorize(unit, principal, Call("WorkstationService.Renew"), target)
            station = await self._station(unit, principal.org, principal.id)
            STATION.next(station.state, StationEvent.RENEW, Actor.USER)
            held = await store.certificate_of_key(unit, spki_hash(public_key))
            if held is not None and held[0] != station.id:
                raise BadRequest("this key belongs to another workstation")
            latest = await store.latest_certificate(unit, station.id)
            if held is None and latest is not None and latest.renew_at > unit.now:
                raise RenewalTooEarly("the certificate is not due for renewal", latest.renew_at)
            return station

        station = await self._database.transact(check)
        if (known := await self._certificate(station, public_key)) is not None:
            return known
        # One act for each key: a repetition is the same act to the issuer.
        issued = await self._issue(UUID(bytes=spki_hash(public_key)[:16]), station, public_key, request)

        async def record(unit: Unit) -> StationCertificate:
            now = await self._station(unit, principal.org, station.id)
            STATION.next(now.state, StationEvent.RENEW, Actor.USER)
            if await store.insert_certificate(unit, station.org, station.id, spki_hash(public_key), issued):
                unit.beforehand(certificate_event(now, spki_hash(public_key), issued))
            self._record(unit, principal, "workstation.renewed", station.id, {})
            return StationCertificate(issued.certificate, issued.not_before, issued.not_after)

        return await self._database.transact(record)

    async def revoke(self, unit: Unit, principal: Principal, identifier: UUID, reason: str) -> Workstation:
        """Void a workstation's certificates; its streams close within a minute, in every process.

        ``reason`` is a short code. The event makes issuance put the certificates on the CRL. A second time changes
        nothing. Raises AuthorizationError, NoSuchWorkstation, BadReason.
        """
        await self._authorize(unit, principal, Call("WorkstationService.Revoke"), CallTarget(principal.org))
        station = await self._station(unit, principal.org, identifier)
        if station.state is StationState.REVOKED:
            return station
        code = reason_code(reason)
        target = STATION.next(station.state, StationEvent.REVOKE, Actor.ADMINISTRATOR).target
        unit.beforehand(revoke_event(station, code))
        values = {"state": target, "revoked_at": unit.now, "reason": code}
        await store.update_workstation(unit, identifier, station.version, values)
        self._record(unit, principal, REVOKED, identifier, {"reason": code})
        unit.afterwards(self._revoked)
        return await self._station(unit, principal.org, identifier)

    async def find(
        self, unit: Unit, principal: Principal, *, after: tuple[str, UUID] | None = None, limit: int = MOST_RESULTS
    ) -> list[Workstation]:
        """Workstations in the order of (host name, id), from beyond ``after``. Raises AuthorizationError."""
        await self._authorize(unit, principal, Call("WorkstationService.Find"), CallTarget(principal.org))
        return await store.workstations(unit, principal.org, after, min(limit, MOST_RESULTS))

    async def recognize(self, unit: Unit, certificate: bytes, *, front: str, address: str) -> Principal | None:
        """The principal of a connection by a workstation's certificate (DER); None if that does not count.

        The caller has checked the chain: only certificates of the issuing CA for workstations come here.
        """
        station = await store.by_certificate(unit, certificate)
        if station is None or station.state is not StationState.ACTIVE:
            return None
        return Principal(
            PrincipalKind.WORKSTATION, station.id, station.org, front=front, address=address, workstation=station.id
        )

    async def workstation(self, unit: Unit, org: UUID, identifier: UUID) -> Workstation:
        """For other domains: a workstation, whatever its state. Raises NoSuchWorkstation."""
        return await self._station(unit, org, identifier)

    async def _claim(
        self, unit: Unit, principal: Principal, token: EnrolmentToken, host: str, spki: bytes
    ) -> Workstation:
        row = await store.token_by_id(unit, token.id)
        # Compared also where there is none, so that both take as long.
        right = hmac.compare_digest(row.secret if row is not None else bytes(32), token.digest)
        if row is None or not right or row.org != principal.org or row.host != host:
            raise TokenRefused("the enrolment token is refused")
        if row.expires_at <= unit.now:
            raise TokenExpired("the enrolment token has expired")
        state = TokenState(row.state)
        if state is TokenState.OFFERED:
            claimed = TOKEN.next(state, TokenEvent.CLAIM, Actor.USER).target
            if await store.certificate_of_key(unit, spki) is not None:
                raise BadRequest("this key has a certificate already")
            begun = STATION.next(None, StationEvent.CLAIM, Actor.USER).target
            station = await store.insert_workstation(unit, row.org, host, StationClass(row.station_class), begun)
            values = {"state": claimed, "spki": spki, "workstation": station}
            await store.update_token(unit, token.id, row.version, values)
            self._record(unit, principal, "workstation.enrolment-begun", station, {"token": str(token.id)})
            made = await self._station(unit, row.org, station)
            unit.beforehand(claim_event(token.id, made, spki))
            return made
        TOKEN.next(state, TokenEvent.REPEAT, Actor.USER)
        if row.spki != spki:
            raise TokenUsed("the enrolment token was used")
        station_now = await self._station(unit, row.org, row.workstation)
        if station_now.state is StationState.REVOKED:
            raise TokenUsed("the enrolment token was used")
        return station_now

    async def _certificate(self, station: Workstation, public_key: bytes) -> StationCertificate | None:
        held = await self._database.read(lambda unit: store.certificate_of_key(unit, spki_hash(public_key)))
        return held[1] if held is not None and held[0] == station.id else None

    async def _issue(self, act: UUID, station: Workstation, public_key: bytes, request: bytes) -> IssuedStation:
        return await self._issuer.issue(
            StationRequest(
                id=act,
                org=station.org,
                workstation=station.id,
                host=station.host,
                station_class=station.station_class,
                public_key=public_key,
                lifetime=CERTIFICATE_LIFETIME,
                proof=request,
            )
        )

    async def _certified(
        self,
        unit: Unit,
        principal: Principal,
        token: UUID,
        identifier: UUID,
        public_key: bytes,
        issued: IssuedStation,
    ) -> StationCertificate:
        station = await self._station(unit, principal.org, identifier)
        made = StationCertificate(issued.certificate, issued.not_before, issued.not_after)
        if not await store.insert_certificate(unit, station.org, station.id, spki_hash(public_key), issued):
            return made  # The same key asked twice at once, and the other one was faster.
        unit.beforehand(certificate_event(station, spki_hash(public_key), issued, token))
        target = STATION.next(station.state, StationEvent.CERTIFY, Actor.SERVER).target
        await store.update_workstation(unit, station.id, station.version, {"state": target})
        row = await store.token_by_id(unit, token)
        if row is not None:
            used = TOKEN.next(TokenState(row.state), TokenEvent.USE, Actor.SERVER).target
            await store.update_token(unit, token, row.version, {"state": used})
        self._record(unit, principal, "workstation.enrolled", station.id, {"class": station.station_class})
        return made

    async def _station(self, unit: Unit, org: UUID, identifier: UUID) -> Workstation:
        found = await store.workstation_by_id(unit, org, identifier)
        if found is None:
            raise NoSuchWorkstation("there is no such workstation")
        return found

    def _record(
        self,
        unit: Unit,
        principal: Principal,
        action: str,
        identifier: UUID,
        facts: Mapping[str, Fact],
        personal: Mapping[str, str] | None = None,
    ) -> None:
        target = Target("workstation", identifier)
        unit.audit(AuditEntry(principal.org, principal.who, action, target, facts=facts, personal=personal or {}))
        unit.emit(DomainEvent(principal.org, action, "workstation", identifier, None, dict(facts)))
