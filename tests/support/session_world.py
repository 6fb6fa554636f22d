"""An organization whose cards are issued by the real domains: devices, requests, certificates, contents, vault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from cryptography import x509

from cardwright_cardops.check import CardData, Level, Report, check
from cardwright_cardops.check.live import read_card
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectCard, DirectConnection
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.api.sessions import Streams
from cardwright_server.authentication.principal import Principal
from cardwright_server.authentication.service import AuthenticationService
from cardwright_server.devices.numbering import Numbering
from cardwright_server.devices.stock import Delivered
from cardwright_server.escrow.archive import EscrowArchive
from cardwright_server.escrow.certificates import ArchivedCertificates
from cardwright_server.issuance import status, store
from cardwright_server.issuance.model import Certificate, HolderKind, Purpose
from cardwright_server.people.mapping import CertificateMapping
from cardwright_server.people.model import Person, Role
from cardwright_server.policies.document import shipped
from cardwright_server.policies.model import DeviceKind
from cardwright_server.sessions.contents import SignedContents
from cardwright_server.sessions.credentials import DeviceCredentials
from cardwright_server.sessions.desk import Desk
from cardwright_server.sessions.issuing import IssuedCertificates
from cardwright_server.sessions.names import DeviceNames
from cardwright_server.sessions.proving import CardProofs
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from tests.support import issuance, lifecycles
from tests.support.people import authorizer, make_operator, make_person
from tests.support.sessions import PIN, Office, Station, Trip, serving
from tests.support.virtual import POOL


@dataclass
class Trusted:
    """Workstations whose word counts: those that are named, or every one."""

    named: set[UUID] = field(default_factory=set)
    every: bool = False

    def is_trusted(self, workstation: UUID | None) -> bool:
        return self.every or workstation in self.named


@dataclass
class SessionWorld:
    """One organization with one policy."""

    world: lifecycles.World
    issuing: issuance.World
    stations: Trusted
    desk: Desk
    certificates: ArchivedCertificates
    archive: EscrowArchive
    contents: SignedContents
    folder: Path

    @property
    def authentication(self) -> AuthenticationService:
        """Keeps proofs."""
        return AuthenticationService(self.database, authorizer(), self.world.services.people, {})

    @property
    def database(self) -> Database:
        return self.world.database

    @property
    def org(self) -> UUID:
        return self.world.org

    @property
    def cas(self) -> list[x509.Certificate]:
        """Root and issuing authority of cards."""
        return [self.issuing.ca(Purpose.ROOT), self.issuing.ca(Purpose.CARDS)]

    async def signers(self) -> list[x509.Certificate]:
        """Certificates of content signers."""
        authority = self.issuing.authorities[Purpose.CARDS].id

        async def read(unit: Unit) -> list[Certificate]:
            return await store.certificates_of_holder(unit, self.org, HolderKind.CONTENT_SIGNER, authority)

        return [one.x509 for one in await self.database.read(read)]

    async def person(self, login: str = "ada") -> Person:
        """Someone of the group that has the policy."""
        told = {"givenName": ("Ada",), "sn": ("Lovelace",), "userPrincipalName": (f"{login}@example.test",)}
        return await make_person(self.database, self.org, login, (self.world.group,), **told)

    async def bound(
        self, card: VirtualCard, person: Person | None = None, kind: DeviceKind = DeviceKind.SMART_CARD
    ) -> UUID:
        """A stocked device with the card's number, bound to a person."""
        one = Delivered(new_id(), str(card.serial or new_id()))
        holder = person or await self.person()
        world = self.world

        async def work(unit: Unit) -> None:
            await world.free.stock.register(unit, world.issuer, kind, [one])
            await world.services.devices.bind(unit, world.issuer, one.id, holder.id)

        await self.database.transact(work)
        return one.id

    async def publish(self, *replacing: tuple[str, str]) -> None:
        """The next version of the policy ``civ``, with texts in it replaced."""
        text = shipped("civ")
        for old, new in replacing:
            assert old in text
            text = text.replace(old, new)
        author = await make_operator(self.database, self.org, Role.ADMINISTRATOR)
        policies, officer = self.world.services.policies, self.world.officer

        async def work(unit: Unit) -> None:
            await policies.publish(unit, officer, (await policies.draft(unit, author, text)).id)

        await self.database.transact(work)

    def office(self, device: UUID) -> Office:
        """Vault and time of a server; what is asked of an office goes to the real domains."""
        return Office(self.issuing.vault, datetime.now(UTC), org=self.org, device=device)

    @asynccontextmanager
    async def serving(
        self,
        office: Office,
        principal: Principal | None = None,
        streams: Streams | None = None,
        database: Database | None = None,
    ) -> AsyncIterator[str]:
        """A server with the real ports."""
        async with serving(
            database or self.database,
            office,
            authorizer(),
            principal or self.world.issuer,
            certificates=self.certificates,
            devices=self.desk,
            contents=self.contents,
            escrow=self.archive,
            streams=streams,
            stations=self.stations,
            proofs=CardProofs(self.database, authorizer(), self.desk, self.authentication),
            standing=self.authentication,
        ) as socket:
            yield socket

    async def issue(self, card: DirectCard, device: UUID, station: Station | None = None) -> Trip:
        """Issue a bound device by a request."""
        request = await self.world.issuance(device)
        async with self.serving(self.office(device)) as socket:
            return await (station or Station(card)).run(socket, request=str(request.id))

    async def update(self, card: DirectCard, device: UUID, station: Station | None = None) -> Trip:
        """A session for what is due."""
        async with self.serving(self.office(device)) as socket:
            return await (station or Station(card)).run(socket, sessions_pb2.PURPOSE_UPDATE)

    async def certificates_of(self, device: UUID) -> list[Certificate]:
        """Every certificate of a device."""
        return await self.database.read(lambda unit: status.of_device(unit, self.org, device))

    async def judged(self, card: VirtualCard, level: Level) -> Report:
        """What ``cardwright_cardops.check`` says of a card in the hands of its holder."""
        trust = [*self.cas, *await self.signers()]
        return check(data_of(card), level=level, at=datetime.now(UTC), trust=trust)


def data_of(card: VirtualCard) -> CardData:
    """Everything on a card, its keys proved by use."""
    keys = KeyItems(FixedPins(Secret(PIN)), local=True)
    return run(read_card(with_pin=True), LocalExecutor(DirectConnection(card), keys))


async def make_session_world(
    database: Database,
    folder: Path,
    policy: str = "civ",
    replacing: Sequence[tuple[str, str]] = (),
    known: tuple[x509.Certificate, ...] = (),
    now: Callable[[], float] | None = None,
) -> SessionWorld:
    """Close ``issuing.core`` in the end. ``now``: the vault's time, seconds since 1970; the database has its own."""
    world = await lifecycles.make_world(database, policy, replacing)
    world = replace(world, services=lifecycles.wired(authorizer(), DeviceCredentials()))
    issuing = await issuance.make_world(database, folder, org=world.org, known=known, now=now)
    return over(world, issuing, folder)


def over(world: lifecycles.World, issuing: issuance.World, folder: Path) -> SessionWorld:
    """Card sessions over devices, requests and authorities that are there already, all in one database."""
    database, services, stations = world.database, world.services, Trusted()
    desk = Desk(services.lifecycle, services.requests, Numbering(), stations, services.stock, services.due)
    names = DeviceNames(database, services.people, CertificateMapping())
    archive = EscrowArchive(database, issuing.vault, services.requests)
    certificates = ArchivedCertificates(IssuedCertificates(database, issuing.service, names), archive)
    contents = SignedContents(database, issuing.vault, names, "Cardwright")
    return SessionWorld(world, issuing, stations, desk, certificates, archive, contents, folder)


def blank(profile: str = "yubikey-5.7", serial: int = 12345678) -> VirtualCard:
    """A card as it leaves the factory, whose RSA keys are from a pool."""
    return VirtualCard(profile, serial=serial, key_pool=POOL)
