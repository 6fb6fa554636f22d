"""Connections to the HTTP listener: who only holds them is let go, and a slow answer is not cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cardwright_server.http.serve import serving

HEAD = b"POST /slow HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n"


async def _slow(request: Request) -> PlainTextResponse:
    body = await request.body()
    await asyncio.sleep(1.2)
    return PlainTextResponse(body)


@asynccontextmanager
async def connected(patience: float) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    app = Starlette(routes=[Route("/slow", _slow, methods=["POST"])])
    async with serving(app, "127.0.0.1", 0, patience=patience) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            async with asyncio.timeout(20):
                yield reader, writer
        finally:
            writer.close()


@pytest.mark.parametrize("said", [b"", b"GET /", b"GET /slow HTTP/1.1\r\nX: ", HEAD, HEAD + b"123"])
async def test_a_request_that_does_not_come_whole_ends_the_connection(said: bytes) -> None:
    async with connected(0.05) as (reader, writer):
        writer.write(said)
        await _ended(reader)


async def test_an_answer_that_takes_longer_is_given() -> None:
    async with connected(1.0) as (reader, writer):
        writer.write(HEAD + b"1234")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(4) == b"1234"
        writer.write(b"POST /slow HTTP/1.1\r\n")
        await _ended(reader)


async def _ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
