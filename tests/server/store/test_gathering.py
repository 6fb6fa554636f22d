"""Questions that are asked together: the same answers as one by one, and nobody harms another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardwright_server.store.errors import DatabaseUnavailable
from cardwright_server.store.gathering import Gathering


class Asked:
    """Squares of even numbers, nothing for odd ones. A statement runs until it is let go, if ``held``."""

    def __init__(self, *, held: bool = False) -> None:
        self.statements: list[list[int]] = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.error: Exception | None = None
        self.broken: frozenset[int] = frozenset()
        if not held:
            self.may_end.set()

    async def __call__(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.statements.append(list(keys))
        self.begun.set()
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        if self.broken & set(keys):
            raise ValueError("one of them cannot be asked for")
        return {key: key * key for key in keys if key % 2 == 0}


async def second_round(asked: Asked, gathering: Gathering[int, int], *keys: int) -> list[asyncio.Task[int | None]]:
    """A statement about 0 runs while these keys come; then it ends."""
    first = asyncio.create_task(gathering.get(0))
    await asked.begun.wait()
    tasks = [asyncio.create_task(gathering.get(key)) for key in keys]
    await asyncio.sleep(0)
    asked.may_end.set()
    assert await first == 0
    return tasks


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=6), st.integers(1, 7), st.sampled_from((0, 0.001)))
def test_answers_are_those_of_asking_one_by_one(rounds: list[list[int]], most: int, pause: float) -> None:
    async def run() -> None:
        asked = Asked()
        gathering = Gathering(asked, most=most, pause=pause)
        tasks = []
        for keys in rounds:
            tasks += [(key, asyncio.create_task(gathering.get(key))) for key in keys]
            await asyncio.sleep(0)
        for key, task in tasks:
            assert await task == (await Asked()([key])).get(key)
        assert all(len(one) == len(set(one)) <= most for one in asked.statements)
        assert {key for one in asked.statements for key in one} == {key for keys in rounds for key in keys}

    asyncio.run(run())


async def test_what_comes_while_a_statement_runs_shares_the_next_one() -> None:
    asked = Asked(held=True)
    tasks = await second_round(asked, Gathering(asked), 2, 3, 4, 2)
    assert [await task for task in tasks] == [4, None, 16, 4]
    assert asked.statements == [[0], [2, 3, 4]]


async def test_one_that_comes_alone_does_not_wait() -> None:
    asked = Asked()
    gathering = Gathering(asked, pause=3600)
    assert await gathering.get(6) == 36
    assert asked.statements == [[6]]


@pytest.mark.parametrize("given_up", [0, 1, 2])
async def test_one_that_is_given_up_harms_no_other(given_up: int) -> None:
    asked = Asked(held=True)
    gathering = Gathering(asked, pause=0)
    tasks = [asyncio.create_task(gathering.get(key)) for key in (2, 4, 6)]
    await asked.begun.wait()
    tasks[given_up].cancel()
    await asyncio.sleep(0)
    asked.may_end.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    expected: list[object] = [4, 16, 36]
    assert isinstance(found.pop(given_up), asyncio.CancelledError)
    expected.pop(given_up)
    assert found == expected
    assert await gathering.get(8) == 64


async def test_nobody_is_asked_for_who_gave_up_before() -> None:
    asked = Asked(held=True)
    gathering = Gathering(asked, pause=0)
    first = asyncio.create_task(gathering.get(0))
    await asked.begun.wait()
    second = asyncio.create_task(gathering.get(2))
    await asyncio.sleep(0)
    second.cancel()
    asked.may_end.set()
    assert await first == 0
    await asyncio.wait([second])
    assert await gathering.get(4) == 16
    assert asked.statements == [[0], [4]]


async def test_an_error_of_the_database_reaches_everyone_who_waited_for_it() -> None:
    asked = Asked(held=True)
    asked.error = DatabaseUnavailable("gone")
    gathering = Gathering(asked, pause=0)
    tasks = [asyncio.create_task(gathering.get(key)) for key in (2, 4)]
    await asked.begun.wait()
    late = asyncio.create_task(gathering.get(6))
    await asyncio.sleep(0)
    asked.may_end.set()
    found = await asyncio.gather(*tasks, late, return_exceptions=True)
    assert [getattr(one, "code", one) for one in found] == ["DATABASE_UNAVAILABLE"] * 3
    asked.error = None
    assert await gathering.get(6) == 36
    assert asked.statements == [[2, 4], [6], [6]]


async def test_one_that_cannot_be_asked_for_fails_alone() -> None:
    asked = Asked(held=True)
    asked.broken = frozenset({3})
    tasks = await second_round(asked, Gathering(asked), 2, 3, 4)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert (found[0], type(found[1]), found[2]) == (4, ValueError, 16)


async def test_whoever_waits_when_the_process_ends_is_given_up() -> None:
    asked = Asked(held=True)
    gathering = Gathering(asked)
    before = asyncio.all_tasks()
    tasks = [asyncio.create_task(gathering.get(2))]
    await asked.begun.wait()
    tasks.append(asyncio.create_task(gathering.get(4)))
    await asyncio.sleep(0)
    (running,) = asyncio.all_tasks() - before - set(tasks)
    running.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError] * 2
