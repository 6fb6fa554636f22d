"""Issuance of an installation for tests: vault with authorities, database, keys that ask, openssl that judges."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.references import Slot
from cardwright_server.audit.model import SERVER
from cardwright_server.http import serve
from cardwright_server.http.app import make_app
from cardwright_server.issuance import profiles, store
from cardwright_server.issuance.authorities import Plan, establish
from cardwright_server.issuance.backend import AuthorityBackend
from cardwright_server.issuance.crl import CrlPublisher
from cardwright_server.issuance.model import Authority, Certificate, Holder, HolderKind, Issued, Purpose
from cardwright_server.issuance.names import HolderNames
from cardwright_server.issuance.ocsp import OcspResponder
from cardwright_server.issuance.origin import Expected, Sealed
from cardwright_server.issuance.own import OwnCertificates
from cardwright_server.issuance.requests import CertificateRequest
from cardwright_server.issuance.service import IssuanceService, Settings
from cardwright_server.issuance.tbs import Places
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.calls import LocalVault, VaultAdmin
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.model import SigningAlgorithm

from .vault import PASSPHRASE, make_core

ON_SQLITE = pytest.mark.parametrize("engine_name", ["sqlite"])
"""For tests about what is signed and answered, which no engine changes: each world costs seconds on a busy machine."""
T = TypeVar("T")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
BASE = x509.Name.from_rfc4514_string("O=Cardwright Test,C=US")
NAMES = {
    Purpose.ROOT: "Test Root",
    Purpose.CARDS: "Test Cards",
    Purpose.WORKSTATIONS: "Test Workstations",
    Purpose.SERVERS: "Test Servers",
}
FASCN = bytes.fromhex("d4e739da739ced39ce739da1685a1082108ce73984108f3fc6")[:25]


@dataclass
class World:
    """One installation with one organization."""

    database: Database
    core: VaultCore
    vault: LocalVault
    admin: VaultAdmin
    service: IssuanceService
    own: OwnCertificates
    org: UUID
    folder: Path
    places: Places
    authorities: dict[Purpose, Authority] = field(default_factory=dict)

    @property
    def publisher(self) -> CrlPublisher:
        """With the usual times."""
        return CrlPublisher(self.vault)

    def ca(self, purpose: Purpose) -> x509.Certificate:
        """The certificate of an authority."""
        return self.authorities[purpose].x509

    async def refresh(self) -> None:
        """Read the authorities again."""
        found = await self.database.read(store.authorities)
        self.authorities = {one.purpose: one for one in found if not one.foreign}

    async def issue(self, request: CertificateRequest) -> Certificate:
        """Issue and require that it was."""
        answer = await self.service.certify(self.database, SERVER, request)
        assert isinstance(answer, Issued), answer
        return answer.certificate

    async def do(self, work: Callable[[Unit], Coroutine[Any, Any, T]]) -> T:
        """One transaction."""
        return await self.database.transact(work)

    def request(self, key: Key, profile: str = "piv-authentication", **changes: Any) -> CertificateRequest:
        """A good request for slot 9A of a new device; the key came through a sealed channel."""
        public = spki(key)
        device = uuid4()
        names = HolderNames(
            common_name="Ada Lovelace",
            email="ada@example.test",
            upn="ada@example.test",
            sid="S-1-5-21-1004336348-1177238915-682003330-512",
            principal="ada@EXAMPLE.TEST",
            fascn=FASCN,
            card_uuid=device,
        )
        made = CertificateRequest(
            id=uuid4(),
            org=self.org,
            profile=profile,
            holder=Holder(HolderKind.DEVICE_SLOT, device, "9a", None),
            names=names,
            expected=Expected(public, Slot.AUTHENTICATION),
            proof=csr(key),
            evidence=Sealed(public),
            session=uuid4(),
        )
        return replace(made, **changes)


async def make_world(
    database: Database,
    folder: Path,
    *,
    now: Callable[[], float] | None = None,
    issuing: SigningAlgorithm = SigningAlgorithm.P256,
    root: SigningAlgorithm = SigningAlgorithm.P384,
    base: str = "http://status.example.test",
    backends: tuple[AuthorityBackend, ...] = (),
    routes: dict[str, str] | None = None,
    known: tuple[x509.Certificate, ...] = (),
    org: UUID | None = None,
) -> World:
    """Everything of ``establish``, in ``folder``; close ``core`` in the end."""
    core = make_core(folder / "vault", now or (lambda: datetime.now(UTC).timestamp()))
    vault = LocalVault(core)
    places = Places(base)
    service = IssuanceService(profiles.load(), vault, Settings(places, BASE, known, routes or {}), backends)
    own = OwnCertificates(service, vault)
    world = World(database, core, vault, vault.admin(PASSPHRASE), service, own, org or uuid4(), folder, places)
    await establish(
        database, vault, world.admin, own, SERVER, world.org, Plan(BASE, NAMES, root=root, issuing=issuing)
    )
    await world.refresh()
    return world


def new_key(kind: str = "p256") -> Key:
    """A key outside of the vault."""
    match kind:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def spki(key: Key) -> bytes:
    """SubjectPublicKeyInfo DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def csr(key: Key, digest: hashes.SHA256 | hashes.SHA384 | None = None) -> bytes:
    """A PKCS #10 request by ``key``."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def pem(folder: Path, name: str, *certificates: bytes) -> Path:
    """A PEM file of DER certificates."""
    path = folder / f"{name}.pem"
    path.write_bytes(b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in certificates))
    return path


def openssl(*arguments: str | Path, ok: bool = True) -> str:
    """What openssl prints, both outputs."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False, timeout=60)
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert (done.returncode == 0) is ok, text
    return text


@asynccontextmanager
async def serving(database: Database, responder: OcspResponder) -> AsyncIterator[str]:
    """The HTTP application on a free port of the loopback, in this loop; gives its address."""
    async with serve.serving(make_app(database, responder), "127.0.0.1", 0) as (host, port):
        yield f"http://{host}:{port}"


async def aside(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Run something that waits in a thread, while the loop goes on."""
    return await asyncio.to_thread(work, *arguments, **options)

