"""An issuance that was cut, taken back and asked for once more: nothing that was revoked with the first stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.model import DeviceState
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.fault_jobs import update_after_a_reissue
from tests.support.fault_world import issuance, make_fault_world
from tests.support.sessions import Station


@pytest.mark.parametrize("put", [1, 2, 4], ids=["nothing", "one certificate", "three"])
async def test_the_card_gets_certificates_that_count(put: int, tmp_path: Path, sqlite_template: Path) -> None:
    here = await make_fault_world("yubikey-5.7", "issue", tmp_path / "world", sqlite_template)
    job, card = await issuance(here)
    people = here.world.world
    async with here.serving(job.principal) as socket:
        faulty = FaultyCard(card, f"ins=DB@{put}:remove")
        cut = await here.session(job, Station(faulty), socket)
        assert (cut.error, cut.outcome, len(faulty.struck)) == ("CARD_REMOVED", 0, 1)
        card.power_off()
        assert job.request is not None
        wanted = job.request
        await here.database.transact(lambda unit: people.services.requests.cancel(unit, people.issuer, wanted))
        assert await people.state(here.device) is DeviceState.FAILED
        again = replace(job, request=(await people.issuance(here.device)).id)
        trip = await here.session(again, Station(card), socket)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert await here.wrong(again, card) == []
    await here.close()


@pytest.mark.parametrize("how", ["at a key", "before consent"])
async def test_a_reissue_that_was_taken_back_leaves_a_device_that_an_update_brings_back(
    how: str, tmp_path: Path, sqlite_template: Path
) -> None:
    here = await make_fault_world("yubikey-5.7", "update", tmp_path / "world", sqlite_template)
    job, card = await update_after_a_reissue(here, None if how == "at a key" else 1)
    assert await here.world.world.state(here.device) is DeviceState.UPDATING
    async with here.serving(job.principal) as socket:
        trip = await here.session(job, Station(card), socket)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert await here.wrong(job, card) == []
    await here.close()
