"""A server that is behind says when to come again, and workstations do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from cardwright_cardops.rpc_status import RemoteError, details_of, error_of
from cardwright_daemon.link.ports import Due
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemon_server import Server
from tests.support.daemon_sessions import issued_card
from tests.support.daemons import PATIENCE, running, token


def busy(seconds: str) -> RemoteError:
    """As a server that is behind tells it."""
    found = error_of(details_of(RemoteError("busy"), 8, {"retry_after": seconds}))
    assert found is not None
    return found


def test_when_to_come_again_is_read_strictly() -> None:
    assert busy("3.250").retry_after == 3.25
    for text in ("", "-1", "1e9", "nan", "9999999", "1.2345", "٣"):
        assert busy(text).retry_after is None


async def test_a_check_is_repeated_when_the_server_said_so() -> None:
    card, server = token(), Server()
    await issued_card(server, card)
    server.error, server.due_is = busy("0.010"), Due(until=datetime.now(UTC) + timedelta(hours=1))
    server.asked.clear()
    async with running(card, link=server) as run:
        async with asyncio.timeout(PATIENCE):
            while len(server.asked) < 3:
                await asyncio.sleep(0.005)
        server.error = None
        before = len(server.asked)
        async with asyncio.timeout(PATIENCE):
            while len(server.asked) == before:
                await asyncio.sleep(0.005)
        shown = await run.client.card()
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=shown.id))).due
        assert found.until.ToDatetime(UTC) == server.due_is.until
