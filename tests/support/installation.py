"""Whole installations: founded by the command line, served by a process of their own, called over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc
from tests.support.sessions import reason_of

PASSPHRASE = b"correct horse battery staple"
STATUS_BASE = "http://status.example.test"
ON_FREE_PORTS = f"""
[listen]
calls = "127.0.0.1:0"
entry = "127.0.0.1:0"
http = "127.0.0.1:0"
metrics = "127.0.0.1:0"
names = ["localhost", "127.0.0.1"]

[issuance]
status_base = "{STATUS_BASE}"

[drain]
seconds = 20

[limits.address]
burst = 1000
per_second = 100
"""
PATIENCE = 60
"""Seconds for a process to start or to end, on a machine that does other things as well."""
MAIN = "from cardwright_clients.cli.main import main; main()"
Channel = grpc.Channel


@dataclass(frozen=True)
class Said:
    """One run of the command line."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def cardwright(*arguments: str | Path, secret: bytes | None = None) -> Said:
    """``cardwright server``; ``--secret-fd`` among the arguments is followed by a descriptor that holds ``secret``."""
    with _descriptor(secret) as number:
        words = [str(number) if one == "FD" else str(one) for one in arguments]
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "server", *words],
            env=_as_from_a_shell(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            pass_fds=() if secret is None else (number,),
            check=False,
        )
    return Said(done.returncode, done.stdout, done.stderr)


def _as_from_a_shell() -> dict[str, str]:
    """This process's environment, without what a command that ran in it left there."""
    return {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}


@contextmanager
def _descriptor(secret: bytes | None) -> Iterator[int]:
    if secret is None:
        yield -1
        return
    reading, writing = os.pipe()
    os.write(writing, secret + b"\n")
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


@dataclass
class Process:
    """``cardwright server run`` on a data folder. ``program``: what Python runs."""

    data: Path
    program: str = MAIN
    process: subprocess.Popen[str] | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    _served: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None
    _heard: threading.Condition = field(default_factory=threading.Condition)

    def start(self, passphrase: bytes = PASSPHRASE) -> Process:
        """Start, and wait until it serves."""
        self._served.clear()
        with _descriptor(passphrase) as number:
            words = ["server", "run", "--data", str(self.data), "--passphrase-fd", str(number)]
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-X", "faulthandler", "-c", self.program, *words],
                env=_as_from_a_shell(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=(self.data / "stderr").open("w"),
                text=True,
                pass_fds=(number,),
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._served.wait(PATIENCE) and self.process.poll() is None, self.complaint
        return self

    def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        for text in self.process.stdout:
            line = json.loads(text)
            with self._heard:
                self.lines.append(line)
                self._heard.notify_all()
            if line["event"] == "serving":
                self._served.set()
        self._served.set()

    def until_logged(self, event: str) -> None:
        """Wait for a line of the log."""
        with self._heard:
            assert self._heard.wait_for(lambda: any(one["event"] == event for one in self.lines), PATIENCE)

    @property
    def complaint(self) -> str:
        return (self.data / "stderr").read_text()

    @property
    def addresses(self) -> Any:
        return json.loads((self.data / "run" / "listening.json").read_text())

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status."""
        assert self.process is not None and self._reader is not None
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            # It says where it stands before it ends.
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(PATIENCE)
            raise AssertionError(f"the server does not end: {self.complaint}") from None
        self._reader.join(PATIENCE)
        return code

    def stop(self) -> int:
        """SIGTERM, and the exit status; 0 for one that was never started."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.signal()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL; its vault ends by itself."""
        self.signal(signal.SIGKILL)
        self.wait()

    def get(self, port: str, path: str) -> bytes:
        """What one of its HTTP ports answers."""
        with urllib.request.urlopen(f"http://{self.addresses[port]}{path}", timeout=PATIENCE) as answer:
            body: bytes = answer.read()
            return body

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        rows = [row for row in self.get("metrics", "/metrics").decode().splitlines() if row.split("{")[0] == name
                or row.split(" ")[0] == name]  # fmt: skip
        return sum(float(row.rpartition(" ")[2]) for row in rows)

    @property
    def root(self) -> bytes:
        """The root's certificate, PEM."""
        return x509.load_der_x509_certificate(self.get("http", "/ca/root-1.cer")).public_bytes(Encoding.PEM)

    @contextmanager
    def local(self) -> Iterator[Channel]:
        """The host's own socket."""
        with grpc.insecure_channel(f"unix:{self.addresses['local']}") as channel:
            yield channel

    @contextmanager
    def entry(self) -> Iterator[Channel]:
        """As someone without a certificate."""
        with grpc.secure_channel(self.addresses["entry"], grpc.ssl_channel_credentials(self.root)) as channel:
            yield channel

    @contextmanager
    def calls(self, identity: Identity) -> Iterator[Channel]:
        """With a client certificate."""
        credentials = grpc.ssl_channel_credentials(self.root, identity.key, identity.chain)
        with grpc.secure_channel(self.addresses["calls"], credentials) as channel:
            yield channel

    def call(self, identity: Identity, method: Callable[[Channel], Any], request: Any) -> Any:
        """One unary call. Raises grpc.RpcError."""
        with self.calls(identity) as channel:
            return method(channel)(request, timeout=PATIENCE)

    @asynccontextmanager
    async def tunnel(self, identity: Identity) -> AsyncIterator[str]:
        """A Unix socket behind which a TLS connection with the client certificate begins: for clients without TLS."""
        context = ssl.create_default_context(cadata=self.root.decode())
        context.set_alpn_protocols(["h2"])
        folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))  # a socket's path has 107 octets at most
        (folder / "identity.pem").write_bytes(identity.key + identity.chain)
        context.load_cert_chain(folder / "identity.pem")
        host, _, port = self.addresses["calls"].rpartition(":")

        opened: list[asyncio.StreamWriter] = []

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there, away = await asyncio.open_connection(host, int(port), ssl=context)
                opened.append(away)
                await asyncio.gather(_pump(reader, away), _pump(there, writer))

        server = await asyncio.start_unix_server(pass_on, folder / "socket")
        try:
            yield str(folder / "socket")
        finally:
            server.close()
            for away in opened:
                # One that stays open without anybody who reads would keep a server that stops waiting.
                away.transport.abort()
            shutil.rmtree(folder, ignore_errors=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while octets := await source.read(65536):
            sink.write(octets)
            await sink.drain()
    sink.close()


@dataclass(frozen=True)
class Identity:
    """A key and its certificate with its chain, PEM."""

    key: bytes
    chain: bytes

    @classmethod
    def read(cls, path: Path) -> Identity:
        """An operator's file: without the root, which is the last."""
        key, begin, rest = path.read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
        ends = b"-----END CERTIFICATE-----\n"
        return cls(key, ends.join((begin + rest).split(ends)[:-2]) + ends)

    @classmethod
    def of(cls, key: ec.EllipticCurvePrivateKey, *certificates: bytes) -> Identity:
        """DER certificates."""
        chain = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in certificates]
        return cls(pem_of(key), b"".join(chain))


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #10, DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class Site:
    """A running installation with its first two operators."""

    process: Process
    credential: str
    administrator: Identity
    officer: Identity

    @classmethod
    def of(cls, process: Process, credential: str) -> Site:
        """With the operators whose files are in the data folder."""
        people = [Identity.read(process.data / "operators" / f"{login}.pem") for login in ("ann", "sam")]
        return cls(process, credential, *people)

    @property
    def data(self) -> Path:
        return self.process.data

    def end_leases(self) -> None:
        """As if the half minute had passed for which a card is held for a session that was lost."""
        with closing(sqlite3.connect(self.data / "store.db", timeout=30)) as store, store:
            store.execute("UPDATE lease SET until = '2000-01-01T00:00:00.000000' WHERE name LIKE 'card:%'")

    def enrolled(self, station_class: int = workstations_pb2.STATION_CLASS_USER) -> tuple[str, Identity]:
        """A new workstation: its id, and what it connects with."""
        host = f"desk-{uuid4().hex[:12]}"
        token = self.process.call(
            self.administrator,
            lambda line: workstations_pb2_grpc.WorkstationServiceStub(line).CreateToken,
            workstations_pb2.CreateTokenRequest(host=host, station_class=station_class),  # type: ignore[arg-type]
        ).token
        key = ec.generate_private_key(ec.SECP256R1())
        with self.process.entry() as channel:
            made = workstations_pb2_grpc.WorkstationServiceStub(channel).Enrol(
                workstations_pb2.EnrolRequest(token=token, host=host, request=request_of(key)), timeout=PATIENCE
            )
        certificate = x509.load_der_x509_certificate(made.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        urn = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
        return urn.removeprefix("urn:uuid:"), Identity.of(key, made.certificate)


def refusal(error: grpc.RpcError) -> tuple[str, str]:
    """Status and stable code."""
    found: Any = error
    return found.code().name, reason_of(found)


def founded(data: Path, configuration: str = ON_FREE_PORTS) -> str:
    """Found an installation; gives the credential."""
    data.mkdir(mode=0o700)
    (data / "server.toml").write_text(configuration)
    said = cardwright(
        "init", "--data", data, "--vault-memory", "1024", "--json", "--passphrase-fd", "FD", secret=PASSPHRASE
    )
    assert said.code == 0, said.err
    return str(said.json["credential"])


def enrol_first(data: Path, credential: str, role: str, login: str) -> Said:
    """``cardwright server enrol-first``."""
    words = ("enrol-first", role, "--login", login, "--name", login.title(), "--data", data, "--credential-fd", "FD")
    return cardwright(*words, secret=credential.encode())


@contextmanager
def a_folder() -> Iterator[Path]:
    """A short path for a data folder that is not there yet."""
    folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    try:
        yield folder / "data"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def founded_site() -> Iterator[Site]:
    """An installation from nothing with its first two operators, stopped: to be copied."""
    with a_folder() as data:
        credential = founded(data)
        process = Process(data).start()
        try:
            for role, login in (("administrator", "ann"), ("security-officer", "sam")):
                said = enrol_first(data, credential, role, login)
                assert said.code == 0, said.err
        finally:
            assert process.stop() == 0, process.complaint
        yield Site.of(process, credential)


@contextmanager
def copied(original: Site) -> Iterator[Site]:
    """A copy of a stopped installation, not started; stopped in the end if it runs then."""
    with a_folder() as data:
        shutil.copytree(original.data, data, ignore=shutil.ignore_patterns("run"))
        process = Process(data)
        try:
            yield Site.of(process, original.credential)
        finally:
            process.stop()
