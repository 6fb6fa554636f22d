"""A running server for the tests of workstation and server together, and a workstation of processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.daemon_process import DaemonProcess
from tests.support.front_desk import Desk
from tests.support.installation import Site, copied
from tests.support.pcscd import Pcscd
from tests.support.whole_place import station_of
from tests.support.whole_station import Station


@pytest.fixture(scope="session")
def here(original: Site) -> Iterator[Site]:
    """A running installation for all tests of this folder; they leave it running, perhaps on other ports."""
    with copied(original) as made:
        made.process.start()
        yield made


@pytest.fixture(scope="session")
def desk(here: Site) -> Desk:
    """Its operators."""
    return Desk(here)


@pytest.fixture(scope="session")
def station_process(
    here: Site, desk: Desk, pcscd_process: Pcscd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Station]:
    """The processes behind ``station``."""
    credentials = tmp_path_factory.mktemp("station") / "here"
    asyncio.run(station_of(here, credentials))
    daemon = DaemonProcess(here.process.addresses["calls"], credentials)
    try:
        yield Station(here, desk, daemon, pcscd_process)
    finally:
        daemon.close()


@pytest.fixture
async def station(station_process: Station, pcscd: Pcscd) -> AsyncIterator[Station]:
    """A workstation whose daemon runs, with a card in a reader that nobody wants anything of."""
    made = station_process
    made.nothing_in()
    made.daemon.serve(made.here.process.addresses["calls"])
    if not made.daemon.runs:
        made.daemon.start()
    await made.insert_bystander()
    yield made
    made.require_bystander_untouched()
