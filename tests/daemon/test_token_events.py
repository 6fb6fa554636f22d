"""Tokens of PKCS#11 modules that come and go: told like cards, and asked about at the server like cards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from cardwright_daemon import tokens as watching
from cardwright_daemon.config import Pkcs11Module, Updates
from cardwright_daemon.link.ports import Due, DueItem, Push
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from tests.support.daemon_pcscd import on_pcsc
from tests.support.daemon_server import Server
from tests.support.daemons import PATIENCE, Person, Run, failing, running
from tests.support.fake_module import compiled
from tests.support.pcscd import Pcscd
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm
from tests.support.virtual import POOL

NEVER = 3600.0
"""Seconds between looks of modules that are looked at for other reasons in a test."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FIRST_LOOK", 0.0)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("fake"))


@dataclass
class Events:
    """What a client hears of tokens and of what is due."""

    stream: grpc.aio.UnaryStreamCall[pb.WatchEventsRequest, pb.WatchEventsResponse]

    async def next(self) -> tuple[str, bool]:
        """The next word about a token: its label and whether it is there; or "due" and whether something is."""
        async with asyncio.timeout(PATIENCE):
            async for event in self.stream:
                if event.HasField("card") and event.card.card.kind == pb.CARD_KIND_PKCS11:
                    return event.card.card.label, event.card.present
                if event.HasField("due") and event.due.card.startswith(watching.TOKEN):
                    return "due", bool(event.due.due.items)
        raise AssertionError("the stream ended")


@asynccontextmanager
async def heard(run: Run) -> AsyncIterator[Events]:
    call = run.client.cards.WatchEvents(pb.WatchEventsRequest())
    try:
        yield Events(call)
    finally:
        call.cancel()


@dataclass
class Place:
    """Where the token of the module is, or is not."""

    file: Path
    module: Pkcs11Module

    def insert(self) -> None:
        self.file.touch()

    def remove(self) -> None:
        self.file.unlink()


@pytest.fixture
def place(library: Path, tmp_path: Path) -> Place:
    file = tmp_path / "token"
    return Place(file, Pkcs11Module(str(library), {"FAKE_PRESENT": str(file)}, look_seconds=NEVER))


async def test_a_token_that_comes_and_goes_is_told_of(place: Place) -> None:
    often = replace_look(place.module, 0.02)
    async with running(pkcs11=(often,)) as run, heard(run) as events:
        place.insert()
        assert await events.next() == ("fake", True)
        async with heard(run) as late:
            assert await late.next() == ("fake", True)
        place.remove()
        assert await events.next() == ("fake", False)
        place.insert()
        assert await events.next() == ("fake", True)


async def test_a_module_that_does_not_get_over_a_failure_begins_anew(tmp_path: Path) -> None:
    """SoftHSM2's, once the folder of its tokens was away, as on a disk that is mounted later."""
    token = SoftHsm.make(tmp_path)
    folder, away = tmp_path / "tokens", tmp_path / "away"
    async with running(pkcs11=(Pkcs11Module(str(SOFTHSM), token.environment, look_seconds=NEVER),)) as run:
        tokens = run.daemon.desk.tokens
        assert [one.token.info.identity.label for one in await tokens.list()] == [LABEL]
        folder.rename(away)
        assert await tokens.list() == ()
        assert list(tokens.problems) == [str(SOFTHSM)]
        away.rename(folder)
        assert [one.token.info.identity.label for one in await tokens.list()] == [LABEL]
        assert not tokens.problems


async def test_a_change_at_the_readers_is_a_reason_to_look(place: Place) -> None:
    """Most tokens are smart cards, which nobody should wait for."""
    card = VirtualCard("yubikey-5.7", key_pool=POOL)
    async with running(pkcs11=(place.module,)) as run, heard(run) as events:
        await run.daemon.desk.tokens.list()
        place.insert()
        run.bench.insert(card)
        assert await events.next() == ("fake", True)
        place.remove()
        run.bench.remove()
        assert await events.next() == ("fake", False)


async def test_a_module_that_is_not_to_be_looked_at_is_left_alone(place: Place) -> None:
    place.insert()
    async with running(pkcs11=(replace_look(place.module, 0),)) as run:
        run.daemon.desk.tokens.look()
        run.bench.insert(VirtualCard("yubikey-5.7", key_pool=POOL))
        await run.client.card()
        (shelf,) = run.daemon.desk.tokens._shelves
        assert shelf.module.pid is None


async def test_the_server_is_asked_about_a_token_that_was_inserted(place: Place) -> None:
    server = Server()
    server.due_is = Due(until=datetime.now(UTC) + timedelta(days=1))
    async with running(
        pkcs11=(place.module,), link=server, updates=Updates(at_insertion=True, spread=0.0)
    ) as run, heard(run) as events:
        place.insert()
        assert [one.label for one in await listed(run)] == ["fake"]
        assert [await events.next() for _ in range(2)] == [("fake", True), ("due", False)]
        (token,) = run.daemon.desk.tokens.present
        assert server.watched == (token.identity,)
        assert token.identity in server.asked
        # A word of the server's is for tokens, too.
        server.due_is = Due((DueItem("renewal", datetime.now(UTC)),))
        assert server.pushed is not None
        server.pushed(Push(token.identity.guid))
        assert await events.next() == ("due", True)
        place.remove()
        assert await listed(run) == []
        assert await events.next() == ("fake", False)
        assert not server.watched


@pytest.mark.parametrize(
    "seconds, failed, pause", [(10, 0, 10), (10, 1, 20), (10, 3, 80), (10, 10**6, 600), (3600, 5, 3600)]
)
def test_a_module_that_fails_is_looked_at_less_often(seconds: float, failed: int, pause: float) -> None:
    assert watching.pause_after(seconds, failed) == pause


async def test_a_module_that_fails_hides_no_other(place: Place, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"this is no module")
    place.insert()
    modules = (Pkcs11Module(str(broken)), place.module)
    async with running(pkcs11=modules) as run, heard(run) as events:
        assert await events.next() == ("fake", True)
        await listed(run)
        report = await run.client.workstation.GetReport(pb.GetReportRequest())
        assert [one.operation for one in report.modules if one.code] == ["broken.so"]


@pytest.mark.pcscd
async def test_a_card_behind_opensc_is_told_of_as_a_token(pcscd: Pcscd) -> None:
    path = next(Path("/usr/lib").rglob("opensc-pkcs11.so"), None)
    if path is None:
        pytest.skip("opensc-pkcs11.so is not installed (packages.txt)")
    module = Pkcs11Module(str(path), look_seconds=NEVER)
    async with on_pcsc(Person(), pkcs11=(module,)) as (_, client):
        call = client.cards.WatchEvents(pb.WatchEventsRequest())
        events = Events(call)
        reader = await asyncio.to_thread(pcscd.insert, VirtualCard("yubikey-5.7", key_pool=POOL))
        label, present = await events.next()
        assert present
        await asyncio.to_thread(pcscd.remove, reader)
        assert await events.next() == (label, False)
        call.cancel()


async def test_a_token_that_is_taken_out_closes_the_dialog(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WHILE_ASKED", 0.01)
    place.insert()
    async with running(person=Person(asyncio.Event()), pkcs11=(place.module,)) as run:
        (device,) = await listed(run)
        change = asyncio.ensure_future(failing(run.client.pins.ChangePin(pb.ChangePinRequest(card=device.id))))
        await run.person.waits.wait()
        place.remove()
        assert (await change).code == "PKCS11_TOKEN_REMOVED"
        assert not run.person.asking


async def test_a_module_that_dies_while_the_pin_is_asked_for_costs_no_dialog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WHILE_ASKED", 0.01)
    token, typed, new = SoftHsm.make(tmp_path), asyncio.Event(), b"582047"
    module = Pkcs11Module(str(SOFTHSM), token.environment, look_seconds=0)
    async with running(person=Person(typed, token.pin.reveal(), new, new), pkcs11=(module,)) as run:
        (device,) = await listed(run)
        (shelf,) = run.daemon.desk.tokens._shelves
        before = shelf.module.pid
        assert before is not None
        change = asyncio.ensure_future(run.client.pins.ChangePin(pb.ChangePinRequest(card=device.id)))
        await run.person.waits.wait()
        os.kill(before, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while shelf.module.pid in (None, before):
                await asyncio.sleep(0.01)
        typed.set()
        await change
    assert [one.what for one in run.person.asked] == ["current PIN"] * 2 + ["new PIN", "new PIN once more"]


@pytest.mark.pcscd
async def test_a_card_behind_opensc_that_is_pulled_closes_the_dialog(
    pcscd: Pcscd, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(Path("/usr/lib").rglob("opensc-pkcs11.so"), None)
    if path is None:
        pytest.skip("opensc-pkcs11.so is not installed (packages.txt)")
    monkeypatch.setattr(watching, "WHILE_ASKED", 0.01)
    person = Person(asyncio.Event())
    async with on_pcsc(person, pkcs11=(Pkcs11Module(str(path), look_seconds=NEVER),)) as (_, client):
        reader = await asyncio.to_thread(pcscd.insert, VirtualCard("yubikey-5.7", key_pool=POOL))
        cards = (await client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        (token,) = [one for one in cards if one.kind == pb.CARD_KIND_PKCS11]
        change = asyncio.ensure_future(failing(client.pins.ChangePin(pb.ChangePinRequest(card=token.id))))
        await person.waits.wait()
        await asyncio.to_thread(pcscd.remove, reader)
        assert (await change).code == "PKCS11_TOKEN_REMOVED"
        assert not person.asking


async def listed(run: Run) -> list[pb.Card]:
    """The tokens, as the modules say now."""
    cards = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
    return [card for card in cards if card.kind == pb.CARD_KIND_PKCS11]


def replace_look(module: Pkcs11Module, seconds: float) -> Pkcs11Module:
    return Pkcs11Module(module.path, module.environment, look_seconds=seconds)
