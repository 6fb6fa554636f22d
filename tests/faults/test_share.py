"""A share of the cases of ``make faults``, the same each time: one of every so many, on different kinds of cards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.run import combinations, tried
from tests.support.fault_world import IMPOSSIBLE, JOBS, PROFILES

SHARES = (
    ("tdes-only", "issue", 31),
    ("yubikey-5.4", "update", 43),
    ("pivapplet", "unlock", 9),
)


@pytest.mark.parametrize("profile, job, step", SHARES, ids=[f"{one} {job}" for one, job, _ in SHARES])
async def test_one_more_session_reaches_the_goal(
    profile: str, job: str, step: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    done = await tried(profile, job, step, tmp_path)
    record_property("share", str(done))
    assert done.failed == {}
    assert sum(done.tried.values()) == -(-done.of // step)


def test_every_kind_of_card_that_can_is_tried() -> None:
    assert len(list(combinations())) == len(PROFILES) * len(JOBS) - len(IMPOSSIBLE)
    assert {job for _, job, _ in SHARES} == set(JOBS)
