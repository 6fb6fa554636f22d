"""At every moment of a lock: no try of the PIN goes before the books say that the card may be locked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardwright_server.sessions.desk import Desk
from cardwright_server.sessions.ports import Task
from cardwright_server.store.unit import Unit
from tests.oracle.books import Books
from tests.oracle.locked import tried_too_early
from tests.support.fault_cases import undisturbed
from tests.support.fault_world import locking, make_fault_world


async def wrong_on_the_way(profile: str, tmp_path: Path, template: Path) -> tuple[list[list[str]], int]:
    """What is wrong at each moment of one lock, and at how many the PIN had lost tries."""
    kept = tmp_path / "kept.db"
    here = await make_fault_world(profile, "lock", tmp_path / "world", template)
    try:
        job, _ = await locking(here)
        course = await undisturbed(here, job)
    finally:
        await here.close()
    found, spent = [], 0
    for moment in course.moments:
        kept.write_bytes(moment.store)
        found.append(tried_too_early(job.start.card, moment.card, Books.read(kept), here.device))
        spent += moment.card != job.start.card
    return [one for one in found if one], spent


@pytest.mark.parametrize("profile", ["yubikey-5.7", "tdes-only"])
async def test_the_books_are_ahead_of_the_card(profile: str, tmp_path: Path, sqlite_template: Path) -> None:
    wrong, spent = await wrong_on_the_way(profile, tmp_path, sqlite_template)
    assert wrong == [] and spent >= 3


async def test_a_server_that_keeps_no_book_is_noticed(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: Desk, unit: Unit, task: Task) -> None:
        return

    monkeypatch.setattr(Desk, "locking", nothing)
    wrong, spent = await wrong_on_the_way("yubikey-5.7", tmp_path, sqlite_template)
    assert len(wrong) >= 3 and {tuple(one) for one in wrong} == {
        ("the books do not say that the card may be locked",)
    }  # fmt: skip
    assert spent >= 3
