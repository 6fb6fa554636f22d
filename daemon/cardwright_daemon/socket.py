"""The daemon's socket: in a folder of the user's own, for one daemon, for callers of the same user only.

gRPC tells nobody who is calling, so connections are accepted here, where the kernel says whose process is at the other
end, and passed on to gRPC's own socket in the same folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.workstation import SOCKET, FolderUnsafe, require_own

_log = logging.getLogger(__name__)

INNER: Final = "grpc.sock"
LOCK: Final = "daemon.lock"
MOST_CONNECTIONS: Final = 256
_CHUNK: Final = 1 << 16


class DaemonRunning(CardwrightError):
    """Another daemon of this user is running."""

    code = "DAEMON_RUNNING"
    default_effect = "The daemon that runs goes on."
    default_advice = "Use it, or stop it first: systemctl --user stop cardwright-daemon."


class SocketFolder:
    """The folder and the lock that makes this daemon the only one. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._lock = -1

    @property
    def socket(self) -> Path:
        """Where clients connect."""
        return self.path / SOCKET

    @property
    def inner(self) -> Path:
        """Where gRPC listens."""
        return self.path / INNER

    def __enter__(self) -> SocketFolder:
        """Make the folder, take the lock, remove what a killed daemon left. Raises FolderUnsafe, DaemonRunning."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        except OSError as error:
            raise FolderUnsafe(f"{self.path} cannot be made: {error.strerror}.") from error
        require_own(self.path)
        lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise DaemonRunning(f"Another daemon has the folder {self.path}.") from None
        self._lock = lock
        self._clear()
        return self

    def __exit__(self, *error: object) -> None:
        self._clear()
        os.close(self._lock)

    def _clear(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.inner.unlink(missing_ok=True)


class Front:
    """Accepts connections, asks the kernel who calls, and passes octets on to gRPC."""

    def __init__(self, folder: SocketFolder, refused: Callable[[], None]) -> None:
        """``refused`` hears of connections of other users, and of those beyond the limit."""
        self._folder = folder
        self._refused = refused
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The folder's lock must be held."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(self._folder.socket))
            self._folder.socket.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._accepted, sock=listening)
        except BaseException:
            listening.close()
            raise

    async def stop(self) -> None:
        """Take no more connections and end those that are open."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer_uid(writer.get_extra_info("socket"))
        if uid != os.geteuid() or len(self._running) >= MOST_CONNECTIONS:
            self._refused()
            _log.warning("a connection of uid %d was refused", uid)
            writer.transport.abort()
            return
        # A task of our own: the one that asyncio would make logs its cancellation as an error (3.11).
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._folder.inner))
        except OSError:
            writer.transport.abort()
            return
        ways = (
            asyncio.create_task(_copy(reader, inner_writer)),
            asyncio.create_task(_copy(inner_reader, writer)),
        )
        try:
            # Each direction ends by itself; with one of them the whole connection is over for gRPC.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            inner_writer.transport.abort()
            writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until one end is gone; a slow taker makes the giver wait."""
    with contextlib.suppress(OSError):
        while octets := await source.read(_CHUNK):
            target.write(octets)
            await target.drain()


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, by the kernel; -1 where it does not say."""
    try:
        if sys.platform == "linux":
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", credentials)[1])
        # LOCAL_PEERCRED of macOS and the BSDs: struct xucred begins with its version and the uid.
        credentials = connection.getsockopt(0, 0x001, 76)
        return int(struct.unpack("2I", credentials[:8])[1])
    except (OSError, struct.error):
        return -1
