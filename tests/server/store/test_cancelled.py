"""A unit that is cancelled at any of its statements lets go of its lock before whoever ended it records why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select, update

from cardwright_server.store.ids import SYSTEM
from cardwright_server.store.notify_tables import mail_template
from cardwright_server.store.unit import Database, Unit

KINDS = ("begin", "one row", "many rows", "a change", "some rows", "commit")


def row(name: str) -> dict[str, object]:
    return {"org": SYSTEM, "name": name, "subject": "s", "body": "b"}


async def work(unit: Unit) -> None:
    await unit.insert(mail_template, row("one"))
    await unit.insert_many(mail_template, [row(f"many {number}") for number in range(20)])
    await unit.execute(update(mail_template).values(subject="t"))
    await unit.rows(select(mail_template))


def kind_of(statement: str, *, many: bool) -> str:
    first = statement.split(None, 1)[0].upper()
    return "many rows" if many else {"INSERT": "one row", "UPDATE": "a change", "SELECT": "some rows"}.get(first, "")


@contextmanager
def cancelled_at(database: Database, wanted: str, turns: int) -> Iterator[None]:
    """Whoever runs a statement of the kind is cancelled some turns of the loop after it began."""
    engine, done = database.engine.sync_engine, False

    def cancel() -> None:
        nonlocal done
        if not done:
            done = True
            _later(asyncio.get_running_loop(), asyncio.current_task(), turns)

    def execute(_connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, many: bool) -> None:
        if kind_of(statement, many=many) == wanted and not ("clock" in statement or "now()" in statement):
            cancel()

    events = {"before_cursor_execute": execute} | {
        name: (lambda _connection, name=name: cancel() if wanted == name else None) for name in ("begin", "commit")
    }
    for name, listener in events.items():
        event.listen(engine, name, listener)
    try:
        yield
    finally:
        for name, listener in events.items():
            event.remove(engine, name, listener)
    assert done


def _later(loop: asyncio.AbstractEventLoop, task: asyncio.Task[object] | None, turns: int) -> None:
    assert task is not None
    if turns:
        loop.call_soon(_later, loop, task, turns - 1)
    else:
        task.cancel()


@pytest.mark.parametrize("turns", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_next_unit_need_not_wait_for_a_cancelled_one(database: Database, kind: str, turns: int) -> None:
    """The error is still being handled, so everything on its way is still there: that is when sessions record it."""

    async def session() -> list[str]:
        try:
            with cancelled_at(database, kind, turns):
                await database.transact(work)
        except asyncio.CancelledError:
            await database.transact(lambda unit: unit.insert(mail_template, row("afterwards")))
        return sorted({name.split()[0] for name in await database.read(_names)})

    found = await asyncio.create_task(session())
    assert database.retries == 0
    # One that is cancelled when its commit is on the way has committed or not; before that it has not.
    assert found in (["afterwards"], ["afterwards", "many", "one"], ["many", "one"])
    assert kind == "commit" or found != ["afterwards", "many", "one"]


async def _names(unit: Unit) -> list[str]:
    return [found.name for found in await unit.rows(select(mail_template.c.name))]
