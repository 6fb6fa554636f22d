"""The gRPC API in one process: a server on a Unix socket, and callers who are whoever a test says they are.

A test names servicers by a function of ``Calls``, and calls procedures by their names in the descriptors::

    async with serving(database, lambda calls: [PersonServicer(calls, people)]) as api:
        answer = await api.call("PersonService.Get", GetPersonRequest(id=str(person.id)), operator)
        refused = await api.refused("PersonService.Get", GetPersonRequest(id="x"), operator)
        assert refused == ("INVALID_ARGUMENT", "WIRE_MALFORMED")
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import cardwright_proto.cms.v1 as contract
from cardwright_server.api.calling import Calls
from cardwright_server.api.strict import StrictMessages
from cardwright_server.authentication.errors import ProofRequired
from cardwright_server.authentication.principal import Principal
from cardwright_server.store.unit import Database
from tests.support.sessions import reason_of

CALLER = "test-caller"
"""Metadata by which the helper's ``identify`` finds the principal of a call."""
PACKAGE = "cardwright.cms.v1"


class Refusal(NamedTuple):
    """How a call ended that was not answered: the name of the gRPC status, and the stable code."""

    status: str
    reason: str


@cache
def services() -> Mapping[str, ServiceDescriptor]:
    """Every service of the contract, by name: whatever .proto files there are."""
    found: dict[str, ServiceDescriptor] = {}
    for module in pkgutil.iter_modules(contract.__path__, contract.__name__ + "."):
        if module.name.endswith("_pb2"):
            found |= importlib.import_module(module.name).DESCRIPTOR.services_by_name
    return found


@cache
def procedures() -> Mapping[str, MethodDescriptor]:
    """Every procedure of the contract, by ``<Service>.<Method>``."""
    return {f"{name}.{one.name}": one for name, service in services().items() for one in service.methods}


@dataclass
class Api:
    """A running server, and who calls it."""

    path: str
    channel: grpc.aio.Channel
    callers: dict[str, Principal] = field(default_factory=dict)
    always: Principal | None = None
    """Who calls where no principal is named: for clients that know nothing of these tests."""

    async def identify(self, context: Any) -> Principal:
        """The principal that the test named for this call."""
        for name, value in context.invocation_metadata() or ():
            if name == CALLER:
                return self.callers[value]
        if self.always is not None:
            return self.always
        raise ProofRequired("nobody was named for this call")

    def metadata(self, principal: Principal | None, more: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """What goes with a call of a principal; ``more`` for ``idempotency-key`` and the like."""
        pairs = list((more or {}).items())
        if principal is not None:
            name = uuid4().hex
            self.callers[name] = principal
            pairs.append((CALLER, name))
        return pairs

    async def call(
        self,
        name: str,
        request: Message | bytes,
        principal: Principal | None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer to a unary call. ``request`` may be octets, to send what no honest client does.

        Raises grpc.aio.AioRpcError.
        """
        method = procedures()[name]
        assert not method.client_streaming and not method.server_streaming, f"{name} is a stream"
        answer = GetMessageClass(method.output_type)
        run = self.channel.unary_unary(_path(method), lambda octets: octets, answer.FromString)
        octets = request if isinstance(request, bytes) else request.SerializeToString()
        return await run(octets, metadata=self.metadata(principal, metadata), timeout=30)

    async def stream(
        self, name: str, requests: Iterable[Message | bytes], principal: Principal | None, *, timeout: float = 30
    ) -> tuple[list[Any], Refusal | None]:
        """Every answer to a streaming call until ``timeout`` (seconds), and how it ended if not well."""
        method = procedures()[name]
        answer = GetMessageClass(method.output_type)
        octets = [one if isinstance(one, bytes) else one.SerializeToString() for one in requests]
        metadata, answers = self.metadata(principal), []
        call: Any
        if method.client_streaming:
            opened = self.channel.stream_stream(_path(method), lambda one: one, answer.FromString)
            call = opened(iter(octets), metadata=metadata, timeout=timeout)
        else:
            call = self.channel.unary_stream(_path(method), lambda one: one, answer.FromString)(
                octets[0], metadata=metadata, timeout=timeout
            )
        try:
            async for one in call:
                answers.append(one)
        except grpc.aio.AioRpcError as error:
            return answers, Refusal(error.code().name, reason_of(error))
        return answers, None

    async def refused(
        self,
        name: str,
        request: Message | bytes,
        principal: Principal | None,
        metadata: Mapping[str, str] | None = None,
    ) -> Refusal:
        """How a unary call was refused; a failure of the test if it was answered."""
        try:
            answer = await self.call(name, request, principal, metadata)
        except grpc.aio.AioRpcError as error:
            return Refusal(error.code().name, reason_of(error))
        pytest.fail(f"{name} was answered: {answer}")


@asynccontextmanager
async def serving(database: Database, servicers: Callable[[Calls], Iterable[object]]) -> AsyncIterator[Api]:
    """A server of these servicers, which get ``Calls`` over the database, and a channel to it."""

    def put(server: grpc.aio.Server, calls: Calls) -> None:
        for servicer in servicers(calls):
            add(server, servicer)

    async with serving_what(database, put) as api:
        yield api


@asynccontextmanager
async def serving_what(database: Database, put: Callable[[grpc.aio.Server, Calls], object]) -> AsyncIterator[Api]:
    """As ``serving``, of whatever ``put`` registers with the server."""
    folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))  # a socket's path has 107 octets at most
    path = f"{folder}/socket"
    server = grpc.aio.server(interceptors=[StrictMessages()])
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        api = Api(path, channel)
        put(server, Calls(database, api.identify))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        try:
            yield api
        finally:
            await server.stop(None)
            shutil.rmtree(folder, ignore_errors=True)


def add(server: grpc.aio.Server, servicer: object) -> None:
    """Register a servicer by the function that was generated with its base class."""
    for base in type(servicer).__mro__:
        if base.__module__.endswith("_pb2_grpc") and base.__name__.endswith("Servicer"):
            getattr(sys.modules[base.__module__], f"add_{base.__name__}_to_server")(servicer, server)
            return
    raise TypeError(f"{type(servicer).__name__} is no servicer")


def message_of(method: MethodDescriptor) -> Message:
    """An empty request of a procedure."""
    made: Message = GetMessageClass(method.input_type)()
    return made


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"
