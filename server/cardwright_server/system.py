"""The installation itself: how it stands, and its first two operators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

from .audit.model import AuditEntry, Fact, Target
from .audit.sealer import Sealer
from .audit.service import latest_anchor
from .authentication.authorize import Authorize, CallTarget
from .authentication.first import FirstOperators
from .authentication.matrix import Call
from .authentication.principal import Principal, anyone
from .condition import Condition
from .config import Installation
from .issuance import store as certificates
from .issuance.model import OWN
from .issuance.own import Alarm, alarm
from .joins.certificates import OperatorCertificates, requested_key, root_certificate
from .notify.outbox import Dispatcher
from .notify.sender import Sender
from .operation.backup import back_up, vault_admin
from .operation.manifest import Manifest
from .operation.masters import Masters, require_old
from .people.model import AccountKind, Operator, Role
from .release import release
from .store.ids import new_id
from .store.unit import Database, Unit
from .timers import Timers
from .vault.client import AdminClient
from .vault.errors import VaultError
from .vault.model import LockState, MasterPurpose
from .vault.protocol import Vault

_YEAR = timedelta(days=365)
ALARMING = 3
"""Failures in a row from which a task that repeats itself counts as broken."""


@dataclass(frozen=True, slots=True)
class Part:
    """How one part stands. ``code`` of what is wrong, "" if nothing is."""

    name: str
    good: bool
    code: str = ""
    failures: int = 0
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A certificate of the server's own."""

    kind: str
    name: str
    ends: datetime
    alarm: Alarm


@dataclass(frozen=True, slots=True)
class Standing:
    """How the installation stands, as this process sees it."""

    release: str
    started: datetime
    database: str
    vault: str
    parts: tuple[Part, ...]
    certificates: tuple[OwnCertificate, ...]
    anchor: str


@dataclass(frozen=True, slots=True)
class Hello:
    """What anyone may know: the server's root, and its time."""

    root: bytes
    now: datetime


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A first operator, and what they connect with. ``chain`` goes from the issuer up to the root."""

    operator: Operator
    certificate: bytes
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Who is to be a first operator. ``request``: PKCS #10 (DER) by their key."""

    role: Role
    login: str
    display_name: str = field(repr=False)
    mail: str = field(repr=False)
    request: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Watched:
    """What a standing looks at."""

    database: Database
    vault: Vault
    timers: Timers
    sealer: Sealer
    dispatcher: Dispatcher
    sender: Sender | None
    conditions: tuple[Condition, ...]
    started: datetime


class SystemService:
    """Calls about the installation."""

    def __init__(
        self,
        authorize: Authorize,
        first: FirstOperators,
        certificates: OperatorCertificates,
        watched: Watched,
        installation: Installation,
        masters: Masters,
    ) -> None:
        self._authorize = authorize
        self._first = first
        self._certificates = certificates
        self._watched = watched
        self._installation = installation
        self._masters = masters

    async def hello(self, principal: Principal) -> Hello:
        """What anyone may know. Raises AuthorizationError, NoSuchAuthority, StoreError."""
        # Open to everyone, so asked for as someone who has proved nothing: no role is needed for it.
        caller = anyone(principal.org, front=principal.front, address=principal.address)

        async def read(unit: Unit) -> Hello:
            await self._authorize(unit, caller, Call("SystemService.Hello"), CallTarget(principal.org))
            return Hello(sha256(await root_certificate(unit, principal.org)).digest(), unit.now)

        return await self._watched.database.read(read)

    async def status(self, principal: Principal) -> Standing:
        """How everything stands. Raises AuthorizationError, StoreError."""
        watched = self._watched

        async def read(unit: Unit) -> tuple[OwnCertificate, ...]:
            await self._authorize(unit, principal, Call("SystemService.Status"), CallTarget(principal.org))
            return await own_certificates(unit)

        own = await watched.database.read(read)
        anchor = await latest_anchor(watched.database)
        vault, backend = await self._vault()
        return Standing(
            release(),
            watched.started,
            watched.database.url.get_backend_name(),
            backend,
            (vault, *parts(watched)),
            own,
            str(anchor) if anchor is not None else "",
        )

    async def enrol_first(self, principal: Principal, credential: Secret, newcomer: Newcomer) -> Enrolled:
        """Make a first operator by the credential, and certify their key. With the same key it is the same act.

        Raises what ``FirstOperators.enrol`` raises, CertificateRefused, VaultError, StoreError.
        """
        spki = requested_key(newcomer.request)
        unproven = Operator(new_id(), principal.org, AccountKind.PERSON, None, "newcomer", True, 0, ())
        self._certificates.asked(principal.org, unproven, newcomer.request)
        operator = await self._watched.database.transact(
            lambda unit: self._first.enrol(
                unit,
                principal,
                credential,
                newcomer.role,
                login=newcomer.login,
                display_name=newcomer.display_name,
                spki=sha256(spki).digest(),
                mail=newcomer.mail,
            )
        )
        made = await self._certificates.issue(principal.org, operator, newcomer.request)
        return Enrolled(operator, made.certificate, tuple(await self._certificates.chain(principal.org)))

    async def back_up(self, principal: Principal, name: str, vault: Secret, backup: Secret) -> tuple[Path, Manifest]:
        """A backup in a new folder of that name. ``vault`` is the vault's passphrase, ``backup`` the new one.

        Raises AuthorizationError, BackupFailed, VaultError, StoreError.
        """
        await self._record(principal, "SystemService.Backup", "system.backup-begun", {"name": name})
        folder = self._installation.backups
        folder.mkdir(mode=0o700, exist_ok=True)
        async with vault_admin(self._installation, vault) as admin:
            made = await back_up(self._installation, admin, backup, folder / name)
        await self._record(principal, "SystemService.Backup", "system.backup-made", {"name": name})
        return folder / name, made

    async def rotate_master(self, principal: Principal, purpose: MasterPurpose, vault: Secret) -> int:
        """A new version of a master key; its number. Raises AuthorizationError, VaultError, StoreError."""
        call, facts = "SystemService.RotateMaster", {"purpose": purpose.value}
        await self._record(principal, call, "system.rotation-begun", facts)
        async with self._admin(vault) as admin:
            version = await admin.rotate_master(purpose)
        await self._record(principal, call, "system.master-rotated", {**facts, "version": version})
        return version

    async def destroy_master(
        self, principal: Principal, purpose: MasterPurpose, version: int, vault: Secret
    ) -> None:
        """Destroy an old version of a master key that nothing needs any more.

        Raises AuthorizationError, MasterUnknown, MasterCurrent, MasterSettling, MasterInUse, VaultError, StoreError.
        """
        call, facts = "SystemService.DestroyMaster", {"purpose": purpose.value, "version": version}
        standing = await self._watched.vault.status()

        async def permit(unit: Unit) -> None:
            await self._authorize(unit, principal, Call(call), CallTarget(principal.org))
            require_old(standing, purpose, version)
            await self._masters.require_unused(unit, purpose, version)
            target = Target("organization", principal.org)
            unit.audit(AuditEntry(principal.org, principal.who, "system.destruction-begun", target, facts=facts))

        await self._watched.database.transact(permit)
        async with self._admin(vault) as admin:
            await admin.destroy_master(purpose, version)
        await self._record(principal, call, "system.master-destroyed", facts)

    @asynccontextmanager
    async def _admin(self, vault: Secret) -> AsyncIterator[AdminClient]:
        uid = self._installation.config.vault.uid
        admin = AdminClient(self._installation.vault_sockets, vault, uid=uid)
        try:
            yield admin
        finally:
            await admin.close()

    async def _record(self, principal: Principal, call: str, action: str, facts: Mapping[str, Fact]) -> None:
        """Ask for the right, and write down what happens: before it is done, and after. Raises AuthorizationError."""

        async def work(unit: Unit) -> None:
            await self._authorize(unit, principal, Call(call), CallTarget(principal.org))
            target = Target("organization", principal.org)
            unit.audit(AuditEntry(principal.org, principal.who, action, target, facts=facts))

        await self._watched.database.transact(work)

    async def _vault(self) -> tuple[Part, str]:
        try:
            found = await self._watched.vault.status()
        except VaultError as error:
            return Part("vault", False, error.code), ""
        locked = found.state is not LockState.UNLOCKED
        return Part("vault", not locked, "VAULT_LOCKED" if locked else ""), found.backend


def parts(watched: Watched) -> tuple[Part, ...]:
    """How the parts of this process stand that work by themselves. No statement."""
    found = [
        Part(
            state.name,
            state.failures < ALARMING,
            state.error,
            state.failures,
            state.done_at,
        )
        for state in watched.timers.states.values()
    ]
    sealer = watched.sealer
    found.append(Part("audit", sealer.failures < ALARMING, _code(sealer.error), sealer.failures))
    found.append(Part("outbox", watched.dispatcher.error is None, _code(watched.dispatcher.error)))
    if watched.sender is not None:
        found.append(Part("mail", watched.sender.error is None, _code(watched.sender.error)))
    found.extend(Part(one.name, not one.code, one.code) for one in watched.conditions)
    return tuple(found)


async def own_certificates(unit: Unit) -> tuple[OwnCertificate, ...]:
    """For each key of the server's own the certificate that ends last."""
    newest: dict[tuple[str, str], OwnCertificate] = {}
    for one in await certificates.certificates_of_kinds(unit, OWN, unit.now - _YEAR):
        place = (one.holder.kind.value, one.holder.part or str(one.holder.id))
        if place not in newest:
            newest[place] = OwnCertificate(*place, one.not_after, alarm(one.not_before, one.not_after, unit.now))
    return tuple(newest.values())


def _code(error: CardwrightError | str | None) -> str:
    if isinstance(error, CardwrightError):
        return error.code
    return "" if error is None else "MAIL_SERVER_FAILED"
