"""A card that tells nothing of its keys, cut between a new key in 9E and its certificate: the guard lets it go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.databases import make_tables
from tests.support.fault_cases import Case, failures, undisturbed
from tests.support.fault_world import make_fault_world, renewal

GENERATE_9E, WRITE_9E = "0047009e", "00db3fff"


async def test_the_next_session_knows_the_card_again(tmp_path: Path) -> None:
    template = tmp_path / "template.db"
    await make_tables(f"sqlite:///{template}")
    here = await make_fault_world("tdes-only", "update", tmp_path / "world", template)
    try:
        job, _ = await renewal(here)
        course = await undisturbed(here, job)
        made = next(place for place, head in course.commands.items() if head.startswith(GENERATE_9E))
        last = max(place for place, head in course.commands.items() if head.startswith(WRITE_9E))
        behind = [place for place in course.commands if made < place <= last]
        # Its answer lost, so that nobody saw the key; then some moments until the certificate is there.
        cases = [Case("lost", made), *(Case("unsent", place) for place in behind[:: len(behind) // 2])]
        wrong = await failures(here, replace(course, end={}), cases)
    finally:
        await here.close()
    assert wrong == {} and len(cases) > 2
