"""When the next revocation list comes, with which number and entries, to the second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cardwright_server.audit.model import SERVER
from cardwright_server.issuance import status, store
from cardwright_server.issuance.crl import CrlPublisher, PublishedList, current
from cardwright_server.issuance.journal import numbers_of, raise_floors
from cardwright_server.issuance.model import Certificate, Purpose, RevocationReason
from cardwright_server.machine import Actor
from cardwright_server.store.unit import Database
from cardwright_server.vault.errors import VaultUnavailable
from tests.support.databases import Clock
from tests.support.issuance import ON_SQLITE, World, make_world, new_key

ALL = ["cards-1", "root-1", "servers-1", "workstations-1"]
INTERVAL, OVERLAP, UNSETTLED = timedelta(hours=6), timedelta(minutes=2), timedelta(seconds=30)
pytestmark = ON_SQLITE


class Lists:
    """A world whose first lists are an hour old, and its clock."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock = world, clock

    async def publish(self, publisher: CrlPublisher | None = None, *, force: bool = False) -> list[str]:
        done = await (publisher or self.world.publisher).publish_due(self.world.database, force=force)
        return sorted(done)

    async def newest(self) -> PublishedList:
        """The cards' list."""
        authority = self.world.authorities[Purpose.CARDS].id
        found = await self.world.database.read(lambda unit: current(unit, authority))
        assert found is not None
        return found

    async def named(self) -> dict[str, datetime]:
        """Serial numbers on it, and when they were revoked."""
        made = x509.load_der_x509_crl((await self.newest()).crl)
        return {f"{one.serial_number:x}": one.revocation_date_utc for one in made}

    async def issued(self) -> Certificate:
        """A good certificate."""
        made = await self.world.issue(self.world.request(new_key()))
        assert made.session is not None
        session = made.session
        await self.world.do(lambda unit: status.release(unit, SERVER, self.world.org, session))
        return await self.now(made)

    async def revoke(self, certificate: Certificate) -> None:
        mine, why = [await self.now(certificate)], RevocationReason.SUPERSEDED
        await self.world.do(lambda unit: status.revoke(unit, SERVER, Actor.SERVER, mine, why))

    async def now(self, certificate: Certificate) -> Certificate:
        found = await self.world.database.read(
            lambda unit: store.certificate_by_id(unit, self.world.org, certificate.id)
        )
        assert found is not None
        return found


@pytest.fixture
async def lists(open_database: Callable[..., Database], clock: Clock, tmp_path: Path) -> AsyncIterator[Lists]:
    clock.now = datetime.now(UTC).replace(microsecond=0)
    world = await make_world(open_database(clock=clock), tmp_path, now=lambda: clock.now.timestamp())
    made = Lists(world, clock)
    clock.advance(hours=1)
    assert await made.publish() == ALL
    clock.advance(hours=1)
    assert await made.publish() == []
    yield made
    world.core.close()


async def test_the_interval_is_kept_to_the_second(lists: Lists) -> None:
    made = (await lists.newest()).this_update
    lists.clock.now = made + INTERVAL - timedelta(seconds=1)
    assert await lists.publish() == []
    lists.clock.now = made + INTERVAL
    assert await lists.publish() == ALL
    assert (await lists.newest()).number == 2
    assert await lists.publish() == []


async def test_a_list_goes_beyond_the_number_that_was_restored_and_then_rests(lists: Lists) -> None:
    """The floor is the number of the list that is there: nobody knows what that one said after the backup."""
    numbers = await numbers_of(lists.world.vault)
    assert numbers == dict.fromkeys(ALL, 1)
    await lists.world.do(lambda unit: raise_floors(unit, numbers))
    assert await lists.publish() == ALL
    assert (await lists.newest()).number == 2
    assert await lists.publish() == []


async def test_what_changes_is_on_the_next_list_and_what_changes_back_makes_none(lists: Lists) -> None:
    certificate = await lists.issued()
    lists.clock.advance(minutes=10)
    assert await lists.publish() == []  # on hold and released again since: the list would say the same
    gone = set()
    for one in [certificate, *[await lists.issued() for _ in range(7)]]:
        await lists.revoke(one)
        gone.add(one.serial.lstrip("0"))
        assert await lists.publish() == ["cards-1"]
        assert set(await lists.named()) == gone


async def test_a_change_that_is_committed_late_is_not_overlooked(lists: Lists) -> None:
    """It is stamped with the beginning of its transaction, before the list that does not have it."""
    certificate = await lists.issued()
    lists.clock.advance(minutes=10)
    assert await lists.publish(force=True) == ALL
    made = (await lists.newest()).this_update
    lists.clock.now = made - OVERLAP + timedelta(seconds=1)
    await lists.revoke(certificate)
    lists.clock.now = made + timedelta(seconds=30)
    assert await lists.publish() == ["cards-1"]
    assert await lists.named() == {certificate.serial.lstrip("0"): made - OVERLAP + timedelta(seconds=1)}


async def test_what_ended_is_named_once_more_also_after_the_clock_was_set_back(lists: Lists) -> None:
    certificate = await lists.issued()
    await lists.revoke(certificate)
    serial = certificate.serial.lstrip("0")
    lists.clock.now = certificate.not_after + timedelta(minutes=10)
    assert await lists.publish() == ALL and serial in await lists.named()
    # By this clock it has not ended, though the last list is from after its end.
    lists.clock.now = certificate.not_after - timedelta(minutes=20)
    assert await lists.publish(force=True) == ALL and serial in await lists.named()
    lists.clock.now = certificate.not_after + timedelta(hours=7)
    assert await lists.publish() == ALL and serial in await lists.named()
    lists.clock.advance(hours=7)
    assert await lists.publish() == ALL and serial not in await lists.named()


async def test_while_one_is_being_signed_no_other_is_begun_unless_by_force(lists: Lists) -> None:
    class Away:
        """A vault that goes away when it is to sign."""

        async def status(self) -> Any:
            return await lists.world.vault.status()

        async def sign_crl(self, name: str, tbs: bytes) -> bytes:
            raise VaultUnavailable("It is away.")

    certificate = await lists.issued()
    await lists.revoke(certificate)
    with pytest.raises(VaultUnavailable):
        await lists.publish(CrlPublisher(Away()))  # type: ignore[arg-type]
    begun = lists.clock.now
    assert (await lists.newest()).number == 1
    for later in (timedelta(0), UNSETTLED - timedelta(seconds=1)):
        lists.clock.now = begun + later
        assert await lists.publish() == []
    lists.clock.now = begun + UNSETTLED + timedelta(seconds=1)
    assert await lists.publish() == ["cards-1"]
    assert (await lists.newest()).number == 3  # no number is given twice
    with pytest.raises(VaultUnavailable):
        await lists.publish(CrlPublisher(Away()), force=True)  # type: ignore[arg-type]
    assert await lists.publish(force=True) == ALL
    assert (await lists.newest()).number == 5
