"""The server of the demo in a process of its own, and the operators who work with it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.request import urlopen

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_daemon.link.credentials import request_of
from cardwright_proto.cms.v1 import (
    authentication_pb2,
    authentication_pb2_grpc,
    certificates_pb2,
    certificates_pb2_grpc,
    devices_pb2,
    devices_pb2_grpc,
    operators_pb2,
    operators_pb2_grpc,
    people_pb2,
    people_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
    workstations_pb2,
    workstations_pb2_grpc,
)

from ..sdk.identity import OperatorFile
from .keeper import Keeper, tied
from .story import DemoFailed, Story

PASSPHRASE = b"only for this demo"
GROUP = "everyone"
CONFIGURATION = """
[listen]
calls = "127.0.0.1:0"
entry = "127.0.0.1:0"
http = "127.0.0.1:0"
metrics = ""
names = ["localhost", "127.0.0.1"]

[issuance]
status_base = "http://status.example.test"
"""
_PATIENCE = 30.0
"""Seconds for the server to end."""
_COMMAND = "from cardwright_clients.cli.main import main; main()"


class Office:
    """Server and operators. ``story`` hears of it."""

    def __init__(self, keeper: Keeper, story: Story) -> None:
        self.data = keeper.folder / "server"
        self.story = story
        self._keeper = keeper
        self.addresses: dict[str, str] = {}
        self.root = b""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._channels: list[grpc.aio.Channel] = []
        self.administrator: grpc.aio.Channel
        self.issuer: grpc.aio.Channel
        self.helper: grpc.aio.Channel

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Office]:
        """Found it, serve, and enrol the operators; everything ends with the block."""
        self.data.mkdir(mode=0o700)
        (self.data / "server.toml").write_text(CONFIGURATION)
        said = json.loads(
            await self._run("init", "--passphrase-fd", "FD", "--vault-memory", "4096", "--json", secret=PASSPHRASE)
        )
        self.story.say("'cardwright server init' made a database, a vault, four authorities and the policy 'civ'")
        try:
            await self._serve()
            self.story.say("'cardwright server run' answers")
            await self._operators(said["credential"])
            yield self
        finally:
            for channel in self._channels:
                await channel.close()
            await self._stop()

    # ------------------------------------------------------------------------------------------------- processes

    async def _run(self, *words: str, secret: bytes) -> str:
        process = await self._start("server", *words, "--data", str(self.data), secret=secret)
        try:
            out, error = await process.communicate()
        finally:
            # Also after Ctrl-C: these commands take seconds, and what they start in turn ends with them.
            await process.wait()
        if process.returncode != 0:
            raise DemoFailed(f"'cardwright server {words[0]}' failed: {error.decode(errors='replace')}")
        return out.decode()

    async def _start(self, *words: str, secret: bytes) -> asyncio.subprocess.Process:
        reading, writing = os.pipe()
        try:
            os.write(writing, secret + b"\n")
            given = [str(reading) if word == "FD" else word for word in words]
            return await asyncio.create_subprocess_exec(
                *(*tied(), sys.executable, "-c", _COMMAND, *given),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(reading, self._keeper.descriptor),
                start_new_session=True,
            )
        finally:
            os.close(reading)
            os.close(writing)

    async def _serve(self) -> None:
        words = ("server", "run", "--data", str(self.data), "--passphrase-fd", "FD")
        self._process = await self._start(*words, secret=PASSPHRASE)
        assert self._process.stdout is not None and self._process.stderr is not None
        async for line in self._process.stdout:
            if json.loads(line)["event"] == "serving":
                break
        else:
            told = (await self._process.stderr.read()).decode(errors="replace")
            raise DemoFailed(f"The server did not start: {told}")
        self._reading = asyncio.create_task(_drain(self._process.stdout))
        self.addresses = json.loads((self.data / "run" / "listening.json").read_bytes())
        der = await self.fetch("/ca/root-1.cer")
        self.root = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)

    async def _stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def fetch(self, path: str) -> bytes:
        """What the server publishes over HTTP."""
        address = f"http://{self.addresses['http']}{path}"

        def get() -> bytes:
            with urlopen(address, timeout=20) as answer:
                body: bytes = answer.read()
                return body

        return await asyncio.to_thread(get)

    # ------------------------------------------------------------------------------------------------- operators

    def _channel(self, identity: OperatorFile) -> grpc.aio.Channel:
        shown = grpc.ssl_channel_credentials(self.root, identity.key, identity.chain)
        channel = grpc.aio.secure_channel(self.addresses["calls"], shown)
        self._channels.append(channel)
        return channel

    async def _operators(self, credential: str) -> None:
        first = {}
        for role, login, name in (
            ("administrator", "ann", "Ann Archer"), ("security-officer", "sam", "Sam Sawyer")
        ):  # fmt: skip
            words = ("enrol-first", role, "--login", login, "--name", name, "--credential-fd", "FD")
            await self._run(*words, secret=credential.encode())
            first[role] = OperatorFile.read(self.data / "operators" / f"{login}.pem")
        self.administrator = self._channel(first["administrator"])
        officer = self._channel(first["security-officer"])
        self.issuer = await self._operator("ida", operators_pb2.ROLE_ISSUANCE, officer)
        self.helper = await self._operator("hal", operators_pb2.ROLE_HELP_DESK, officer)
        self.story.say("four operators are enrolled: administrator, security officer, issuance, help desk")

    async def _operator(
        self, login: str, role: operators_pb2.Role.ValueType, officer: grpc.aio.Channel
    ) -> grpc.aio.Channel:
        """The administrator makes the account, the security officer gives it the role."""
        person = await self.person(login, f"{login}@example.test")
        accounts = operators_pb2_grpc.OperatorServiceStub(self.administrator)
        account = await accounts.Create(
            operators_pb2.CreateOperatorRequest(kind=operators_pb2.ACCOUNT_KIND_PERSON, person=person, label=login)
        )
        key = ec.generate_private_key(ec.SECP256R1())
        added = await accounts.AddKey(
            operators_pb2.AddOperatorKeyRequest(operator=account.id, certificate_request=request_of(key))
        )
        grant = operators_pb2.GrantRequest(operator=account.id, grant=operators_pb2.Grant(role=role, everywhere=True))
        await operators_pb2_grpc.OperatorServiceStub(officer).Grant(grant)
        chain = (added.certificate, *added.chain[:-1])
        return self._channel(OperatorFile(_pem(key), b"".join(map(_as_pem, chain)), self.root))

    # ------------------------------------------------------------------------------------------- what they do

    async def person(self, login: str, mail: str) -> str:
        """Someone in the group that the policy is assigned to; the id."""
        people = people_pb2_grpc.PersonServiceStub(self.administrator)
        made = await people.Create(
            people_pb2.CreatePersonRequest(
                login=login, display_name=login.title(), mail=mail,
                attributes=[people_pb2.PersonAttribute(name="userPrincipalName", values=[mail])],
            )
        )  # fmt: skip
        groups = people_pb2_grpc.GroupServiceStub(self.administrator)
        listed = await groups.Find(people_pb2.FindGroupsRequest())
        (group,) = [one.id for one in listed.groups if one.name == GROUP]
        await groups.AddMember(people_pb2.AddMemberRequest(group=group, person=made.id))
        return str(made.id)

    async def initial_password(self, person: str) -> bytes:
        """What a new holder proves with."""
        stub = authentication_pb2_grpc.AuthenticationServiceStub(self.issuer)
        given = await stub.SetInitialPassword(authentication_pb2.SetInitialPasswordRequest(person=person))
        return str(given.password).encode()

    async def emergency_password(self, person: str, request: str) -> bytes:
        """What the help desk reads out to someone whose card is blocked."""
        stub = authentication_pb2_grpc.AuthenticationServiceStub(self.helper)
        given = await stub.SetEmergencyPassword(
            authentication_pb2.SetEmergencyPasswordRequest(person=person, request=request)
        )
        return str(given.password).encode()

    async def bind(self, serial: str, person: str) -> tuple[str, str]:
        """A card of stock for a person, and the request to issue it; their ids."""
        stub = devices_pb2_grpc.DeviceServiceStub(self.issuer)
        registered = await stub.Register(
            devices_pb2.RegisterDevicesRequest(
                kind=devices_pb2.DEVICE_KIND_SMART_CARD, devices=[devices_pb2.DeliveredDevice(serial=serial)]
            )
        )
        device = str(registered.ids[0])
        await stub.Bind(devices_pb2.BindDeviceRequest(id=device, person=person))
        asked = requests_pb2.CreateIssuanceRequest(device=device)
        made = await requests_pb2_grpc.RequestServiceStub(self.issuer).CreateIssuance(asked)
        return device, str(made.request.id)

    async def reissue(self, device: str) -> str:
        """Ask for new keys on a card; the request's id."""
        stub = requests_pb2_grpc.RequestServiceStub(self.issuer)
        return str((await stub.CreateReissue(requests_pb2.CreateReissueRequest(device=device))).request.id)

    async def unlock(self, device: str) -> str:
        """Ask for a new PIN on a card; the request's id."""
        stub = requests_pb2_grpc.RequestServiceStub(self.helper)
        return str((await stub.CreateUnlock(requests_pb2.CreateUnlockRequest(device=device))).request.id)

    async def device_state(self, device: str) -> int:
        """As the server has it."""
        found = await devices_pb2_grpc.DeviceServiceStub(self.issuer).Get(devices_pb2.GetDeviceRequest(id=device))
        return int(found.device.state)

    async def certificates(self, device: str) -> dict[str, x509.Certificate]:
        """What was issued last for each slot of a device, as the server has it, by the slot's name."""
        stub = certificates_pb2_grpc.CertificateServiceStub(self.issuer)
        found = await stub.Find(certificates_pb2.FindCertificatesRequest(device=device, page_size=200))
        newest = {one.part: one.id for one in found.certificates}
        return {
            part: x509.load_der_x509_certificate((await stub.Get(certificates_pb2.GetCertificateRequest(id=one))).der)
            for part, one in newest.items()
        }

    async def token(self, host: str) -> str:
        """What a new workstation is enrolled by."""
        made = await workstations_pb2_grpc.WorkstationServiceStub(self.administrator).CreateToken(
            workstations_pb2.CreateTokenRequest(host=host, station_class=workstations_pb2.STATION_CLASS_USER)
        )
        return str(made.token)


async def _drain(stream: asyncio.StreamReader) -> None:
    async for _ in stream:
        pass


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _as_pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
