"""The client of the server, over TLS; and the blocks of docs/sdk.md, which use both clients."""

from __future__ import annotations

import ast
import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from cardwright_cardops.rpc_status import DETAILS, RemoteError, details_of
from cardwright_clients.sdk import OperatorFile, ServerClient, ServerUnreachable
from cardwright_clients.sdk.server import REPEATABLE, SESSION
from cardwright_clients.sdk.values import Phase
from cardwright_daemon.link import ports
from cardwright_proto.cms.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    authentication_pb2,
    certificates_pb2,
    devices_pb2,
    escrow_pb2,
    notify_pb2,
    operators_pb2,
    people_pb2,
    people_pb2_grpc,
    policies_pb2,
    requests_pb2,
    system_pb2,
    workstations_pb2,
)
from cardwright_server.people.model import Role
from cardwright_server.store.unit import Database
from cardwright_server.vault.calls import LocalVault
from tests.support.daemon_server import Server, an_update
from tests.support.daemons import PATIENCE, Person, running, token
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import make_world
from tests.support.managed import ToldContacts, servicers
from tests.support.operator_line import Authority, OperatorLine, operator_line
from tests.support.people import make_operator
from tests.support.vault import make_core

CONTRACT = (
    audit_pb2, authentication_pb2, certificates_pb2, devices_pb2, escrow_pb2, notify_pb2, operators_pb2, people_pb2,
    policies_pb2, requests_pb2, system_pb2, workstations_pb2,
)  # fmt: skip
PIN = b"739146"


@asynccontextmanager
async def office(database: Database, folder: Path) -> AsyncIterator[tuple[OperatorLine, Path]]:
    """A server behind a TLS port, and the file of an administrator."""
    world = await make_world(database)
    core = make_core(folder / "vault", lambda: datetime.now(UTC).timestamp())
    vault = LocalVault(core)
    administrator = await make_operator(database, world.org, Role.ADMINISTRATOR)
    async with operator_line(
        database, folder / "operators", lambda calls: servicers(calls, world, vault, ToldContacts())
    ) as line:
        yield line, line.file(administrator)
    core.close()


@ON_SQLITE
async def test_calls_pages_and_errors(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as (line, file):
        async with ServerClient(line.address, OperatorFile.read(file)) as server:
            groups = people_pb2_grpc.GroupServiceStub(server.channel)
            for number in range(5):
                await server.call(groups.Create, people_pb2.CreateGroupRequest(name=f"group {number}"))
            wanted = people_pb2.FindGroupsRequest(page_size=2)
            names = [one.name async for one in server.pages(groups.Find, wanted, "groups")]
            assert [name for name in names if name.startswith("group ")] == [f"group {number}" for number in range(5)]
            assert wanted.page_token == ""
            with pytest.raises(RemoteError) as caught:
                await server.call(groups.Create, people_pb2.CreateGroupRequest(name=""))
            assert caught.value.code == "REQUEST_MALFORMED"
        stranger = tmp_path / "stranger.pem"
        stranger.touch(0o600)
        stranger.write_bytes(Authority("Other").issued("stranger"))
        async with ServerClient(line.address, OperatorFile.read(stranger)) as server:
            with pytest.raises(ServerUnreachable):
                people = people_pb2_grpc.PersonServiceStub(server.channel)
                await server.call(people.Find, people_pb2.FindPersonsRequest(), seconds=5.0)


@asynccontextmanager
async def portal(folder: Path, add: Callable[[grpc.aio.Server], None], session: str) -> AsyncIterator[ServerClient]:
    """A client of a server that has what ``add`` gives it."""
    root = Authority("Root")
    name = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    key, begin, chain = root.issued("server", name).partition(b"-----BEGIN CERTIFICATE-----")
    server = grpc.aio.server()
    add(server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, begin + chain)]))
    await server.start()
    path = folder / "portal.pem"
    path.touch(0o600)
    path.write_bytes(root.issued("portal"))
    try:
        async with ServerClient(f"127.0.0.1:{port}", OperatorFile.read(path), session=session) as client:
            yield client
    finally:
        await server.stop(None)


async def test_what_a_call_answers_bit_by_bit(tmp_path: Path) -> None:
    """Its errors are those of any call, and whoever leaves earlier ends it."""
    seen: list[dict[str, Any]] = []
    left = asyncio.Event()

    class Audit(audit_pb2_grpc.AuditServiceServicer):
        async def Verify(self, request: Any, context: Any) -> AsyncIterator[audit_pb2.VerifyAuditResponse]:
            seen.append(dict(context.invocation_metadata()))
            yield audit_pb2.VerifyAuditResponse(blocks=1)
            yield audit_pb2.VerifyAuditResponse(blocks=2)
            if len(seen) == 1:
                error = RemoteError("The chain is being judged.")
                vars(error)["code"] = "AUDIT_BUSY"
                await context.abort(grpc.StatusCode.ABORTED, "", ((DETAILS, details_of(error, 10)),))
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        async def Find(self, request: Any, context: Any) -> Any:
            raise AssertionError("only Verify is called here")

        Anchor = Find

    def add(server: grpc.aio.Server) -> None:
        audit_pb2_grpc.add_AuditServiceServicer_to_server(Audit(), server)

    async with portal(tmp_path, add, "proved") as client:
        verify = audit_pb2_grpc.AuditServiceStub(client.channel).Verify
        blocks = []
        with pytest.raises(RemoteError) as caught:
            async with aclosing(client.stream(verify, audit_pb2.VerifyAuditRequest())) as answers:
                async for answer in answers:
                    blocks.append(answer.blocks)
        assert (blocks, caught.value.code) == ([1, 2], "AUDIT_BUSY")
        async with aclosing(client.stream(verify, audit_pb2.VerifyAuditRequest())) as answers:
            assert (await anext(answers)).blocks == 1
        async with asyncio.timeout(PATIENCE):
            await left.wait()
    assert [one[SESSION] for one in seen] == ["proved"] * 2


async def test_what_a_person_proved_goes_with_every_call(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Groups(people_pb2_grpc.GroupServiceServicer):
        async def Create(self, request: Any, context: Any) -> people_pb2.Group:
            seen.append(dict(context.invocation_metadata()))
            return people_pb2.Group()

        async def AddMember(self, request: Any, context: Any) -> Any:
            raise AssertionError("only Create is called here")

        RemoveMember = Find = AddMember

    def add(server: grpc.aio.Server) -> None:
        people_pb2_grpc.add_GroupServiceServicer_to_server(Groups(), server)

    async with portal(tmp_path, add, "proved") as client:
        create = people_pb2_grpc.GroupServiceStub(client.channel).Create
        await client.call(create, people_pb2.CreateGroupRequest(), idempotency_key="one")
        client.session = ""
        await client.call(create, people_pb2.CreateGroupRequest())
    assert (seen[0][SESSION], seen[0]["idempotency-key"]) == ("proved", "one")
    assert SESSION not in seen[1] and "idempotency-key" not in seen[1]


def test_what_may_be_repeated_is_in_the_contract() -> None:
    services = {
        name: service for module in CONTRACT for name, service in module.DESCRIPTOR.services_by_name.items()
    }
    for service, call in REPEATABLE:
        assert call in services[service].methods_by_name, (service, call)
        assert services[service].full_name == f"cardwright.cms.v1.{service}"


@ON_SQLITE
async def test_every_block_of_the_sdk_document_runs(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    namespace: dict[str, Any] = {}
    link = Server(due_is=replace(an_update(), purpose=ports.Purpose.ISSUE))
    async with (
        office(database, tmp_path) as (line, file),
        running(token(), link=link, person=Person(PIN, PIN)) as run,
    ):
        monkeypatch.setenv("CARDWRIGHT_FOLDER", str(run.daemon.socket.parent))
        monkeypatch.chdir(tmp_path)
        file.rename(tmp_path / "portal.pem")
        for number, block in enumerate(blocks):
            source = block.replace("cms.example:7443", line.address)
            code = compile(source, f"block {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            done = eval(code, namespace)
            if done is not None:
                await done
    assert namespace["names"] == ["card 12345678"]
    assert namespace["done"].phase is Phase.DONE
    assert namespace["code"] == "NO_SUCH_CARD"
    assert "ada" in namespace["logins"] and namespace["ada"].display_name == "Ada Lovelace"
