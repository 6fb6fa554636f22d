"""Runs the HTTP application in the server's own loop, bounded in connections, header sizes and waiting."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
KEEP_ALIVE = 15
REQUEST_WAIT = 10.0
"""Seconds within which a request is here, whole. Whoever only holds connections would keep others from the lists."""
MOST_HEADERS = 8 * 1024


class _Server(uvicorn.Server):
    """Signals belong to the whole server, which drains this one like its other parts."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """None."""
        return nullcontext()


def _impatient(patience: float) -> type[H11Protocol]:
    """HTTP/1.1 on connections that end when a request that is due does not come; uvicorn itself waits for ever."""

    class Impatient(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._judge()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._judge()

        def connection_lost(self, exc: Exception | None) -> None:
            self._done()
            super().connection_lost(exc)

        def _judge(self) -> None:
            here = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
            if here or self.transport.is_closing():
                self._done()
            elif self._late is None and self.timeout_keep_alive_task is None:
                self._late = self.loop.call_later(patience, self.transport.abort)

        def _done(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Impatient


@asynccontextmanager
async def serving(
    app: Starlette, host: str, port: int, *, patience: float = REQUEST_WAIT
) -> AsyncIterator[tuple[str, int]]:
    """Serve while inside; gives the address (``port`` 0: a free one). Raises OSError if it cannot be had."""
    config = uvicorn.Config(
        app,
        http=_impatient(patience),
        ws="none",
        log_level="error",
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=MOST_HEADERS,
    )
    # Bound here: uvicorn would end the whole process where the address is taken.
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        name = listener.getsockname()
        yield str(name[0]), int(name[1])
    finally:
        server.should_exit = True
        await task
