"""A small organization for tests of devices and requests: people, a policy in force, services wired together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

from cardwright_server.authentication.authorize import Authorize, CallTarget, Permission
from cardwright_server.authentication.matrix import Call
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal, server
from cardwright_server.devices.consequences import Credentials
from cardwright_server.devices.due import DueList
from cardwright_server.devices.lifecycle import DeviceLifecycle, Told
from cardwright_server.devices.model import CrlReasons, Device, DeviceState
from cardwright_server.devices.service import DeviceService
from cardwright_server.devices.stock import Delivered, StockService
from cardwright_server.issuance import profiles
from cardwright_server.joins.certificates import kinds_of
from cardwright_server.people.model import Grant, Person, Role
from cardwright_server.people.service import PeopleService
from cardwright_server.policies.document import shipped
from cardwright_server.policies.model import DeviceKind
from cardwright_server.policies.service import PolicyService
from cardwright_server.requests.book import RequestBook
from cardwright_server.requests.model import Request, RequestState
from cardwright_server.requests.of_device import RequestsOfDevice
from cardwright_server.requests.service import RequestService
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from tests.support.people import authorizer, make_group, make_operator, make_person, make_proven


@dataclass
class RecordedCredentials:
    """``Credentials`` that only remember what was asked, in order. A unit that was begun again is in it twice."""

    said: list[tuple[str, UUID, str]] = field(default_factory=list)

    async def hold(self, unit: Unit, org: UUID, device: UUID, reason: str) -> None:
        self.said.append(("hold", device, reason))

    async def release(self, unit: Unit, org: UUID, device: UUID) -> None:
        self.said.append(("release", device, ""))

    async def activate(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        self.said.append(("activate", device, ""))

    async def revoke(self, unit: Unit, org: UUID, device: UUID, reasons: CrlReasons) -> None:
        self.said.append(("revoke", device, f"{reasons.keys.value} {reasons.key_management.value}"))

    async def revoke_new(self, unit: Unit, org: UUID, device: UUID, session: UUID | None) -> None:
        self.said.append(("revoke-new", device, ""))

    def of(self, device: UUID) -> list[tuple[str, str]]:
        """What was asked for one device."""
        return [(what, reason) for what, of, reason in self.said if of == device]


_PROFILES = profiles.load()
KINDS = kinds_of(_PROFILES)
"""What the shipped certificate profiles are to policies."""


@dataclass(frozen=True)
class Services:
    """Every service of devices, requests and policies, wired."""

    people: PeopleService
    policies: PolicyService
    lifecycle: DeviceLifecycle
    stock: StockService
    requests: RequestService
    book: RequestBook
    devices: DeviceService
    due: DueList


async def allow_every_part(unit: Unit | None, principal: Principal, call: Call, target: CallTarget) -> Permission:
    """An ``Authorize`` that permits everything, in whatever part it is done."""
    return Permission(principal, tuple(Grant(role) for role in Role))


def wired(authorize: Authorize, credentials: Credentials) -> Services:
    """As ``app.py`` wires them."""
    due, of_device = DueList(), RequestsOfDevice()
    people = PeopleService(authorize)
    policies = PolicyService(authorize, people, KINDS, (due,), [one.name for one in _PROFILES])
    lifecycle = DeviceLifecycle(people, policies, credentials, of_device, due)
    book = RequestBook(lifecycle, due)
    requests = RequestService(authorize, people, lifecycle, book)
    devices = DeviceService(authorize, people, policies, lifecycle, requests, of_device, due)
    return Services(people, policies, lifecycle, StockService(authorize, lifecycle), requests, book, devices, due)


@dataclass
class World:
    """One organization in one database. ``free`` are services that permit everything, for making beginnings."""

    database: Database
    org: UUID
    group: UUID
    services: Services
    free: Services
    credentials: RecordedCredentials
    issuer: Principal
    second: Principal
    helper: Principal
    officer: Principal

    async def person(self, login: str = "") -> Person:
        """An active person in the group that the policy is assigned to."""
        return await make_person(self.database, self.org, login or f"p{uuid4().hex}", (self.group,))

    async def proven(self, person: Person, *methods: Method) -> Principal:
        """The person, having proved who they are."""
        return await make_proven(self.database, person, *methods)

    async def stock(self, kind: DeviceKind = DeviceKind.SMART_CARD) -> UUID:
        """A new device in stock."""
        one = Delivered(new_id(), uuid4().hex)
        await self.database.transact(lambda unit: self.free.stock.register(unit, self.issuer, kind, [one]))
        return one.id

    async def bound(self, person: Person, replacement: UUID | None = None) -> UUID:
        """A device that is bound to a person."""
        device = await self.stock()
        await self.database.transact(
            lambda unit: self.services.devices.bind(unit, self.issuer, device, person.id, replacement=replacement)
        )
        return device

    async def issuance(self, device: UUID) -> Request:
        """A ready request to issue a bound device."""
        opened = await self.database.transact(
            lambda unit: self.services.requests.create_issuance(unit, self.issuer, device)
        )
        found = opened.request
        if found.state is RequestState.PENDING:
            found = await self.database.transact(
                lambda unit: self.services.requests.approve(unit, self.second, found.id)
            )
        return found

    async def carried_out(self, request: UUID, *, produce: bool = False, days: int = 1000) -> Device:
        """Begin and finish a ready request, as a card session does."""
        session = uuid4()
        permission = Permission(self.issuer, self.issuer.grants)

        async def begin(unit: Unit) -> None:
            await self.services.requests.start(unit, permission, request, session)

        async def end(unit: Unit) -> Device:
            told = Told(
                read_back=True,
                expires_at=unit.now + timedelta(days=days),
                activate_by=unit.now + timedelta(days=30) if produce else None,
            )
            done = await self.services.requests.finish(unit, self.org, request, session, told, produce=produce)
            return await self.services.lifecycle.device(unit, self.org, done.card or done.device)

        await self.database.transact(begin)
        return await self.database.transact(end)

    async def issued(self, person: Person | None = None, *, days: int = 1000) -> Device:
        """A device in use."""
        holder = person or await self.person()
        device = await self.bound(holder)
        return await self.carried_out((await self.issuance(device)).id, days=days)

    async def device(self, identifier: UUID) -> Device:
        """A device as it is now."""
        return await self.database.read(lambda unit: self.services.lifecycle.device(unit, self.org, identifier))

    async def state(self, identifier: UUID) -> DeviceState:
        """A device's state now."""
        return (await self.device(identifier)).state

    async def request(self, identifier: UUID) -> Request:
        """A request as it is now."""
        return await self.database.read(lambda unit: self.services.requests.request(unit, self.org, identifier))

    async def open_requests(self, device: UUID) -> list[Request]:
        """What is open about a device."""
        return await self.database.read(lambda unit: self.services.requests.open_of(unit, self.org, device))


async def make_world(
    database: Database,
    policy: str = "civ",
    replacing: Sequence[tuple[str, str]] = (),
    *,
    org: UUID | None = None,
) -> World:
    """An organization whose one group has one policy that comes with the program, with texts in it replaced."""
    org = org or new_id()
    credentials = RecordedCredentials()
    free = wired(allow_every_part, credentials)
    group = await make_group(database, org, "staff")
    text = shipped(policy)
    for old, new in replacing:
        assert old in text
        text = text.replace(old, new)
    author = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    real = wired(authorizer(), credentials)

    async def publish(unit: Unit) -> None:
        draft = await real.policies.draft(unit, author, text)
        await real.policies.publish(unit, officer, draft.id)
        await real.policies.assign(unit, author, policy, group.id)

    await database.transact(publish)
    return World(
        database,
        org,
        group.id,
        real,
        free,
        credentials,
        issuer=await make_operator(database, org, Role.ISSUANCE),
        second=await make_operator(database, org, Role.ISSUANCE),
        helper=await make_operator(database, org, Role.HELP_DESK),
        officer=officer,
    )


def as_server(world: World) -> Permission:
    """The server's own permission."""
    return Permission(server(world.org))


def as_operator(principal: Principal, *roles: Role) -> Permission:
    """An operator's permission, as authorization would give it."""
    return Permission(principal, tuple(Grant(role) for role in roles) or principal.grants)
