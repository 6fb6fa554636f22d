"""A daemon and a server whose line is cut, slow, half open, or whose server dies: the card ends as it should.

``CARDWRIGHT_LINE_FAULTS=1`` takes every case instead of the share.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from cardwright_daemon import relay
from cardwright_daemon.link import line
from cardwright_daemon.link.ports import Message
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import devices_pb2
from tests.support.daemons import told
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.whole_place import Bound, Place, placed, soon, station_of

MESSAGES = {"issue": 12, "update": 10}
"""What the server says in a session of each kind: hello, preview, batches, progress, end of stage, end."""
WAYS = ("seen", "unseen")
"""The message reached the daemon and its answer is lost; the message itself is lost."""
CASES = [(job, way, number) for job in MESSAGES for way in WAYS for number in range(1, MESSAGES[job] + 1)]
EVERY = int(os.environ.get("CARDWRIGHT_LINE_FAULTS", "8"))
SHARE = CASES[3::EVERY] if EVERY > 1 else CASES


@pytest.fixture(scope="module")
def station(here: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The credentials of the workstation."""
    folder = tmp_path_factory.mktemp("station") / "here"
    asyncio.run(station_of(here, folder))
    return folder


@pytest.fixture
async def place(here: Site, desk: Desk, station: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """A workstation that tries again soon."""
    soon(monkeypatch)
    async with placed(here, desk, station) as made:
        yield made


async def begun_for(place: Place, job: str) -> Bound:
    """A card in the reader for which the job is due."""
    bound = await place.bound()
    place.run.bench.insert(bound.card)
    if job == "update":
        await place.issued(bound)
        await place.reissue(bound)
    return bound


def cut_at(place: Place, way: str, number: int) -> asyncio.Event:
    """Cut the line at a message of the next session; the event says that it was."""
    cut, session = asyncio.Event(), len(place.link.said)
    tasks = set()

    async def when_held(held: asyncio.Event) -> None:
        await held.wait()
        cut.set()
        place.line.cut()

    async def on_message(now: int, message: Message) -> None:
        if cut.is_set() or len(place.link.said) > session + 1:
            return
        if way == "seen" and now == number:
            cut.set()
            place.line.cut()
        elif way == "unseen" and now == number - 1:
            tasks.add(asyncio.create_task(when_held(place.line.hold_answers())))

    if way == "unseen" and number == 1:
        tasks.add(asyncio.create_task(when_held(place.line.hold_answers())))
    place.link.on_message = on_message
    return cut


def test_share_of_the_cases(record_property: Callable[[str, object], None]) -> None:
    record_property("share", f"lines cut: {len(SHARE)} of {len(CASES)} cases (CARDWRIGHT_LINE_FAULTS=1 for all)")
    assert {job for job, _, _ in SHARE} == set(MESSAGES)
    assert {way for _, way, _ in SHARE} == set(WAYS)


@pytest.mark.parametrize("job, way, number", SHARE, ids=[f"{job} {way} {number}" for job, way, number in SHARE])
async def test_line_cut_at_a_message(place: Place, job: str, way: str, number: int) -> None:
    bound = await begun_for(place, job)
    cut = cut_at(place, way, number)
    back = CASES.index((job, way, number)) % 2
    try:
        operation = await place.begin(bound)
    except grpc.aio.AioRpcError as error:
        # Nothing was agreed to yet: whoever sat there asks again.
        assert told(error).code == "SERVER_UNREACHABLE"
        assert number <= 2
        operation = await place.begin(bound)
    done = await place.over(operation)
    assert cut.is_set()
    if done.outcome != pb.OUTCOME_DONE:
        assert done.error.code == "SERVER_UNREACHABLE", done.error
        if back:
            place.run.bench.insert(place.run.bench.remove())
        await place.goes_on(bound)
    assert await place.wrong(bound) == []
    assert await place.state(bound) == devices_pb2.DEVICE_STATE_ISSUED


SLOW = (0.1, 1.0)
"""Seconds for a message and its answer."""


@pytest.mark.parametrize("trip", SLOW if EVERY == 1 else SLOW[:1])
async def test_slow_line_changes_nothing_but_the_time(place: Place, trip: float) -> None:
    bound = await begun_for(place, "issue")
    place.line.seconds = trip / 2
    await place.issued(bound)
    assert len(place.link.said) == 1
    assert await place.wrong(bound) == []


async def test_line_that_loses_packets_changes_nothing_but_the_time(place: Place) -> None:
    bound = await begun_for(place, "issue")
    place.line.loses = 0.15
    await place.issued(bound)
    assert place.line.lost > 0 and len(place.link.said) == 1
    assert await place.wrong(bound) == []


async def test_line_too_slow_for_a_stage_goes_on_when_it_is_quicker(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card is not kept from others for that long; the server tells why it could not go on, in its own words."""
    bound, ended = await begun_for(place, "issue"), asyncio.Event()
    stage_ended = relay.RelayedCard._end

    async def note(card: relay.RelayedCard) -> None:
        open_stage = bool(card._stage)
        await stage_ended(card)
        if open_stage and not ended.is_set():
            ended.set()
            monkeypatch.setattr(relay, "RelayedCard", as_shipped)
            place.line.release()

    async def hold(number: int, message: Message) -> None:
        if number == 5 and not ended.is_set():
            place.line.hold_answers()

    as_shipped = relay.RelayedCard
    monkeypatch.setattr(relay, "RelayedCard", partial(as_shipped, stage_seconds=0.5))
    monkeypatch.setattr(as_shipped, "_end", note)
    place.link.on_message = hold
    done = await place.over(await place.begin(bound))
    assert ended.is_set()
    assert done.error.code == "STAGE_ENDED", done
    await place.goes_on(bound)
    assert await place.wrong(bound) == []
    assert await place.state(bound) == devices_pb2.DEVICE_STATE_ISSUED


CUTS = 4


@pytest.mark.parametrize("seed", range(8) if EVERY == 1 else [3])
async def test_line_that_is_lost_again_and_again(place: Place, seed: int) -> None:
    """At any octet, in either direction, four times: all is done in the end, with one question for a new PIN."""
    bound, chance = await begun_for(place, "issue"), random.Random(seed)
    operation = await place.begin(bound)
    place.line.cut_after(*(chance.randrange(20_000) for _ in range(CUTS)))
    await place.over(operation)
    if await place.is_open(bound):
        await place.goes_on(bound)
    assert [one.what for one in place.typist.asked if "new PIN" in one.what] == ["new PIN", "new PIN once more"]
    assert await place.wrong(bound) == []
    assert await place.state(bound) == devices_pb2.DEVICE_STATE_ISSUED


QUICK = {"grpc.keepalive_time_ms": 1000, "grpc.keepalive_timeout_ms": 500, "grpc.http2.ping_timeout_ms": 500}
"""In place of the minute and the twenty seconds in which a dead line is found out."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are opened from now on."""
    monkeypatch.setattr(line, "OPTIONS", tuple((dict(line.OPTIONS) | QUICK).items()))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("number", [4, 9] if EVERY == 1 else [9])
async def test_half_open_line_is_found_out(place: Place, number: int) -> None:
    bound = await begun_for(place, "issue")
    held = asyncio.Event()

    async def hold(now: int, message: Message) -> None:
        if now == number and not held.is_set():
            held.set()
            place.line.hold()

    place.link.on_message = hold
    done = await place.over(await place.begin(bound))
    assert held.is_set()
    assert done.error.code == "SERVER_UNREACHABLE"
    # The other end still waits for this one; what it holds is let go of when it finds out too, or after half a minute.
    place.here.end_leases()
    place.line.cut()
    await place.goes_on(bound)
    assert await place.wrong(bound) == []


async def test_server_killed_in_the_middle_and_started_again(place: Place) -> None:
    """At the last batch: the card has its name by then, and the daemon has to know it by that."""
    bound = await begun_for(place, "issue")
    killed = asyncio.Event()

    async def kill(now: int, message: Message) -> None:
        if now == 9 and not killed.is_set():
            killed.set()
            await asyncio.to_thread(place.here.process.kill)

    place.link.on_message = kill
    operation = await place.begin(bound)
    done = await place.over(operation)
    assert killed.is_set()
    assert done.error.code == "SERVER_UNREACHABLE"
    place.here.end_leases()
    place.here.process.start()  # here: it ends with the thread that started it
    place.line.target = place.here.process.addresses["calls"]
    await place.goes_on(bound)
    assert await place.wrong(bound) == []


async def test_server_that_is_stopped_ends_the_session_first(place: Place) -> None:
    bound = await begun_for(place, "issue")
    stopped = asyncio.Event()

    async def stop(now: int, message: Message) -> None:
        if now == 5 and not stopped.is_set():
            stopped.set()
            place.here.process.signal()

    place.link.on_message = stop
    operation = await place.begin(bound)
    done = await place.over(operation)
    assert stopped.is_set()
    assert await asyncio.to_thread(place.here.process.wait) == 0
    assert done.outcome == pb.OUTCOME_DONE, done.error
    place.here.process.start()  # here: it ends with the thread that started it
    assert await place.wrong(bound) == []
