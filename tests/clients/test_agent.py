"""The desktop agent: what it shows, and what its buttons do; on a daemon in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cardwright_cardops.plan.policy import parse_keys
from cardwright_cardops.program.items import AnyBatch
from cardwright_clients.agent.agent import Agent, Manner
from cardwright_clients.agent.notices import Notice, Pressed, plain
from cardwright_clients.sdk import DaemonClient
from cardwright_clients.sdk.values import Purpose
from cardwright_daemon.app import Daemon
from cardwright_daemon.link import ports
from cardwright_daemon.link.ports import CardSession, Opening
from cardwright_daemon.machine import Machine
from cardwright_simulators.reader.faults import FaultyCard, parse
from tests.clients.test_cli_daemon import ISSUE, Wary
from tests.support.daemon_server import KEYS, Server, a_lock, an_update
from tests.support.daemon_sessions import issued_card
from tests.support.daemons import PATIENCE, Bench, Person, Run, running, token

PIN = b"739146"
LOCKED = "The card is locked. Its PIN does not work until your help desk gives the card back. Nothing on it is lost."


@dataclass
class Wall:
    """Notices on a wall, for all to see."""

    shown: dict[str, tuple[Notice, Pressed | None]] = field(default_factory=dict)
    all: list[Notice] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def show(self, subject: str, notice: Notice, pressed: Pressed | None = None) -> None:
        self.shown[subject] = (notice, pressed)
        self.all.append(notice)
        self.news.set()

    async def clear(self, subject: str) -> None:
        self.shown.pop(subject, None)
        self.news.set()

    async def until(self, wanted: Callable[[Wall], Any]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while not (found := wanted(self)):
                self.news.clear()
                await self.news.wait()
        return found

    async def notice(self, subject: str) -> Notice:
        """The notice whose subject begins so."""
        return await self.until(lambda wall: wall.get(subject))  # type: ignore[no-any-return]

    def get(self, subject: str) -> Notice | None:
        return next((notice for name, (notice, _) in self.shown.items() if name.startswith(subject)), None)

    def press(self, subject: str, word: str) -> None:
        """Somebody presses a button."""
        name = next(name for name in self.shown if name.startswith(subject))
        notice, pressed = self.shown.pop(name)
        assert word in notice.buttons and pressed is not None
        pressed(word)


@asynccontextmanager
async def agent(run: Run, later: timedelta = timedelta(hours=1)) -> AsyncIterator[Wall]:
    """An agent beside a daemon."""
    wall = Wall()
    made = Agent(wall, Manner("ada", later, 0.0, 0.05), folder=run.daemon.socket.parent)
    task = asyncio.create_task(made.run())
    try:
        yield wall
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def issued(run: Run) -> None:
    async with DaemonClient(run.daemon.socket.parent) as daemon:
        (card,) = await daemon.settled_cards()
        operation = await daemon.start(card.id, await daemon.preview(card.id, Purpose.ISSUE))
        assert (await daemon.wait(operation.id)).error is None


async def test_start_does_what_was_shown() -> None:
    server = Server(due_is=ISSUE)
    async with running(link=server, person=Person(PIN, PIN)) as run, agent(run) as wall:
        run.bench.insert(token())
        offer = await wall.notice("offer:")
        assert offer.title == "Card 12345678 can be issued"
        assert offer.text.startswith("Certificates have to be renewed. It takes about ")
        assert "Set a new PUK" in offer.text and offer.text.endswith(" more.")
        assert (offer.buttons, server.batches) == (("Start", "Later", "All steps"), 0)
        server.due_is = ports.Due()
        wall.press("offer:", "Start")
        result = await wall.notice("result:")
        assert (result.text, result.buttons) == ("The card is issued.", ())
        assert "Leave the card in." in [one.text.partition(". ")[2] for one in wall.all]
        assert wall.get("operation:") is None
    assert server.consented == [server.consented[0]]


async def test_a_card_that_was_written_elsewhere_waits_for_its_holder() -> None:
    server = Wary()
    async with running(token(), link=server, person=Person(PIN, PIN, b"secret")) as run, agent(run) as wall:
        server.due_is = ports.Due((ports.DueItem("activation", datetime.now(UTC)),), purpose=ports.Purpose.ISSUE)
        async with DaemonClient(run.daemon.socket.parent) as daemon:
            (card,) = await daemon.settled_cards()
            await daemon.due(card.id, refresh=True)
        offer = await wall.notice("offer:")
        assert (offer.title, offer.buttons) == ("Card 12345678 waits for you", ("Start", "Later"))
        assert offer.text.startswith("It waits until you activate it.")
    assert server.batches == 0


async def test_a_revoked_card_is_told_of_and_there_is_nothing_to_start() -> None:
    over = ports.Due((ports.DueItem("revoked", datetime.now(UTC)),))
    server = Server(due_is=over)
    async with running(token(), link=server) as run, agent(run) as wall:
        told = await wall.notice("offer:")
        assert (told.title, told.buttons, told.urgent) == ("Card 12345678 was revoked", (), True)
        assert "hand it in" in told.text
        run.bench.remove()
        await wall.until(lambda wall: wall.get("offer:") is None)
    assert (server.openings, server.batches) == ([], 0)


async def test_who_wants_to_read_more_sees_every_step() -> None:
    server = Server(due_is=ISSUE)
    async with running(token(), link=server, person=Person(PIN, PIN)) as run, agent(run) as wall:
        short = await wall.notice("offer:")
        wall.press("offer:", "All steps")
        whole = await wall.notice("offer:")
        assert (short.title, short.text.count(";") + 1) == (whole.title, 5)
        assert whole.text.count(";") + 1 == 13 and "more" not in whole.text
        assert whole.buttons == ("Start", "Later")
        assert server.consented == [], "reading begins nothing"
        server.due_is = ports.Due()
        wall.press("offer:", "Start")
        assert (await wall.notice("result:")).text == "The card is issued."


async def test_later_puts_off_and_comes_back() -> None:
    server = Server(due_is=ISSUE)
    async with running(token(), link=server) as run, agent(run, timedelta(seconds=0.2)) as wall:
        await wall.notice("offer:")
        wall.press("offer:", "Later")
        assert (await wall.notice("offer:")).buttons == ("Start", "Later", "All steps")
        assert len([one for one in wall.all if "issued" in one.title]) == 2
        assert server.consented == []


async def test_the_same_is_offered_once_and_goes_with_the_card() -> None:
    server = Server(due_is=ISSUE)
    async with running(token(), link=server) as run, agent(run) as wall:
        await wall.notice("offer:")
        async with DaemonClient(run.daemon.socket.parent) as daemon:
            (card,) = await daemon.cards()
            await daemon.due(card.id, refresh=True)
        run.bench.remove()
        await wall.until(lambda wall: wall.get("offer:") is None)
        assert len(wall.all) == 1
        run.bench.insert(token())
        await wall.notice("offer:")
        assert len(wall.all) == 2


async def test_a_failure_says_why_and_can_be_tried_again() -> None:
    server, person = Server(due_is=ISSUE), Person(None, PIN, PIN)
    async with running(token(), link=server, person=person) as run, agent(run) as wall:
        await wall.notice("offer:")
        wall.press("offer:", "Start")
        failed = await wall.notice("result:")
        assert "The PIN entry was cancelled." in failed.text
        assert failed.buttons == ("Start", "Later")
        server.due_is = ports.Due()
        wall.press("result:", "Start")
        assert (await wall.until(lambda wall: _done(wall))).text == "The card is issued."


def _done(wall: Wall) -> Notice | None:
    found = wall.get("result:")
    return found if found is not None and found.text.startswith("The card is ") else None


async def test_another_plan_is_shown_again_and_not_started() -> None:
    server = Server(due_is=ISSUE)
    async with running(token(), link=server, person=Person(PIN, PIN)) as run, agent(run) as wall:
        first = await wall.notice("offer:")
        server.policy = replace(server.policy, slots=server.policy.slots[:2])
        wall.press("offer:", "Start")
        second = await wall.notice("offer:")
        assert second.text.startswith("It is another plan now. ") and second.text != first.text
        assert server.consented == []
        wall.press("offer:", "Start")
        assert (await wall.notice("result:")).text == "The card is issued."


async def test_a_proof_is_asked_for_on_start() -> None:
    server = Wary(due_is=ISSUE)
    person = Person(b"Rex", b"Mini", PIN, PIN)
    async with running(token(), link=server, person=person) as run, agent(run) as wall:
        assert "who you are first" in (await wall.notice("offer:")).text
        wall.press("offer:", "Start")
        asked = await wall.until(lambda wall: _titled(wall, "Who are you?"))
        assert asked.buttons == ("Password of the directory", "Answers to your security questions")
        wall.press("offer:", "Answers to your security questions")
        plan = await wall.until(lambda wall: _titled(wall, "Card 12345678 can be issued"))
        assert "It takes about" in plan.text
        assert "1. First pet? 2. First car?" in [one.text for one in wall.all]
        wall.press("offer:", "Start")
        assert (await wall.notice("result:")).text == "The card is issued."
    assert server.proved == [(ports.MethodKind.SECURITY_ANSWERS, {"a": b"Rex", "b": b"Mini"})]


def _titled(wall: Wall, title: str) -> Notice | None:
    found = wall.get("offer:")
    return found if found is not None and found.title.startswith(title) else None


BEGINS = Machine(begin_mandatory=True)


async def test_what_is_mandatory_is_offered_without_later() -> None:
    """The agent begins nothing, and the daemon does not where the machine's administrator did not allow it."""
    server = Server(due_is=replace(ISSUE, mandatory_from=datetime.now(UTC) - timedelta(days=1)))
    async with running(token(), link=server, person=Person(PIN, PIN)) as run, agent(run) as wall:
        offer = await wall.notice("offer:")
        assert offer.text.endswith("It is mandatory and cannot be put off.")
        assert (offer.buttons, offer.urgent, server.consented) == (("Start", "All steps"), True, [])
        server.due_is = ports.Due()
        wall.press("offer:", "Start")
        assert (await wall.notice("result:")).text == "The card is issued."


async def test_what_the_daemon_begins_by_itself_is_told_and_only_once() -> None:
    closing = asyncio.Event()
    server = Server(due_is=replace(ISSUE, mandatory_from=datetime.now(UTC) - timedelta(days=1)))
    async with running(link=server, person=Person(closing, None), machine=BEGINS) as run, agent(run) as wall:
        run.bench.insert(token())
        await wall.notice("offer:")
        closing.set()
        failed = await wall.notice("result:")
        assert "The PIN entry was cancelled." in failed.text
        assert failed.buttons == ("Start",)
        assert wall.all[0].text == "It has to be done now. You may be asked for your PIN."
        async with DaemonClient(run.daemon.socket.parent) as daemon:
            (card,) = await daemon.cards()
            due = await daemon.due(card.id, refresh=True)
            assert due.begins_at is not None and due.begins_at > datetime.now(UTC) + timedelta(minutes=9)
        assert len(server.openings) == 1
        assert wall.get("offer:") is None


async def test_a_lock_says_what_happens_and_what_the_holder_does_then() -> None:
    """It is confirmed by its name, so the agent has no button for it; what came of it, it tells."""
    card_in_use, server = token(), Server()
    await issued_card(server, card_in_use)
    server.due_is = a_lock()
    async with running(card_in_use, link=server) as run, agent(run) as wall:
        async with DaemonClient(run.daemon.socket.parent) as daemon:
            (card,) = await daemon.settled_cards()
            due = await daemon.due(card.id, refresh=True)
            offer = await wall.notice("offer:")
            assert (offer.title, offer.buttons, offer.urgent) == ("Card 12345678 is to be locked", (), True)
            assert offer.text == (
                "The card is to be locked: its PIN will not work until your help desk gives the card back. It takes"
                " about 1 s: Lock the card: its PIN is blocked until the help desk gives the card back. Some of it has"
                " to be confirmed by name: run 'cardwright update'. It is mandatory and cannot be put off."
            )
            server.due_is = ports.Due()
            shown = await daemon.preview_when_free(card.id, due.purpose)
            begun = await daemon.start(card.id, shown, confirmed=["lock card"])
            assert (await daemon.wait(begun.id)).error is None
        result = await wall.notice("result:")
        assert (result.text, result.buttons) == (LOCKED, ())


async def test_a_lock_that_begins_by_itself_asks_for_nothing() -> None:
    card, server, told = token(), Server(), asyncio.Event()
    await issued_card(server, card)

    async def slow(number: int, batch: AnyBatch) -> AnyBatch:
        await told.wait()
        return batch

    server.due_is, server.on_batch, person = a_lock(), slow, Person()
    async with running(link=server, person=person, machine=BEGINS) as run, agent(run) as wall:
        run.bench.insert(card)
        begun = await wall.until(lambda wall: _titled(wall, "Card 12345678 is being locked"))
        assert (begun.text, begun.buttons) == ("It has to be done now. You are not asked for anything.", ())
        server.due_is = ports.Due()
        told.set()
        assert (await wall.notice("result:")).text == LOCKED
    assert person.asked == []


async def test_it_becomes_mandatory_while_it_is_offered() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    server = Server(due_is=replace(ISSUE, mandatory_from=soon))
    async with running(token(), link=server, person=Person(PIN, PIN), machine=BEGINS) as run, agent(run) as wall:
        assert "on it begins by itself." in (await wall.notice("offer:")).text
        assert (await wall.notice("result:")).text == "The card is issued."


async def test_more_than_was_agreed_to_is_said_and_offered_again() -> None:
    server, card = Server(due_is=ISSUE), token()
    faulty = FaultyCard(card, parse("ins=DB@3:remove"))
    async with running(faulty, link=server, person=Person(*[PIN] * 4)) as run, agent(run) as wall:
        await wall.notice("offer:")
        wall.press("offer:", "Start")
        assert "The card was pulled." in (await wall.notice("result:")).text
        server.policy = replace(server.policy, slots=parse_keys(f"{KEYS},82=p256"))
        run.bench.insert(card)
        text = "More is due than was agreed to. Nothing was done; it is shown again."
        await wall.until(lambda wall: text in [one.text for one in wall.all])
        assert (await wall.notice("offer:")).buttons[:2] == ("Start", "Later")


def with_a_card() -> Bench:
    bench = Bench()
    bench.slots[0].insert(token())
    return bench


async def test_the_daemon_is_restarted() -> None:
    server = Server(due_is=an_update())
    async with running(link=server, person=Person(PIN, PIN)) as run, agent(run) as wall:
        run.bench.insert(token())
        await wall.until(lambda wall: server.asked)
        await run.daemon.__aexit__()
        server.due_is = ISSUE
        async with Daemon(run.daemon.config, sources=[with_a_card().source], link=server, asker=run.person):
            offer = await wall.until(lambda wall: _titled(wall, "Card 12345678 can be issued"))
            assert offer.buttons[:2] == ("Start", "Later")
            wall.press("offer:", "Start")
            assert (await wall.notice("result:")).text == "The card is issued."


async def test_the_agent_waits_for_the_daemon() -> None:
    async with running(token(), link=Server(due_is=ISSUE)) as run:
        await run.daemon.__aexit__()
        async with agent(run) as wall:
            await asyncio.sleep(0)
            async with Daemon(run.daemon.config, sources=[with_a_card().source], link=Server(due_is=ISSUE)):
                await wall.notice("offer:")


class Away(Server):
    async def open(self, opening: Opening) -> CardSession:
        raise ports.ServerUnreachable("No answer.")


async def test_a_server_that_is_away_costs_nobody_anything() -> None:
    server = Away(due_is=ISSUE)
    async with running(token(), link=server) as run, agent(run) as wall:
        async with asyncio.timeout(PATIENCE):
            while not any(one.error for one in run.daemon.desk.operations.all):
                await asyncio.sleep(0.01)
        assert wall.all == []


def test_texts_are_plain() -> None:
    assert plain("<b>a\x1b[31m</b>&\u202e") == "(b)a [31m(/b)+ "
