"""A card's whole life on one shifted clock, which database, server and vault share: renewal at the real end of its
certificates, the end of the card, and clocks that jump.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from sqlalchemy import select

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.due import Due, DueList, What
from cardwright_server.devices.model import DeviceState
from cardwright_server.issuance import crl
from cardwright_server.issuance.model import CertificateState, Purpose
from cardwright_server.people.model import Role
from cardwright_server.requests.model import Request, RequestKind, RequestState
from cardwright_server.requests.schedule import Run, Scheduler
from cardwright_server.sessions.ledger import LEASE, lease_name
from cardwright_server.store.lease import acquire
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.databases import Clock
from tests.support.people import make_operator
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, reader

QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
DONE, NOTHING_DUE = sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE
BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
CARD, WINDOW = timedelta(days=1826), timedelta(days=30)
"""Of the policy ``civ``."""
NONE = Run()


@pytest.fixture
def engine_name() -> str:
    """What time brings about is asked of both engines elsewhere."""
    return "sqlite"


class Life:
    """One card of one organization, and its clock."""

    def __init__(self, world: SessionWorld, clock: Clock, card: VirtualCard, device: UUID) -> None:
        self.world, self.clock, self.card, self.device = world, clock, card, device
        services = world.world.free
        self.scheduler = Scheduler(world.database, services.devices, services.requests, services.due)

    async def due(self) -> Due:
        return await self.world.database.read(lambda unit: DueList().due(unit, self.world.org, self.device))

    async def updated(self) -> tuple[str, int]:
        """A session for what is due: its error, and its outcome."""
        world = self.world
        station = await make_operator(world.database, world.org, Role.ISSUANCE)
        async with world.serving(world.office(self.device), station) as socket:
            trip = await Station(self.card).run(socket, sessions_pb2.PURPOSE_UPDATE)
        self.card.power_off()
        return trip.error, trip.outcome

    def on_card(self) -> dict[Slot, tuple[str, datetime]]:
        """Key and end of each certificate on the card."""
        seen = run(observe(EVERYTHING), reader(self.card))
        self.card.power_off()
        return {one.slot: (one.key, one.not_after) for one in seen.certificates}

    async def requests(self) -> list[Request]:
        """Those that the scheduler made."""
        services, made = self.world.world.free, (RequestKind.UPDATE, RequestKind.REPLACEMENT)
        asker = self.world.world.issuer
        return await self.world.database.read(lambda unit: services.requests.find(unit, asker, kinds=made))

    async def end(self, card_ends: datetime) -> None:
        """Live to the end of the card, and judge it."""
        self.clock.now = card_ends - timedelta(days=30)
        assert await self.scheduler.run() == Run(requested=1, warned=1)
        assert [one.kind for one in await self.requests()] == [RequestKind.UPDATE, RequestKind.REPLACEMENT]
        self.clock.now = card_ends - timedelta(days=1)
        assert (await self.scheduler.run(), await self.updated()) == (Run(warned=1), ("", NOTHING_DUE))
        before = self.card.snapshot()
        # Its certificates are over, and nobody has looked at the device yet.
        self.clock.now = card_ends + timedelta(minutes=1)
        assert (await self.updated())[0] == "CARD_ENDS"
        assert await self.scheduler.run() == Run(lapsed=1, ended=1)  # nobody approved that replacement
        device = await self.world.world.device(self.device)
        assert device.state is DeviceState.INVALID
        assert (await self.updated())[0] == "CARD_NOT_IN_USE"
        assert self.card.snapshot() == before

    async def states(self) -> dict[str, CertificateState]:
        """By serial number, of all certificates that the card ever had."""
        return {one.serial: one.state for one in await self.world.certificates_of(self.device)}

    async def listed(self) -> dict[int, x509.ReasonFlags]:
        """Serial numbers and reasons on the cards' revocation list, published as far as it is due."""
        await self.world.issuing.publisher.publish_due(self.world.database)
        authority = self.world.issuing.authorities[Purpose.CARDS].id
        found = await self.world.database.read(lambda unit: crl.current(unit, authority))
        assert found is not None and found.this_update <= self.clock.now < found.next_update
        made = x509.load_der_x509_crl(found.crl)
        return {one.serial_number: one.extensions.get_extension_for_class(x509.CRLReason).value.reason for one in made}

    async def warnings(self) -> list[int]:
        """Days before the end on which the holder was warned."""
        table = outbox
        wanted = select(table.c.data).where(table.c.name == "device.renewal-warning").order_by(table.c.created_at)
        rows = await self.world.database.read(lambda unit: unit.rows(wanted))
        return [row.data["days"] for row in rows]


@pytest.fixture
async def life(open_database: Callable[..., Database], clock: Clock, tmp_path: Path) -> AsyncIterator[Life]:
    clock.now = BEGIN
    database = open_database(clock=clock)
    world = await make_session_world(database, tmp_path, "civ", QUICK, now=lambda: clock.now.timestamp())
    world.stations.every = True
    card = blank()
    device = await world.bound(card)
    trip = await world.issue(card, device)
    assert (trip.error, trip.outcome) == ("", DONE)
    card.power_off()
    yield Life(world, clock, card, device)
    world.issuing.core.close()


async def test_a_card_from_issuance_over_renewal_to_its_end(life: Life) -> None:
    first = life.on_card()
    ends = min(end for _, end in first.values())
    begun = await life.states()
    assert len(begun) == 4 and set(begun.values()) == {CertificateState.GOOD}
    assert await life.listed() == {}
    # Nothing is due until the window, to the second.
    life.clock.now = ends - WINDOW - timedelta(seconds=1)
    assert ((await life.due()).what, (await life.due()).until) == ((), ends - WINDOW)
    assert await life.scheduler.run() == NONE
    assert await life.updated() == ("", NOTHING_DUE)
    # From then on it is, asked for once, and told to the holder as the end comes closer.
    life.clock.advance(seconds=1)
    (renewal,) = (await life.due()).what
    assert (renewal.what, renewal.since, renewal.ends_at) == (What.RENEWAL, ends - WINDOW, ends)
    assert await life.scheduler.run() == Run(requested=1, warned=1)
    assert await life.scheduler.run() == NONE
    life.clock.now = ends - timedelta(days=7)
    assert await life.scheduler.run() == Run(warned=1)
    assert await life.warnings() == [30, 7]
    # The holder comes two days before the end.
    life.clock.now = ends - timedelta(days=2)
    assert await life.updated() == ("", DONE)
    second = life.on_card()
    assert second.keys() - first.keys() == {Slot.RETIRED_1}  # what was encrypted to the old key still opens
    assert second[Slot.RETIRED_1] == first[Slot.KEY_MANAGEMENT]
    assert all(second[slot][0] != key and second[slot][1] > end for slot, (key, end) in first.items())
    request, = await life.requests()
    assert (request.kind, request.state) == (RequestKind.UPDATE, RequestState.DONE)
    after = await life.states()
    assert {after[serial] for serial in begun} == {CertificateState.REVOKED}
    assert {after[serial] for serial in after.keys() - begun.keys()} == {CertificateState.GOOD}
    superseded = dict.fromkeys((int(serial, 16) for serial in begun), x509.ReasonFlags.superseded)
    assert await life.listed() == superseded
    # The new ones end with the card: there is nothing to renew any more, only an end to tell of.
    card_ends = datetime.combine((BEGIN + CARD).date(), time(23, 59, 59), UTC)
    assert {end for slot, (_, end) in second.items() if slot in (Slot.AUTHENTICATION, Slot.SIGNATURE)} == {card_ends}
    assert ((await life.due()).what, (await life.due()).until) == ((), card_ends)
    # What ended is named once more, and then no longer.
    life.clock.now = ends + timedelta(minutes=1)
    assert await life.listed() == superseded
    life.clock.advance(hours=7)
    assert await life.listed() == {}
    assert await life.scheduler.run() == NONE
    await life.end(card_ends)


async def test_who_comes_after_the_end_is_renewed_all_the_same(life: Life) -> None:
    """The clock of a server that stood for years, or a holder who comes too late."""
    first = life.on_card()
    life.clock.now = max(end for _, end in first.values()) + timedelta(days=10)
    assert await life.scheduler.run() == Run(requested=1)
    assert await life.warnings() == []
    assert await life.updated() == ("", DONE)
    second = life.on_card()
    assert all(end > life.clock.now for slot, (_, end) in second.items() if slot in first)
    good = [one for one in (await life.states()).values() if one is CertificateState.GOOD]
    assert len(good) == 4
    assert await life.updated() == ("", NOTHING_DUE)


async def test_a_clock_that_is_set_back_between_two_sessions(life: Life) -> None:
    """Certificates of before begin in the future then; the card's work goes on, and the next revocation list takes the
    place of the one from then by its number.
    """
    first, begun = life.on_card(), await life.states()
    assert await life.listed() == {}
    life.clock.advance(hours=-1)
    assert await life.updated() == ("", NOTHING_DUE)
    assert await life.scheduler.run() == NONE
    await life.world.publish(*QUICK, ('slot = "9c"\nalgorithm = "p256"', 'slot = "9c"\nalgorithm = "p384"'))
    assert [one.what for one in (await life.due()).what] == [What.POLICY]
    assert await life.updated() == ("", DONE)
    second = life.on_card()
    assert {slot for slot in first if first[slot] != second[slot]} == {Slot.SIGNATURE}
    gone = {serial for serial, state in (await life.states()).items() if state is CertificateState.REVOKED}
    assert gone < begun.keys() and len(gone) == 1
    assert await life.listed() == {int(one, 16): x509.ReasonFlags.superseded for one in gone}
    assert await life.updated() == ("", NOTHING_DUE)


async def test_a_session_that_broke_off_before_the_clock_was_set_back_holds_no_card(life: Life) -> None:
    """Its lease would end an hour late, by the clock of then."""
    world = life.world
    await world.publish(*QUICK, ('slot = "9c"\nalgorithm = "p256"', 'slot = "9c"\nalgorithm = "p384"'))
    device, there = life.device, uuid4()
    held = await world.database.transact(lambda unit: acquire(unit, lease_name(device), there, LEASE))
    assert held is not None
    assert (await life.updated())[0] == "CARD_IN_SESSION"
    life.clock.advance(hours=-1)
    assert await life.updated() == ("", DONE)
