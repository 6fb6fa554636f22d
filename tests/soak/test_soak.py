"""A short form of ``make soak``: as many insertions as in a minute with one each second in each reader."""

from __future__ import annotations

from collections.abc import Callable

from tests.soak.run import READERS, Soak

INSERTIONS = 60 * READERS


async def test_cards_come_and_go_while_lines_are_cut(record_property: Callable[[str, object], None]) -> None:
    soak = Soak(60.0, seed=4, insertions=INSERTIONS)
    await soak.run()
    record_property("share", str(soak))
    assert soak.wrong == []
    assert soak.done["session"] and soak.done["line cut"] and soak.done["insertion"] >= INSERTIONS
