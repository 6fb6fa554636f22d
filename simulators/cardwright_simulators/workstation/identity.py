"""By what a workstation or an operator is known: a key, its certificates, and the server's root."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc

from .errors import LoadRefused

MAX_FILE: Final = 64 << 10
SECONDS: Final = 60.0
_OWN_LINE: Final = (("grpc.use_local_subchannel_pool", 1),)
"""Each channel is a connection of its own, as workstations have."""


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM: ``key``; ``chain``, without the root; ``root``, by which the server is known."""

    key: bytes = field(repr=False)
    chain: bytes
    root: bytes

    @classmethod
    def read(cls, path: Path) -> Identity:
        """A file of ``cardwright server enrol-first`` or ``operator add``: a key and its certificates, the root last.

        Raises LoadRefused.
        """
        try:
            text = path.read_bytes()[: MAX_FILE + 1]
            key = load_pem_private_key(text, None)
            found = x509.load_pem_x509_certificates(text)
        except (OSError, ValueError, TypeError) as error:
            raise LoadRefused(f"{path} does not hold a key and its certificates.") from error
        if len(found) < 2 or len(text) > MAX_FILE or key.public_key() != found[0].public_key():
            raise LoadRefused(f"{path} does not hold a key, its certificates and the server's root.")
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        *chain, root = [one.public_bytes(Encoding.PEM) for one in found]
        return cls(pem, b"".join(chain), root)

    def connect(self, address: str) -> grpc.aio.Channel:
        """A connection of its own to the port for who has a certificate."""
        shown = grpc.ssl_channel_credentials(self.root, self.key, self.chain)
        return grpc.aio.secure_channel(address, shown, options=_OWN_LINE)


def checked_address(text: str) -> str:
    """``text`` as it is. Raises LoadRefused if it is not HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port[:6]) < 65536 or set(host) & set("/@ "):
        raise LoadRefused(f"'{text}' is not HOST:PORT.")
    return text


class Enrolment:
    """Makes workstations known to a server, by an administrator's certificate, as often as wanted."""

    def __init__(self, administrator: Identity, calls: str, entry: str) -> None:
        self._root = administrator.root
        self._calls = administrator.connect(calls)
        shown = grpc.ssl_channel_credentials(administrator.root)
        self._entry = grpc.aio.secure_channel(entry, shown, options=_OWN_LINE)

    async def __aenter__(self) -> Enrolment:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._entry.close()
        await self._calls.close()

    async def enrol(self) -> Identity:
        """A token by the administrator, a certificate for it. Raises grpc.aio.AioRpcError."""
        host = f"simulated-{uuid4().hex[:16]}"
        create = workstations_pb2_grpc.WorkstationServiceStub(self._calls).CreateToken
        asked = workstations_pb2.CreateTokenRequest(host=host, station_class=workstations_pb2.STATION_CLASS_USER)
        token = (await create(asked, timeout=SECONDS)).token
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        wanted = workstations_pb2.EnrolRequest(token=token, host=host, request=request.public_bytes(Encoding.DER))
        made = await workstations_pb2_grpc.WorkstationServiceStub(self._entry).Enrol(wanted, timeout=SECONDS)
        certificate = x509.load_der_x509_certificate(made.certificate).public_bytes(Encoding.PEM)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(pem, certificate, self._root)
