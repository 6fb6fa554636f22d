"""A daemon in this process that watches PC/SC, and what its clients wait for."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from cardwright_daemon.app import Daemon
from cardwright_daemon.readers import PcscReaders
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemon_server import Server
from tests.support.daemons import PATIENCE, Client, Person, client_of, config, short_folder

Wanted = Callable[[pb.WatchEventsResponse], bool]


@asynccontextmanager
async def on_pcsc(
    person: Person, server: Server | None = None, **changes: Any
) -> AsyncIterator[tuple[Daemon, Client]]:
    """A daemon that watches PC/SC, and a client. ``changes`` are of its configuration."""
    folder = short_folder()
    try:
        made = Daemon(config(folder, **changes), sources=[PcscReaders()], asker=person, link=server)
        async with made as daemon, client_of(daemon.socket) as client:
            yield daemon, client
    finally:
        shutil.rmtree(folder.parent)


def ready(reader: str) -> Wanted:
    """The card in ``reader`` is known."""
    return lambda event: (
        event.HasField("card")
        and event.card.present
        and event.card.card.reader == reader
        and event.card.card.state == pb.CARD_STATE_READY
    )


class Stream:
    """One stream of events, read from its beginning."""

    def __init__(self, client: Client) -> None:
        self._call = client.cards.WatchEvents(pb.WatchEventsRequest())

    async def until(self, wanted: Wanted) -> pb.WatchEventsResponse:
        async with asyncio.timeout(PATIENCE):
            while not wanted(event := await self._call.read()):
                continue
        return event  # type: ignore[no-any-return]
