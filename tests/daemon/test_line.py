"""A line that dies without a word ends the calls on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from cardwright_daemon.link.line import OPTIONS
from cardwright_daemon.link.ports import ServerUnreachable
from cardwright_daemon.link.session import StreamSession

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
