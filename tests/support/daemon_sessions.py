"""Sessions through the daemon, as its tests begin and judge them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cardwright_cardops.plan.records import Kind
from cardwright_daemon.cards import CardState
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from tests.oracle.card import Expected, judge
from tests.support.card_init import P256
from tests.support.daemon_server import PUK, Server
from tests.support.daemons import PATIENCE, Person, Run, running

PIN = b"739146"
GOAL = {0x9A: (P256, True), 0x9C: (P256, True), 0x9D: (P256, False), 0x9E: (P256, True)}


def faults_of(server: Server, card: VirtualCard, pin: bytes = PIN, puk: bytes = PUK) -> list[str]:
    """What the judge finds wrong with the card."""
    entries = server.journal(str(card.serial)).entries()
    keys = frozenset(one.value.reveal() for one in entries if one.kind is Kind.MANAGEMENT_KEY and one.value)
    return judge(card.snapshot(), Expected(GOAL, pin, puk, keys, issuer=server.ca.public_key()))


async def preview(run: Run, card: str, purpose: pb.Purpose.ValueType = pb.PURPOSE_ISSUE) -> pb.PreviewUpdateResponse:
    request = pb.PreviewUpdateRequest(card=card, purpose=purpose)
    shown: pb.PreviewUpdateResponse = await run.client.updates.PreviewUpdate(request)
    return shown


async def start(run: Run, card: str, shown: pb.PreviewUpdateResponse) -> pb.Operation:
    """Start what was shown and wait for its end."""
    begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
    return await ended(run, begun.operation.id)


async def ended(run: Run, operation: str) -> pb.Operation:
    done = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=operation))
    return done.operation  # type: ignore[no-any-return]


async def issue(run: Run, number: int = 0) -> pb.Operation:
    """Issue the card in a reader, to the end."""
    card = (await run.client.card(number)).id
    return await start(run, card, await preview(run, card))


async def issued_card(server: Server, card: VirtualCard, pin: bytes = PIN) -> None:
    async with running(card, link=server, person=Person(pin, pin)) as run:
        assert (await issue(run)).phase == pb.OPERATION_PHASE_DONE


def renewing(server: Server) -> Server:
    """The same server, later: certificates are about to end."""
    server.policy = replace(server.policy, renew_before=timedelta(days=310), replace=True)
    return server


def settled(run: Run) -> bool:
    """Nobody is finding out who a card is."""
    return all(card.state is not CardState.READING for card in run.daemon.desk.cards.all)


async def quiet(run: Run) -> None:
    """Every operation is over, those too that the daemon began by itself."""
    desk = run.daemon.desk
    while running_ones := [one for one in desk.operations.all if not one.over]:
        for one in running_ones:
            await desk.operations.wait(one.id)


async def over(run: Run, wanted: Callable[[pb.Operation], bool]) -> pb.Operation:
    """The first operation that ended and is as wanted, also one that nobody watched."""
    async with asyncio.timeout(PATIENCE):
        while True:
            listed = await run.client.operations.ListOperations(pb.ListOperationsRequest())
            found = [one for one in listed.operations if one.HasField("ended_at") and wanted(one)]
            if found:
                return found[0]  # type: ignore[no-any-return]
            await asyncio.sleep(0.01)


async def begun(run: Run) -> pb.Operation:
    """The operation that the daemon began by itself, when it is over."""
    return await over(run, lambda one: one.unasked)


def in_future(later: timedelta) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    made = Timestamp()
    made.FromDatetime(datetime.now(UTC) + later)
    return made
