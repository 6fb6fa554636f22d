"""The vault's process: two unix sockets in a private directory, one for the server and one for the administrator.

Connections only read and write frames. One thread does all the work: it takes what is waiting, carries it out
together, writes one durable piece of audit, and answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from . import messages as m
from .administration import administer
from .core import VaultCore
from .errors import VaultError, VaultRefused, VaultUnavailable
from .proofs import Peer
from .wire import ADMIN_SOCKET, SOCKET, fault_of, frame, peer_uid, read_frame

_BATCH: Final = 64
_WAITING: Final = 1024
_PER_CONNECTION: Final = 256
_CONNECTIONS: Final = 32
_WAITING_OCTETS: Final = 64 * 1024 * 1024
_WRITE_SECONDS: Final = 30.0
_HEAVY: Final = (m.GenerateForEscrow, m.UnwrapForPfx, m.SignCrl, m.AdminMessage)
"""Done one at a time, between batches of the others, so that nobody waits for more than one of them."""

_decode: Callable[[bytes], m.Envelope] = msgspec.msgpack.Decoder(m.Envelope).decode
_requests: Callable[[msgspec.Raw], m.Message] = msgspec.msgpack.Decoder(m.AnyRequest).decode
_admin_requests: Callable[[msgspec.Raw], m.Message] = msgspec.msgpack.Decoder(m.AnyAdminRequest).decode


@dataclass(slots=True)
class _Job:
    """A request, who asks, and where its answer goes."""

    message: m.Message
    peer: Peer
    done: asyncio.Future[object]


class VaultService:
    """Serves one open vault until ``close``."""

    def __init__(self, core: VaultCore, *, clients: Collection[int] = (), administrators: Collection[int] = ()) -> None:
        """``clients`` and ``administrators`` are user ids; this process' own is always one of both, root
        an administrator."""
        self._core = core
        self._clients = {os.geteuid(), *clients}
        self._administrators = {os.geteuid(), 0, *administrators}
        self._light: deque[_Job] = deque()
        self._heavy: deque[_Job] = deque()
        self._waiting_octets = 0
        self._arrived = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, "vault")
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None

    async def start(self, directory: Path) -> None:
        """Listen in ``directory``, which only its owner may enter, or where other users are clients, pass through.

        Raises OSError.
        """
        foreign = self._clients - {os.geteuid()}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise NotADirectoryError(f"{directory} is no directory of this user")
        directory.chmod(0o711 if foreign else 0o700)
        self._worker = asyncio.create_task(self._work())
        sockets = (
            (SOCKET, self._clients, _requests, 0o666 if foreign else 0o600),
            (ADMIN_SOCKET, self._administrators, _admin_requests, 0o600),
        )
        for name, allowed, decode, mode in sockets:
            path = directory / name
            path.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(os.fspath(path))
            path.chmod(mode)
            self._servers.append(await asyncio.start_unix_server(self._accepting(allowed, decode), sock=listening))

    async def failed(self) -> None:
        """Wait for a defect in the thread that does the work, and raise it: the process must not go on."""
        assert self._worker is not None
        await asyncio.shield(self._worker)

    async def close(self) -> None:
        """End every connection, finish what is being done, close the vault."""
        for server in self._servers:
            server.close()
        for task in (*self._connections, *([self._worker] if self._worker else [])):
            task.cancel()
        await asyncio.gather(*self._connections, *([self._worker] if self._worker else []), return_exceptions=True)
        self._pool.shutdown(wait=True)
        self._core.close()

    # The one thread.

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._light or self._heavy:
                jobs = [self._light.popleft() for _ in range(min(_BATCH, len(self._light)))]
                if jobs:
                    answers = await loop.run_in_executor(self._pool, self._perform, [job.message for job in jobs])
                    for job, answer in zip(jobs, answers, strict=True):
                        _settle(job, answer)
                if self._heavy:
                    await self._next_heavy()

    async def _next_heavy(self) -> None:
        # A method of its own, so that nothing here keeps the last one's peer, and with it what that proved.
        job = self._heavy.popleft()
        _settle(job, await asyncio.get_running_loop().run_in_executor(self._pool, self._alone, job))

    def _perform(self, messages: list[m.Message]) -> list[object]:
        return self._core.perform(messages)

    def _alone(self, job: _Job) -> object:
        if not isinstance(job.message, m.AdminMessage):
            return self._perform([job.message])[0]
        try:
            return administer(self._core, job.message, job.peer)
        except VaultError as error:
            return error

    # Connections.

    def _accepting(
        self, allowed: Collection[int], decode: Callable[[msgspec.Raw], m.Message]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if peer_uid(writer) not in allowed or len(self._connections) >= _CONNECTIONS:
                writer.transport.abort()
                return
            task = asyncio.create_task(self._serve(reader, writer, decode))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        return accept

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decode: Callable[[msgspec.Raw], m.Message]
    ) -> None:
        try:
            await self._converse(reader, writer, decode)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decode: Callable[[msgspec.Raw], m.Message]
    ) -> None:
        room = asyncio.Semaphore(_PER_CONNECTION)
        writing, peer = asyncio.Lock(), Peer()
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                try:
                    envelope = _decode(await read_frame(reader))
                except (EOFError, OSError, *m.UNREADABLE):
                    # A peer that goes away or breaks the protocol loses its connection, and nobody else's.
                    return
                group.create_task(self._answer(envelope, peer, writer, writing, decode, room))

    async def _answer(
        self,
        envelope: m.Envelope,
        peer: Peer,
        writer: asyncio.StreamWriter,
        writing: asyncio.Lock,
        decode: Callable[[msgspec.Raw], m.Message],
        room: asyncio.Semaphore,
    ) -> None:
        try:
            answer = await self._carry_out(envelope.body, peer, decode)
            if isinstance(answer, VaultError):
                reply = m.Reply(envelope.id, fault=fault_of(answer))
            else:
                reply = m.Reply(envelope.id, msgspec.Raw(msgspec.msgpack.encode(answer)))
            async with writing:
                try:
                    writer.write(frame(msgspec.msgpack.encode(reply)))
                    async with asyncio.timeout(_WRITE_SECONDS):
                        await writer.drain()
                except OSError:
                    # Also a peer that does not read: TimeoutError is one of these.
                    writer.transport.abort()
        finally:
            room.release()

    async def _carry_out(self, body: msgspec.Raw, peer: Peer, decode: Callable[[msgspec.Raw], m.Message]) -> object:
        try:
            message = decode(body)
        except m.UNREADABLE:
            # The text of msgspec's error could quote what was sent.
            return VaultRefused("request", "The vault does not know this request, or a field of it is out of bounds.")
        job = _Job(message, peer, asyncio.get_running_loop().create_future())
        size = len(body)
        if len(self._light) + len(self._heavy) >= _WAITING or self._waiting_octets + size > _WAITING_OCTETS:
            return VaultUnavailable("The vault has too much to do.")
        (self._heavy if isinstance(message, _HEAVY) else self._light).append(job)
        self._waiting_octets += size
        self._arrived.set()
        try:
            return await job.done
        finally:
            self._waiting_octets -= size


def _settle(job: _Job, answer: object) -> None:
    if not job.done.done():
        job.done.set_result(answer)
