"""Lines of events: bounded, merged by subject, and honest about what was dropped."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cardwright_daemon.cards import Change, Reader
from cardwright_daemon.events import Hub
from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.daemons import running


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60), st.integers(1, 6))
def test_a_line_never_grows_and_says_what_it_lost(script: list[tuple[int, bool]], most: int) -> None:
    """After any publishing and fetching: the newest of each subject arrives, in order, or is counted as missed."""

    async def play() -> None:
        hub: Hub[tuple[int, int]] = Hub()
        published = dropped = 0
        waiting: dict[int, tuple[int, int]] = {}
        missed = 0
        with hub.listen(most) as listener:
            for subject, fetch in script:
                event = (subject, published)
                published += 1
                hub.publish(("x", str(subject)), event)
                waiting.pop(subject, None)
                waiting[subject] = event
                if len(waiting) > most:
                    waiting.pop(next(iter(waiting)))
                    dropped += 1
                assert len(listener) == len(waiting) <= most
                if fetch:
                    delivery = await anext(listener)
                    missed += delivery.missed
                    assert delivery.event == waiting.pop(next(iter(waiting)))
                    assert missed == dropped
        assert hub.listeners == 0

    asyncio.run(play())


async def test_a_client_that_does_not_read_costs_a_bounded_line_and_is_told() -> None:
    """Nobody reads the stream while two hundred thousand things happen; the line stays short."""
    async with running() as run:
        call = run.client.cards.WatchEvents(pb.WatchEventsRequest())
        while not (await call.read()).HasField("synced"):
            pass
        desk = run.daemon.desk
        reader = desk.cards.readers[0]
        (listener,) = desk.hub._listeners
        longest = 0
        for number in range(200_000):
            subject = f"reader {number}"
            desk.hub.publish(("reader", subject), Change(Reader(subject, reader.source, reader.worker)))
            if number % 1000 == 0:
                longest = max(longest, len(listener))
                await asyncio.sleep(0)
        assert longest <= 256
        got, missed, last = 0, 0, ""
        while last != "reader 199999":
            event = await call.read()
            got, missed, last = got + 1, missed + event.missed, event.reader.reader.name
        assert got + missed == 200_000
        assert missed > 0
        call.cancel()


async def test_a_stream_that_ends_leaves_nothing_behind() -> None:
    async with running() as run:
        call = run.client.cards.WatchEvents(pb.WatchEventsRequest())
        await call.read()
        assert run.daemon.desk.hub.listeners == 1
        call.cancel()
        async with asyncio.timeout(10):
            while run.daemon.desk.hub.listeners:
                await run.client.cards.ListReaders(pb.ListReadersRequest())
