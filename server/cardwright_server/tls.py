"""The server's TLS key and certificate in the data folder, renewed without a restart.

Key and chain are one file, so that a crash leaves the old pair or the new one. The next key waits in a file of its own
until its certificate is there.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError

from .issuance.model import Holder, HolderKind
from .issuance.names import HolderNames
from .store.ids import new_id

_CURRENT, _NEXT, _ID = "server.pem", "next.key", "id"


class TlsUnusable(CardwrightError):
    """The server's TLS key or certificate cannot be used."""

    code = "TLS_KEY_UNUSABLE"
    default_effect = "The server does not accept connections."
    default_advice = "Move the files of the data folder's 'tls' away and start again: a new key is made and certified."


class TlsFiles:
    """``issuance.own.ServerKey``: the key is made here and never leaves this folder."""

    def __init__(self, folder: Path, dns: Sequence[str], addresses: Sequence[str]) -> None:
        """Makes the folder if it is missing. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        # Other names are another holder, so that a change of names brings a new certificate.
        self.holder = Holder(HolderKind.SERVER, uuid5(self._instance(), " ".join([*dns, *addresses])))
        self.names = HolderNames(common_name=(dns or addresses)[0][:64], dns=tuple(dns), addresses=tuple(addresses))

    async def request(self) -> bytes:
        """See ``ServerKey``."""
        path = self._folder / _NEXT
        if path.exists():
            key = _private(path)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            write_whole(path, _pem(key))
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        return request.public_bytes(Encoding.DER)

    async def holds(self, certificate: bytes) -> bool:
        """See ``ServerKey``. Raises TlsUnusable."""
        return self._place_of(certificate) is not None

    async def install(self, certificate: bytes, chain: Sequence[bytes]) -> None:
        """See ``ServerKey``. Raises TlsUnusable where neither key is the certificate's."""
        path = self._place_of(certificate)
        if path is None:
            raise TlsUnusable("the key of the server's certificate is not in the data folder")
        pems = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in (certificate, *chain)]
        content = b"".join([_pem(_private(path)), *pems])
        if not self.current.exists() or self.current.read_bytes() != content:
            write_whole(self.current, content)
        if path.name == _NEXT:
            path.unlink()

    def _place_of(self, certificate: bytes) -> Path | None:
        public = x509.load_der_x509_certificate(certificate).public_key()
        for path in (self._folder / _CURRENT, self._folder / _NEXT):
            if path.exists() and _private(path).public_key() == public:
                return path
        return None

    @property
    def current(self) -> Path:
        """Key and chain, PEM."""
        return self._folder / _CURRENT

    def material(self, root: bytes) -> tuple[bytes, bytes]:
        """Key and chain (PEM) for connections; the chain goes up to ``root`` (DER), whom newcomers know by its hash.

        Raises TlsUnusable.
        """
        try:
            content = self.current.read_bytes()
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.current)
        except (OSError, ssl.SSLError) as error:
            raise TlsUnusable(f"{self.current} holds no usable key and certificate") from error
        key, begin, chain = content.partition(b"-----BEGIN CERTIFICATE-----")
        return key, begin + chain + x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM)

    def _instance(self) -> UUID:
        path = self._folder / _ID
        if not path.exists():
            write_whole(path, str(new_id()).encode())
        try:
            return UUID(path.read_text().strip())
        except ValueError:
            raise TlsUnusable(f"{path} is damaged") from None


class Credentials:
    """gRPC server credentials that follow the files: the next handshake uses what ``refresh`` read."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._number = 0
        self._configuration: grpc.ServerCertificateConfiguration | None = None
        self._seen: tuple[bytes, bytes, bytes] | None = None

    def refresh(self, root: bytes, clients: Sequence[bytes]) -> None:
        """Read key and chain. ``clients``: authorities (DER) of client certificates. Raises TlsUnusable."""
        key, chain = self._files.material(root)
        trusted = b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in clients)
        if (key, chain, trusted) != self._seen:
            self._configuration = grpc.ssl_server_certificate_configuration([(key, chain)], trusted)
            self._seen = (key, chain, trusted)
            self._number += 1

    def make(self, *, client_certificates: bool) -> grpc.ServerCredentials:
        """Credentials for one port. ``client_certificates``: whether callers need one. After ``refresh``."""
        given = self._number

        def newer() -> Any:  # None: as before
            nonlocal given
            if given == self._number:
                return None
            given = self._number
            return self._configuration

        assert self._configuration is not None
        return grpc.dynamic_ssl_server_credentials(
            self._configuration, newer, require_client_authentication=client_certificates
        )


def _private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, OSError) as error:
        raise TlsUnusable(f"{path} holds no key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsUnusable(f"{path} holds a key of another kind")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
