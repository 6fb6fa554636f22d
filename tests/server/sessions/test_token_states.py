"""What stands on a token at the beginning of a session: things half made, things of others, things that do not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.token_state import name_of
from cardwright_proto.card.v1 import tokens_pb2
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.issuance.model import CertificateState
from cardwright_server.sessions.ports import Task
from cardwright_server.store.unit import Database
from tests.support.session_world import SessionWorld
from tests.support.sessions import Office, Trip, make_office, serving
from tests.support.token_sessions import IDS, PIN, SoftToken, TokenStation, all_of, bound, issue, token_world, update

DONE = sessions_pb2.OUTCOME_DONE
pytestmark = pytest.mark.parametrize("engine_name", ["sqlite"])


@pytest.fixture
def soft(tmp_path: Path) -> Iterator[SoftToken]:
    """A token whose holder has a PIN already."""
    with SoftToken(tmp_path / "soft", pin=PIN) as made:
        yield made


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[SessionWorld]:
    async with token_world(database, tmp_path) as made:
        yield made


def logged_in(soft: SoftToken, *arguments: str) -> None:
    soft.tool(*soft.named, "--login", "--pin", PIN.decode(), *arguments)


def without(soft: SoftToken, kind: str, identifier: str) -> None:
    """A stranger deletes one object."""
    logged_in(soft, "--delete-object", "--type", kind, "--id", identifier)


async def made(world: SessionWorld, soft: SoftToken) -> UUID:
    """The token, issued."""
    device = await bound(world, soft)
    assert (await issue(world, soft, device, TokenStation(soft, PIN))).outcome == DONE
    return device


@pytest.mark.parametrize("kind", ["cert", "pubkey"])
async def test_what_is_missing_is_made_again(world: SessionWorld, soft: SoftToken, kind: str) -> None:
    device = await made(world, soft)
    before = soft.public_key("9a")
    without(soft, kind, "9a")
    trip = await update(world, soft, device)
    assert (trip.error, trip.outcome) == ("", DONE)
    assert soft.holds() == all_of(*IDS)
    # The certificate is on record and fits the key that is there; a key whose public half nobody tells is made anew.
    assert (soft.public_key("9a") == before) is (kind == "cert")
    assert soft.certified_key("9a") == soft.public_key("9a")


async def test_a_private_key_that_only_the_login_misses_is_made_with_a_second_preview(
    world: SessionWorld, soft: SoftToken
) -> None:
    """Without the PIN the token looks whole, so nothing is due; the first session that looks deeper notes it."""
    device = await made(world, soft)
    before = soft.public_key("9a")
    without(soft, "privkey", "9a")
    without(soft, "cert", "9c")
    first = await update(world, soft, device)
    assert first.error == "PLAN_CHANGED"
    second = await update(world, soft, device)
    assert (second.error, second.outcome) == ("", DONE)
    assert soft.holds() == all_of(*IDS)
    assert soft.public_key("9a") != before


async def test_a_strangers_hidden_key_is_not_written_over(world: SessionWorld, soft: SoftToken) -> None:
    """A private key whose public half is nowhere shows only after the login."""
    logged_in(soft, "-k", "--key-type", "EC:prime256v1", "--id", "9a", "--label", "mine")
    without(soft, "pubkey", "9a")
    trip = await issue(world, soft, await bound(world, soft), station := TokenStation(soft, PIN))
    assert trip.error == "KEY_IN_USE"
    assert station.executed == ["token_read"]
    assert soft.holds() == [("Private Key", "9a")]


async def test_a_key_that_is_replaced_is_named_in_the_preview(world: SessionWorld, soft: SoftToken) -> None:
    logged_in(soft, "-k", "--key-type", "EC:prime256v1", "--id", "9a", "--label", "mine")
    logged_in(soft, "-k", "--key-type", "EC:prime256v1", "--id", "01", "--label", "elsewhere")
    old = soft.public_key("9a")
    trip = await issue(world, soft, await bound(world, soft), TokenStation(soft, PIN))
    assert (trip.error, trip.outcome) == ("", DONE)
    assert trip.preview is not None
    named = [step.generate_key.replaces for step in trip.preview.plan.steps if step.HasField("generate_key")]
    assert named == [old, "", ""]
    # What stands at ids that are no key references is nobody's business.
    assert soft.holds() == sorted([*all_of(*IDS), ("Private Key", "01"), ("Public Key", "01")])


async def test_a_certificate_that_comes_late_is_written_at_the_next_session(
    world: SessionWorld, soft: SoftToken
) -> None:
    """The line is cut when everything is issued and nothing written: what fits is not made again."""
    device = await bound(world, soft)
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        first = TokenStation(soft, PIN)
        await first.run(socket, cut=5, request=str(request.id))
        keys = {one: soft.public_key(one) for one in ("9a", "9c", "9e")}
        second = TokenStation(soft, PIN)
        trip = await again(second, socket, str(request.id))
    assert (trip.error, trip.outcome) == ("", DONE)
    assert {one: soft.public_key(one) for one in keys} == keys
    assert "token_make_key" not in second.executed
    assert soft.holds() == all_of(*IDS)


async def again(station: TokenStation, socket: str, request: str) -> Trip:
    """One more session, once the server noticed that the one before is over."""
    while (trip := await station.run(socket, request=request)).error == "CARD_IN_SESSION":
        pass
    return trip


@pytest.mark.parametrize(
    "change, code",
    [
        ({"refusal": "it does not write"}, "CAPABILITY_MISSING"),
        ({"imports": False}, "CAPABILITY_MISSING"),
        ({"generates": [f"{int(Algorithm.RSA2048):02X}"]}, "CAPABILITY_MISSING"),
        ({"unlocks": False}, ""),
    ],
    ids=["writes nothing", "takes no keys", "no such algorithm", "no security officer"],
)
async def test_what_a_module_lacks_is_refused_before_the_first_write(
    world: SessionWorld, soft: SoftToken, change: dict[str, object], code: str
) -> None:
    def lacking(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
        if message.HasField("hello"):
            for name, value in change.items():
                message.hello.token.ClearField(name)  # type: ignore[arg-type]
                if isinstance(value, list):
                    message.hello.token.generates.extend(value)
                else:
                    setattr(message.hello.token, name, value)
        return message

    device = await bound(world, soft)
    station = TokenStation(soft, PIN, change=lacking)
    trip = await issue(world, soft, device, station)
    assert (trip.error, trip.preview is None) == (code, bool(code))
    if code:
        assert soft.holds() == []


async def test_an_identity_that_contradicts_itself_is_refused(world: SessionWorld, soft: SoftToken) -> None:
    def lying(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
        if message.HasField("hello"):
            message.hello.token.CopyFrom(tokens_pb2.Token(label="Bob", serial="1", manufacturer="x", model="y"))
        return message

    device = await bound(world, soft)
    trip = await issue(world, soft, device, TokenStation(soft, PIN, change=lying))
    assert (trip.error, trip.messages) == ("SESSION_PROTOCOL", [])


async def test_a_workstation_that_says_another_token_came_in_between_ends_it(
    world: SessionWorld, soft: SoftToken
) -> None:
    def lying(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
        for answer in message.step_answers.answers.answers:
            if answer.HasField("inventory"):
                answer.inventory.identity.guid = "00000000-0000-4000-8000-000000000000"
        return message

    device = await bound(world, soft)
    trip = await issue(world, soft, device, TokenStation(soft, PIN, change=lying))
    assert trip.error in ("SESSION_OTHER_CARD", "JOURNAL_OTHER_CARD")
    assert soft.holds() == []


class NewPolicy:
    """The desk, after a new version of the policy: without 9C."""

    def __init__(self, desk: Any, *, deletes: bool) -> None:
        self._desk, self._deletes = desk, deletes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)

    async def task(self, *arguments: Any) -> Task:
        """See ``Devices``."""
        task: Task = await self._desk.task(*arguments)
        slots = tuple(row for row in task.policy.card.slots if row.slot is not Slot.SIGNATURE)
        card = replace(task.policy.card, slots=slots)
        return replace(task, policy=replace(task.policy, card=card, delete_superseded=self._deletes))


@pytest.mark.parametrize("deletes", [False, True])
async def test_what_the_policy_names_no_more_goes_only_where_it_says_so(
    world: SessionWorld, soft: SoftToken, deletes: bool
) -> None:
    device = await made(world, soft)
    changed = replace(world, desk=cast("Any", NewPolicy(world.desk, deletes=deletes)))
    trip = await update(changed, soft, device)
    if not deletes:
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_NOTHING_DUE)
        assert soft.holds() == all_of(*IDS)
        return
    assert (trip.error, trip.outcome) == ("", DONE)
    assert trip.preview is not None
    assert [step.WhichOneof("kind") for step in trip.preview.plan.steps] == ["delete_key"]
    assert soft.holds() == all_of("9a", "9d", "9e")
    states = {one.holder.part: one.state for one in await world.certificates_of(device)}
    assert states == {one: CertificateState.REVOKED if one == "9c" else CertificateState.GOOD for one in IDS}


async def test_nothing_is_deleted_that_was_not_confirmed_by_name(world: SessionWorld, soft: SoftToken) -> None:
    device = await made(world, soft)
    changed = replace(world, desk=cast("Any", NewPolicy(world.desk, deletes=True)))
    trip = await update(changed, soft, device, TokenStation(soft, PIN, confirms=False))
    assert trip.error == "GUARD_REFUSED"
    assert soft.holds() == all_of(*IDS)


async def test_keys_of_others_are_never_deleted(world: SessionWorld, soft: SoftToken) -> None:
    """A key that was never certified here is nobody's to delete, wherever it stands."""
    device = await made(world, soft)
    logged_in(soft, "-k", "--key-type", "EC:prime256v1", "--id", "82", "--label", "mine")
    changed = replace(world, desk=cast("Any", NewPolicy(world.desk, deletes=True)))
    assert (await update(changed, soft, device)).outcome == DONE
    assert soft.holds() == sorted([*all_of("9a", "9d", "9e"), ("Private Key", "82"), ("Public Key", "82")])


@dataclass
class LateOffice(Office):
    """One token and a CA that takes its time."""

    number: str = ""

    async def task(self, *arguments: Any) -> Task:
        """See ``Devices``."""
        task = await super().task(*arguments)
        return replace(task, serial=self.number, token=True, initial={})


async def test_certificates_that_come_later_are_written_without_new_keys(
    database: Database, soft: SoftToken, tmp_path: Path
) -> None:
    name = name_of(soft.token.info)
    plain = make_office(tmp_path, guid=name.guid, late=True)
    given = {one.name: getattr(plain, one.name) for one in fields(plain)}
    office = LateOffice(**given, number=name.number)
    async with serving(database, office) as socket:
        first = await TokenStation(soft, PIN).run(socket)
        assert (first.error, first.outcome) == ("", sessions_pb2.OUTCOME_PENDING)
        keys = {one: soft.public_key(one) for one in IDS}
        bare = [one for one in all_of(*IDS) if one[0] != "Certificate" or one[1] == "9d"]
        assert soft.holds() == bare
        still = await TokenStation(soft, PIN).run(socket)
        assert (still.error, still.outcome) == ("", sessions_pb2.OUTCOME_NOTHING_DUE)
        assert soft.holds() == bare
        office.late = False
        last = TokenStation(soft, PIN)
        trip = await last.run(socket)
    assert (trip.error, trip.outcome) == ("", DONE)
    assert "token_make_key" not in last.executed
    assert {one: soft.public_key(one) for one in IDS} == keys
    assert soft.holds() == all_of(*IDS)
