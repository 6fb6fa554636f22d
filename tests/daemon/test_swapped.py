"""Another card where one was, and two that change places: nothing is done on a card that nobody agreed to."""

from __future__ import annotations

import pytest

from cardwright_daemon import sessions
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.reader.faults import FaultyCard, parse
from tests.support.daemon_server import Server
from tests.support.daemon_sessions import PIN, faults_of, issue, preview, quiet
from tests.support.daemons import Person, failing, running, token


async def test_another_card_is_left_alone_and_the_pulled_one_is_finished_in_another_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "AGAIN", (0.01,))
    mine, other, server = token(77), token(78), Server()
    factory = other.snapshot()
    async with running(FaultyCard(mine, parse("ins=DB@3:remove")), link=server, person=Person(*[PIN] * 4)) as run:
        operation = await issue(run)
        assert operation.error.code == "CARD_REMOVED"
        run.bench.insert(other)
        await run.client.card()
        await quiet(run)
        assert len(server.openings) == 1
        run.bench.insert(mine, 1)
        event = await run.client.until(
            lambda event: event.HasField("operation")
            and event.operation.operation.reader == "Virtual reader 01"
            and event.operation.operation.phase == pb.OPERATION_PHASE_DONE
        )
        assert event.operation.operation.outcome == pb.OUTCOME_DONE
    assert faults_of(server, mine) == []
    assert other.snapshot() == factory
    assert [opening.card.identity.serial for opening in server.openings] == ["77", "77"]


async def test_two_cards_that_changed_places_need_new_previews() -> None:
    one, two, server = token(81), token(82), Server()
    before = one.snapshot(), two.snapshot()
    async with running(one, two, link=server, person=Person()) as run:
        shown = []
        for number in range(2):
            card = (await run.client.card(number)).id
            shown.append((card, await preview(run, card)))
        for number in range(2):
            run.bench.remove(number)
        run.bench.insert(two, 0)
        run.bench.insert(one, 1)
        for card, plan in shown:
            again = pb.StartUpdateRequest(card=card, digest=plan.digest)
            assert (await failing(run.client.updates.StartUpdate(again))).code == "NO_SUCH_CARD"
        # A plan of the one is none for the other, wherever it is now.
        now = [(await run.client.card(number)).id for number in range(2)]
        for number, (_, plan) in enumerate(shown):
            wrong = pb.StartUpdateRequest(card=now[number], digest=plan.digest)
            assert (await failing(run.client.updates.StartUpdate(wrong))).code == "NO_SUCH_PREVIEW"
        await quiet(run)
    assert (one.snapshot(), two.snapshot()) == before
    assert server.consented == []
