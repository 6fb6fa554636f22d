"""A daemon that is killed, and a pcscd that is, at every recorded stage: what is left is finished afterwards.

Server, daemon, pcscd and the readers' drivers are processes; the cards are here. Where a case begins is read from the
server's database, before each command that comes to the card. ``CARDWRIGHT_DAEMON_FAULTS=1`` takes every case instead
of the share.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from cardwright_proto.agent.v1 import agent_pb2 as pb
from tests.support.staged import Moment
from tests.support.whole_station import PURPOSES, SESSIONS, Held, Station, stopped_at

pytestmark = pytest.mark.pcscd

STAGES = {"issue": 4, "update": 3, "unlock": 2}
"""How often the books are written while commands come to the card: at the opening, and before batches that write."""
AT = {
    "issue": {0: (0, 12), 1: (0, 3), 2: (0, 3, 6), 3: (0, 6, 12, 18)},
    "update": {0: (0, 20), 1: (0, 4, 8), 2: (0, 8, 16)},
    "unlock": {0: (0, 12), 1: (0, 3, 5)},
}
"""For each stage, before which of its commands."""
WHO = ("daemon", "pcscd")
CARDS = ("yubikey-5.7", "tdes-only", "pivapplet")
"""One that tells of its keys, and two that do not."""
CASES = [
    (job, who, Moment(stage, command))
    for job, stages in AT.items()
    for stage, commands in stages.items()
    for command in commands
    for who in WHO
]
EVERY = int(os.environ.get("CARDWRIGHT_DAEMON_FAULTS", "13"))
SHARE = CASES[3::EVERY] if EVERY > 1 else CASES


def test_share_of_the_cases(record_property: Callable[[str, object], None]) -> None:
    text = f"daemon and pcscd killed: {len(SHARE)} of {len(CASES)} cases (CARDWRIGHT_DAEMON_FAULTS=1 for all)"
    record_property("share", text)
    assert {job for job, _, _ in SHARE} == set(AT)
    assert {who for _, who, _ in SHARE} == set(WHO)


@pytest.mark.parametrize("job, who, moment", SHARE, ids=[f"{job} {who} {at}" for job, who, at in SHARE])
async def test_killed_at_a_moment(station: Station, job: str, who: str, moment: Moment) -> None:
    purpose = PURPOSES[job]
    lost = (moment.stage + moment.command) % 2 == 1
    async with station.open():
        held, work = await stopped_at(station, job, moment)
        if who == "daemon":
            station.daemon.kill()
            held.card.release(lost=lost)
            assert await work == "UNAVAILABLE"
            if lost:
                await station.remove(held)
        else:
            await killed(station, held, lost=lost)
            await work
    if who == "daemon":
        station.daemon.start()  # here: it ends with the thread that started it
    if held.card.serial not in station.cards_in:
        await station.insert(held)
    async with station.open():
        starts = await station.finish(held, purpose)
    await station.settle(held)
    if who == "daemon" and moment.stage and job != "issue":
        require_first_proof(held, starts)


def require_first_proof(held: Held, starts: list[str]) -> None:
    """What the holder proved in the beginning could not be proved again: the password is spent, the key in 9A unknown.

    A slow machine that ended a stage later on may have ended it when the new key was known.
    """
    assert held.proofs == 1 or "STAGE_ENDED" in starts


async def killed(station: Station, held: Held, *, lost: bool) -> None:
    """End pcscd while a command is at the card, and start it again, with no card in."""
    os.kill(station.pcscd.pid, signal.SIGKILL)
    held.card.release(lost=lost)
    await asyncio.to_thread(station.pcscd.kill)
    station.pcscd.start()  # here: it ends with the thread that started it
    station.nothing_in()
    await station.insert_bystander()


@pytest.mark.parametrize("profile", CARDS if EVERY == 1 else CARDS[:2])
async def test_daemon_killed_while_the_key_in_9a_is_made_anew(station: Station, profile: str) -> None:
    """The server never hears of that key, so the holder cannot prove themselves by it: they go on by their first proof.

    Once with a card that tells of its keys, and with cards that do not.
    """
    async with station.open():
        held, work = await stopped_at(station, "update", profile=profile)
        station.daemon.kill()
        held.card.release()
        assert await work == "UNAVAILABLE"
    station.daemon.start()  # here: it ends with the thread that started it
    async with station.open():
        starts = await station.finish(held, PURPOSES["update"])
    await station.settle(held)
    require_first_proof(held, starts)


@pytest.mark.parametrize("job", AT if EVERY == 1 else ["unlock"])
async def test_every_stage_is_in_the_cases(station: Station, job: str) -> None:
    """How many there are, in a session that nothing disturbs."""
    held = await station.ready(job)
    seen = []

    def look() -> bool:
        if (now := station.recorded(held)) is not None and now.purpose == SESSIONS[job] and now.state != "done":
            seen.append(str(now))
        return False

    async with station.open():
        before = station.recorded(held)
        held.card.hold(look)
        done = await station.through(held, PURPOSES[job])
        held.card.release()
    assert done.outcome == pb.OUTCOME_DONE
    assert before is None or before.purpose != SESSIONS[job] or before.state == "done"
    stages = list(dict.fromkeys(seen))
    assert len(stages) == STAGES[job] == len(AT[job]), stages
    await station.settle(held)


@pytest.mark.parametrize("job", ["issue", "update"] if EVERY == 1 else ["issue"])
async def test_daemon_killed_while_its_preview_is_read(station: Station, job: str) -> None:
    held = await station.ready(job)
    async with station.open():
        _, digest = await station.preview(held, PURPOSES[job])
        assert digest
        station.daemon.kill()
    station.daemon.start()  # here: it ends with the thread that started it
    async with station.open():
        await station.finish(held, PURPOSES[job])
    await station.settle(held)

