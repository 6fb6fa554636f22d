"""A card is locked: asked for by name or begun as the machine's administrator allows, and it is the PIN that goes.

The judge is the card's own log and state. No dialog ever asks for anything, and no other card loses a try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from cardwright_cardops.piv import commands
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.records import MemoryJournal
from cardwright_cardops.plan.steps import LockCard, Plan, ResetCard, SetPuk, Step
from cardwright_cardops.program.items import AnyBatch, Apdu, Batch, Block, Group, Item, SetPin, VerifyPin
from cardwright_cardops.program.items import SetPuk as SetPukItem
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_daemon import relay, sessions
from cardwright_daemon.link.ports import Due, Purpose
from cardwright_daemon.link.server import due_of
from cardwright_daemon.machine import Machine
from cardwright_daemon.mandatory import PAUSES
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_simulators.card import Verify, VirtualCard
from cardwright_simulators.card.state import CardState
from cardwright_simulators.reader.around import Around
from tests.support.daemon_server import PUK, Server, a_lock
from tests.support.daemon_sessions import PIN, begun, ended, issued_card, over, preview, quiet
from tests.support.daemons import PATIENCE, Person, Run, failing, running, token

BEGINS = Machine(begin_mandatory=True)
NEW_PIN = b"864209"
TRIES = 3
ISSUED: dict[int, tuple[bytes, MemoryJournal]] = {}


async def in_use(server: Server, serial: int = 12345678) -> VirtualCard:
    """A card that its holder has in use, known to ``server``."""
    if serial not in ISSUED:
        first, made = Server(), token(serial)
        await issued_card(first, made)
        ISSUED[serial] = made.snapshot(), first.journal(str(serial))
    snapshot, journal = ISSUED[serial]
    copy = server.journal(str(serial))
    copy.note(journal.entries())
    card = VirtualCard.restore(snapshot)
    card.log.clear()
    return card


def tries(card: VirtualCard, reference: int = 0x80) -> int:
    return CardState.decode(card.snapshot()).references[reference].tries


def values(card: VirtualCard) -> list[int]:
    """References that a value was tried of."""
    return [one.reference for one in card.log if isinstance(one, Verify)]


def only_locked(card: VirtualCard) -> bool:
    """Whether the PIN is blocked, by as many values as it had tries, and everything else is as it was."""
    before, after = CardState.decode(ISSUED[card.serial][0]), CardState.decode(card.snapshot())
    locked = replace(before.references[0x80], tries=0)
    tried = set(values(card)) == {0x80} and not any(one.ok for one in card.log if isinstance(one, Verify))
    return tried and after == replace(before, references={**before.references, 0x80: locked})


def untouched(card: VirtualCard) -> bool:
    """Whether nothing was tried or written."""
    return values(card) == [] and card.snapshot() == ISSUED[card.serial][0]


async def locking(run: Run, card: str, *acts: str) -> pb.Operation:
    """Preview and start of a lock, with these acts confirmed, to its end."""
    shown = await preview(run, card, pb.PURPOSE_LOCK)
    return await begin(run, card, shown, *acts)


async def begin(run: Run, card: str, shown: pb.PreviewUpdateResponse, *acts: str) -> pb.Operation:
    wanted = pb.StartUpdateRequest(card=card, digest=shown.digest, confirmed=acts)
    return await ended(run, (await run.client.updates.StartUpdate(wanted)).operation.id)


# ------------------------------------------------------------------------------------------------ asked and unasked


async def test_a_lock_is_shown_in_words_and_done_once_it_is_confirmed_by_name() -> None:
    server, person = Server(due_is=a_lock()), Person(NEW_PIN, NEW_PIN)
    card = await in_use(server)
    async with running(card, link=server, person=person) as run:
        name = (await run.client.card()).id
        due = (await run.client.updates.GetDue(pb.GetDueRequest(card=name))).due
        assert (due.purpose, [one.what for one in due.items]) == (pb.PURPOSE_LOCK, ["lock"])
        assert not due.HasField("begins_at")
        shown = await preview(run, name, pb.PURPOSE_LOCK)
        assert [(one.kind, one.words) for one in shown.steps] == [
            ("lock-card", "Lock the card: its PIN is blocked until the help desk gives the card back")
        ]
        assert list(shown.confirmations) == ["lock card"]
        assert (shown.asks_pin, shown.asks_new_pin) == (False, False)
        for acts in ((), ("reset", "delete", "leave key to archive")):
            wanted = pb.StartUpdateRequest(card=name, digest=shown.digest, confirmed=acts)
            assert (await failing(run.client.updates.StartUpdate(wanted))).code == "CONFIRMATION_MISSING"
        assert untouched(card)
        operation = await begin(run, name, shown, "lock card")
        assert (operation.kind, operation.outcome) == (pb.OPERATION_KIND_LOCK, pb.OUTCOME_DONE), operation.error
        assert only_locked(card)
        assert person.asked == []
        assert (await preview(run, name, pb.PURPOSE_LOCK)).nothing_due
        # The PUK that the server keeps is the way back.
        unlocked = await run.client.updates.Unlock(pb.UnlockRequest(card=name))
        assert (await ended(run, unlocked.operation.id)).phase == pb.OPERATION_PHASE_DONE
    assert server.unasked == [False, False]
    assert tries(card) == TRIES
    assert CardState.decode(card.snapshot()).references[0x80].value.rstrip(b"\xff") == NEW_PIN


async def test_a_lock_that_is_dismissed_costs_nothing() -> None:
    server = Server(due_is=a_lock())
    card = await in_use(server)
    async with running(card, link=server) as run:
        name = (await run.client.card()).id
        shown = await preview(run, name, pb.PURPOSE_LOCK)
        await run.client.updates.DismissPreview(pb.DismissPreviewRequest(card=name))
        wanted = pb.StartUpdateRequest(card=name, digest=shown.digest, confirmed=["lock card"])
        assert (await failing(run.client.updates.StartUpdate(wanted))).code == "NO_SUCH_PREVIEW"
        later = pb.PostponeUpdateRequest(card=name)
        later.until.GetCurrentTime()
        assert (await failing(run.client.updates.PostponeUpdate(later))).code == "UPDATE_MANDATORY"
    assert untouched(card)
    assert server.consented == []


async def test_it_begins_by_itself_where_the_administrator_of_the_machine_allows_that() -> None:
    server, person = Server(due_is=a_lock()), Person()
    card = await in_use(server)
    async with running(card, link=server, person=person, machine=BEGINS) as run:
        operation = await begun(run)
    assert (operation.kind, operation.outcome) == (pb.OPERATION_KIND_LOCK, pb.OUTCOME_DONE), operation.error
    assert only_locked(card)
    assert person.asked == []
    assert server.unasked == [True]


@pytest.mark.parametrize(
    ("machine", "mandatory"), [(Machine(), True), (BEGINS, False)], ids=["not allowed", "not mandatory"]
)
async def test_it_begins_by_itself_nowhere_else(machine: Machine, mandatory: bool) -> None:
    server = Server(due_is=a_lock(mandatory=mandatory))
    card = await in_use(server)
    async with running(card, link=server, machine=machine) as run:
        name = (await run.client.card()).id
        due = (await run.client.updates.GetDue(pb.GetDueRequest(card=name, refresh=True))).due
        assert due and not due.HasField("begins_at")
        await quiet(run)
    assert untouched(card)
    assert server.openings == []


async def test_it_begins_anew_at_every_contact() -> None:
    """Whoever does not want it pulls the card out early each time, and more often than anything else is begun."""

    def early(steps: Plan) -> Plan:
        raise CardRemoved("The card was pulled.")

    server, person = Server(due_is=a_lock(), shows=early), Person()
    card = await in_use(server)
    async with running(link=server, person=person, machine=BEGINS) as run:
        for _ in range(len(PAUSES) + 2):
            run.bench.insert(card)
            name = (await run.client.card()).id
            assert (await over(run, lambda one, name=name: one.unasked and one.card == name)).error.code  # type: ignore[misc]
            due = (await run.client.updates.GetDue(pb.GetDueRequest(card=name))).due
            assert due.begins_at.ToDatetime(UTC) > datetime.now(UTC), "never a loop while it is in"
            run.bench.remove()
        assert untouched(card)
        server.shows = lambda steps: steps
        run.bench.insert(card)
        name = (await run.client.card()).id
        done = await over(run, lambda one: one.unasked and one.card == name)
        assert done.outcome == pb.OUTCOME_DONE, done.error
    assert only_locked(card)
    assert person.asked == []


def test_a_lock_comes_before_what_was_asked_for() -> None:
    now = datetime.now(UTC)
    answer = sessions_pb2.DueResponse(due=True, proven=True, suspended=True)
    answer.until.FromDatetime(now)
    answer.items.add(kind=sessions_pb2.DUE_KIND_REQUEST, since=now, purpose=sessions_pb2.PURPOSE_REISSUE,
                     request=str(uuid4()))  # fmt: skip
    answer.items.add(kind=sessions_pb2.DUE_KIND_LOCK, since=now, mandatory_from=now,
                     purpose=sessions_pb2.PURPOSE_LOCK)  # fmt: skip
    due = due_of(answer, Identity(guid=uuid4()))
    assert (due.purpose, due.request, due.mandatory_from) == (Purpose.LOCK, None, now)
    # Somebody may give the card back at any moment, so the answer is not kept.
    assert (due.suspended, due.until) == (True, None)


# --------------------------------------------------------------------------------------------------- hostile servers


def showing(*steps: Step) -> Callable[[Plan], Plan]:
    return lambda steps_of_it: replace(steps_of_it, steps=steps)


LIES: dict[str, tuple[Purpose, Callable[[Plan], Plan]]] = {
    "a lock in an update": (Purpose.UPDATE, showing(LockCard())),
    "a lock with an update": (Purpose.UPDATE, showing(SetPuk(), LockCard())),
    "a lock as recycling": (Purpose.RECYCLE, showing(LockCard())),
    "more than a lock": (Purpose.LOCK, showing(LockCard(), SetPuk())),
    "two locks": (Purpose.LOCK, showing(LockCard(), LockCard())),
    "something else as a lock": (Purpose.LOCK, showing(SetPuk())),
    "an erasure as a lock": (Purpose.LOCK, showing(ResetCard())),
}


@pytest.mark.parametrize(("purpose", "shows"), LIES.values(), ids=LIES)
async def test_a_plan_that_is_not_what_was_asked_for_is_not_even_shown(
    purpose: Purpose, shows: Callable[[Plan], Plan]
) -> None:
    server = Server(due_is=replace(a_lock(), purpose=purpose), shows=shows)
    card = await in_use(server)
    async with running(card, link=server, machine=BEGINS) as run:
        operation = await begun(run)
        assert operation.error.code == "PREVIEW_UNFIT"
        asked = pb.PreviewUpdateRequest(card=operation.card, purpose=told(purpose))
        assert (await failing(run.client.updates.PreviewUpdate(asked))).code == "PREVIEW_UNFIT"
    assert untouched(card)
    assert server.consented == []


def told(purpose: Purpose) -> pb.Purpose.ValueType:
    return pb.Purpose.Value(f"PURPOSE_{purpose.name}")


async def test_what_the_administrator_of_the_machine_allowed_stands_for_a_lock_only() -> None:
    server = Server(due_is=replace(a_lock(), purpose=Purpose.RECYCLE), shows=showing(ResetCard()))
    card = await in_use(server)
    async with running(card, link=server, machine=BEGINS) as run:
        assert (await begun(run)).error.code == "CONFIRMATION_MISSING"
    assert untouched(card)
    assert server.consented == []


MORE: dict[str, Item] = {
    "the PUK blocked": Block(0x81),
    "the PIN blocked twice": Block(0x80),
    "a PIN asked for": VerifyPin(),
    "a PIN changed": SetPin(),
    "the PUK changed": SetPukItem(Secret(PUK), Secret(b"66666666")),
    "a reset": Apdu(yubico.reset()),
    "other counters": Apdu(yubico.set_retries(1, 1)),
    "an object emptied": Apdu(commands.put_data(0x5FC102, b"")),
}


@pytest.mark.parametrize("machine", [Machine(), BEGINS], ids=["agreed", "unasked"])
@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
async def test_the_guard_stops_a_server_that_does_more_than_lock(more: Item, machine: Machine) -> None:
    async def greedy(number: int, batch: AnyBatch) -> AnyBatch:
        if isinstance(batch, Batch) and any(isinstance(item, Block) for item in batch.items):
            return Batch((*batch.groups, Group((more,), essential=True)), batch.stage)
        return batch

    server, person = Server(due_is=a_lock(), on_batch=greedy), Person()
    card = await in_use(server)
    async with running(card, link=server, person=person, machine=machine) as run:
        if machine is BEGINS:
            operation = await begun(run)
        else:
            operation = await locking(run, (await run.client.card()).id, "lock card")
    assert operation.error.code == "GUARD_REFUSED"
    assert person.asked == []
    assert untouched(card)


# --------------------------------------------------------------------------------------------- pulled and disturbed


@dataclass(eq=False)
class Pulled(Around[VirtualCard]):
    """A card that is pulled at the ``at``-th command from now on, before or after it was done."""

    at: int = 0
    after: bool = False
    sent: list[bytes] | None = None

    @property
    def serial(self) -> int:
        return self.inside.serial

    def arm(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.sent = at, after, []

    def transmit(self, command: bytes) -> bytes:
        if self.sent is None:
            return self.inside.transmit(command)
        self.sent.append(command)
        struck = len(self.sent) == self.at
        if struck and not self.after:
            self.sent = None
            raise CardRemoved("The card was pulled.", sent=False)
        answer = self.inside.transmit(command)
        if struck:
            self.sent = None
            raise CardRemoved("The card was pulled.", sent=True)
        return answer


async def once(run: Run, server: Server, at: int, *, after: bool) -> tuple[VirtualCard, bool]:
    """Lock a fresh copy of the card, pulled at that command and put in again; the card, and whether it was pulled."""
    card = await in_use(server)
    faulty = Pulled(card)
    run.bench.insert(faulty)
    name = (await run.client.card()).id
    shown = await preview(run, name, pb.PURPOSE_LOCK)
    faulty.arm(at, after=after)
    operation = await begin(run, name, shown, "lock card")
    struck = faulty.sent is None
    if struck:
        assert operation.error.code in ("", "CARD_REMOVED")
        consents = run.daemon.desk.sessions
        run.bench.insert(card)
        await run.client.card()
        async with asyncio.timeout(PATIENCE):
            while consents.consent_for(next(iter(run.daemon.desk.cards.all))) is not None:
                await asyncio.sleep(0.005)
        await quiet(run)
    run.bench.remove()
    return card, struck


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_card_pulled_at_any_command_is_locked_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(sessions, "AGAIN", (0.01,))
    server, person = Server(due_is=Due()), Person()
    async with running(link=server, person=person) as run:
        struck, at = True, 0
        while struck:
            at += 1
            card, struck = await once(run, server, at, after=after)
            assert only_locked(card), at
            assert len(values(card)) == TRIES, at
    assert at > 10
    assert person.asked == []


async def test_another_program_in_the_middle_costs_a_session_and_no_try_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is slow before it blocks: the transaction ends, somebody else verifies a PIN, and the lock is done."""
    monkeypatch.setattr(sessions, "AGAIN", (0.01,))
    server, person = Server(due_is=a_lock()), Person()
    card = await in_use(server)
    ended_stage, others = asyncio.Event(), list[bytes]()

    class Hasty(relay.RelayedCard):
        """Keeps a stage open for a moment only, and tells when it ended."""

        def __post_init__(self) -> None:
            self.stage_seconds = 0.05
            super().__post_init__()

        async def _end(self) -> None:
            was_open = bool(self._stage)
            await super()._end()
            if was_open:
                ended_stage.set()

    async def slow(number: int, batch: AnyBatch) -> AnyBatch:
        blocks = isinstance(batch, Batch) and any(isinstance(item, Block) for item in batch.items)
        if blocks and not others:
            ended_stage.clear()
            await ended_stage.wait()
            other = DirectConnection(card)
            other.transmit(commands.select().encode())
            others.append(other.transmit(commands.verify(PinReference.PIN, Secret(PIN)).encode()))
        return batch

    monkeypatch.setattr(relay, "RelayedCard", Hasty)
    server.on_batch = slow
    async with running(card, link=server, person=person) as run:
        first = await locking(run, (await run.client.card()).id, "lock card")
        assert first.error.code == "STAGE_ENDED"
        done = await over(run, lambda one: one.phase == pb.OPERATION_PHASE_DONE and one.outcome == pb.OUTCOME_DONE)
        assert done.kind == pb.OPERATION_KIND_LOCK
    assert others == [b"\x90\x00"]
    assert person.asked == []
    assert tries(card) == 0 and tries(card, 0x81) == TRIES
    assert values(card) == [0x80] * (TRIES + 1)


async def test_a_card_that_takes_its_place_keeps_its_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "AGAIN", (0.01,))
    server, person = Server(due_is=Due()), Person()
    mine, other = await in_use(server, 77), await in_use(server, 78)
    faulty = Pulled(mine)
    async with running(faulty, link=server, person=person) as run:
        name = (await run.client.card()).id
        shown = await preview(run, name, pb.PURPOSE_LOCK)
        run.bench.remove()
        run.bench.insert(other)
        wanted = pb.StartUpdateRequest(card=name, digest=shown.digest, confirmed=["lock card"])
        assert (await failing(run.client.updates.StartUpdate(wanted))).code == "NO_SUCH_CARD"
        now = (await run.client.card()).id
        wanted = pb.StartUpdateRequest(card=now, digest=shown.digest, confirmed=["lock card"])
        assert (await failing(run.client.updates.StartUpdate(wanted))).code == "NO_SUCH_PREVIEW"
        # In the middle, after a value was tried: the rest is for the same card only.
        run.bench.remove()
        run.bench.insert(faulty)
        name = (await run.client.card()).id
        shown = await preview(run, name, pb.PURPOSE_LOCK)
        faulty.arm(1000, after=True)
        monkeypatch.setattr(Pulled, "transmit", pulled_after_the_first_value)
        assert (await begin(run, name, shown, "lock card")).error.code == "CARD_REMOVED"
        run.bench.insert(other)
        await run.client.card()
        await quiet(run)
        run.bench.insert(mine, 1)
        await over(run, lambda one: one.reader == "Virtual reader 01" and one.outcome == pb.OUTCOME_DONE)
    assert untouched(other)
    assert only_locked(mine)
    assert person.asked == []


def pulled_after_the_first_value(card: Pulled, command: bytes) -> bytes:
    answer = card.inside.transmit(command)
    if command[1] == 0x20 and len(command) > 5:
        raise CardRemoved("The card was pulled.", sent=True)
    return answer
