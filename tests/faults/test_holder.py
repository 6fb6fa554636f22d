"""A holder's own session that breaks off with the daemon gone: the holder always ends it, at the same workstation.

What they proved before is used again where it cannot be given again: while the key in 9A is being made anew, and where
an emergency password was spent. ``CARDWRIGHT_HOLDER_FAULTS=N`` takes every Nth case of each job on each card besides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.databases import make_tables
from tests.support.fault_cases import Case, Course, undisturbed
from tests.support.holders import finished_by_holder, own_job

EVERY = int(os.environ.get("CARDWRIGHT_HOLDER_FAULTS", "0"))
CARDS = ("yubikey-5.7", "tdes-only", "pivapplet")
"""One that tells of its keys, and two that do not."""
SHARE = [("yubikey-5.7", "re-issue"), ("tdes-only", "update"), ("pivapplet", "unlock")]
GENERATE_9A, NEW_PUK = "0047009a", "00240081"
HARDEST = {"update": GENERATE_9A, "re-issue": GENERATE_9A, "unlock": NEW_PUK}
"""Each job with a command after which the holder cannot give again what they proved."""


@pytest.fixture
async def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.db"
    await make_tables(f"sqlite:///{path}")
    return path


def hardest(course: Course, head: str) -> list[Case]:
    """A command's answer is lost, the card is pulled before the next one, and all ends between them."""
    made = next(place for place, one in course.commands.items() if one.startswith(head))
    dead = next(place for place, one in enumerate(course.moments, 1) if f"after command {made}," in one.label)
    return [Case("lost", made), Case("unsent", made + 1), Case("dead", dead)]


@pytest.mark.parametrize("profile, name", [(one, name) for one in CARDS for name in HARDEST] if EVERY else SHARE)
async def test_a_holder_ends_what_broke_off_by_the_first_proof(
    tmp_path: Path, template: Path, profile: str, name: str, record_property: Callable[[str, object], None]
) -> None:
    here, job, holder = await own_job(profile, name, tmp_path / "world", template)
    try:
        course = await undisturbed(here, job)
        cases = hardest(course, HARDEST[name])
        wrong, ways = await finished_by_holder(here, holder, course, cases)
        assert wrong == {}
        assert ways.by_the_first == [str(case) for case in cases]
        rest = course.cases[::EVERY] if EVERY else []
        wrong, ways = await finished_by_holder(here, holder, course, rest)
    finally:
        await here.close()
    assert wrong == {}
    if rest:
        by = f"{len(ways.by_the_first)} by the first proof, {len(ways.by_another)} by another"
        record_property("share", f"a holder's {name} on {profile}: {len(rest)} cases, {by}")
