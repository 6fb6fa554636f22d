"""The user logs off, or the machine sleeps, in the middle: nothing is done on the wrong card, and the rest comes later.

Server, daemon and pcscd are processes. ``CARDWRIGHT_DAEMON_FAULTS=1`` takes every case instead of the share.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

import pytest

from tests.support.staged import Moment
from tests.support.whole_station import PURPOSES, Station, stopped_at

pytestmark = pytest.mark.pcscd


EVERY_CASE = os.environ.get("CARDWRIGHT_DAEMON_FAULTS") == "1"
OFF = [("issue", Moment(2, 3)), ("unlock", Moment(0, 3)), ("update", Moment(2, 3))]
"""While keys are made or certificates written, and while the card is read."""
ASLEEP = [Moment(3, 3), Moment(0, 3)]


@pytest.mark.parametrize("job, moment", OFF if EVERY_CASE else OFF[:1], ids=str)
async def test_user_logs_off(station: Station, job: str, moment: Moment) -> None:
    """SIGTERM, and the folder of the login session is gone: the daemon ends well, after what it has begun at the card.

    With the card left in its reader, somebody who logs on again finds what is left.
    """
    async with station.open():
        held, work = await stopped_at(station, job, moment)
        shutil.rmtree(station.daemon.folder)
        station.daemon.signal(signal.SIGTERM)
        held.card.release()
        assert await asyncio.to_thread(station.daemon.wait) == 0, station.daemon.complaint
        await work
    assert "Traceback" not in station.daemon.complaint
    station.daemon.start()  # here: it ends with the thread that started it
    async with station.open():
        await station.finish(held, PURPOSES[job])
    await station.settle(held)


@pytest.mark.parametrize("moment", ASLEEP if EVERY_CASE else ASLEEP[:1], ids=str)
async def test_machine_sleeps_and_wakes_up_with_another_card(station: Station, moment: Moment) -> None:
    """The daemon is stopped while a card is at work; when it goes on, another one is in the reader."""
    theirs, job = await station.blank(), "issue"
    before = theirs.card.inside.snapshot()
    async with station.open():
        held, work = await stopped_at(station, job, moment)
        reader = station.cards_in[held.card.serial]
        station.daemon.signal(signal.SIGSTOP)
        held.card.release(lost=True)
        await station.remove(held)
        await station.insert(theirs, reader)
        station.here.end_leases()
        station.daemon.signal(signal.SIGCONT)
        await work
        assert (await station.known(reader)).identity.serial == str(theirs.card.serial)
        await station.quiet()
        assert theirs.card.inside.snapshot() == before
        assert theirs.card.pin_commands == 0
        await station.remove(theirs)
        await station.insert(held)
        await station.finish(held, PURPOSES[job])
    await station.settle(held)


async def test_machine_sleeps_and_goes_on(station: Station) -> None:
    """The same card is there still; the server has let it go meanwhile."""
    job = "issue"
    async with station.open():
        held, work = await stopped_at(station, job, Moment(2, 2))
        station.daemon.signal(signal.SIGSTOP)
        station.here.end_leases()
        held.card.release()
        station.daemon.signal(signal.SIGCONT)
        await work
        await station.finish(held, PURPOSES[job])
    await station.settle(held)
