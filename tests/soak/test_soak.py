"""A short form of ``make soak``: the same run for some seconds."""

from __future__ import annotations

from collections.abc import Callable

from tests.soak.run import Soak

SECONDS = 15.0


async def test_cards_come_and_go_while_lines_are_cut(record_property: Callable[[str, object], None]) -> None:
    soak = Soak(SECONDS, seed=4)
    await soak.run()
    record_property("share", str(soak))
    assert soak.wrong == []
    assert soak.done["session"] and soak.done["line cut"] and soak.done["insertion"] > 10
