"""``cardwright daemon enrol``: a token is traded for a certificate, and the configuration gets the server."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_clients.cli import daemon as daemon_command
from cardwright_clients.cli import daemon_line
from cardwright_daemon import config
from cardwright_daemon.link import credentials
from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc
from tests.support.command_line import Desk, Ran
from tests.support.operator_line import Authority

CALLS = "cms.example:7443"


@dataclass
class Entry(workstations_pb2_grpc.WorkstationServiceServicer):
    """A server's door for newcomers."""

    root: Authority
    address: str = ""
    asked: list[workstations_pb2.EnrolRequest] = field(default_factory=list)

    async def Enrol(self, request: Any, context: Any) -> workstations_pb2.StationCertificate:
        self.asked.append(request)
        key: Any = x509.load_der_x509_csr(request.request).public_key()
        made = self.root._certify(request.host, key, x509.BasicConstraints(False, None))
        return workstations_pb2.StationCertificate(certificate=made.public_bytes(Encoding.DER))

    @property
    def token(self) -> str:
        digest = hashlib.sha256(self.root.certificate.public_bytes(Encoding.DER)).hexdigest()
        return f"cw1.{'0' * 32}.{'1' * 32}.{digest}"


class _Fixed(Authority):
    """A root whose certificate stays the same."""

    @property
    def certificate(self) -> x509.Certificate:
        if not hasattr(self, "_made"):
            self._made = super().certificate
        return self._made


@pytest.fixture
async def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Entry]:
    """A door, and a home without anything."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "CARDWRIGHT_FOLDER"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    loop = asyncio.get_running_loop()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    monkeypatch.setattr(daemon_command, "run", run)
    monkeypatch.setattr(daemon_line, "run", run)
    made = Entry(_Fixed("Root"))  # type: ignore[abstract]
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    key, begin, chain = made.root.issued("server", place).partition(b"-----BEGIN CERTIFICATE-----")
    server = grpc.aio.server()
    workstations_pb2_grpc.add_WorkstationServiceServicer_to_server(made, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, begin + chain)]))
    await server.start()
    made.address = f"127.0.0.1:{port}"
    yield made
    await server.stop(None)


async def enrol(entry: Entry, *arguments: str, token: str | None = None, address: str = CALLS) -> Ran:
    given = ["daemon", "enrol", "--server", address, "--entry", entry.address, "--host", "desk-1", *arguments]
    reading, writing = os.pipe()
    os.write(writing, (token or entry.token).encode() + b"\n")
    os.close(writing)
    try:
        return await asyncio.to_thread(Desk().run, *given, "--token-fd", str(reading))
    finally:
        os.close(reading)


async def test_a_workstation_is_made_known(entry: Entry) -> None:
    ran = await enrol(entry, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["server"], ran.json["config_changed"]) == (CALLS, True)
    assert config.load().server == config.Server(CALLS)
    kept = credentials.load(credentials.default_folder())
    assert kept.root == entry.root.certificate and kept.usable()
    assert (entry.asked[0].host, entry.asked[0].token) == ("desk-1", entry.token)
    assert entry.token not in ran.out + ran.err


async def test_a_configuration_that_is_there_is_only_added_to(entry: Entry) -> None:
    path = config.default_file()
    path.parent.mkdir(parents=True)
    path.write_text("pcsc = false  # mine")
    assert (await enrol(entry)).code == 0
    assert path.read_text() == f'pcsc = false  # mine\n\n[server]\naddress = "{CALLS}"\n'
    again = await enrol(entry)
    assert "The server is in" not in again.out
    assert path.read_text().count("[server]") == 1
    other = await enrol(entry, "--json", address="other.example:7443")
    assert (other.code, other.json["error"]["code"], len(entry.asked)) == (1, "OTHER_SERVER_CONFIGURED", 2)


async def test_what_is_no_token_or_address_or_not_that_server(entry: Entry) -> None:
    bad = await enrol(entry, "--json", token="cw1.nonsense")
    wrong = await enrol(entry, "--json", address="cms.example")
    strange = await enrol(entry, "--json", token=entry.token[:-64] + "0" * 64)
    codes = [ran.json["error"]["code"] for ran in (bad, wrong, strange)]
    assert codes == ["TOKEN_MALFORMED", "ADDRESS_MALFORMED", "SERVER_ROOT_DIFFERS"]
    assert entry.asked == [] and not config.default_file().exists()
    blind = await asyncio.to_thread(
        Desk().run, "daemon", "enrol", "--server", CALLS, "--entry", entry.address, "--json"
    )
    assert (blind.code, "--token-fd" in blind.err) == (2, True)
