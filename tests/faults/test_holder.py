"""A holder's own session that breaks off with the daemon gone: the holder always ends it, at the same workstation.

What they proved before is used again where it cannot be given again: while the key in 9A is being made anew, and where
an emergency password was spent. ``CARDWRIGHT_HOLDER_FAULTS=1`` takes every case instead of the share.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.databases import make_tables
from tests.support.fault_cases import Case, Course, undisturbed
from tests.support.holders import finished_by_holder, own_job

EVERY = int(os.environ.get("CARDWRIGHT_HOLDER_FAULTS", "0"))
CARDS = ("yubikey-5.7", "tdes-only", "pivapplet")
"""One that tells of its keys, and two that do not."""
GENERATE_9A = "0047009a"


@pytest.fixture
async def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.db"
    await make_tables(f"sqlite:///{path}")
    return path


def around_9a(course: Course) -> list[Case]:
    """Its answer is lost, the card is pulled before the next command, and the workstation hangs up with it."""
    made = next(place for place, head in course.commands.items() if head.startswith(GENERATE_9A))
    dead = next(place for place, one in enumerate(course.moments, 1) if f"after command {made}," in one.label)
    return [Case("lost", made), Case("unsent", made + 1), Case("dead", dead)]


@pytest.mark.parametrize("name", ["update", "re-issue"])
@pytest.mark.parametrize("profile", CARDS)
async def test_a_holder_ends_what_broke_off_while_9a_was_made_anew(
    tmp_path: Path, template: Path, profile: str, name: str
) -> None:
    here, job, holder = await own_job(profile, name, tmp_path / "world", template)
    try:
        course = await undisturbed(here, job)
        cases = around_9a(course)
        wrong, ways = await finished_by_holder(here, holder, course, cases)
        assert wrong == {}
        assert ways.by_the_first == [str(case) for case in cases]
        rest = course.cases[::EVERY] if EVERY else []
        wrong, ways = await finished_by_holder(here, holder, replace(course, end={}), rest)
    finally:
        await here.close()
    assert wrong == {}
    print(f"{profile} {name}: {len(rest)} cases, {len(ways.by_the_first)} with the first proof")
