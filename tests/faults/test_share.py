"""A share of the cases of ``make faults``, the same each time: one of every so many, on different kinds of cards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.run import tried

SHARES = (
    ("tdes-only", "issue", 31),
    ("yubikey-5.4", "update", 43),
    ("pivapplet", "unlock", 9),
    ("tdes-only", "recycle", 17),
    ("yubikey-5.7", "lock", 9),
)


@pytest.mark.parametrize("profile, job, step", SHARES, ids=[f"{one} {job}" for one, job, _ in SHARES])
async def test_one_more_session_reaches_the_goal(
    profile: str, job: str, step: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    done = await tried(profile, job, step, tmp_path)
    record_property("share", str(done))
    assert done.failed == {}
    assert sum(done.tried.values()) == -(-done.of // step)
