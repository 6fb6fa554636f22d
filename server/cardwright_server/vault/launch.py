"""Start the vault's process beside the server, and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from cardwright_cardops.secret import Secret

from .client import VaultClient
from .errors import VaultUnavailable

READY: Final = b"ready\n"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


class VaultProcess:
    """A vault as a child process. It ends when its standard input does, so never later than its parent."""

    def __init__(self, process: asyncio.subprocess.Process, sockets: Path) -> None:
        self._process = process
        self.sockets = sockets

    @classmethod
    async def start(
        cls, directory: Path, sockets: Path, credential: Secret | None = None, arguments: tuple[str, ...] = ()
    ) -> VaultProcess:
        """Start, and wait until it listens in ``sockets``. ``credential`` unlocks it and goes through a pipe.

        ``arguments`` are further ones of ``python -m cardwright_server.vault run``. Raises VaultUnavailable.
        """
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "cardwright_server.vault", "run"),
                *("--directory", os.fspath(directory), "--sockets", os.fspath(sockets), "--end-with-stdin"),
                *(("--credential-fd", str(reading)) if credential is not None else ()),
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(reading,),
                process_group=0,  # Ctrl+C is for the server, which needs its vault while it drains
            )
            if credential is not None:
                os.write(writing, credential.reveal() + b"\n")
        finally:
            os.close(reading)
            os.close(writing)
        started = cls(process, sockets)
        assert process.stdout is not None
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                line = await process.stdout.readline()
        if line != READY:
            await started.stop()
            raise VaultUnavailable(f"The vault's process did not start (exit status {process.returncode}).")
        return started

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def client(self, seconds: float | None = None) -> VaultClient:
        """A new client."""
        return VaultClient(self.sockets, seconds)

    async def stop(self) -> None:
        """Let it finish what it does and end; kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def wait(self) -> int:
        """The exit status, once it ended."""
        return await self._process.wait()
