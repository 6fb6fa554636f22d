"""The server's end of the vault's socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from cardwright_cardops.secret import Secret

from . import messages as m
from .calls import VaultAdmin, VaultCalls
from .errors import VaultUnavailable
from .wire import ADMIN_SOCKET, SOCKET, error_of, frame, peer_uid, read_frame

_DEFAULT_SECONDS: Final = 20.0
_SECONDS: Final[dict[type[m.Message], float]] = {
    m.Status: 10.0,
    m.PublicKey: 10.0,
    m.SignCrl: 60.0,
    m.SignOcsp: 60.0,
    m.GenerateForEscrow: 60.0,
    m.UnwrapForPfx: 60.0,
    m.Unlock: 120.0,
    m.CreateKey: 600.0,
    m.RotateMaster: 120.0,
    m.Backup: 120.0,
    m.ChangeCredential: 120.0,
}


class Line:
    """One connection to one socket: opened when it is needed, opened again when it broke."""

    def __init__(self, path: Path, seconds: float | None = None, uid: int | None = None) -> None:
        """``seconds`` replaces the deadline of every operation. ``uid`` is the vault's user, this process' if None."""
        self._path = path
        self._uid = os.geteuid() if uid is None else uid
        self._seconds = seconds
        self._numbers = itertools.count()
        self._opening = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[m.Reply]] = {}

    async def ask(self, message: m.Message) -> Any:
        """Carry one message, within its deadline. A connection that was lost is opened again once.

        Raises what the vault answers, and VaultUnavailable.
        """
        content = msgspec.msgpack.encode(message)
        seconds = self._seconds or _SECONDS.get(type(message), _DEFAULT_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                try:
                    reply = await self._exchange(content)
                except ConnectionError:
                    reply = await self._exchange(content)
        except TimeoutError:
            raise VaultUnavailable(f"The vault did not answer within {seconds:g} s.") from None
        except PermissionError as cause:
            raise VaultUnavailable("The vault's socket belongs to another user.") from cause
        except OSError as cause:
            raise VaultUnavailable("The vault's process is not there.") from cause
        if reply.fault is not None:
            raise error_of(reply.fault)
        try:
            return msgspec.msgpack.decode(reply.body, type=message.answer)
        except m.UNREADABLE:
            raise VaultUnavailable("The vault answered with something that cannot be read.") from None

    async def close(self) -> None:
        """End the connection; what waits fails with VaultUnavailable."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _exchange(self, content: bytes) -> m.Reply:
        await self._open()
        number = next(self._numbers)
        future: asyncio.Future[m.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with self._writing:
                if self._writer is None:
                    raise ConnectionResetError("the vault closed the connection")
                self._writer.write(frame(msgspec.msgpack.encode(m.Envelope(number, msgspec.Raw(content)))))
                await self._writer.drain()
            return await future
        finally:
            self._waiting.pop(number, None)

    async def _open(self) -> None:
        async with self._opening:
            if self._writer is None:
                reader, writer = await asyncio.open_unix_connection(self._path)
                if peer_uid(writer) != self._uid:
                    writer.transport.abort()
                    raise PermissionError("another user listens on the vault's socket")
                self._writer = writer
                self._reading = asyncio.create_task(self._read(reader, writer))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                reply = msgspec.msgpack.decode(await read_frame(reader), type=m.Reply)
                future = self._waiting.get(reply.id)
                if future is not None and not future.done():
                    future.set_result(reply)
        except (EOFError, OSError, *m.UNREADABLE):
            pass
        finally:
            self._writer = None
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionResetError("the vault closed the connection"))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class VaultClient(VaultCalls):
    """A ``Vault`` behind the socket in ``directory``. Any number of tasks may share it."""

    def __init__(self, directory: Path, seconds: float | None = None, uid: int | None = None) -> None:
        """Nothing is opened yet. ``seconds`` and ``uid`` as in ``Line``."""
        self._line = Line(directory / SOCKET, seconds, uid)
        super().__init__(self._line.ask)

    async def close(self) -> None:
        """End the connection."""
        await self._line.close()


class AdminClient(VaultAdmin):
    """The administrator's operations behind the socket in ``directory``."""

    def __init__(
        self, directory: Path, credential: Secret, seconds: float | None = None, uid: int | None = None
    ) -> None:
        self._line = Line(directory / ADMIN_SOCKET, seconds, uid)
        super().__init__(self._line.ask, credential)

    async def close(self) -> None:
        """End the connection."""
        await self._line.close()
