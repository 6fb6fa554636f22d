"""Random walks over a state machine by several clients at once, and what must hold of the journal they leave.

A test makes a ``Subject`` (one row that a machine governs, reached through the real service), draws a plan with
``plans(machine)`` and runs ``walk``. It fails for an illegal transition, a lost or doubled one, or a row that says
something else than its journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol

from hypothesis import strategies as st

from cardwright_server.machine import Actor, GuardRefused, IllegalTransition, Machine, S, Transition
from cardwright_server.machine import E as Event
from cardwright_server.store.errors import StaleVersion


@dataclass(frozen=True)
class Fired(Generic[S, Event]):
    """One row of the journal that the service wrote: who moved it from where to where."""

    source: S | None
    event: Event
    actor: Actor
    target: S


class Subject(Protocol[S, Event]):
    """What is walked over."""

    async def fire(self, client: int, event: Event, actor: Actor) -> Transition[S, Event]:
        """Cause the event as this client, who holds a connection of its own. Gives the row that was taken.

        Raises IllegalTransition, GuardRefused or StaleVersion when refused; any other error fails the walk.
        """

    async def state(self) -> S | None:
        """State of the row now; None if it does not exist."""

    async def journal(self) -> Sequence[Fired[S, Event]]:
        """What was done to it, in order, from the database."""


Plan = list[list[tuple[Event, Actor]]]
"""For each client, what it tries one after the other."""


def plans(machine: Machine[S, Event], *, clients: int = 3, steps: int = 8) -> st.SearchStrategy[Plan[Event]]:
    """Plans for a machine: mostly things that some row knows, so that walks get far, and some that none does."""
    known = sorted({(row.event, actor) for row in machine.transitions for actor in row.actors})
    anything = st.tuples(st.sampled_from(list(machine.events)), st.sampled_from(list(Actor)))
    attempt = st.one_of(st.sampled_from(known), st.sampled_from(known), anything)
    one = st.lists(attempt, min_size=1, max_size=steps)
    return st.lists(one, min_size=clients, max_size=clients)


async def walk(machine: Machine[S, Event], subject: Subject[S, Event], plan: Plan[Event]) -> list[Fired[S, Event]]:
    """Run the plan, all clients at once, and judge what came of it. Gives the journal."""
    before = list(await subject.journal())
    start = await subject.state()
    done: list[Transition[S, Event]] = []

    async def client(number: int, attempts: Sequence[tuple[Event, Actor]]) -> None:
        for event, actor in attempts:
            with suppress(IllegalTransition, GuardRefused, StaleVersion):
                done.append(await subject.fire(number, event, actor))
            await asyncio.sleep(0)

    await asyncio.gather(*(client(number, attempts) for number, attempts in enumerate(plan)))
    journal = list(await subject.journal())
    assert journal[: len(before)] == before, "what was in the journal was changed"
    judge(machine, start, journal[len(before) :], await subject.state())
    taken = sorted((str(row.source), row.event, row.target) for row in done)
    written = sorted((str(one.source), one.event, one.target) for one in journal[len(before) :])
    assert taken == written, "what clients were told and what the journal says differ"
    return journal


def judge(machine: Machine[S, Event], start: S | None, journal: Sequence[Fired[S, Event]], end: S | None) -> None:
    """Fail unless the journal is a path through the machine from ``start`` to ``end``, each step by one who may."""
    state = start
    for number, one in enumerate(journal):
        assert one.source == state, f"step {number} began at {one.source}, but the row was {state}: an update was lost"
        rows = machine.candidates(one.source, one.event, one.actor)
        assert one.target in {row.target for row in rows}, f"step {number} is in no row: {one}"
        state = one.target
    assert end == state, f"the row is {end}, but its journal ends at {state}"
