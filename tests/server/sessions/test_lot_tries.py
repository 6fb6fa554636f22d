"""Cards of a lot with a PUK of its own, under a policy that sets the tries: no break costs a try for a wrong PUK.

Setting the tries puts PIN and PUK back to what the maker publishes, which is neither the lot's value nor ours.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.model import Derivation, Lot, SecretName, SecretSource
from cardwright_server.devices.stock import Delivered, SecretSealer
from cardwright_server.people.model import Role
from cardwright_server.policies.model import DeviceKind
from cardwright_server.sessions import store
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.model import Authorization, PukPurpose, VaultCard
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.around import Around
from cardwright_simulators.reader.faults import FaultyCard
from cardwright_simulators.reader.slot import Card
from tests.support.people import make_group, make_operator, make_person
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import PIN, Trip

DONE, NOTHING_DUE = sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE
LOT_PUK, PUBLISHED = b"87654321", b"12345678"
TRIES = '[pin]\nretries = 7\n[puk]\nretries = 5\n'
VERIFY, SET_RETRIES, CHANGE, RESET_COUNTER = 0x20, 0xFA, 0x24, 0x2C
NUMBERS = count(70_000_001)


@pytest.fixture
def engine_name() -> str:
    """What a session does to a card is the same on both engines."""
    return "sqlite"


@dataclass(eq=False)
class Watched(Around[Card]):
    """Notes instruction and first status octet of each command."""

    seen: list[tuple[int, int]] = field(default_factory=list)

    def transmit(self, command: bytes) -> bytes:
        answer = self.inside.transmit(command)
        self.seen.append((command[1], answer[-2]))
        return answer

    @property
    def wrong(self) -> int:
        """How many commands said that a value is wrong; VERIFY without a value only asks."""
        return sum(ins in (CHANGE, RESET_COUNTER) and first == 0x63 for ins, first in self.seen)


class Scene:
    """An organization with a lot, and a policy of a card without keys, which is quick."""

    def __init__(self, world: SessionWorld, lot: Lot, group: UUID) -> None:
        self.world, self.lot, self.group = world, lot, group

    async def publish(self, more: str = "") -> None:
        """The policy's next version."""
        author = await make_operator(self.world.database, self.world.org, Role.ADMINISTRATOR)
        policies = self.world.world.services.policies
        text = f'name = "plain"\nclear_secrets = "any"\nobjects = ["chuid"]\n{more}'

        async def work(unit: Unit) -> None:
            draft = await policies.draft(unit, author, text)
            await policies.publish(unit, self.world.world.officer, draft.id)
            await policies.assign(unit, author, "plain", self.group)

        await self.world.database.transact(work)

    async def card(self) -> tuple[VirtualCard, UUID]:
        """A card of the lot, bound to a person."""
        number = str(next(NUMBERS))
        raw = json.loads(blank(serial=int(number)).snapshot())
        raw["references"]["81"] |= {"value": LOT_PUK.hex(), "default": False}
        one, world = Delivered(new_id(), number), self.world
        person = await make_person(world.database, world.org, f"p{number}", (self.group,))

        async def work(unit: Unit) -> None:
            await world.world.free.stock.register(unit, world.world.issuer, DeviceKind.SMART_CARD, [one], self.lot.id)
            await world.world.services.devices.bind(unit, world.world.issuer, one.id, person.id)

        await world.database.transact(work)
        return VirtualCard.restore(json.dumps(raw).encode()), one.id

    async def puk(self, device: UUID) -> bytes:
        """The one that the vault made for the card last."""
        entries = (await self.world.database.read(lambda unit: store.records(unit, self.world.org, device))).entries
        name = [one.reference for one in entries if one.kind.value == "puk set"][-1]
        generation, _, master = name.partition(".")
        card = VaultCard(str(self.world.org), str(device), int(generation), int(master))
        made = await self.world.issuing.vault.puk(card, PukPurpose.SET, Authorization("test", "test"))
        return made.reveal()

    async def settled(self, card: VirtualCard, device: UUID, again: Trip, watched: Watched) -> int:
        """Judge the card's memory; how many wrong values it was given."""
        assert (again.error, again.outcome) == ("", DONE)
        card.power_off()
        told = json.loads(card.snapshot())["references"]
        assert [(told[name]["maximum"], told[name]["tries"]) for name in ("80", "81")] == [(7, 7), (5, 5)]
        assert bytes.fromhex(told["80"]["value"]).rstrip(b"\xff") == PIN
        assert bytes.fromhex(told["81"]["value"]) == await self.puk(device) not in (LOT_PUK, PUBLISHED)
        return watched.wrong


@pytest.fixture
async def here(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[Scene]:
    world = await make_session_world(open_database(), tmp_path)
    world.stations.every = True
    lot = Lot(new_id(), world.org, "Lot", DeviceKind.SMART_CARD, SecretSource.CONSTANT, Derivation.NONE)
    sealed = await SecretSealer(world.issuing.vault).seal(world.org, lot.id, {SecretName.PUK: Secret(LOT_PUK)})
    free, issuer = world.world.free.stock, world.world.issuer
    await world.database.transact(lambda unit: free.register_lot(unit, issuer, lot, sealed))
    yield Scene(world, lot, (await make_group(world.database, world.org, "lot")).id)
    world.issuing.core.close()


def breaks_in(seen: list[tuple[int, int]]) -> list[str]:
    """The card pulled before the first command of the group that sets the tries, and behind each one of it."""
    middle = next(place for place, (ins, _) in enumerate(seen) if ins == SET_RETRIES)
    first = max(place for place in range(middle) if seen[place][0] == VERIFY)
    last = next(place for place in range(middle, len(seen)) if seen[place][0] == RESET_COUNTER)
    assert [seen[place][0] for place in range(first, last + 1)] == [VERIFY, SET_RETRIES, CHANGE, RESET_COUNTER]
    return [f"apdu={first + 1}:remove", *(f"apdu={place + 1}:remove-after" for place in range(first, last + 1))]


async def require_none_spent(
    here: Scene,
    ready: Callable[[], Awaitable[tuple[VirtualCard, UUID]]],
    work: Callable[[Watched, UUID], Awaitable[Trip]],
) -> None:
    """``work`` undisturbed on one card that is ``ready``, then on another one broken off at each place, and again."""
    card, device = await ready()
    undisturbed = Watched(card)
    assert await here.settled(card, device, await work(undisturbed, device), undisturbed) == 0
    for fault in breaks_in(undisturbed.seen):
        card, device = await ready()
        faulty = FaultyCard(card, fault)
        watched = Watched(faulty)
        cut = await work(watched, device)
        assert (cut.outcome, len(faulty.struck)) == (0, 1), fault
        card.power_off()
        assert await here.settled(card, device, await work(watched, device), watched) == 0, fault


async def test_issuance_that_breaks_while_the_tries_are_set_costs_none(here: Scene) -> None:
    await here.publish(TRIES)
    await require_none_spent(here, here.card, here.world.issue)


async def test_an_update_that_breaks_while_the_tries_are_set_costs_none(here: Scene) -> None:
    """The card has a PUK of ours already, so it is neither the lot's nor, once the tries are set, the one before."""
    await here.publish()
    cards = []
    for _ in range(6):
        card, device = await here.card()
        assert (await here.world.issue(card, device)).outcome == DONE
        card.power_off()
        cards.append((card, device))
    await here.publish(TRIES)

    async def issued() -> tuple[VirtualCard, UUID]:
        return cards.pop()

    await require_none_spent(here, issued, here.world.update)
    assert cards == []
