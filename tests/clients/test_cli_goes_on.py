"""``cardwright update`` and what broke off: the daemon goes on by itself, and the command waits for that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cardwright_cardops.plan.policy import parse_keys
from cardwright_cardops.program.items import AnyBatch
from cardwright_clients.sdk.values import Phase, Purpose
from cardwright_daemon import sessions
from cardwright_daemon.link import ports
from cardwright_daemon.link.ports import CardSession, Opening, ServerRefused, ServerUnreachable
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard, parse
from tests.support.daemon_server import KEYS, Server, an_update
from tests.support.daemon_sessions import PIN
from tests.support.daemons import Person, token
from tests.support.seat import seated

ISSUE = replace(an_update(), purpose=ports.Purpose.ISSUE)
GONE = ServerUnreachable("The server was killed.")


class Dying(Server):
    """Dies in the middle of its first sessions, one for each card. ``afterwards``: what it says to the next ones."""

    cards = 1
    afterwards: tuple[Exception, ...] = ()

    def __init__(self, cards: int = 1, *afterwards: Exception) -> None:
        super().__init__(due_is=ISSUE)
        self.cards, self.afterwards = cards, afterwards
        self.on_batch = self._dies

    async def open(self, opening: Opening) -> CardSession:
        """See ``ServerLink``."""
        if len(self.openings) >= self.cards and self.afterwards:
            error, *rest = self.afterwards
            self.afterwards = tuple(rest)
            raise error
        return await super().open(opening)

    async def _dies(self, number: int, batch: AnyBatch) -> AnyBatch:
        if number == 3 and len(self.openings) == self.cards:
            raise GONE
        return batch


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "AGAIN", (0.0,))


async def test_update_of_every_card_waits_for_a_server_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Dying(2, GONE, GONE)
    cards = (VirtualCard("yubikey-5.7", serial=1), VirtualCard("yubikey-5.7", serial=2))
    async with seated(monkeypatch, *cards, link=server, person=Person(*[PIN] * 8)) as seat:
        ran = await seat.done("update", "--all", "--yes")
    assert ran.out.splitlines()[-2:] == ["card 1: The card is issued.", "card 2: The card is issued."]
    for card in ("card 1", "card 2"):
        assert f"{card}: {GONE.message} The daemon tries again." in ran.err


async def test_what_is_refused_afterwards_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Dying(1, GONE, ServerRefused("Nobody may do that here any more."))
    async with seated(monkeypatch, token(), link=server, person=Person(*[PIN] * 4)) as seat:
        ran = await seat.cli("update", "--yes", "--json")
        kept = await seat.daemon.operations()
    assert ran.code == 1 and ran.json["error"]["code"] == ServerRefused.code
    assert [one.continues for one in kept if one.phase is Phase.FAILED] == [True, True, False]


async def test_more_than_was_agreed_to_is_not_said_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Dying()

    async def open_with_more(opening: Opening) -> CardSession:
        server.policy = replace(server.policy, slots=parse_keys(f"{KEYS},82=p256"))
        return await Dying.open(server, opening)

    async with seated(monkeypatch, token(), link=server, person=Person(*[PIN] * 4)) as seat:
        real = server._dies

        async def dies(number: int, batch: AnyBatch) -> AnyBatch:
            vars(server)["open"] = open_with_more
            return await real(number, batch)

        server.on_batch = dies
        ran = await seat.cli("update", "--yes")
    assert ran.code == 1 and "PLAN_CHANGED" in ran.err and "is issued" not in ran.out


async def test_a_card_that_is_out_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has another id when it is back, and the text says what to do."""
    faulty = FaultyCard(token(), parse("ins=DB@3:remove"))
    async with seated(monkeypatch, faulty, link=Server(due_is=ISSUE), person=Person(*[PIN] * 4)) as seat:
        ran = await seat.cli("update", "--yes")
    assert ran.code == 1 and "CARD_REMOVED" in ran.err and "Put the card back" in ran.err


async def test_nothing_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "AGAIN", (600.0,))
    async with seated(monkeypatch, token(), link=Dying(), person=Person(*[PIN] * 4)) as seat:
        card = (await seat.card()).id
        begun = await seat.daemon.start(card, await seat.daemon.preview(card, Purpose.ISSUE))
        broken = await seat.daemon.wait(begun.id)
        assert broken.continues
        assert await seat.daemon.gone_on_with(broken, seconds=0.1) is None
