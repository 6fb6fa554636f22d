"""What the policy makes mandatory: begun by the daemon where the administrator allows it, and never a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cardwright_cardops.plan.policy import SecretsPolicy
from cardwright_daemon.config import ConfigInvalid
from cardwright_daemon.link.ports import Due, DueItem, Purpose
from cardwright_daemon.machine import Machine, load_machine
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemon_server import Server
from tests.support.daemon_sessions import PIN, begun, faults_of, in_future, issued_card, preview, quiet, renewing, start
from tests.support.daemons import PATIENCE, Person, Run, failing, running, token

BEGINS = Machine(begin_mandatory=True)
YESTERDAY = -timedelta(days=1)


def due(mandatory: timedelta, what: str = "renewal") -> Due:
    now = datetime.now(UTC)
    until = now + timedelta(hours=1)
    return Due((DueItem(what, now),), until=until, purpose=Purpose.UPDATE, mandatory_from=now + mandatory)


@asynccontextmanager
async def renewal(
    server: Server, person: Person, pauses: tuple[timedelta, ...] = (timedelta(hours=1),), **more: Any
) -> AsyncIterator[Run]:
    """A daemon, and a card in its reader whose certificates are about to end."""
    card = token()
    await issued_card(server, card)
    renewing(server)
    async with running(link=server, person=person, **{"machine": BEGINS, **more}) as run:
        run.daemon.desk.mandatory.pauses = pauses
        run.bench.insert(card)
        yield run


async def until(wanted: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not wanted():
            await asyncio.sleep(0.01)


async def test_what_is_mandatory_is_begun_and_the_pin_is_asked_for() -> None:
    server, person = Server(due_is=due(YESTERDAY)), Person(PIN)
    async with renewal(server, person) as run:
        operation = await begun(run)
        assert (operation.kind, operation.outcome) == (pb.OPERATION_KIND_UPDATE, pb.OUTCOME_DONE)
        card = run.bench.slots[0].card
    assert server.unasked == [False, True]
    assert [(one.what, one.act) for one in person.asked] == [("current PIN", "update card 12345678")]
    assert faults_of(server, card) == []  # type: ignore[arg-type]


async def test_nothing_is_begun_that_the_administrator_did_not_allow() -> None:
    server = Server(due_is=due(YESTERDAY))
    async with renewal(server, Person(), machine=Machine()) as run:
        sessions = len(server.openings)
        card = (await run.client.card()).id
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))).due
        assert found.HasField("mandatory_from") and not found.HasField("begins_at")
        assert len(server.openings) == sessions
        # It still cannot be put off, and can be started like everything else.
        later = pb.PostponeUpdateRequest(card=card, until=in_future(timedelta(hours=1)))
        assert (await failing(run.client.updates.PostponeUpdate(later))).code == "UPDATE_MANDATORY"
        run.person.answers.append(PIN)
        assert (await start(run, card, await preview(run, card, pb.PURPOSE_UPDATE))).phase == pb.OPERATION_PHASE_DONE


async def test_it_can_be_put_off_up_to_its_day_and_begins_then() -> None:
    server = Server(due_is=due(timedelta(seconds=1.5)))
    async with renewal(server, Person(PIN)) as run:
        card = (await run.client.card()).id
        later = pb.PostponeUpdateRequest(card=card, until=in_future(timedelta(hours=1)))
        put_off = (await run.client.updates.PostponeUpdate(later)).due
        assert put_off.postponed_until == put_off.mandatory_from == put_off.begins_at
        asked = len(server.asked)
        assert (await begun(run)).phase == pb.OPERATION_PHASE_DONE
        # The server is asked again when the day comes: had it changed its mind, nothing would be begun.
        assert len(server.asked) > asked


async def test_what_was_put_off_is_not_any_more_when_its_day_is_moved_forward() -> None:
    server = Server(due_is=due(timedelta(days=1)))
    async with renewal(server, Person(), machine=Machine()) as run:
        card = (await run.client.card()).id
        later = pb.PostponeUpdateRequest(card=card, until=in_future(timedelta(hours=1)))
        assert (await run.client.updates.PostponeUpdate(later)).due.HasField("postponed_until")
        server.due_is = due(YESTERDAY)
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))).due
        assert found.HasField("mandatory_from") and not found.HasField("postponed_until")


async def test_a_cancelled_prompt_is_asked_again_after_growing_pauses_and_then_no_more() -> None:
    pauses = tuple(timedelta(milliseconds=many) for many in (20, 40))
    server, person = Server(due_is=due(YESTERDAY)), Person(None, None, None)
    async with renewal(server, person, pauses) as run:
        issued = len(server.openings)
        await until(lambda: len(person.asked) == 3)
        await quiet(run)
        card = (await run.client.card()).id
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))).due
        assert not found.HasField("begins_at")
        # Taking it out and putting it in again does not begin a new round.
        run.bench.insert(run.bench.remove())
        card = (await run.client.card()).id
        await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))
        await quiet(run)
        assert (len(server.openings) - issued, len(person.asked)) == (3, 3)


async def test_the_pause_is_told_and_holds_also_when_the_server_changes_its_mind() -> None:
    server, person = Server(due_is=due(YESTERDAY)), Person(None)
    async with renewal(server, person) as run:
        await until(lambda: person.asked)
        await quiet(run)
        card = (await run.client.card()).id
        for what in ("policy", "renewal", "secrets"):
            server.due_is = due(YESTERDAY, what)
            found = (await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))).due
            assert found.begins_at.ToDatetime(UTC) > datetime.now(UTC) + timedelta(minutes=55)
        server.due_is = Due()
        await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))
        server.due_is = due(YESTERDAY)
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))).due
        assert found.begins_at.ToDatetime(UTC) > datetime.now(UTC) + timedelta(minutes=55)
        assert len(person.asked) == 1


async def test_a_server_that_wants_it_again_and_again_gets_it_once() -> None:
    """The session ends well, and the same is due and mandatory right after it."""
    server, person = Server(due_is=due(YESTERDAY)), Person(PIN)
    async with renewal(server, person) as run:
        await begun(run)
        await until(lambda: len(server.asked) > 1)
        await quiet(run)
        card = (await run.client.card()).id
        found = (await run.client.updates.GetDue(pb.GetDueRequest(card=card))).due
        assert found.begins_at.ToDatetime(UTC) > datetime.now(UTC) + timedelta(minutes=55)
        assert len(person.asked) == 1


async def test_acts_that_are_confirmed_by_name_are_not_begun_unasked() -> None:
    server, person = Server(), Person()
    server.due_is = replace(due(YESTERDAY), purpose=Purpose.ISSUE)
    server.policy = replace(server.policy, secrets=SecretsPolicy(retries=(5, 5)))
    card = token()
    fresh = card.snapshot()
    async with running(card, link=server, person=person, machine=BEGINS) as run:
        assert (await begun(run)).error.code == "CONFIRMATION_MISSING"
    assert (person.asked, server.batches, card.snapshot()) == ([], 0, fresh)


async def test_a_plan_that_somebody_looks_at_is_left_to_them() -> None:
    server, person = Server(due_is=Due()), Person(PIN)
    async with renewal(server, person) as run:
        card = (await run.client.card()).id
        shown = await preview(run, card, pb.PURPOSE_UPDATE)
        server.due_is = due(YESTERDAY)
        await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))
        operation = await start(run, card, shown)
        assert (operation.phase, operation.unasked) == (pb.OPERATION_PHASE_DONE, False)
        assert len(server.consented) == 2  # the issuance and this


async def test_it_waits_for_an_operation_that_has_the_card() -> None:
    server, typing = Server(due_is=Due()), asyncio.Event()
    async with renewal(server, Person(typing, None, PIN)) as run:
        card = (await run.client.card()).id
        changing = asyncio.create_task(failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=card))))
        await run.person.waits.wait()
        server.due_is = due(YESTERDAY)
        await run.client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))
        typing.set()
        assert (await changing).code == "PINENTRY_CANCELLED"
        assert (await begun(run)).phase == pb.OPERATION_PHASE_DONE


# ------------------------------------------------------------------------------------------- the machine's own file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of the machine's administrator, who is us."""
    folder = tmp_path / "etc"
    folder.mkdir(0o755)
    made = folder / "machine.toml"
    made.write_text("begin_mandatory = true\n")
    made.chmod(0o644)
    return made


def test_the_administrators_file_is_read(file: Path) -> None:
    assert load_machine(file, owner=os.getuid()) == BEGINS
    file.write_text("")
    assert load_machine(file, owner=os.getuid()) == Machine()
    assert load_machine(file.parent / "none.toml") == load_machine(file / "none") == Machine()


@pytest.mark.parametrize("text", ["begin_mandatory = 1", "begin = true", "[", "x" * 70000, "\udce4"])
def test_a_file_that_says_something_else_is_an_error(file: Path, text: str) -> None:
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigInvalid):
        load_machine(file, owner=os.getuid())


def test_a_file_that_the_user_could_change_is_an_error(file: Path) -> None:
    owner = os.getuid()
    with pytest.raises(ConfigInvalid, match="others than"):
        load_machine(file, owner=owner + 1)
    for place, mode in ((file, 0o664), (file, 0o646), (file.parent, 0o775), (file.parent, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        with pytest.raises(ConfigInvalid, match="others than"):
            load_machine(file, owner=owner)
        place.chmod(before)
    link = file.parent / "link.toml"
    link.symlink_to(file)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load_machine(link, owner=owner)
    os.mkfifo(file.parent / "pipe.toml", 0o600)
    with pytest.raises(ConfigInvalid, match="no file"):
        load_machine(file.parent / "pipe.toml", owner=owner)
