"""A real organization on one card of one kind, of which every moment can be kept and gone back to.

Card and books are values: octets of the card's memory and of the SQLite file. What the vault was told stays told.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.audit.sealer import Sealer
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.model import Disposition, Reason
from cardwright_server.people.model import Role
from cardwright_server.sessions.ledger import LEASE
from cardwright_server.store.second_medium import SecondMedium
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import (
    ArchiveContext,
    Authorization,
    EscrowClass,
    MasterPurpose,
    PukPurpose,
    VaultCard,
    Wrapped,
)
from cardwright_simulators.card import VirtualCard
from tests.oracle.books import Books, SecretName, remembered
from tests.oracle.locked import judge_locked
from tests.oracle.recycled import judge_recycled
from tests.oracle.server import Told, judge, picture
from tests.support.audit import Signer
from tests.support.databases import Clock
from tests.support.people import make_operator
from tests.support.session_world import SessionWorld, make_session_world
from tests.support.sessions import PIN, Station, Trip, a_workstation
from tests.support.virtual import POOL

PROFILES = ("yubikey-5.7", "yubikey-5.4", "pivapplet", "tdes-only", "t0-short")
"""Kinds of cards that a server can issue: the others take no keys from outside, or never a new management key."""
NEW_PIN = b"271828"
ESCROWED = frozenset({0x9D})
ON_CURVES = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
SERIAL = 12345678
PLENTY = Limit(10_000_000, 10_000_000)
JUDGES = {sessions_pb2.PURPOSE_RECYCLE: judge_recycled, sessions_pb2.PURPOSE_LOCK: judge_locked}
"""Of jobs that end with another card than one in use."""
_BEHALF = Authorization("oracle", "oracle")


@dataclass(frozen=True)
class Moment:
    """Card and books at one time.

    ``signed``: what the vault had signed of certificates by then; ``remembered``: what was on the second medium.
    """

    card: bytes
    store: bytes
    at: datetime
    signed: tuple[bytes, ...] = ()
    remembered: frozenset[tuple[str, str]] = frozenset()
    label: str = ""

    @property
    def digest(self) -> bytes:
        """Equal for moments between which nothing changed."""
        return hashlib.sha256(b"".join((self.card, self.store, *self.signed))).digest()


@dataclass(frozen=True)
class Job:
    """What a session is to do, and from where on. ``pin``: what the person types, and has in the end."""

    name: str
    start: Moment
    purpose: sessions_pb2.Purpose.ValueType
    principal: Principal
    pin: bytes = PIN
    request: UUID | None = None


class WatchedStore(Database):
    """Tells before and after each transaction that writes."""

    watch: Callable[[str], None] | None = None

    async def transact(self, work: Any, **options: Any) -> Any:
        """As ``Database.transact``."""
        if self.watch is not None:
            self.watch("before a commit")
        result = await super().transact(work, **options)
        if self.watch is not None:
            self.watch("after a commit")
        return result


@dataclass
class FaultWorld:
    """One device of one person."""

    profile: str
    folder: Path
    world: SessionWorld
    database: WatchedStore
    clock: Clock
    signer: Signer
    device: UUID
    _medium: SecondMedium
    signed: list[bytes] = field(default_factory=list)
    _known: frozenset[tuple[str, str]] = frozenset()
    _cases: int = 0

    @property
    def path(self) -> Path:
        """The file of the store."""
        return self.folder / "store.db"

    # ------------------------------------------------------------------------------------------------- moments

    @property
    def remembered(self) -> frozenset[tuple[str, str]]:
        """What is on the second medium."""
        return self._known | remembered(self._medium.folder)

    def moment(self, card: VirtualCard, label: str = "", same: Moment | None = None) -> Moment:
        """Card and committed books, now; ``same``: a moment since which these did not change."""
        if same is not None:
            return replace(same, card=card.snapshot(), label=label)
        connection = sqlite3.connect(self.path)
        try:
            store = connection.serialize()
        finally:
            connection.close()
        return Moment(card.snapshot(), store, self.clock.now, tuple(self.signed), self.remembered, label)

    async def back_to(self, moment: Moment, *, later: timedelta = timedelta()) -> VirtualCard:
        """The card and the books of a moment, ``later`` by the clock."""
        await self.database.engine.dispose()
        for end in ("-wal", "-shm"):
            Path(f"{self.path}{end}").unlink(missing_ok=True)
        # Another file under the name: whoever still has the one before open reads that to its end.
        fresh = self.folder / "fresh.db"
        fresh.write_bytes(moment.store)
        os.replace(fresh, self.path)
        await self._medium.close()
        self._known, self._cases = moment.remembered, self._cases + 1
        self._medium = SecondMedium(self.folder / f"second-medium-{self._cases}")
        self.database._medium = self._medium
        self.clock.now = moment.at + later
        self.signed[:] = moment.signed
        return VirtualCard.restore(moment.card, key_pool=POOL)

    # ------------------------------------------------------------------------------------------------ sessions

    @asynccontextmanager
    async def serving(self, principal: Principal) -> AsyncIterator[str]:
        """A server; gives its socket."""
        async with self.world.serving(self.world.office(self.device), principal) as socket:
            yield socket

    async def session(self, job: Job, station: Station, socket: str, cut: int | None = None) -> Trip:
        """One session for a job."""
        request = "" if job.request is None else str(job.request)
        return await replace(station, pin=job.pin).run(socket, job.purpose, cut=cut, request=request)

    async def released(self) -> None:
        """Until the server noticed that the workstation hung up: no session goes on."""
        async with asyncio.timeout(30):
            while any(row["ended_at"] is None for row in Books.read(self.path).of("card_session")):
                await asyncio.sleep(0.01)

    # --------------------------------------------------------------------------------------------------- judge

    async def seen(self, job: Job) -> tuple[Books, Told]:
        """The books with everything sealed, and what the judge is told."""
        self.clock.now += LEASE + timedelta(seconds=1)
        sealer = Sealer(self.database, self.signer)
        while await sealer.step():
            pass
        books, vault, org = Books.read(self.path), self.world.issuing.vault, str(self.world.org)
        secrets = {name: await self._secret(name) for name in books.secrets(self.device)}
        archive = {}
        for row in books.tables["escrowed_key"]:
            bound = row["certificate"] or b""
            context = ArchiveContext(org, row["owner"], row["public_key"], bound, EscrowClass(row["escrow_class"]))
            sealed = Wrapped(MasterPurpose.ARCHIVE, row["master"], row["wrapped"])
            opened = load_der_private_key((await vault.unwrap_for_card(sealed, context, _BEHALF)).reveal(), None)
            archive[row["fingerprint"]] = opened.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
        told = Told(
            self.device,
            job.pin,
            self.clock.now,
            job.request,
            ESCROWED,
            secrets,
            archive,
            tuple(self.signed),
            self.remembered,
            self.signer.public,
        )
        return books, told

    async def wrong(self, job: Job, card: VirtualCard, like: object = None) -> list[str]:
        """What the judge finds; ``like`` is the picture that the end has to have."""
        books, told = await self.seen(job)
        found = JUDGES.get(job.purpose, judge)(card.snapshot(), books, told)
        if like is not None:
            ends: Any = picture(card.snapshot(), books, told)
            found += [f"the end is another one: {name}" for name, one in dict(like).items() if ends[name] != one]  # type: ignore[call-overload]
        return found

    async def picture(self, job: Job, card: VirtualCard) -> dict[str, Any]:
        """The normalized end."""
        books, told = await self.seen(job)
        return picture(card.snapshot(), books, told)

    async def _secret(self, name: SecretName) -> bytes:
        card = VaultCard(str(self.world.org), str(self.device), name.generation, name.master)
        vault = self.world.issuing.vault
        if name.kind == "puk":
            return (await vault.puk(card, PukPurpose.SET, _BEHALF)).reveal()
        algorithm = ManagementAlgorithm(name.algorithm or 0)
        return (await vault.new_management_key(card, algorithm, _BEHALF)).reveal()

    async def close(self) -> None:
        """Give everything back."""
        self.world.issuing.core.close()
        await self.database.close()
        await self._medium.close()


async def make_fault_world(profile: str, job: str, folder: Path, template: Path) -> FaultWorld:
    """An organization with a device of a person, for one job. ``template``: a SQLite file with every table, empty."""
    folder.mkdir(parents=True)
    shutil.copyfile(template, folder / "store.db")
    medium = SecondMedium(folder / "second-medium")
    clock = Clock(datetime.now(UTC).replace(microsecond=0))
    database = WatchedStore(f"sqlite:///{folder / 'store.db'}", second_medium=medium, clock=clock)
    world = await make_session_world(database, folder, "civ", ON_CURVES)
    core = world.issuing.core
    assert core.document is not None
    core.document.limits.update(dict.fromkeys(core.document.limits, PLENTY))
    core.log._now = lambda: clock.now.timestamp()
    device = await world.bound(VirtualCard(profile, serial=SERIAL, key_pool=POOL))
    made = FaultWorld(profile, folder, world, database, clock, Signer(strict=False), device, medium)
    vault: Any = world.issuing.vault
    sign = vault.sign_certificate

    async def noted(ca: str, rule: str, tbs: bytes) -> bytes:
        signature: bytes = await sign(ca, rule, tbs)
        made.signed.append(tbs)
        if database.watch is not None:
            database.watch("after a signature")
        return signature

    vault.sign_certificate = noted
    return made


# --------------------------------------------------------------------------------------------------------------- jobs


async def issuance(here: FaultWorld, card: VirtualCard | None = None) -> tuple[Job, VirtualCard]:
    """A blank card, or the one that there is, and a ready request to issue it."""
    request = await here.world.world.issuance(here.device)
    card = card or VirtualCard(here.profile, serial=SERIAL, key_pool=POOL)
    issuer = here.world.world.issuer
    return Job("issue", here.moment(card), sessions_pb2.PURPOSE_ISSUE, issuer, request=request.id), card


async def issued(here: FaultWorld) -> VirtualCard:
    """A card that was issued."""
    job, card = await issuance(here)
    async with here.serving(job.principal) as socket:
        trip = await here.session(job, Station(card), socket)
    assert trip.outcome == sessions_pb2.OUTCOME_DONE, trip
    card.power_off()
    return card


async def renewal(here: FaultWorld) -> tuple[Job, VirtualCard]:
    """An issued card whose certificates end soon: new keys, and the old escrowed one to a retired slot."""
    card = await issued(here)
    ends = min(one.not_after for one in await here.world.certificates_of(here.device))
    here.clock.now = ends - timedelta(days=10)
    issuer = await make_operator(here.database, here.world.org, Role.ISSUANCE)
    return Job("update", here.moment(card), sessions_pb2.PURPOSE_UPDATE, issuer), card


async def unlock(here: FaultWorld) -> tuple[Job, VirtualCard]:
    """An issued card whose PIN is blocked, and a request to unlock it."""
    card = await issued(here)
    card.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    while json.loads(card.snapshot())["references"]["80"]["tries"]:
        card.transmit(bytes.fromhex("00200080083030303030303030"))
    card.power_off()
    people = here.world.world
    opened = await here.database.transact(
        lambda unit: people.services.requests.create_unlock(unit, people.helper, here.device)
    )
    request = opened.request.id
    return Job("unlock", here.moment(card), sessions_pb2.PURPOSE_UNLOCK, people.helper, NEW_PIN, request), card


async def recycling(here: FaultWorld) -> tuple[Job, VirtualCard]:
    """The card of someone who left, which an operator wants back in stock."""
    card = await issued(here)
    people = here.world.world

    async def work(unit: Unit) -> UUID:
        devices, requests = people.services.devices, people.services.requests
        await devices.terminate(unit, people.helper, here.device, Reason.LEFT, Disposition.COLLECTED)
        return (await requests.create_recycle(unit, people.issuer, here.device)).request.id

    request = await here.database.transact(work)
    return Job("recycle", here.moment(card), sessions_pb2.PURPOSE_RECYCLE, people.issuer, request=request), card


async def locking(here: FaultWorld) -> tuple[Job, VirtualCard]:
    """A card that somebody suspended so that it is locked at its next contact, wherever that is."""
    card = await issued(here)
    people = here.world.world
    devices, device = people.services.devices, here.device
    await here.database.transact(lambda unit: devices.suspend(unit, people.helper, device, lock_card=True))
    return Job("lock", here.moment(card), sessions_pb2.PURPOSE_LOCK, a_workstation(here.world.org)), card


JOBS = {"issue": issuance, "update": renewal, "unlock": unlock, "recycle": recycling, "lock": locking}
