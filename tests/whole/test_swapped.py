"""Another card where one was, two that change places, and a copy with another key in 9E: nothing is done on them.

Server, daemon and pcscd are processes. What came to a card is counted at the card.
"""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from cardwright_cardops.transport import pcsc
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from tests.support.daemons import failing
from tests.support.staged import StagedCard
from tests.support.virtual import POOL
from tests.support.whole_station import ISSUE, REISSUE, UNLOCK, Held, Station

pytestmark = pytest.mark.pcscd


def copy_of(held: Held) -> StagedCard:
    """A card that says the same of itself, numbers and certificates, and has another key in 9E."""
    memory = json.loads(held.card.inside.snapshot())
    curve = int(memory["keys"]["9E"]["private"][0], 16) ^ 1
    memory["keys"]["9E"]["private"][0] = f"{curve:064X}"
    copy = VirtualCard.restore(json.dumps(memory).encode(), key_pool=POOL)
    assert copy.serial == held.card.serial
    return StagedCard(copy)


async def start(station: Station, card: str, digest: bytes) -> str:
    """The code of the error that a start is refused with, or that it ends with."""
    assert station.client is not None
    try:
        begun = await station.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=digest))
    except grpc.aio.AioRpcError:
        return (await failing(station.client.updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=digest)))).code
    return (await station.over(begun.operation)).error.code


async def test_another_card_is_inserted_after_the_preview(station: Station) -> None:
    mine = await station.ready("issue")
    theirs = await station.blank()
    await station.password(mine)
    before = theirs.card.inside.snapshot()
    reader = station.cards_in[mine.card.serial]
    async with station.open():
        card, digest = await station.preview(mine, ISSUE)
        await station.remove(mine)
        await station.insert(theirs, reader)
        assert (await station.known(reader)).identity.serial == str(theirs.card.serial)
        assert await start(station, card, digest) == "NO_SUCH_CARD"
        assert await start(station, (await station.known(reader)).id, digest) == "NO_SUCH_PREVIEW"
        assert theirs.card.inside.snapshot() == before
        assert theirs.card.pin_commands == 0
        await station.remove(theirs)
        await station.insert(mine, reader)
        await station.password(mine)
        await station.finish(mine, ISSUE)
    await station.settle(mine)


async def test_two_cards_change_places_after_their_previews(station: Station) -> None:
    both = [await station.ready("issue") for _ in range(2)]
    readers = [station.cards_in[one.card.serial] for one in both]
    before = [one.card.inside.snapshot() for one in both]
    async with station.open():
        shown = []
        for one in both:
            await station.password(one)
            shown.append(await station.preview(one, ISSUE))
        for one in both:
            await station.remove(one)
        for one, reader in zip(both, reversed(readers), strict=True):
            await station.insert(one, reader)
        now = [(await station.known(reader)).id for reader in readers]
        for (card, digest), here in zip(shown, now, strict=True):
            assert await start(station, card, digest) == "NO_SUCH_CARD"
            assert await start(station, here, digest) == "NO_SUCH_PREVIEW"
        assert [one.card.inside.snapshot() for one in both] == before
        for one in both:
            await station.password(one)
            await station.finish(one, ISSUE)
    for one in both:
        await station.settle(one)


async def exchanged(station: Station, held: Held) -> VirtualCard:
    """A copy takes the place of the card, and all that anybody sees is a reset."""
    real = held.card.inside
    held.card.inside = copy_of(held).inside
    held.card.inside.power_on()
    held.card.count_anew()
    with await asyncio.to_thread(pcsc.connect, station.cards_in[held.card.serial]) as other:
        await asyncio.to_thread(other.reset)
    return real


async def test_copy_takes_the_place_of_the_card_after_the_preview(station: Station) -> None:
    """G2: the key in 9E is proved again after a reset, before a PIN is asked for."""
    held = await station.ready("update")
    async with station.open():
        card, digest = await station.preview(held, REISSUE)
        asked = len(station.daemon.typing.asked)
        real = await exchanged(station, held)
        before = held.card.inside.snapshot()
        assert await start(station, card, digest) == "GUARD_REFUSED"
        assert held.card.pin_commands == 0
        assert held.card.inside.snapshot() == before
        assert station.daemon.typing.asked[asked:] in ([], ["current"])
        await station.remove(held)
        held.card.inside = real
        await station.insert(held)
        await station.finish(held, REISSUE)
    await station.settle(held)


async def test_copy_is_inserted_in_place_of_a_blocked_card(station: Station) -> None:
    """The server lets no PUK go to a card that does not prove that it is the one."""
    held = await station.ready("unlock")
    reader = station.cards_in[held.card.serial]
    async with station.open():
        await station.known(reader)
        await station.remove(held)
        real, held.card.inside = held.card.inside, copy_of(held).inside
        before = held.card.inside.snapshot()
        held.card.count_anew()
        await station.insert(held, reader)
        code = await station.failure(held, UNLOCK)
        assert (code, held.card.pin_commands) == ("CARD_NOT_PROVEN", 0)
        assert held.card.inside.snapshot() == before
        await station.remove(held)
        held.card.inside = real
        await station.insert(held, reader)
        await station.finish(held, UNLOCK)
    await station.settle(held)
