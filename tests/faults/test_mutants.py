"""Leaving out any one record that has to come before its effect is noticed by the judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from tests.support.fault_cases import Case, Course, carried_out, failures, undisturbed
from tests.support.fault_jobs import EVERY
from tests.support.fault_mutants import MUTANTS, Mutant
from tests.support.fault_records import CARRIED, HELD, calls, described, entries, tables_written
from tests.support.fault_world import JOBS, FaultWorld, Job, make_fault_world
from tests.support.sessions import Station


@pytest.mark.parametrize("profile, name", sorted({(one.profile, one.job) for one in MUTANTS}))
async def test_every_missing_record_is_noticed(
    profile: str, name: str, tmp_path: Path, sqlite_template: Path
) -> None:
    mine = [one for one in MUTANTS if (one.profile, one.job) == (profile, name)]

    async def begun(folder: str) -> tuple[FaultWorld, Job]:
        here = await make_fault_world(profile, name, tmp_path / folder, sqlite_template)
        return here, (await EVERY[name](here))[0]

    here, job = await begun("world")
    course = await undisturbed(here, job)
    assert await failures(here, course, [case for one in mine for case in _cases(course, one)]) == {}
    unnoticed = []
    for number, one in enumerate(mine):
        with pytest.MonkeyPatch.context() as patch:
            one.change(patch)
            where = await begun(f"world-{number}") if one.always else (here, job)
            if not await _noticed(*where, one):
                unnoticed.append(one.name)
            if one.always:
                await where[0].close()
    await here.close()
    assert unnoticed == []


async def _noticed(here: FaultWorld, job: Job, mutant: Mutant) -> bool:
    if not mutant.cases:
        return not await _ends_well(here, job)
    course = await undisturbed(here, job, judged=False)
    return any([await carried_out(here, course, case) for case in _cases(course, mutant)])


async def _ends_well(here: FaultWorld, job: Job) -> bool:
    try:
        await undisturbed(here, job)
    except AssertionError:
        return False
    return True


def _cases(course: Course, mutant: Mutant) -> list[Case]:
    found = [case for case in course.cases if mutant.cases and all(part in str(case) for part in mutant.cases)]
    return found[-1:]


async def test_every_record_before_its_effect_has_a_mutant_or_a_reason(tmp_path: Path, sqlite_template: Path) -> None:
    written: set[str] = set()
    for name in JOBS:
        here = await make_fault_world("yubikey-5.7", name, tmp_path / name, sqlite_template)
        job, card = await JOBS[name](here)
        with tables_written(here.database) as seen:
            async with here.serving(job.principal) as socket:
                trip = await here.session(job, Station(card), socket)
        assert trip.outcome == sessions_pb2.OUTCOME_DONE
        written |= seen
        await here.close()
    assert entries() | calls() | written == {*HELD, *CARRIED}
    assert {name for names in HELD.values() for name in names} == {one.name for one in MUTANTS}
    assert described() == set(CARRIED)
