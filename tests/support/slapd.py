"""A real slapd for tests: in a folder of its own, by an unprivileged account, with TLS and a policy that locks."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_server.people.ldap_directory import LdapDirectory, LdapDirectoryConfig
from cardwright_server.people.ldap_line import LdapServer

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
ADMIN = f"cn=admin,{BASE}"
READER = f"cn=reader,{BASE}"
PASSWORDS = {"admin": "admin-pass", "reader": "reader-pass"}
LOCKS_AFTER = 5
"""Failures after which the directory itself locks a person, until an administrator helps."""

_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
moduleload memberof
pidfile {folder}/pid
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
sizelimit size.soft=100 size.hard=100 size.prtotal=unlimited
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw {password}
directory {folder}/data
maxsize 67108864
index objectClass,uid,entryUUID eq
overlay memberof
overlay ppolicy
ppolicy_default "cn=policy,{base}"
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=people,{base}" by dn.exact="{reader}" read by * none
access to * by dn.exact="{reader}" read by * none
"""

_TREE = f"""
dn: {BASE}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {READER}
objectClass: simpleSecurityObject
objectClass: organizationalRole
cn: reader
userPassword: reader-pass

dn: cn=policy,{BASE}
objectClass: pwdPolicy
objectClass: organizationalRole
cn: policy
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: {LOCKS_AFTER}
pwdLockoutDuration: 0

dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: ou=staff,ou=people,{BASE}
objectClass: organizationalUnit
ou: staff

dn: ou=guests,ou=people,{BASE}
objectClass: organizationalUnit
ou: guests

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups
"""


@dataclass
class Slapd:
    """A running directory."""

    folder: Path
    process: subprocess.Popen[bytes]
    port: int
    tls_port: int

    @property
    def ca(self) -> Path:
        """PEM file of the authority that signed the server's certificate."""
        return self.folder / "ca.pem"

    @property
    def log(self) -> Path:
        """What slapd wrote: a line for each connection, bind and search."""
        return self.folder / "log"

    @property
    def ldapi(self) -> str:
        """Address of the Unix socket."""
        return "ldapi://" + str(self.folder / "socket").replace("/", "%2F")

    def password_file(self, name: str = "reader") -> Path:
        """A file with one of PASSWORDS."""
        path = self.folder / f"{name}.password"
        path.write_text(PASSWORDS[name] + "\n", encoding="utf-8")
        return path

    def change(self, ldif: str) -> None:
        """Apply LDIF as the administrator, by ldapmodify."""
        self.tool("ldapmodify", "-a", input=ldif)

    def add_person(self, uid: str, *, place: str = "staff", password: str = "right", **attributes: str) -> str:
        """Add a person; gives the distinguished name."""
        dn = f"uid={uid},ou={place},ou=people,{BASE}"
        values = {"cn": f"Name of {uid}", "sn": f"Sur {uid}", "mail": f"{uid}@example.org"} | attributes
        lines = "".join(f"{name}: {value}\n" for name, value in values.items())
        self.change(f"dn: {dn}\nobjectClass: inetOrgPerson\nuid: {uid}\nuserPassword: {password}\n{lines}")
        return dn

    def has_person(self, uid: str) -> bool:
        """Whether anybody has this login."""
        return "dn: " in self.tool("ldapsearch", "-LLL", "-b", BASE, f"(uid={uid})", "1.1")

    def add_group(self, name: str, *members: str) -> str:
        """Add a group; gives the distinguished name."""
        dn = f"cn={name},ou=groups,{BASE}"
        lines = "".join(f"member: {member}\n" for member in members)
        self.change(f"dn: {dn}\nobjectClass: groupOfNames\ncn: {name}\n{lines}")
        return dn

    def can_bind(self, dn: str, password: str = "right") -> bool:
        """Whether ldapwhoami gets in: the judgement of another client."""
        command = ["ldapwhoami", "-x", "-H", self.ldapi, "-D", dn, "-w", password]
        return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0

    def binds(self, dn: str) -> int:
        """How many binds for a name the directory was asked for so far."""
        return self.log.read_text(errors="replace").count(f'BIND dn="{dn}" method=128')

    def tool(self, name: str, *arguments: str, input: str = "") -> str:
        """Run a tool of ldap-utils as the administrator; gives what it prints."""
        command = [name, "-x", "-H", self.ldapi, "-D", ADMIN, "-w", PASSWORDS["admin"], *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


def _account() -> tuple[list[str], int | None]:
    prefix = ["setpriv", "--pdeathsig", "TERM"]
    if os.geteuid() != 0:
        return prefix, None
    for name in ("openldap", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return [*prefix, f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}", "--clear-groups"], found.pw_uid
    pytest.skip("there is no unprivileged account to run slapd")


def free_port() -> int:
    """A port of this host that nothing listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def write_certificates(folder: Path, *, name: str = "localhost") -> None:
    """An authority and a server's certificate for ``name`` and 127.0.0.1."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test directory authority")])

    def build(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))

    ca = build(issuer, ca_key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(IPv4Address("127.0.0.1"))])
    leaf = build(subject, key.public_key()).add_extension(names, critical=False)
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@contextmanager
def running_slapd() -> Iterator[Slapd]:
    """A directory with the tree above and nobody in it."""
    binary = shutil.which("slapd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if binary is None or shutil.which("ldapmodify") is None:
        pytest.skip("slapd or ldap-utils is not installed (packages.txt names them)")
    prefix, account = _account()
    folder = Path(tempfile.mkdtemp(prefix="cw-ldap-", dir="/tmp"))
    try:
        (folder / "data").mkdir()
        write_certificates(folder)
        settings = {"folder": folder, "base": BASE, "admin": ADMIN, "reader": READER, "password": PASSWORDS["admin"]}
        (folder / "slapd.conf").write_text(_CONFIG.format(**settings), encoding="utf-8")
        if account is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, account, -1)
        folder.chmod(0o755)
        port, tls_port = free_port(), free_port()
        server_socket = str(folder / "socket").replace("/", "%2F")
        listeners = f"ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port} ldapi://{server_socket}"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*prefix, binary, "-d", "stats", "-f", str(folder / "slapd.conf"), "-h", listeners],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        server = Slapd(folder, process, port, tls_port)
        try:
            _wait_until_ready(server)
            server.change(_TREE)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(server: Slapd) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(server.folder / "socket"))
                return
            except OSError:
                pass
        if server.process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"slapd did not start: {server.log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def slapd() -> Iterator[Slapd]:
    """The test process's own directory."""
    with running_slapd() as server:
        yield server


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reach(directory: Slapd, way: str, *, port: int = 0, **options: Any) -> LdapServer:
    """How a directory is reached, or what stands in its place at ``port``."""
    uris = {
        "starttls": f"ldap://localhost:{port or directory.port}",
        "ldaps": f"ldaps://localhost:{port or directory.tls_port}",
        "ldapi": directory.ldapi,
        "clear": f"ldap://127.0.0.1:{port or directory.port}",
    }
    tls = {"starttls": "starttls", "ldaps": "ldaps"}.get(way, "none")
    values = {
        "uri": uris[way],
        "tls": tls,
        "ca_file": str(directory.ca) if tls != "none" else "",
        "bind_dn": READER,
        "bind_password_file": str(directory.password_file()),
    }
    return msgspec.convert(values | options, LdapServer)


def ask(server: LdapServer, **options: Any) -> LdapDirectory:
    """A directory client; ended with the test process."""
    return LdapDirectory(LdapDirectoryConfig(name="corp", server=server, base=PEOPLE, **options))


def unique(name: str) -> str:
    return f"{name}{uuid4().hex[:8]}"


def ldif_of(uids: Iterable[str], place: str = f"ou=guests,{PEOPLE}") -> str:
    """Persons for ``Slapd.change``, many at once."""
    return "\n".join(
        f"dn: uid={uid},{place}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\n" for uid in uids
    )


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


def stalls_after(octets: int) -> Behaviour:
    """Passes so many octets on, once they are there, then nothing, and keeps the line open."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(octets))
        await writer.drain()
        await _swallow(reader, writer)

    return behave


def cuts_after(octets: int) -> Behaviour:
    """Passes octets on as they come, at most so many, then nothing, and keeps the line open."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = octets
        while left and (data := await reader.read(left)):
            left -= len(data)
            writer.write(data)
            await writer.drain()
        await _swallow(reader, writer)

    return behave


def drips(seconds: float) -> Behaviour:
    """Passes one octet on each ``seconds``."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1):
            await asyncio.sleep(seconds)
            writer.write(data)
            await writer.drain()

    return behave


@asynccontextmanager
async def proxy(port: int, answers: Behaviour = _copy) -> AsyncIterator[int]:
    """A port in front of ``port``; what comes back goes through ``answers``."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, forth))
        for work in (_copy(reader, forth), answers(back, writer)):
            tasks.add(asyncio.ensure_future(work))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for writer in writers:
            writer.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def silent_port() -> Iterator[int]:
    """A port where connections are made by the kernel and never served."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full: further connections are neither made nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            waiting.append(one)
        try:
            yield listener.getsockname()[1]
        finally:
            for one in waiting:
                one.close()
