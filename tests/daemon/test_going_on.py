"""After a session that broke off: what was agreed to goes on by itself, and what is more than that is shown again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cardwright_cardops.plan.policy import parse_keys
from cardwright_cardops.program.items import AnyBatch
from cardwright_cardops.rpc_status import RemoteError
from cardwright_daemon import sessions
from cardwright_daemon.link.ports import CardSession, Opening, Purpose, ServerRefused
from cardwright_daemon.machine import Machine
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard, parse
from tests.support.daemon_server import KEYS, POLICY, Server, an_update
from tests.support.daemon_sessions import PIN, issue, preview, start
from tests.support.daemons import PATIENCE, Person, running


async def test_more_than_was_agreed_to_is_shown_again_and_told() -> None:
    card, server = VirtualCard("yubikey-5.7", serial=77), Server(due_is=an_update())
    faulty = FaultyCard(card, parse("ins=DB@3:remove"))
    async with running(faulty, link=server, person=Person(*[PIN] * 4), readers=1) as run:
        operation = await issue(run)
        assert operation.error.code == "CARD_REMOVED"
        server.policy = replace(server.policy, slots=parse_keys(f"{KEYS},82=p256"))
        batches, asked = server.batches, len(run.person.asked)
        outcomes: list[int] = []

        def told(event: pb.WatchEventsResponse) -> bool:
            one = event.operation.operation
            if event.HasField("operation") and one.id != operation.id and one.phase == pb.OPERATION_PHASE_DONE:
                outcomes.append(one.outcome)
            return bool(outcomes) and event.HasField("due") and not event.due.due.continues

        watching = asyncio.create_task(run.client.until(told))
        while not run.daemon.hub.listeners:
            await asyncio.sleep(0.01)
        run.bench.insert(card)
        assert (await watching).due.due.items
        assert outcomes == [pb.OUTCOME_SHOWN_AGAIN]
        assert (server.batches, len(run.person.asked)) == (batches, asked), "nothing is done before it is agreed to"
        identifier = (await run.client.card()).id
        shown = await preview(run, identifier)
        assert any("82" in step.words for step in shown.steps)
        assert (await start(run, identifier, shown)).phase == pb.OPERATION_PHASE_DONE


class Refusing(Server):
    """Says no to every session but the first."""

    async def open(self, opening: Opening) -> CardSession:
        """See ``ServerLink``."""
        if self.openings:
            raise ServerRefused("Nobody may do that here any more.")
        return await super().open(opening)


@pytest.mark.parametrize("code", ["CARD_UNRESPONSIVE", "CARD_DEADLINE", "CARD_BUSY", "PCSC_FAILURE"])
async def test_a_failure_of_the_card_that_the_server_tells_back_goes_on(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the session with what it was told: that is no refusal of its own."""
    monkeypatch.setattr(sessions, "AGAIN", (0.0,))
    told = RemoteError("The card did not answer.")
    told.code = code  # type: ignore[misc]
    policy = replace(POLICY, slots=parse_keys("9a=p256,9e=p256"))
    card, server = VirtualCard("yubikey-5.7", serial=77), Server(policy)

    async def first_fails(number: int, batch: AnyBatch) -> AnyBatch:
        if number == 2 and len(server.openings) == 1:
            raise told
        return batch

    server.on_batch = first_fails
    async with running(card, link=server, person=Person(*[PIN] * 4), readers=1) as run:
        assert (await issue(run)).error.code == code
        async with asyncio.timeout(PATIENCE):
            while not [one for one in run.daemon.desk.operations.all if one.outcome == "done"]:
                await asyncio.sleep(0.01)
    assert len(server.openings) == 2


async def test_what_is_refused_afterwards_does_not_go_on_and_says_so() -> None:
    card, server = VirtualCard("yubikey-5.7", serial=77), Refusing(due_is=an_update())
    faulty = FaultyCard(card, parse("ins=DB@3:remove"))
    async with running(faulty, link=server, person=Person(*[PIN] * 4), readers=1) as run:
        assert (await issue(run)).error.code == "CARD_REMOVED"
        errors: list[str] = []

        def told(event: pb.WatchEventsResponse) -> bool:
            if event.HasField("operation"):
                errors.append(event.operation.operation.error.code)
            return ServerRefused.code in errors and event.HasField("due") and not event.due.due.continues

        watching = asyncio.create_task(run.client.until(told))
        while not run.daemon.hub.listeners:
            await asyncio.sleep(0.01)
        run.bench.insert(card)
        assert (await watching).due.due.items


async def test_what_began_by_itself_goes_on_as_that() -> None:
    """Nobody agreed to it, and nobody is said to have agreed to what was left."""
    now = datetime.now(UTC)
    due = replace(an_update(), purpose=Purpose.ISSUE, mandatory_from=now)
    card, server = VirtualCard("yubikey-5.7", serial=77), Server(due_is=due)
    faulty = FaultyCard(card, parse("ins=DB@3:remove"))
    allowed = Machine(begin_mandatory=True)
    async with running(faulty, link=server, person=Person(*[PIN] * 4), readers=1, machine=allowed) as run:
        # Not by events: it may be over before anybody listens.
        async with asyncio.timeout(PATIENCE):
            while not (lost := [one for one in run.daemon.desk.operations.all if one.error is not None]):
                await asyncio.sleep(0.01)
        assert lost[0].unasked and lost[0].error is not None and lost[0].error.code == "CARD_REMOVED"
        run.bench.insert(card)
        async with asyncio.timeout(PATIENCE):
            while not (done := [one for one in run.daemon.desk.operations.all if one.outcome == "done"]):
                await asyncio.sleep(0.01)
        assert done[0].unasked
    assert server.unasked and all(server.unasked)
