"""What broke off is gone on with by the proof that it began with: where that is so, and everything where it is not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Executable, delete, update

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_cardops.wire import error_to_wire
from cardwright_daemon.errors import StageEnded
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.people.model import Person, PersonStatus, Role
from cardwright_server.sessions.errors import CardNotProven
from cardwright_server.store.devices_tables import device as device_table
from cardwright_server.store.session_tables import card_key, card_record
from cardwright_server.store.unit import Unit
from cardwright_simulators.card import VirtualCard
from tests.oracle.books import Books
from tests.support.databases import make_tables
from tests.support.fault_cases import undisturbed
from tests.support.fault_world import FaultWorld, Job, Moment, make_fault_world
from tests.support.holders import DONE, Holder, begun_again, own_job, own_unlock
from tests.support.people import make_operator, make_person
from tests.support.sessions import Change, Station, a_workstation, as_it_is

UPDATE, REISSUE = sessions_pb2.PURPOSE_UPDATE, sessions_pb2.PURPOSE_REISSUE
WANTED, DENIED, BUSY = "PROOF_REQUIRED", "ACCESS_DENIED", "CARD_IN_SESSION"
CONSENT, LOOKED, MADE = 1, 2, 3
"""Messages of the workstation: consent, what it saw then, and the new keys. One more comes before them where the server
looks at the card by itself first: after what broke off, and where the books say that something is due."""


@dataclass
class Broken:
    """A holder's session that broke off; attempts to go on begin at ``moment``."""

    here: FaultWorld
    job: Job
    holder: Holder
    moment: Moment
    stranger: Person

    async def back(self) -> VirtualCard:
        """The card and the books as they were left."""
        return await self.here.back_to(self.moment)

    async def next(
        self, card: VirtualCard, principal: Principal | None = None, *, guarded: bool = True, **other: Any
    ) -> str:
        """What the next session ends with, at the holder's workstation unless it is ``principal``'s; "" for well.

        Nothing is done to the card by one that is refused.
        """
        before = card.snapshot()
        job, caller = replace(self.job, **other), principal or self.holder.station
        trip = await begun_again(self.here, job, caller, card, guarded=guarded)
        assert (trip.error == "") is (trip.outcome == DONE)
        assert trip.error == "" or card.snapshot() == before
        return trip.error

    async def after(self, change: Callable[[Unit], Awaitable[object]], **other: Any) -> str:
        """The same after something changed in the books."""
        card = await self.back()
        await self.here.database.transact(change)
        return await self.next(card, **other)

    async def ask(self, statement: str) -> list[dict[str, Any]]:
        """Rows of the store."""
        with closing(sqlite3.connect(self.here.path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement)]


async def broken(
    tmp_path: Path, name: str = "re-issue", *, cut: int | None = MADE, change: Change = as_it_is, agrees: bool = True
) -> Broken:
    """Cut before the workstation's message number ``cut``, or ended as ``change`` makes it end. Close ``here``."""
    template = tmp_path / "template.db"
    await make_tables(f"sqlite:///{template}")
    here, job, holder = await own_job("yubikey-5.7", name, tmp_path / "world", template)
    card = await here.back_to(job.start)
    stranger = await make_person(here.database, here.world.org, "mallory", (here.world.world.group,))
    async with here.serving(job.principal) as socket:
        await here.session(job, Station(card, change=change, agrees=agrees), socket, cut=cut)
        await here.released()
    card.power_off()
    return Broken(here, job, holder, here.moment(card), stranger)


def saying(number: int, message: sessions_pb2.RunRequest) -> Change:
    """In place of what the workstation would say as its message ``number``."""
    said = -1

    def change(usual: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
        nonlocal said
        said += 1
        return message if said == number else usual

    return change


def refusing(number: int, error: CardwrightError, batch: int) -> Change:
    """That the batch was not carried out."""
    answers = sessions_pb2.BatchAnswers(number=batch, refused=error_to_wire(error))
    return saying(number, sessions_pb2.RunRequest(answers=answers))


async def test_the_books_say_whose_proof_was_used_again(tmp_path: Path) -> None:
    one = await broken(tmp_path)
    here, job, proof = one.here, one.job, one.job.principal.authentication
    assert proof is not None
    try:
        card = await one.back()
        # What the card would have to prove it with is known to nobody.
        assert await one.holder.by_card(card, job.pin) == (None, "CARD_NOT_PROVEN")
        before = await one.ask("SELECT * FROM proof")
        assert await one.next(card) == ""
        assert await here.wrong(job, card) == []
        first, second = Books.read(here.path).of("card_session", purpose="re-issue")
        assert (first["state"], first["outcome"], first["proof"]) == ("lost", "LINE_LOST", proof.id.hex)
        assert (second["state"], second["actor"], second["proof"]) == ("done", one.holder.person.hex, proof.id.hex)
        (told,) = Books.read(here.path).of("audit_entry", action="session.proof-used-again")
        (proved,) = Books.read(here.path).of("audit_entry", action="authentication.proved")
        assert (told["session"], told["target"], told["person"]) == (
            second["id"], here.device.hex, one.holder.person.hex,
        )  # fmt: skip
        assert json.loads(told["facts"]) == {
            "purpose": "re-issue",
            "broken": str(UUID(first["id"])),
            "workstation": str(one.holder.station.id),
            "methods": "card",
            "proof": json.loads(proved["facts"])["proof"],
        }
        # None is new, and none lasts longer.
        assert await one.ask("SELECT * FROM proof") == before
        # It is finished: what comes next wants another proof, which the card can give again.
        assert await one.next(card, purpose=UPDATE, request=None) == WANTED
        assert (await one.holder.by_card(card, job.pin))[1] == ""
    finally:
        await here.close()


async def test_whom_it_is_not_for(tmp_path: Path) -> None:
    one = await broken(tmp_path)
    here, world = one.here, one.here.world.world
    row = update(device_table).where(device_table.c.id == here.device)

    async def later(minutes: int) -> str:
        card = await one.back()
        here.clock.now += timedelta(minutes=minutes)
        return await one.next(card)

    async def ended(unit: Unit) -> None:
        await here.world.authentication.end(unit, one.job.principal)

    async def taken_back(unit: Unit) -> None:
        assert one.job.request is not None
        await world.services.requests.cancel(unit, world.helper, one.job.request)

    try:
        card = await one.back()
        found = {
            "another workstation": await one.next(card, a_workstation(here.world.org)),
            "the proof was ended": await one.after(ended),
            "the proof is over": await later(15),
            "the device is suspended": await one.after(
                lambda unit: world.services.devices.suspend(unit, world.helper, here.device)
            ),
            "the person is suspended": await one.after(
                lambda unit: world.services.people.set_status(
                    unit, world.helper, one.holder.person, PersonStatus.SUSPENDED
                )
            ),
            "it is another person's": await one.after(lambda unit: unit.execute(row.values(person=one.stranger.id))),
            "it began another life": await one.after(lambda unit: unit.execute(row.values(life=2))),
            "the request was taken back": await one.after(taken_back, purpose=UPDATE, request=None),
        }
        assert await later(13) == ""
    finally:
        await here.close()
    denied = {"the person is suspended": DENIED}
    assert found == {name: denied.get(name, WANTED) for name in found}


CANCEL = sessions_pb2.RunRequest(cancel=sessions_pb2.Cancel())
ENDED: dict[str, Callable[[Path], Awaitable[Broken]]] = {
    "a plan that was not agreed to": lambda path: broken(path, cut=None, agrees=False),
    "a plan that was only shown": lambda path: broken(path, cut=CONSENT),
    "nothing was begun": lambda path: broken(path, cut=LOOKED),
    "ended by the person": lambda path: broken(path, cut=None, change=saying(MADE, CANCEL)),
    "refused": lambda path: broken(path, cut=None, change=refusing(MADE, CardNotProven("It is another one."), 2)),
}
LEFT: dict[str, Callable[[Path], Awaitable[Broken]]] = {
    "the card was pulled": lambda path: broken(path, cut=None, change=refusing(MADE, CardRemoved("Pulled."), 2)),
    "the stage took too long": lambda path: broken(path, cut=None, change=refusing(MADE, StageEnded("Late."), 2)),
    "certificates end": lambda path: broken(path, "update", cut=MADE + 1),
}


@pytest.mark.parametrize("how", ENDED)
async def test_what_was_ended_or_not_begun_wants_another_proof(tmp_path: Path, how: str) -> None:
    one = await ENDED[how](tmp_path)
    try:
        assert await one.next(await one.back()) == WANTED
    finally:
        await one.here.close()


@pytest.mark.parametrize("how", LEFT)
async def test_what_broke_off_in_another_way(tmp_path: Path, how: str) -> None:
    one = await LEFT[how](tmp_path)
    try:
        card = await one.back()
        assert await one.next(card) == ""
        assert await one.here.wrong(one.job, card) == []
    finally:
        await one.here.close()


async def test_another_request_wants_another_proof(tmp_path: Path) -> None:
    """Nobody had asked for what broke off; now an operator asks for something else."""
    one = await broken(tmp_path, "update", cut=MADE + 1)
    desk = one.here.world.world

    try:
        card = await one.back()
        issuer = await make_operator(one.here.database, desk.org, Role.ISSUANCE)
        opened = await one.here.database.transact(
            lambda unit: desk.services.requests.create_reissue(unit, issuer, one.here.device)
        )
        assert await one.next(card, purpose=REISSUE, request=opened.request.id) == WANTED
        assert await one.next(card) == WANTED
    finally:
        await one.here.close()


async def test_what_comes_in_between(tmp_path: Path) -> None:
    one = await broken(tmp_path)
    here, job, mine = one.here, one.job, one.holder.station

    async def shown_only() -> str:
        """Its preview is put aside, then broken off, and looked at once more."""
        card = await one.back()
        for station, cut in ((Station(card, agrees=False), None), (Station(card), CONSENT + 1)):
            async with here.serving(mine) as socket:
                await here.session(job, station, socket, cut=cut)
                await here.released()
            card.power_off()
        return await one.next(card)

    async def gone_on_and_broken() -> str:
        """What is gone on with breaks off in its turn, a little later."""
        card = await one.back()
        async with here.serving(mine) as socket:
            await here.session(job, Station(card), socket, cut=MADE + 1)
            await here.released()
        card.power_off()
        return await one.next(card)

    async def an_operator() -> str:
        """What an operator begins elsewhere is the operator's."""
        card = await one.back()
        async with here.serving(here.world.world.issuer) as socket:
            await here.session(job, Station(card), socket, cut=MADE)
            await here.released()
        card.power_off()
        return await one.next(card)

    async def cancelled() -> str:
        """What is gone on with is ended by the person."""
        card = await one.back()
        async with here.serving(mine) as socket:
            await here.session(job, Station(card, change=saying(MADE, CANCEL)), socket)
            await here.released()
        card.power_off()
        return await one.next(card)

    async def unnamed() -> str:
        """A card whose key in 9E is made anew too cannot be told the request, and asks for what there is."""
        return await one.next(await one.back(), purpose=UPDATE, request=None)

    try:
        found = [await one() for one in (shown_only, gone_on_and_broken, unnamed, an_operator, cancelled)]
    finally:
        await here.close()
    assert found == ["", "", "", WANTED, WANTED]


async def test_two_at_once(tmp_path: Path) -> None:
    one = await broken(tmp_path)
    here, job, errors = one.here, one.job, list[str]()
    card = await one.back()
    copy = VirtualCard.restore(card.snapshot())

    async def second(message: sessions_pb2.RunRequest) -> None:
        if message.HasField("consent"):
            errors.append((await here.session(job, Station(copy), socket)).error)

    here.clock.now += timedelta(seconds=31)
    try:
        async with here.serving(one.holder.station) as socket:
            trip = await here.session(job, Station(card, before=second), socket)
    finally:
        await here.close()
    assert (errors, trip.error, trip.outcome) == ([BUSY], "", DONE)


@pytest.mark.parametrize("name, code", [("upgrade", "CARD_NOT_PROVEN"), ("update", "MANAGEMENT_KEY_WRONG")])
async def test_another_card_that_shows_the_same_is_found_out(tmp_path: Path, name: str, code: str) -> None:
    """By the key in 9E while that stands, else by the management key. Nobody goes on by the first proof after that."""
    one = await broken(tmp_path, name, cut=MADE + 1)
    here = one.here
    try:
        card = await one.back()
        memory = json.loads(card.snapshot())
        memory["keys"]["9E"] = memory["keys"]["9C"]
        memory["management"]["value"] = "00" * (len(memory["management"]["value"]) // 2)
        clone = VirtualCard.restore(json.dumps(memory).encode())
        assert await one.next(clone, guarded=False) == code
        assert await one.next(card) == WANTED
        card = await one.back()
        assert await one.next(card) == ""
    finally:
        await here.close()


NO_CARD_KEY = delete(card_key).where(card_key.c.slot == 0x9E)
FACTORY_KEY = update(card_record).where(card_record.c.kind.like("management_key%")).values(reference="default")


@pytest.mark.parametrize("name, change", [("upgrade", NO_CARD_KEY), ("update", FACTORY_KEY)], ids=["9E", "9B"])
async def test_a_card_that_can_prove_nothing_wants_another_proof(tmp_path: Path, name: str, change: Executable) -> None:
    """It was issued without a key in 9E, or has its maker's management key while that in 9E is made anew."""
    one = await broken(tmp_path, name, cut=MADE + 1)
    try:
        assert await one.after(lambda unit: unit.execute(change)) == WANTED
    finally:
        await one.here.close()


async def test_nothing_is_released_for_another_card_either(tmp_path: Path) -> None:
    """Only the last word was lost. The card tells nothing of its keys, so a copy of its objects looks the same."""
    template = tmp_path / "template.db"
    await make_tables(f"sqlite:///{template}")
    here, job, holder = await own_job("tdes-only", "upgrade", tmp_path / "world", template)
    try:
        last = (await undisturbed(here, job)).messages - 1
        card = await here.back_to(job.start)
        async with here.serving(job.principal) as socket:
            await here.session(job, Station(card), socket, cut=last)
            await here.released()
        card.power_off()
        left = here.moment(card)
        memory = json.loads(card.snapshot())
        memory["keys"]["9E"] = memory["keys"]["9C"]
        clone = VirtualCard.restore(json.dumps(memory).encode())
        trip = await begun_again(here, job, holder.station, clone, guarded=False)
        assert (trip.error, "preview" in trip.messages) == ("CARD_NOT_PROVEN", False)
        card = await here.back_to(left)
        trip = await begun_again(here, job, holder.station, card)
        assert (trip.error, trip.outcome, "preview" in trip.messages) == ("", DONE, False)
        assert await here.wrong(job, card) == []
        # Nobody agreed to that one, for there was nothing to agree to; all the same it is the end.
        assert (await begun_again(here, job, holder.station, card)).error == WANTED
    finally:
        await here.close()


METHODS = [(Method.EMERGENCY_PASSWORD, ""), (Method.SECURITY_ANSWERS, WANTED), (Method.LDAP_PASSWORD, WANTED)]


@pytest.mark.parametrize("method, error", METHODS)
async def test_only_what_cannot_be_given_again_is_used_again(tmp_path: Path, method: Method, error: str) -> None:
    template = tmp_path / "template.db"
    await make_tables(f"sqlite:///{template}")
    here = await make_fault_world("yubikey-5.7", "unlock", tmp_path / "world", template)
    try:
        job, holder = await own_unlock(here, method)
        card = await here.back_to(job.start)
        async with here.serving(job.principal) as socket:
            await here.session(job, Station(card), socket, cut=LOOKED)
            await here.released()
        card.power_off()
        trip = await begun_again(here, job, holder.station, card)
        assert trip.error == error
        assert error or await here.wrong(job, card) == []
    finally:
        await here.close()
