"""Runs the HTTP application in the server's own loop, bounded in connections, header sizes and waiting."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import uvicorn
from starlette.applications import Starlette

MOST_CONNECTIONS = 500
KEEP_ALIVE = 15
MOST_HEADERS = 8 * 1024


class _Server(uvicorn.Server):
    """Signals belong to the whole server, which drains this one like its other parts."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """None."""
        return nullcontext()


@asynccontextmanager
async def serving(app: Starlette, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Serve while inside; gives the address (``port`` 0: a free one). Raises OSError if it cannot be had."""
    config = uvicorn.Config(
        app,
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
