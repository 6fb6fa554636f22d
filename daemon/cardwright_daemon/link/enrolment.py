"""Becoming known to a server: a token that an administrator made is traded for a certificate.

The token says by what root the server is known, so that the first connection is as safe as all later ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.errors import CardwrightError
from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc

from . import credentials
from .credentials import Credentials
from .line import ask, open_entry
from .ports import ServerUnreachable

SECONDS: Final = 30.0
_TOKEN: Final = re.compile(r"cw1\.[0-9a-f]{32}\.[0-9a-f]{32}\.([0-9a-f]{64})")
_PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+):([0-9]{1,5})")


class TokenMalformed(CardwrightError):
    """What was typed is no enrolment token."""

    code = "TOKEN_MALFORMED"
    default_effect = "Nothing was sent to the server."
    default_advice = "Copy the token again, whole, from where the administrator showed it."


class AddressMalformed(CardwrightError):
    """What was given is no address of a server."""

    code = "ADDRESS_MALFORMED"
    default_effect = "Nothing was sent to the server."
    default_advice = "Give the address as HOST:PORT."


class NotThatServer(CardwrightError):
    """The server at this address has another root than the token names."""

    code = "SERVER_ROOT_DIFFERS"
    default_effect = "Nothing was sent to that server, the token is still good."
    default_advice = "Check the address; if it is right, tell the administrator: somebody may stand in between."


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` as it goes to the server; ``root``: SHA-256 of the server's root certificate."""

    text: str = field(repr=False)
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Token:
        """Raises TokenMalformed."""
        found = _TOKEN.fullmatch(text.strip()) if len(text) < 300 else None
        if found is None:
            raise TokenMalformed("That is no enrolment token.")
        return cls(found[0], bytes.fromhex(found[1]))


def place_of(address: str) -> tuple[str, int]:
    """Host and port. Raises AddressMalformed."""
    found = _PLACE.fullmatch(address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise AddressMalformed(f"{address[:100]!r} is no HOST:PORT.")
    return found[1].strip("[]"), int(found[2])


async def enrol(folder: Path, entry: str, token: Token, host: str = "") -> Credentials:
    """Enrol this machine at the server whose address for newcomers is ``entry``, and keep what it gave in ``folder``.

    ``host``: the name in the token, this machine's unless given. If the answer is lost the same may be tried again.
    Raises AddressMalformed, NotThatServer, NotEnrolled, ServerUnreachable, OSError, and what the server told.
    """
    root = await asyncio.to_thread(find_root, *place_of(entry), token.root)
    key = await asyncio.to_thread(credentials.pending_key, folder)
    request = workstations_pb2.EnrolRequest(
        token=token.text, host=host or socket.gethostname(), request=credentials.request_of(key)
    )
    async with open_entry(entry, root.public_bytes(Encoding.PEM)) as channel:
        made = await ask(workstations_pb2_grpc.WorkstationServiceStub(channel).Enrol, request, seconds=SECONDS)
    found = await asyncio.to_thread(credentials.save, folder, key, made.certificate, root)
    credentials.forget_pending(folder)
    return found


def find_root(host: str, port: int, digest: bytes) -> x509.Certificate:
    """The certificate with this SHA-256 in the chain that the server shows. Raises NotThatServer, ServerUnreachable.

    Nothing of the chain is believed but this: who knows the digest knows the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as line,
        ):
            chain = _chain(line)
    except OSError as error:
        raise ServerUnreachable(f"No server answers at {host}:{port}: {error.strerror or error}.") from error
    for der in chain:
        if hashlib.sha256(der).digest() == digest:
            return x509.load_der_x509_certificate(der)
    raise NotThatServer(f"The server at {host}:{port} is not the one that the token is for.")


def _chain(line: ssl.SSLSocket) -> list[bytes]:
    """What the peer sent, DER. Python 3.13 has this in public; before, only the object below it has."""
    public: Any = getattr(line, "get_unverified_chain", None)
    if public is not None:
        return list(public())
    below: Any = line._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in below.get_unverified_chain()]
