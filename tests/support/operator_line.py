"""A server at a TCP port of the loopback, whose operators are known by client certificates, and the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_server.api.calling import Calls
from cardwright_server.api.strict import StrictMessages
from cardwright_server.authentication.errors import ProofRequired
from cardwright_server.authentication.principal import Principal
from cardwright_server.store.unit import Database
from tests.support.api import add
from tests.support.command_line import Desk, Ran

_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Authority:
    """A root that certifies a server and its operators."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def certificate(self) -> x509.Certificate:
        """Self-signed."""
        return self._certify(self.name, self.key.public_key(), x509.BasicConstraints(True, None))

    def issued(self, name: str, *extensions: x509.ExtensionType) -> bytes:
        """PEM of a new key, its certificate, and the root."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._certify(name, key.public_key(), x509.BasicConstraints(False, None), *extensions)
        return key.private_bytes(*_PEM) + b"".join(
            one.public_bytes(Encoding.PEM) for one in (made, self.certificate)
        )

    def _certify(
        self, name: str, key: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.name)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())


@dataclass
class OperatorLine:
    """Operators' files, and the command line that uses them."""

    address: str
    root: Authority
    folder: Path
    known: dict[bytes, Principal]

    def file(self, principal: Principal) -> Path:
        """A new key for an operator."""
        pem = self.root.issued(str(principal.id))
        self.known[_leaf(pem)] = principal
        path = self.folder / f"{len(self.known)}.pem"
        path.touch(0o600)
        path.write_bytes(pem)
        return path

    async def run(self, principal: Principal | Path, *arguments: str, **options: Any) -> Ran:
        """``cardwright server ...`` as an operator; in a thread, for the server is in this one."""
        path = principal if isinstance(principal, Path) else self.file(principal)
        given = ["server", *arguments, "--as", str(path), "--server", self.address]
        return await asyncio.to_thread(Desk().run, *given, **options)


@asynccontextmanager
async def operator_line(
    database: Database, folder: Path, servicers: Callable[[Calls], Iterable[object]]
) -> AsyncIterator[OperatorLine]:
    """A server of these servicers."""
    folder.mkdir(mode=0o700)
    root, known = Authority("Root"), dict[bytes, Principal]()

    async def identify(context: Any) -> Principal:
        pem = context.auth_context()["x509_pem_cert"][0]
        found = known.get(x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()))
        if found is None:
            raise ProofRequired("nobody has this certificate")
        return found

    own = root.issued("server", x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]))
    key, begin, chain = own.partition(b"-----BEGIN CERTIFICATE-----")
    trusted = root.certificate.public_bytes(Encoding.PEM)
    credentials = grpc.ssl_server_credentials([(key, begin + chain)], trusted, require_client_auth=True)
    server = grpc.aio.server(interceptors=[StrictMessages()])
    for servicer in servicers(Calls(database, identify)):
        add(server, servicer)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield OperatorLine(f"127.0.0.1:{port}", root, folder, known)
    finally:
        await server.stop(None)


def _leaf(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificates(pem[pem.index(b"-----BEGIN CERTIFICATE") :])[0].fingerprint(hashes.SHA256())
