"""Policies, devices, requests and certificates behind the gRPC API: a small organization and a vault of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from cardwright_server.api.calling import Calls
from cardwright_server.api.certificates import CertificateServicer
from cardwright_server.api.devices import DeviceServicer
from cardwright_server.api.people import GroupServicer, PersonServicer
from cardwright_server.api.policies import PolicyServicer
from cardwright_server.api.requests import RequestServicer
from cardwright_server.authentication.authorize import Authorize, Permission
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.puk import PukRelease
from cardwright_server.devices.puk_desk import Contact, PukDesk
from cardwright_server.devices.stock import SecretSealer
from cardwright_server.issuance.model import Certificate
from cardwright_server.issuance.status import CertificateService
from cardwright_server.people.directory import ReadableDirectory
from cardwright_server.people.erasure import ErasureService
from cardwright_server.people.importing import ImportService
from cardwright_server.requests.of_device import RequestsOfDevice
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.calls import LocalVault
from tests.support.api import Api, serving
from tests.support.lifecycles import World, make_world
from tests.support.people import authorizer
from tests.support.vault import make_core


@dataclass
class ToldContacts:
    """``Contacts`` that a test tells, by session."""

    told: dict[UUID, Contact] = field(default_factory=dict)

    async def contact(self, unit: Unit, org: UUID, device: UUID, session: UUID) -> Contact | None:
        return self.told.get(session)


@dataclass
class Managed:
    """An organization, and the API in front of it."""

    world: World
    api: Api
    vault: LocalVault
    contacts: ToldContacts

    async def call(self, name: str, request: Any, principal: Principal, **metadata: str) -> Any:
        """An answer; underscores in names of metadata stand for hyphens."""
        return await self.api.call(name, request, principal, _metadata(metadata))

    async def refused(self, name: str, request: Any, principal: Principal | None, **metadata: str) -> tuple[str, str]:
        """Status and code of a refusal."""
        return await self.api.refused(name, request, principal, _metadata(metadata))

    async def recorded(self) -> int:
        """How many audit entries there are."""
        statement = select(func.count()).select_from(audit_entry)
        count: int = await self.world.database.read(lambda unit: unit.value(statement))
        return count


def _metadata(given: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in given.items()}


@asynccontextmanager
async def managed(
    database: Database, folder: Path, policy: str = "civ", replacing: tuple[tuple[str, str], ...] = ()
) -> AsyncIterator[Managed]:
    """A world of ``lifecycles.make_world``, served."""
    world = await make_world(database, policy, replacing)
    core = make_core(folder / "vault", lambda: datetime.now(UTC).timestamp())
    vault, contacts = LocalVault(core), ToldContacts()
    async with serving(database, lambda calls: servicers(calls, world, vault, contacts)) as api:
        try:
            yield Managed(world, api, vault, contacts)
        finally:
            core.close()


def servicers(
    calls: Calls, world: World, vault: LocalVault, contacts: ToldContacts, directory: ReadableDirectory | None = None
) -> list[object]:
    """Persons, groups, policies, devices, requests and certificates of a world."""
    authorize, services, database = authorizer(), world.services, world.database
    release = PukRelease(services.lifecycle, RequestsOfDevice(), services.due)
    puks = PukDesk(authorize, services.requests, release, contacts, vault)
    directories = {} if directory is None else {world.org: directory}
    importing = ImportService(database, authorize, services.people, directories)
    erasure = ErasureService(services.people, ())
    return [
        PersonServicer(calls, services.people, importing, erasure),
        GroupServicer(calls, services.people),
        PolicyServicer(calls, services.policies),
        DeviceServicer(calls, database, services.devices, services.stock, SecretSealer(vault), puks),
        RequestServicer(calls, services.requests),
        CertificateServicer(calls, certificate_service(world, authorize), _no_rotation),
    ]


def certificate_service(world: World, authorize: Authorize) -> CertificateService:
    """Certificates of the persons of a world."""

    async def covered(unit: Unit, permission: Permission) -> Any:
        return world.services.people.covered(permission)

    return CertificateService(authorize, covered)


async def _no_rotation(principal: Principal) -> Certificate:
    raise AssertionError("there is no issuance here")
