"""The only place that wires all domains: a database, a vault and a configuration become services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key
from prometheus_client import CollectorRegistry

from .audit.desk import AuditService, Details
from .audit.verify import PublicKey
from .authentication.authorize import Authorize, Authorizer, Permission
from .authentication.enrolment import EnrolmentService
from .authentication.first import FirstOperators
from .authentication.handing import HandingService
from .authentication.hashing import Hasher
from .authentication.methods import DirectoryPassword, GivenPassword, SecurityAnswers, Verifier
from .authentication.model import Method
from .authentication.service import AuthenticationService
from .authentication.store import StoredProofs
from .config import Installation, makers_of
from .devices.due import DueList
from .devices.lifecycle import DeviceLifecycle
from .devices.numbering import Issuer, Numbering
from .devices.puk import PukRelease
from .devices.puk_desk import PukDesk
from .devices.rewrap import SealedSecrets
from .devices.service import DeviceService
from .devices.stock import SecretSealer, StockService
from .escrow.archive import EscrowArchive
from .escrow.certificates import ArchivedCertificates
from .escrow.rewrap import SealedKeys
from .escrow.service import EscrowService
from .issuance import profiles
from .issuance.card_keys import IssuedKeys
from .issuance.own import OwnCertificates, ServerKey
from .issuance.service import IssuanceService, Settings
from .issuance.status import CertificateService
from .issuance.tbs import Places
from .joins.certificates import OperatorCertificates, StationCertificates, kinds_of
from .joins.connecting import OperatorConnections
from .joins.contacts import SessionContacts
from .joins.escrowing import CardPolicies
from .joins.stations import KnownStations
from .joins.unlocks import UnlockRequests
from .notify.service import NotifyService
from .operation.masters import Masters
from .people.erasure import ErasureService
from .people.importing import ImportService
from .people.ldap_directory import LdapDirectory
from .people.operators import OperatorService
from .people.service import PeopleService
from .people.standing import PeopleStandings
from .policies.document import PROFILES
from .policies.service import PolicyService
from .requests.book import RequestBook
from .requests.model import LIFETIMES, RequestKind
from .requests.of_device import RequestsOfDevice
from .requests.schedule import Scheduler
from .requests.service import RequestService
from .sessions.contents import SignedContents
from .sessions.credentials import DeviceCredentials
from .sessions.desk import Desk
from .sessions.due import DueChecks
from .sessions.hints import Hints
from .sessions.issuing import IssuedCertificates
from .sessions.names import DeviceNames
from .sessions.proving import CardProofs
from .sessions.service import Ports, SessionService
from .store.unit import Database, Unit
from .vault.model import KeyRole
from .vault.protocol import Vault
from .workstations.service import WorkstationService
from .workstations.watch import RevocationWatch

CHAIN = "server"
"""The installation's audit chain, to the vault and to auditors."""


@dataclass(frozen=True, slots=True)
class Domains:
    """Every service of one process, for one organization's front door; what it holds is for all organizations."""

    org: UUID
    database: Database
    vault: Vault
    authorize: Authorize
    watch: RevocationWatch
    stations: KnownStations
    people: PeopleService
    operators: OperatorService
    first: FirstOperators
    importing: ImportService
    erasure: ErasureService
    authentication: AuthenticationService
    enrolment: EnrolmentService
    handing: HandingService
    workstations: WorkstationService
    policies: PolicyService
    lifecycle: DeviceLifecycle
    devices: DeviceService
    stock: StockService
    secrets: SecretSealer
    puks: PukDesk
    requests: RequestService
    scheduler: Scheduler
    issuance: IssuanceService
    own: OwnCertificates
    certificates: CertificateService
    operator_certificates: OperatorCertificates
    connections: OperatorConnections
    escrow: EscrowService
    sessions: SessionService
    proofs: CardProofs
    checks: DueChecks
    hints: Hints
    audit: AuditService
    masters: Masters
    notify: NotifyService
    hasher: Hasher
    directory: LdapDirectory | None

    def close(self) -> None:
        """End threads."""
        self.hasher.close()
        if self.directory is not None:
            self.directory.close()


def wire(
    installation: Installation,
    database: Database,
    vault: Vault,
    org: UUID,
    *,
    authorize: Authorize | None = None,
    servers: tuple[ServerKey, ...] = (),
    registry: CollectorRegistry | None = None,
) -> Domains:
    """Everything. ``authorize`` takes the place of the real decision where an installation is founded.

    ``servers``: keys of TLS servers that are certified and renewed. ``registry`` gets the domains' metrics. Raises
    ConfigurationRefused, ProfileMalformed.
    """
    config = installation.config
    watch = RevocationWatch(database)
    decide: Authorize = authorize or Authorizer(PeopleStandings(), StoredProofs(), watch)
    issuance = issuance_of(installation, vault)
    own = OwnCertificates(issuance, vault, servers, registry)

    people = PeopleService(decide, config.certificate_fields)
    operators = OperatorService(decide, IssuedKeys())
    directory = LdapDirectory(config.directory) if config.directory is not None else None
    directories = {org: directory} if directory is not None else {}

    due, of_device = DueList(), RequestsOfDevice()
    names = frozenset({*PROFILES, *(one.name for one in issuance.profiles)})
    policies = PolicyService(decide, people, kinds_of(issuance.profiles), (due,), names)
    lifecycle = DeviceLifecycle(people, policies, DeviceCredentials(), of_device, due)
    lifetimes = {**LIFETIMES, RequestKind.UNLOCK: config.requests.unlock}
    requests = RequestService(decide, people, lifecycle, RequestBook(lifecycle, due, lifetimes))
    devices = DeviceService(decide, people, policies, lifecycle, requests, of_device, due)

    hasher = Hasher()
    verifiers, lock_outs = _verifiers(hasher, directories), config.authentication.lock_outs
    authentication = AuthenticationService(database, decide, people, verifiers, policies=lock_outs)
    enrolment = EnrolmentService(decide, people, hasher, UnlockRequests(requests), emergency=config.requests.unlock)
    workstations = WorkstationService(database, decide, StationCertificates(database, issuance, org), watch.nudge)

    stations, channels = KnownStations(), OperatorCertificates(database, issuance)
    card_names = DeviceNames(database, people, config.certificate_fields)
    archive = EscrowArchive(database, vault, requests)
    stock = StockService(decide, lifecycle)
    numbering = Numbering(Issuer(**msgspec.structs.asdict(config.numbers)))
    desk = Desk(lifecycle, requests, numbering, stations, stock, due)
    ports = Ports(
        desk,
        ArchivedCertificates(IssuedCertificates(database, issuance, card_names), archive),
        SignedContents(database, vault, card_names, config.issuance.printed_issuer),
        archive,
        vault,
        authentication,
    )

    escrow = EscrowService(database, decide, people, requests, due, vault, CardPolicies(lifecycle, policies))

    async def covered(unit: Unit, permission: Permission) -> Any:
        return people.covered(permission)

    return Domains(
        org=org,
        database=database,
        vault=vault,
        authorize=decide,
        watch=watch,
        stations=stations,
        people=people,
        operators=operators,
        first=FirstOperators(decide, people, operators),
        importing=ImportService(database, decide, people, directories),
        erasure=ErasureService(people, (authentication, escrow, Details())),
        authentication=authentication,
        enrolment=enrolment,
        handing=HandingService(database, enrolment),
        workstations=workstations,
        policies=policies,
        lifecycle=lifecycle,
        devices=devices,
        stock=stock,
        secrets=SecretSealer(vault),
        puks=PukDesk(decide, requests, PukRelease(lifecycle, of_device, due), SessionContacts(stations), vault),
        requests=requests,
        scheduler=Scheduler(database, devices, requests, due),
        issuance=issuance,
        own=own,
        certificates=CertificateService(decide, covered),
        operator_certificates=channels,
        connections=OperatorConnections(database, operators, channels),
        escrow=escrow,
        sessions=SessionService(database, decide, ports),
        proofs=CardProofs(database, decide, desk, authentication),
        checks=DueChecks(database, decide, due, requests, stations),
        hints=Hints(database),
        audit=AuditService(database, decide, lambda: audit_keys(vault), chain=CHAIN),
        masters=Masters(database, vault, (SealedKeys(database, vault), SealedSecrets(database, vault))),
        notify=NotifyService(decide),
        hasher=hasher,
        directory=directory,
    )


def issuance_of(installation: Installation, vault: Vault) -> IssuanceService:
    """Issuance alone, which needs no other domain. Raises ConfigurationRefused, ProfileMalformed."""
    config = installation.config.issuance
    settings = Settings(
        Places(installation.status_base),
        x509.Name.from_rfc4514_string(config.subject),
        makers_of(installation.config),
    )
    return IssuanceService(profiles.load(Path(config.profiles) if config.profiles else None), vault, settings)


async def audit_keys(vault: Vault) -> Mapping[str, PublicKey]:
    """Public keys by which the vault signs blocks of the audit. Raises VaultError."""
    infos = [await vault.public_key(name) for name in (await vault.status()).keys]
    found = {one.name: load_der_public_key(one.public_key) for one in infos if one.role is KeyRole.AUDIT}
    return {name: key for name, key in found.items() if isinstance(key, PublicKey)}


def _verifiers(hasher: Hasher, directories: Mapping[UUID, LdapDirectory]) -> dict[Method, Verifier]:
    methods: list[Verifier] = [
        GivenPassword(Method.INITIAL_PASSWORD, hasher),
        GivenPassword(Method.EMERGENCY_PASSWORD, hasher),
        SecurityAnswers(hasher),
    ]
    if directories:
        methods.append(DirectoryPassword(directories))
    return {one.method: one for one in methods}
