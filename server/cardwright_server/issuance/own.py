"""The server's own certificates (S9): made, renewed at two thirds of their life, measured, and alarmed about.

Authorities, OCSP responders and content signers have their keys in the vault; TLS servers bring theirs. Renewal of the
first three keeps the key: a new one is the passphrase holder's decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import partial
from typing import Final, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client import CollectorRegistry, Gauge

from ..audit.model import Who
from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..policies.model import Origin
from ..store.unit import Database, Unit
from ..vault.model import KeyRole, PublicKeyInfo
from ..vault.protocol import Vault
from . import store
from .backend import issuer_info
from .content import current_signer
from .errors import NoSuchAuthority
from .model import (
    OWN,
    Answer,
    Authority,
    Certificate,
    CertificateState,
    Holder,
    HolderKind,
    Issued,
    Purpose,
    public_key_of,
)
from .names import HolderNames
from .origin import Expected
from .profiles import Profile, policies_of
from .requests import CertificateRequest
from .service import IssuanceService, keep
from .tbs import BACKDATED, Draft, new_serial

RENEW_AT: Final = 2 / 3
WARN_AT: Final = 0.8
CRITICAL_AT: Final = 0.95
_PROFILE = {
    HolderKind.AUTHORITY: "authority",
    HolderKind.OCSP_RESPONDER: "ocsp",
    HolderKind.CONTENT_SIGNER: "content-signing",
}
_NAMESPACE: Final = uuid5(NAMESPACE_OID, "cardwright.own-certificate")


class Alarm(IntEnum):
    """How much a certificate's end needs attention. Renewal was due before ``WARNING``, so something fails."""

    NONE = 0
    WARNING = 1
    CRITICAL = 2


def lived(not_before: datetime, not_after: datetime, now: datetime) -> float:
    """The part of a certificate's life that is over: 0 at its beginning, 1 at its end, more after it."""
    return (now - not_before) / (not_after - not_before)


def alarm(not_before: datetime, not_after: datetime, now: datetime) -> Alarm:
    """What to say about a certificate that should have been renewed by itself."""
    part = lived(not_before, not_after, now)
    return Alarm.CRITICAL if part >= CRITICAL_AT else Alarm.WARNING if part >= WARN_AT else Alarm.NONE


class ServerKey(Protocol):
    """A TLS server's key, kept by whoever runs it."""

    holder: Holder
    names: HolderNames

    async def request(self) -> bytes:
        """A PKCS #10 request (DER) for the next key: the same until ``install``."""

    async def holds(self, certificate: bytes) -> bool:
        """Whether the certificate's key (DER) is here, in use or as the next one."""

    async def install(self, certificate: bytes, chain: Sequence[bytes]) -> None:
        """Use the key of the last request from now on. Safe to repeat."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A key of the vault that needs a certificate by ``issuer``."""

    holder: Holder
    key: PublicKeyInfo
    issuer: Authority
    profile: Profile
    policies: tuple[str, ...]


class OwnCertificates:
    """Renews, measures and judges the server's own certificates."""

    def __init__(
        self,
        service: IssuanceService,
        vault: Vault,
        servers: Sequence[ServerKey] = (),
        registry: CollectorRegistry | None = None,
    ) -> None:
        """``registry`` gets the metrics; without one they are kept apart."""
        self._service = service
        self._vault = vault
        self._servers = servers
        registry = registry if registry is not None else CollectorRegistry()
        labels = ("kind", "name")
        self._ends = Gauge(
            "cardwright_own_certificate_not_after_seconds", "Its end, since 1970.", labels, registry=registry
        )
        self._alarms = Gauge(
            "cardwright_own_certificate_alarm", "0 none, 1 renewal fails, 2 about to end.", labels, registry=registry
        )

    async def renew(self, database: Database, who: Who) -> int:
        """Certify every key of the vault that has no certificate or is past two thirds. Gives how many.

        Safe to run at any time, by several at once. Raises VaultError, StoreError.
        """
        signers = await self._content_keys()
        made = 0
        # Root first, then those it certifies, then those that they certify.
        for kinds in ((Purpose.ROOT,), (Purpose.CARDS, Purpose.WORKSTATIONS, Purpose.SERVERS)):
            for authority in await database.read(store.authorities):
                if authority.purpose in kinds and not authority.foreign and authority.active:
                    made += await self._authority(database, who, authority)
        for authority in await database.read(store.authorities):
            if authority.foreign or not authority.active or not authority.certificate:
                continue
            if authority.responder:
                key = await self._vault.public_key(authority.responder)
                made += await self._certify(database, who, self._signed(authority, HolderKind.OCSP_RESPONDER, key))
            if authority.purpose is Purpose.CARDS:
                for key in signers:
                    if key.name.startswith(f"{authority.name}-"):
                        wanted = self._signed(authority, HolderKind.CONTENT_SIGNER, key)
                        made += await self._certify(database, who, wanted)
        for server in self._servers:
            made += await self._server(database, who, server)
        return made

    async def rotate_signer(self, database: Database, authorize: Authorize, principal: Principal) -> Certificate:
        """Certify content-signing keys that were made since (``authorities.make_content_signer``) now; the signer of
        now, which is the newest. Raises AuthorizationError, NoSuchAuthority, VaultError, StoreError.
        """
        org = principal.org
        call, target = Call("CertificateService.RotateSigner"), CallTarget(org)
        await database.transact(lambda unit: authorize(unit, principal, call, target))
        await self.renew(database, principal.who)
        return await database.read(lambda unit: current_signer(unit, org))

    async def watch(self, database: Database) -> dict[tuple[HolderKind, str], Alarm]:
        """The alarm of every own certificate that is in use (the last to end for each key); sets the metrics."""

        async def read(unit: Unit) -> tuple[list[Certificate], datetime]:
            return await store.certificates_of_kinds(unit, OWN, unit.now - timedelta(days=365)), unit.now

        found, now = await database.read(read)
        alarms: dict[tuple[HolderKind, str], Alarm] = {}
        for one in found:
            place = (one.holder.kind, one.holder.part or str(one.holder.id))
            if place in alarms:
                continue
            alarms[place] = alarm(one.not_before, one.not_after, now)
            self._ends.labels(*place).set(one.not_after.timestamp())
            self._alarms.labels(*place).set(alarms[place])
        return alarms

    async def _content_keys(self) -> list[PublicKeyInfo]:
        infos = [await self._vault.public_key(name) for name in (await self._vault.status()).keys]
        return [one for one in infos if one.role is KeyRole.CONTENT]

    def _signed(self, authority: Authority, kind: HolderKind, key: PublicKeyInfo) -> _Wanted:
        profile = self._service.profiles.pick(_PROFILE[kind])
        policies = profile.policies if authority.purpose is Purpose.CARDS else ()
        return _Wanted(Holder(kind, authority.id, key.name), key, authority, profile, policies)

    async def _authority(self, database: Database, who: Who, authority: Authority) -> int:
        own = authority.purpose is Purpose.ROOT
        issuer = authority
        if not own:
            roots = [one for one in await database.read(store.authorities) if one.purpose is Purpose.ROOT]
            issuers = [one for one in roots if one.org == authority.org and one.active and one.certificate]
            if not issuers:
                raise NoSuchAuthority("there is no root")
            issuer = issuers[-1]
        wanted = _Wanted(
            Holder(HolderKind.AUTHORITY, authority.id, authority.name),
            await self._vault.public_key(authority.name),
            issuer,
            self._service.profiles.pick("root" if own else "authority"),
            () if own else policies_of(self._service.profiles, authority.purpose),
        )
        made = await self._certify(database, who, wanted)
        await database.transact(partial(_use_newest, authority=authority.id))
        return made

    async def _certify(self, database: Database, who: Who, wanted: _Wanted) -> int:
        prepared = await database.transact(partial(self._prepare, who=who, wanted=wanted))
        if prepared is None:
            return 0
        answer = await self._service.sign_certificate(prepared, wanted.issuer)

        async def settle(unit: Unit) -> Answer:
            return await self._service.record_certificate(unit, who, prepared, None, answer)

        return int(isinstance(await database.transact(settle), Issued))

    async def _prepare(self, unit: Unit, who: Who, wanted: _Wanted) -> Certificate | None:
        """What is to be signed; None if the present certificate is good for longer."""
        org, holder = wanted.issuer.org, wanted.holder
        found = await store.certificates_of_holder(unit, org, holder.kind, holder.id, holder.part)
        if any(one.certificate and one.state is CertificateState.REVOKED for one in found):
            return None  # the key was taken out of service: only another key takes its place
        present = next((one for one in found if one.state is CertificateState.GOOD), None)
        if present is not None and lived(present.not_before, present.not_after, unit.now) < RENEW_AT:
            return None
        # The same for every process, so that several at once renew once.
        request = _next_request(holder.part, present, unit.now)
        begun = await store.certificate_by_request(unit, org, request)
        if begun is not None:
            return begun if begun.state is CertificateState.PREPARED else None
        begin = (unit.now - BACKDATED).replace(microsecond=0)
        ends = [begin + wanted.profile.validity]
        if wanted.profile.rule != "root":
            ends.append(wanted.issuer.x509.not_valid_after_utc)
        authority = holder.kind is HolderKind.AUTHORITY
        draft = Draft(
            profile=wanted.profile,
            issuer=issuer_info(wanted.issuer, wanted.profile),
            public_key=public_key_of(wanted.key.public_key),
            subject=x509.Name.from_bytes(wanted.key.subject),
            serial=new_serial(),
            not_before=begin,
            not_after=min(ends),
            policies=wanted.policies,
            authority=wanted.key.name if authority else "",
            path_length=0 if authority and wanted.profile.rule != "root" else None,
        )
        asked = CertificateRequest(
            request, org, wanted.profile.name, holder, HolderNames(), Expected(wanted.key.public_key)
        )
        places = self._service.settings.places
        return await keep(unit, who, asked, wanted.issuer, draft, Origin.SEALED, places)

    async def _server(self, database: Database, who: Who, server: ServerKey) -> int:
        async def look(unit: Unit) -> tuple[Authority | None, Certificate | None, datetime]:
            authorities = [one for one in await store.authorities(unit) if one.purpose is Purpose.SERVERS]
            authority = authorities[-1] if authorities else None
            present = await _present(unit, authority.org, server.holder) if authority is not None else None
            return authority, present, unit.now

        authority, present, now = await database.read(look)
        if authority is None:
            raise NoSuchAuthority("there is no authority for servers")
        usable = present is not None and lived(present.not_before, present.not_after, now) < RENEW_AT
        # Its key may be gone: a lost folder, or names that were others meanwhile.
        if present is not None and usable and await server.holds(present.certificate):
            await server.install(present.certificate, [authority.certificate])
            return 0
        csr = await server.request()
        key = x509.load_der_x509_csr(csr).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        request = CertificateRequest(
            _next_request(str(server.holder.id), present, now),
            authority.org,
            "server",
            server.holder,
            server.names,
            Expected(key),
            proof=csr,
        )
        answer = await self._service.certify(database, who, request)
        if not isinstance(answer, Issued):
            return 0
        await server.install(answer.certificate.certificate, [authority.certificate])
        return 1


async def _present(unit: Unit, org: UUID, holder: Holder) -> Certificate | None:
    """The certificate of a key that ends last and counts."""
    found = await store.certificates_of_holder(unit, org, holder.kind, holder.id, holder.part)
    return next((one for one in found if one.state is CertificateState.GOOD), None)


async def _use_newest(unit: Unit, authority: UUID) -> None:
    present = await store.authority_by_id(unit, authority)
    holder = Holder(HolderKind.AUTHORITY, present.id, present.name)
    newest = await _present(unit, present.org, holder)
    if newest is not None and newest.certificate != present.certificate:
        await store.update_authority(unit, present, {"certificate": newest.certificate})


def _next_request(name: str, present: Certificate | None, now: datetime) -> UUID:
    # A try that was given up must not stand in the way for ever: another one may begin the next day.
    after = present.serial if present is not None else ""
    return uuid5(_NAMESPACE, f"{name}/{after}/{now.date().isoformat()}")
