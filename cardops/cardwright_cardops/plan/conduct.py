"""Executions: generators that yield card batches, questions, journal entries and progress, and what drives them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from ..program.items import AnyBatch, Batch, SealedBatch
from ..program.runner import Executor, Relay, drive, drive_async
from .authority import Authority, Question, RemoteAuthority, Reply
from .inventory import Identity
from .records import Entry, Journal
from .steps import Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """Questions to the authority; the execution is sent a tuple of replies."""

    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Entries that must be kept before the execution goes on; it is sent None."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """What earlier sessions recorded of the card that is here; the execution is sent a tuple of entries."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Tell:
    """Progress: ``step`` begins (``done`` False) or is done; the execution is sent None."""

    step: Step
    done: bool


Effect: TypeAlias = AnyBatch | Ask | Note | Recall | Tell
Execution: TypeAlias = Generator[Effect, Any, T]
Progress: TypeAlias = Callable[[Step, bool], None]


class RemoteJournal(Protocol):
    """A journal behind an await: a database."""

    async def recall(self, identity: Identity) -> tuple[Entry, ...]:
        """As ``Journal.recall``."""

    async def note(self, entries: tuple[Entry, ...]) -> None:
        """As ``Journal.note``."""


def conduct(
    execution: Execution[T],
    executor: Executor,
    authority: Authority,
    journal: Journal,
    progress: Progress | None = None,
) -> T:
    """Drive ``execution`` to its end and return its value; its errors pass through. Ends the stage either way."""

    def serve(effect: Effect) -> Any:
        match effect:
            case Batch() | SealedBatch():
                return executor.execute(effect)
            case Ask():
                return authority.answer(effect.questions)
            case Note():
                return journal.note(effect.entries)
            case Recall():
                return journal.recall(effect.identity)
            case Tell():
                return progress(effect.step, effect.done) if progress is not None else None

    try:
        return drive(execution, serve)
    finally:
        executor.end_stage()


async def conduct_async(
    execution: Execution[T],
    relay: Relay,
    authority: RemoteAuthority,
    journal: RemoteJournal,
    progress: Progress | None = None,
) -> T:
    """As ``conduct``, over a line."""

    async def serve(effect: Effect) -> Any:
        match effect:
            case Batch() | SealedBatch():
                return await relay.execute(effect)
            case Ask():
                return await authority.answer(effect.questions)
            case Note():
                return await journal.note(effect.entries)
            case Recall():
                return await journal.recall(effect.identity)
            case Tell():
                return progress(effect.step, effect.done) if progress is not None else None

    try:
        return await drive_async(execution, serve)
    finally:
        await relay.end_stage()


def asking(*questions: Question) -> Execution[tuple[Reply, ...]]:
    """Yield one Ask and return its replies; none are asked for nothing."""
    if not questions:
        return ()
    replies: tuple[Reply, ...] = yield Ask(questions)
    return replies
