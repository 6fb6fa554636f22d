"""A line between two TCP ends that can be cut, slowed, lossy, held open with nothing passing, and led elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

CHUNK = 65536
PACKET = 1400
AGAIN = 0.2
"""Seconds until TCP sends again what was lost, the first time; then twice that, and so on."""


@dataclass
class LineProxy:
    """Listens on this machine and passes octets on to ``target`` (HOST:PORT); an async context manager.

    ``seconds``: how long each octet is under way, in each direction. ``loses``: share of packets that are lost. To the
    ends of a TCP connection that is a pause: the packet comes again later, and everything behind it waits.
    """

    target: str
    seconds: float = 0.0
    loses: float = 0.0
    lost: int = 0
    """How many packets were."""
    address: str = ""
    connections: int = 0
    """How many there were."""
    _server: asyncio.Server | None = None
    _down: asyncio.Event = field(default_factory=asyncio.Event)
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _held: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _refused: bool = False
    _cuts: list[int] = field(default_factory=list)
    _chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def __aenter__(self) -> LineProxy:
        self._down.set()
        self._up.set()
        self._server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ------------------------------------------------------------------------------------------------ what happens

    def cut(self) -> None:
        """End every connection at once, both ways, without a word; new ones are passed on."""
        for writer in tuple(self._writers):
            with contextlib.suppress(OSError, RuntimeError):
                writer.transport.abort()
        self._down.set()
        self._up.set()

    def cut_after(self, *octets: int) -> None:
        """Cut when so many more have passed, both ways together; then again after the next number, and so on."""
        self._cuts.extend(octets)

    def _passed(self, octets: int) -> None:
        if self._cuts:
            self._cuts[0] -= octets
            if self._cuts[0] <= 0:
                del self._cuts[0]
                self.cut()

    def refuse(self, *, refused: bool = True) -> None:
        """New connections are ended at once, or no longer."""
        self._refused = refused

    def hold_answers(self) -> asyncio.Event:
        """From now on nothing comes back. The event: something would have."""
        self._down.clear()
        self._held.clear()
        return self._held

    def hold(self) -> None:
        """Half open: the connections stand, and nothing passes either way until ``cut`` or ``release``."""
        self._down.clear()
        self._up.clear()

    def release(self) -> None:
        """What was held goes on."""
        self._down.set()
        self._up.set()

    # ------------------------------------------------------------------------------------------------- the octets

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refused:
            writer.transport.abort()
            return
        host, _, port = self.target.rpartition(":")
        try:
            there, away = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        pair = {writer, away}
        self._writers |= pair
        for source, sink, gate, held in (
            (reader, away, self._up, asyncio.Event()), (there, writer, self._down, self._held)
        ):  # fmt: skip
            task = asyncio.create_task(self._pump(source, sink, gate, held, pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        gate: asyncio.Event,
        held: asyncio.Event,
        pair: set[asyncio.StreamWriter],
    ) -> None:
        """One direction. Octets wait for their time in a queue, so that a slow line is not a thin one."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                due, octets = await line.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not gate.is_set():
                    held.set()
                    await gate.wait()
                if not octets:
                    return
                for _ in range(0, len(octets), PACKET):
                    again = AGAIN
                    while self.loses and self._chance.random() < self.loses:
                        self.lost += 1
                        await asyncio.sleep(again)
                        again *= 2
                sink.write(octets)
                await sink.drain()
                self._passed(len(octets))

        delivering = asyncio.create_task(deliver())
        try:
            with contextlib.suppress(OSError):
                while True:
                    octets = await source.read(CHUNK)
                    line.put_nowait((loop.time() + self.seconds, octets))
                    if not octets:
                        break
                await delivering
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
            for writer in pair & self._writers:
                self._writers.discard(writer)
                with contextlib.suppress(OSError, RuntimeError):
                    writer.close()
