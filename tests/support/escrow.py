"""An archive for tests: vault, database, tasks of card sessions, certificates for keys that the vault made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.algorithms import Algorithm, PrivateKey
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import fingerprint
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.escrow.archive import EscrowArchive
from cardwright_server.escrow.model import Archived, Quotas
from cardwright_server.escrow.service import EscrowService
from cardwright_server.joins.escrowing import CardPolicies
from cardwright_server.people.model import Person
from cardwright_server.sessions.model import Purpose
from cardwright_server.sessions.ports import Task
from cardwright_server.store.unit import Database
from cardwright_server.vault.calls import LocalVault
from tests.support.lifecycles import RecordedCredentials, Services, wired
from tests.support.people import authorizer, make_person, make_proven
from tests.support.sessions import policy
from tests.support.vault import make_core

_CA = ec.generate_private_key(ec.SECP256R1())
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def certificate_for(key: PublicKey, name: str = "Ada") -> bytes:
    """A certificate (DER) that openssl encrypts to."""
    now = datetime.now(UTC)
    subject, issuer = (x509.Name.from_rfc4514_string(f"CN={one},O=Test") for one in (name, "CA"))
    number = x509.random_serial_number()
    builder = x509.CertificateBuilder(issuer, subject, key, number, now - timedelta(hours=1), now + timedelta(days=99))
    return builder.sign(_CA, hashes.SHA256()).public_bytes(Encoding.DER)


def task_of(org: UUID, person: UUID | None, **changes: object) -> Task:
    """The issuance of a new device."""
    made = Task(org, uuid4(), Purpose.ISSUE, policy(), uuid4(), date(2030, 1, 1), person=person)
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class Keep:
    """One archive over one database and vault, and the organization that asks it."""

    database: Database
    vault: LocalVault
    org: UUID = field(default_factory=uuid4)
    person: UUID = field(default_factory=uuid4)

    @property
    def archive(self) -> EscrowArchive:
        """As ``app.py`` makes it."""
        return self.over(self.database)

    def over(self, database: Database) -> EscrowArchive:
        """The same over another database, as another process would."""
        return EscrowArchive(database, self.vault, wired(authorizer(), RecordedCredentials()).requests)

    def task(self, person: UUID | None = None, **changes: object) -> Task:
        """The issuance of a new device to the person."""
        return task_of(self.org, person or self.person, **changes)

    async def new(
        self,
        task: Task | None = None,
        *,
        algorithm: Algorithm = Algorithm.P256,
        certified: bool = True,
        session: UUID | None = None,
    ) -> Archived:
        """A key that was made for a device, given for it, and certified."""
        wanted = task or self.task()
        key = await self.archive.key(wanted, session or uuid4(), Slot.KEY_MANAGEMENT, algorithm, "")
        mark = fingerprint(key.public_key())
        if certified:
            public = key.public_key()
            assert isinstance(public, PublicKey)
            await self.archive.bind_certificate(self.org, mark, certificate_for(public))
        return await self.archive.archived(self.org, mark)

    async def given(
        self, key: Archived, task: Task, slot: Slot = Slot.RETIRED_1, session: UUID | None = None
    ) -> PrivateKey:
        """The key, for a slot of the task's device."""
        return await self.archive.key(task, session or uuid4(), slot, key.algorithm, key.fingerprint)


def make_keep(database: Database, folder: Path, now: Callable[[], float] | None = None) -> Keep:
    """With a new vault."""
    clock = now or (lambda: datetime.now(UTC).timestamp())
    return Keep(database, LocalVault(make_core(folder / f"vault-{uuid4()}", clock)))


@dataclass
class Counter:
    """An archive with a service in front of it, and one person who has keys there."""

    keep: Keep
    services: Services
    holder: Person
    quotas: Quotas = field(default_factory=Quotas)

    def service(self, database: Database | None = None) -> EscrowService:
        """As ``app.py`` wires it; over another database, as another process would."""
        to, keep = self.services, self.keep
        return EscrowService(
            database or keep.database, authorizer(), to.people, to.requests, to.due, keep.vault,
            CardPolicies(to.lifecycle, to.policies), self.quotas,
        )  # fmt: skip

    async def proven(self, person: Person | None = None, *methods: Method) -> Principal:
        """The holder, or another person, having proved who they are: by card unless told otherwise."""
        return await make_proven(self.keep.database, person or self.holder, *(methods or (Method.CARD,)))


async def make_counter(keep: Keep) -> Counter:
    """With a new person."""
    holder = await make_person(keep.database, keep.org, "ada")
    keep.person = holder.id
    return Counter(keep, wired(authorizer(), RecordedCredentials()), holder)


def spki(key: PrivateKey) -> bytes:
    """SubjectPublicKeyInfo DER of a private key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
