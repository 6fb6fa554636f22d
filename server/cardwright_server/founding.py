"""``cardwright server init``: an installation from nothing, and the credential of its first operators (S7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import resources
from typing import Final
from uuid import UUID

from cryptography import x509

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

from . import policies
from .app import Domains, issuance_of, wire
from .audit.model import SERVER
from .authentication.authorize import CallTarget, Permission
from .authentication.errors import AccessDenied
from .authentication.first import FirstOperators
from .authentication.matrix import Call
from .authentication.principal import Principal, PrincipalKind, server
from .config import Installation, names_of
from .issuance.authorities import Plan, establish, organization
from .issuance.crl import CrlPublisher
from .issuance.model import Purpose
from .issuance.own import OwnCertificates
from .loss import require_database
from .opening import DataFolderInUse, OpenVault, has_vault, make_folders, make_vault, open_vault, own_folder
from .operation.restore import require_whole
from .people.model import Grant, Role
from .people.operators import OperatorService
from .people.service import PeopleService
from .policies.errors import PolicyUnreachable
from .policies.model import VersionState
from .store.ids import new_id
from .store.migrate import upgrade
from .store.second_medium import SecondMedium, begin
from .store.unit import Database, Unit
from .tls import TlsFiles
from .vault.errors import VaultRefused
from .vault.model import KeyRole, SigningAlgorithm

AUDIT_KEY: Final = "audit"
ASSIGNED: Final = "civ"
"""The policy that is in force from the beginning."""
GROUP: Final = "everyone"
"""The group that it is assigned to; whoever is to get a card is put into it."""
NAMES: Final = {
    Purpose.ROOT: "Root",
    Purpose.CARDS: "Cards",
    Purpose.WORKSTATIONS: "Workstations and Operators",
    Purpose.SERVERS: "Servers",
}
_MAY: Final = frozenset(
    {
        "PolicyService.Draft",
        "PolicyService.Publish",
        "PolicyService.Assign",
        "PolicyService.Find",
        "GroupService.Create",
    }
)


class NotFounded(CardwrightError):
    """There is no installation in this folder, or it was not finished."""

    code = "SERVER_NOT_INITIALIZED"
    default_effect = "Nothing was started."
    default_advice = "Run cardwright server init first."


@dataclass(frozen=True, slots=True)
class Founded:
    """What ``init`` shows: the credential, once, and its end."""

    credential: Secret = field(repr=False)
    ends: datetime
    org: UUID


async def found(
    installation: Installation,
    passphrase: Callable[[bool], Secret],
    *,
    memory: int | None = None,
    report: Callable[[str], None] = lambda step: None,
) -> Founded:
    """Make whatever is missing, and a new credential. Safe to repeat after a failure at any point.

    ``passphrase`` is asked for the vault's; True: for a new one. ``memory``: KiB that trying a new vault's passphrase
    costs. While a server runs from the folder, only the credential is made. Raises DataFolderUnusable,
    RestoreUnfinished, DatabaseMissing, SecondMediumUnavailable, SecondMediumDamaged, VaultError, StoreError,
    ConfigurationRefused, FirstCredentialSpent.
    """
    make_folders(installation)
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(own_folder(installation))
        except DataFolderInUse:
            return await _credential_beside(installation)
        require_whole(installation)
        await require_database(installation)
        report("database")
        await upgrade(installation.database)
        if installation.vault is not None and not has_vault(installation.vault):
            report("vault")
            secret = passphrase(True)
            await make_vault(installation, secret, memory)
        else:
            secret = passphrase(False)
        vault = await stack.enter_async_context(open_vault(installation, secret))
        database = await stack.enter_async_context(open_database(installation))
        org = await organization(database)
        if org is None:
            org = new_id()
            begin(installation.second_medium, org)
        require_journal(database, org)
        report("authorities")
        await _authorities(installation, database, vault, org)
        await CrlPublisher(vault.client).publish_due(database)
        domains = wire(installation, database, vault.client, org, authorize=_founder)
        stack.callback(domains.close)
        report("policies")
        await database.transact(lambda unit: _policies(unit, domains, org))
        credential, ends = await database.transact(lambda unit: domains.first.create(unit, org))
        return Founded(credential, ends, org)


@asynccontextmanager
async def open_database(installation: Installation) -> AsyncIterator[Database]:
    """The database of an installation, with its second medium."""
    medium = SecondMedium(installation.second_medium)
    database = Database(installation.database, second_medium=medium, pool=installation.config.database.pool)
    try:
        yield database
    finally:
        await database.close()
        await medium.close()


def require_journal(database: Database, org: UUID) -> None:
    """That the second medium is the organization's, now and whenever it is written.

    Raises SecondMediumUnavailable, SecondMediumDamaged.
    """
    assert database.second_medium is not None
    database.second_medium.belong_to(org)


async def _credential_beside(installation: Installation) -> Founded:
    async with open_database(installation) as database:
        org = await organization(database)
        if org is None:
            raise NotFounded("another process uses the folder, and the installation is not finished")
        require_journal(database, org)
        first = FirstOperators(_founder, PeopleService(_founder), OperatorService(_founder))
        credential, ends = await database.transact(lambda unit: first.create(unit, org))
        return Founded(credential, ends, org)


async def _authorities(installation: Installation, database: Database, vault: OpenVault, org: UUID) -> None:
    assert vault.admin is not None
    try:
        await vault.client.public_key(AUDIT_KEY)
    except VaultRefused:
        await vault.admin.create_key(AUDIT_KEY, KeyRole.AUDIT, SigningAlgorithm.P256)
    base = x509.Name.from_rfc4514_string(installation.config.issuance.subject)
    tls = TlsFiles(installation.tls, *names_of(installation.config))
    own = OwnCertificates(issuance_of(installation, vault.client), vault.client, (tls,))
    await establish(database, vault.client, vault.admin, own, SERVER, org, Plan(base, NAMES))


async def _founder(unit: Unit | None, principal: Principal, call: Call, target: CallTarget) -> Permission:
    """``Authorize`` while there are no operators: the program drafts what it brings, the installation publishes it."""
    if call.name not in _MAY or principal.kind is not PrincipalKind.SYSTEM or principal.org != target.org:
        raise AccessDenied(f"{call.name} is no part of founding an installation")
    grants = (Grant(Role.ADMINISTRATOR), Grant(Role.SECURITY_OFFICER))
    return Permission(replace(principal, kind=PrincipalKind.OPERATOR), grants)


async def _policies(unit: Unit, domains: Domains, org: UUID) -> None:
    """Publish what comes with the program and is not there yet, and assign one; not what certificate profiles of the
    installation's own leave out of reach.
    """
    program, installation = server(org), replace(server(org), id=org)
    group = await domains.people.create_group(unit, program, GROUP)
    for name in sorted(
        one.name.removesuffix(".toml") for one in resources.files(policies).joinpath("shipped").iterdir()
    ):
        if await domains.policies.find(unit, program, name=name, states=(VersionState.PUBLISHED,)):
            continue
        try:
            draft = await domains.policies.draft_shipped(unit, program, name)
        except PolicyUnreachable:
            continue
        await domains.policies.publish(unit, installation, draft.id)
    if await domains.policies.find(unit, program, name=ASSIGNED, states=(VersionState.PUBLISHED,)):
        await domains.policies.assign(unit, program, ASSIGNED, group.id)
