"""A line that dies without a word ends the calls on it; what a preview says of PINs is rules and no words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest

from cardwright_cardops import wire
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.pin_rules import PinRules, PinRulesMalformed
from cardwright_cardops.plan.steps import Plan, SetPuk
from cardwright_daemon.link.line import OPTIONS
from cardwright_daemon.link.ports import Preview, ServerUnreachable
from cardwright_daemon.link.session import StreamSession
from cardwright_proto.cms.v1 import sessions_pb2

QUICK = {"grpc.keepalive_time_ms": 1000, "grpc.http2.ping_timeout_ms": 500}
"""In place of the minute and the twenty seconds."""


async def _never(request: bytes, context: Any) -> AsyncIterator[bytes]:
    await context.send_initial_metadata(())
    await asyncio.Event().wait()
    yield b""


async def test_half_open_line_ends_a_session() -> None:
    server = grpc.aio.server(options=(("grpc.http2.min_ping_interval_without_data_ms", 100),))
    handler: Any = _never
    method: Any = grpc.unary_stream_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"m": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    held, tasks = asyncio.Event(), set[asyncio.Task[None]]()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await source.read(65536):
                if not held.is_set():
                    sink.write(octets)
                    await sink.drain()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, away = await asyncio.open_connection("127.0.0.1", port)
        tasks.update((asyncio.create_task(pump(reader, away)), asyncio.create_task(pump(there, writer))))

    proxy = await asyncio.start_server(between, "127.0.0.1", 0)
    host, number = proxy.sockets[0].getsockname()
    options = tuple((dict(OPTIONS) | QUICK).items())
    try:
        async with grpc.aio.insecure_channel(f"{host}:{number}", options=options) as channel:
            stub: Any = channel.unary_stream("/s/m")
            call = stub(b"")
            await call.initial_metadata()
            held.set()
            async with asyncio.timeout(60):
                with pytest.raises(ServerUnreachable):
                    await anext(StreamSession(call).messages())
    finally:
        for task in tasks:
            task.cancel()
        proxy.close()
        await server.stop(0)


async def _shown(preview: sessions_pb2.Preview) -> Preview:
    """What a session makes of a server's preview."""

    async def say(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield sessions_pb2.RunResponse(preview=preview).SerializeToString()

    server = grpc.aio.server()
    method: Any = grpc.unary_stream_rpc_method_handler(cast(Any, say))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"m": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            read = sessions_pb2.RunResponse.FromString
            stub: Any = channel.unary_stream("/s/m", response_deserializer=read)
            message = await anext(StreamSession(stub(b"")).messages())
    finally:
        await server.stop(0)
    assert isinstance(message, Preview)
    return message


PLAN = wire.plan_to_wire(Plan("test", Identity(serial="1"), (SetPuk(),)))


async def test_rules_for_a_pin_are_read_as_rules() -> None:
    rules = sessions_pb2.PinRules(min_length=5, max_length=7, refuse_trivial=True)
    found = await _shown(sessions_pb2.Preview(plan=PLAN, pin_rules=rules))
    assert found.pin_rules == PinRules(
        5, 7, digits_only=False, refuse_trivial=True, refuse_common=False, differs=False
    )
    assert (await _shown(sessions_pb2.Preview(plan=PLAN))).pin_rules is None


@pytest.mark.parametrize("lengths", [(0, 0), (3, 8), (6, 9), (8, 6), (2**32 - 1, 2**32 - 1)])
async def test_rules_that_no_pin_could_keep_end_the_session(lengths: tuple[int, int]) -> None:
    rules = sessions_pb2.PinRules(min_length=lengths[0], max_length=lengths[1])
    with pytest.raises(PinRulesMalformed):
        await _shown(sessions_pb2.Preview(plan=PLAN, pin_rules=rules))
