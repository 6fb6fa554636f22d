"""At every moment of recycling: nothing of it goes before certificates are revoked and the reset is on record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.books import Books
from tests.oracle.recycled import erased_too_early
from tests.support.databases import make_tables
from tests.support.fault_cases import undisturbed
from tests.support.fault_world import make_fault_world, recycling


@pytest.mark.parametrize("profile", ["yubikey-5.7", "tdes-only"])
async def test_the_books_are_ahead_of_the_card(profile: str, tmp_path: Path) -> None:
    template, kept = tmp_path / "template.db", tmp_path / "kept.db"
    await make_tables(f"sqlite:///{template}")
    here = await make_fault_world(profile, "recycle", tmp_path / "world", template)
    try:
        job, _ = await recycling(here)
        course = await undisturbed(here, job)
    finally:
        await here.close()
    erased = 0
    for moment in course.moments:
        kept.write_bytes(moment.store)
        assert erased_too_early(job.start.card, moment.card, Books.read(kept), here.device) == [], moment.label
        erased += moment.card != job.start.card
    assert erased > 7  # six tries and the reset
