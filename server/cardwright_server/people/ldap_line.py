"""The line to a directory: address, TLS and time limits are ours; OpenLDAP's library sees one end of a socket pair.

The library cannot be trusted with a network that does not answer: a server that accepts a connection and then stays
silent holds an ``ldaps:`` session in the TLS handshake for ever, whatever its time limits say. Closing the pair ends
whatever the library waits for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Literal
from urllib.parse import unquote, urlsplit

import msgspec
from asn1crypto.parser import parse

from .directory import DirectoryMisconfigured

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORTS = {"ldap": 389, "ldaps": 636}
CHUNK = 65536

# ExtendedRequest 1.3.6.1.4.1.1466.20037 as message 1 (RFC 4511 section 4.14.1).
_START_TLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + b"1.3.6.1.4.1.1466.20037"
_LONGEST_ANSWER = 1000


class LdapServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a directory is reached. Times in seconds; ``whole`` is for everything that one question needs.

    ``tls``: ``starttls`` with an ``ldap:`` address, ``ldaps`` with an ``ldaps:`` one; ``none`` only on this host
    (``ldapi:`` or a loopback address), because a password would be readable. ``ca_file``: PEM file of the authorities
    that may have signed the server's certificate. ``bind_dn`` and ``bind_password_file``: our own account.
    ``sessions`` at most at the same time; after ``failures`` in a row the directory is left alone for ``rest``.
    """

    uri: str
    tls: Literal["starttls", "ldaps", "none"]
    ca_file: str = ""
    bind_dn: str = ""
    bind_password_file: str = ""
    connect: float = 3.0
    operation: float = 5.0
    whole: float = 10.0
    sessions: int = 8
    failures: int = 3
    rest: float = 30.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        wanted = {"starttls": ("ldap",), "ldaps": ("ldaps",), "none": ("ldapi", "ldap")}[self.tls]
        if parts.scheme not in wanted or not parts.netloc or parts.path.strip("/") or parts.query:
            raise ValueError(f"{self.uri!r} does not go with tls = {self.tls!r}")
        if self.tls == "none" and parts.scheme == "ldap" and parts.hostname not in LOOPBACK:
            raise ValueError("without TLS a directory must be on this host")
        if not (0 < self.connect <= self.whole and 0 < self.operation <= self.whole <= 60):
            raise ValueError("connect and operation are at most whole, which is at most 60 seconds")
        if not (0 < self.sessions <= 64 and self.failures > 0 and self.rest > 0):
            raise ValueError("sessions is 1 to 64, failures and rest are above 0")


class Line:
    """An open line. ``end`` is for the library, which must not use it after ``close``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: socket.socket) -> None:
        self.end = end
        self._network = (reader, writer)
        self._pumps: list[asyncio.Task[None]] = []
        self._inner: asyncio.StreamWriter | None = None

    async def start(self, inside: socket.socket) -> None:
        """Pass on what comes from either side, until one of them ends."""
        reader, self._inner = await asyncio.open_connection(sock=inside)
        pairs = ((reader, self._network[1]), (self._network[0], self._inner))
        self._pumps = [asyncio.ensure_future(_pump(source, sink)) for source, sink in pairs]

    async def close(self) -> None:
        """End everything at once; a thread that waits on ``end`` finds it closed."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in (self._inner, self._network[1]):
            if writer is not None:
                # Aborted, not closed: a peer that does not answer must not hold up the goodbye either.
                writer.transport.abort()


async def open_line(server: LdapServer) -> Line:
    """Connect, with TLS as configured. Raises TimeoutError, OSError; DirectoryMisconfigured for a bad certificate
    or ``ca_file``."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(server.connect):
            reader, writer = await _connect(server)
        ours, inside = socket.socketpair()
        line = Line(reader, writer, ours)
        try:
            await line.start(inside)
        except BaseException:
            ours.close()
            inside.close()
            raise
    except ssl.SSLCertVerificationError as error:
        raise DirectoryMisconfigured(f"the directory's certificate is refused: {error.verify_message}") from error
    except BaseException:
        if writer is not None:
            writer.transport.abort()
        raise
    return line


async def _connect(server: LdapServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(server.uri)
    if parts.scheme == "ldapi":
        return await asyncio.open_unix_connection(unquote(parts.netloc))
    host, port = parts.hostname, parts.port or PORTS[parts.scheme]
    if server.tls == "ldaps":
        return await asyncio.open_connection(host, port, ssl=_context(server), server_hostname=host)
    reader, writer = await asyncio.open_connection(host, port)
    if server.tls == "starttls":
        try:
            await _start_tls(reader, writer)
            await writer.start_tls(_context(server), server_hostname=host)
        except BaseException:
            writer.transport.abort()
            raise
    return reader, writer


async def _start_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for TLS. Raises DirectoryMisconfigured if that is refused, ConnectionError for what is no answer."""
    writer.write(_START_TLS)
    await writer.drain()
    try:
        head = await reader.readexactly(2)
        octets = head[1] & 0x7F if head[1] & 0x80 else 0
        extended = await reader.readexactly(octets) if octets <= 2 else b""
        length = int.from_bytes(extended, "big") if octets else head[1]
        if head[0] != 0x30 or octets > 2 or length > _LONGEST_ANSWER:
            raise ConnectionError("what answers there speaks no LDAP")
        body = await reader.readexactly(length)
        result = _result_code(body)
    except (asyncio.IncompleteReadError, ValueError, TypeError) as error:
        raise ConnectionError("what answers there speaks no LDAP") from error
    if result != 0:
        raise DirectoryMisconfigured(f"the directory refuses StartTLS with result {result}")


def _result_code(body: bytes) -> int:
    """Of an LDAPMessage's content with an ExtendedResponse to message 1 (RFC 4511 section 4.12).

    Raises ValueError for anything else.
    """
    _, _, _, header, number, trailer = parse(body)
    kind, _, tag, _, content, _ = parse(body[len(header) + len(number) + len(trailer) :])
    _, _, result_tag, _, result, _ = parse(content)
    if body[:1] != b"\x02" or number != b"\x01" or (kind, tag, result_tag) != (1, 24, 10) or not result:
        raise ValueError("not the answer to StartTLS")
    return int.from_bytes(result, "big")


def _context(server: LdapServer) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=server.ca_file or None)
    except OSError as error:  # ssl.SSLError too: a file without certificates
        raise DirectoryMisconfigured(f"ca_file {server.ca_file} cannot be used: {error.strerror}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    # A line that breaks ends like one that is closed: the library sees the end of its socket.
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    sink.transport.abort()
