"""State machines as data: one table that services execute, documentation prints and property tests walk."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from cardwright_cardops.errors import CardwrightError

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)
C = TypeVar("C")


class Actor(StrEnum):
    """In which part someone acts on a machine. Whether a principal may play it is decided by authorization."""

    USER = "user"
    """The person whom it belongs to."""
    HELP_DESK = "help-desk"
    ISSUANCE = "issuance"
    SECURITY_OFFICER = "security-officer"
    ADMINISTRATOR = "administrator"
    SERVICE = "service"
    """Another system, by its own credential: identity management, a personalization bureau."""
    SERVER = "server"
    """The server, as a consequence of something else."""
    TIMER = "timer"
    """The server, because time has passed."""


OPERATORS = frozenset({Actor.HELP_DESK, Actor.ISSUANCE, Actor.SECURITY_OFFICER, Actor.ADMINISTRATOR})


class IllegalTransition(CardwrightError):
    """What was asked for does not follow from the present state, or not by this part."""

    code = "ILLEGAL_TRANSITION"
    default_effect = "Nothing was changed."
    default_advice = "Look at the present state; someone else may have been faster."

    def __init__(self, machine: str, state: str | None, event: str, actor: str, *, known: bool) -> None:
        """``known``: others may do it in this state."""
        where = f"a {machine} that is {state}" if state is not None else f"a {machine} that does not exist yet"
        why = f"cannot be done by {actor}" if known else "does not apply"
        super().__init__(f"{event} {why} to {where}")
        self.machine, self.state, self.event, self.actor = machine, state, event, actor


class GuardRefused(CardwrightError):
    """The state allows it, but a condition does not hold."""

    code = "CONDITION_NOT_MET"
    default_effect = "Nothing was changed."
    default_advice = "Meet the condition that is named, then try again."

    def __init__(self, machine: str, event: str, guards: tuple[str, ...]) -> None:
        super().__init__(f"{event} of a {machine} is refused: {' and '.join(guards)} does not hold")
        self.machine, self.event, self.guards = machine, event, guards


@dataclass(frozen=True)  # with slots, Python 3.11 cannot call the subscripted class: Transition[S, E](...)
class Transition(Generic[S, E]):
    """One row: in ``source`` (None: it does not exist yet), ``event`` by one of ``actors`` leads to ``target``.

    ``guard`` and ``effects`` are names that the service implements (``Rules``); "" is no guard. Rows of the same
    source, event and actor are tried in the order of the table, and need guards, save the last.
    """

    source: S | None
    event: E
    target: S
    actors: frozenset[Actor]
    guard: str = ""
    effects: tuple[str, ...] = ()
    note: str = ""


class Machine(Generic[S, E]):
    """A machine: its name (one word for one thing), its states and events, and its rows.

    Raises ValueError for a table that cannot be meant: a row that can never be chosen, a state that cannot be
    reached, an event that is nowhere, a row without actors.
    """

    def __init__(self, name: str, states: type[S], events: type[E], transitions: Iterable[Transition[S, E]]) -> None:
        self.name = name
        self.states = states
        self.events = events
        self.transitions = tuple(transitions)
        self._rows: dict[tuple[S | None, E], list[Transition[S, E]]] = {}
        for row in self.transitions:
            self._rows.setdefault((row.source, row.event), []).append(row)
        if faults := list(self._faults()):
            raise ValueError(f"{name}: " + "; ".join(faults))

    @property
    def final(self) -> frozenset[S]:
        """States that nothing leaves."""
        return frozenset(self.states) - {row.source for row in self.transitions}

    @property
    def guards(self) -> frozenset[str]:
        """Every guard that is named."""
        return frozenset(row.guard for row in self.transitions if row.guard)

    @property
    def effects(self) -> frozenset[str]:
        """Every effect that is named."""
        return frozenset(effect for row in self.transitions for effect in row.effects)

    def candidates(self, state: S | None, event: E, actor: Actor) -> tuple[Transition[S, E], ...]:
        """Rows that may apply, in the order in which their guards are asked. Raises IllegalTransition if none."""
        rows = self._rows.get((state, event), [])
        chosen = tuple(row for row in rows if actor in row.actors)
        if not chosen:
            raise IllegalTransition(self.name, state, event, actor, known=bool(rows))
        return chosen

    def next(
        self, state: S | None, event: E, actor: Actor, holds: Callable[[str], bool] | None = None
    ) -> Transition[S, E]:
        """The row that applies. ``holds`` answers for guards; without it, a guard is taken to hold.

        Raises IllegalTransition, and GuardRefused if no guard holds.
        """
        rows = self.candidates(state, event, actor)
        for row in rows:
            if not row.guard or holds is None or holds(row.guard):
                return row
        raise GuardRefused(self.name, event, tuple(row.guard for row in rows))

    def allowed(self, state: S | None, actor: Actor) -> frozenset[E]:
        """Events that an actor may cause in a state, guards aside: what a portal offers."""
        return frozenset(row.event for row in self.transitions if row.source == state and actor in row.actors)

    def permits(self, source: S | None, event: E, target: S) -> bool:
        """Whether some row leads from one to the other by this event: what a journal is judged by."""
        return any(row.target == target for row in self._rows.get((source, event), []))

    def markdown(self) -> str:
        """The table as Markdown, ending with a newline."""
        lines = ["| From | Event | By | If | To | Effects | Note |", "| --- | --- | --- | --- | --- | --- | --- |"]
        for row in self.transitions:
            by = ", ".join(actor.value for actor in Actor if actor in row.actors)
            cells = (row.source or "(none)", row.event, by, row.guard, row.target, ", ".join(row.effects), row.note)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        final = ", ".join(state for state in self.states if state in self.final)
        return "\n".join(lines) + f"\n\nFinal: {final or 'none'}.\n"

    def _faults(self) -> Iterable[str]:
        for row in self.transitions:
            if not row.actors:
                yield f"{row.source} {row.event} has no actor"
        for (source, event), rows in self._rows.items():
            for actor in Actor:
                mine = [row for row in rows if actor in row.actors]
                if any(not row.guard for row in mine[:-1]) or len({row.guard for row in mine}) < len(mine):
                    yield f"{source} {event} by {actor}: a row can never be chosen"
        reached: set[S | None] = {None}
        while grown := {row.target for row in self.transitions if row.source in reached} - reached:
            reached |= grown
        if lost := [state for state in self.states if state not in reached]:
            yield "cannot be reached: " + ", ".join(lost)
        if unused := set(self.events) - {row.event for row in self.transitions}:
            yield "in no row: " + ", ".join(sorted(unused))


Guard = Callable[[C], bool | Awaitable[bool]]
Effect = Callable[[C], Awaitable[None] | None]


class Rules(Generic[S, E, C]):
    """A machine with the code behind its names. ``C`` is what guards and effects are given: unit, row, request.

    Raises ValueError if a named guard or effect has no implementation, or an implementation is named nowhere.
    A guard answers whether it holds; it may also raise an error of its own that says more than its name.
    """

    def __init__(
        self, machine: Machine[S, E], *, guards: Mapping[str, Guard[C]], effects: Mapping[str, Effect[C]]
    ) -> None:
        self.machine = machine
        self._guards = dict(guards)
        self._effects = dict(effects)
        wrong = [
            f"{kind}s {', '.join(sorted(names))}"
            for kind, names in (
                ("guard", machine.guards ^ self._guards.keys()),
                ("effect", machine.effects ^ self._effects.keys()),
            )
            if names
        ]
        if wrong:
            raise ValueError(f"{machine.name}: without a counterpart: {'; '.join(wrong)}")

    async def choose(self, state: S | None, event: E, actor: Actor, context: C) -> Transition[S, E]:
        """The row that applies. Raises IllegalTransition, GuardRefused and what guards raise."""
        rows = self.machine.candidates(state, event, actor)
        for row in rows:
            if not row.guard or await _settled(self._guards[row.guard](context)):
                return row
        raise GuardRefused(self.machine.name, event, tuple(row.guard for row in rows))

    async def perform(self, transition: Transition[S, E], context: C) -> None:
        """Run the row's effects in order. Call it after the row was updated, in the same unit."""
        for effect in transition.effects:
            await _settled(self._effects[effect](context))


R = TypeVar("R")


async def _settled(result: R | Awaitable[R]) -> R:
    return await result if inspect.isawaitable(result) else result
