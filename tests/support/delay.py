"""A line with a length: passes octets on after a while, whatever they are, and sees who speaks in plain HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

_PREFACE = 24
"""Octets that a client sends before its first frame (RFC 9113 section 3.4)."""
_HEAD = 9
_DATA, _HEADERS = 0, 1
_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Line:
    """``address`` is where clients connect, as gRPC writes it. ``delay``: seconds one way, which may be changed.

    ``spoken``: "client" or "server" for each frame of HTTP/2 with a message or its metadata, in the order in which
    they came by; pings, windows and settings are not speech. It means nothing for a line that is encrypted.
    """

    address: str
    delay: float
    spoken: list[str] = field(default_factory=list)

    @property
    def round_trips(self) -> int:
        """How often the server answered what the client said: changes of direction, there and back."""
        after = zip(["server", *self.spoken], [*self.spoken, "client"], strict=True)
        return sum(pair == ("client", "server") for pair in after)


@asynccontextmanager
async def delayed_socket(target: str, delay: float) -> AsyncIterator[Line]:
    """Before the Unix socket ``target``; clients without TLS."""
    folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))  # a socket's path has 107 octets at most
    line = Line(f"{folder}/line", delay)
    try:
        server = await asyncio.start_unix_server(
            _accept(line, lambda: asyncio.open_unix_connection(target)), line.address
        )
        async with server:
            yield line
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def delayed_port(target: str, delay: float) -> AsyncIterator[Line]:
    """Before HOST:PORT."""
    host, _, port = target.rpartition(":")
    line = Line("", delay)
    server = await asyncio.start_server(_accept(line, lambda: asyncio.open_connection(host, int(port))), "127.0.0.1", 0)
    line.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield line


def _accept(line: Line, connect: Callable[[], Awaitable[_Ends]]) -> Callable[..., Awaitable[None]]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, away = await connect()
            await asyncio.gather(
                _pass(line, reader, away, _Frames(line.spoken, "client", _PREFACE)),
                _pass(line, there, writer, _Frames(line.spoken, "server", 0)),
            )

    return accept


async def _pass(line: Line, source: asyncio.StreamReader, sink: asyncio.StreamWriter, frames: _Frames) -> None:
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        with contextlib.suppress(OSError):
            while (part := await under_way.get())[1]:
                if (wait := part[0] - loop.time()) > 0:
                    await asyncio.sleep(wait)
                sink.write(part[1])
                await sink.drain()
        sink.close()

    arriving = asyncio.create_task(arrive())
    octets = b"-"
    while octets:
        try:
            octets = await source.read(1 << 16)
        except OSError:
            octets = b""
        frames.feed(octets)
        under_way.put_nowait((loop.time() + line.delay, octets))
    await arriving


class _Frames:
    """Heads of HTTP/2 frames in a stream of octets."""

    def __init__(self, spoken: list[str], who: str, skip: int) -> None:
        self._spoken = spoken
        self._who = who
        self._skip = skip
        self._rest = b""

    def feed(self, octets: bytes) -> None:
        """More octets."""
        self._rest += octets
        while True:
            passed = min(self._skip, len(self._rest))
            self._rest, self._skip = self._rest[passed:], self._skip - passed
            if self._skip or len(self._rest) < _HEAD:
                return
            length, kind = int.from_bytes(self._rest[:3], "big"), self._rest[3]
            if kind == _HEADERS or (kind == _DATA and length):
                self._spoken.append(self._who)
            self._skip = _HEAD + length
