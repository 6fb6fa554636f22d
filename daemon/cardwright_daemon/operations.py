"""Operations on cards: what is under way, how far it is, how it ended; one for each card at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Protocol, TypeVar
from uuid import uuid4

from cardwright_cardops.errors import CardwrightError

from .errors import CardInOperation, NoSuchOperation, OperationCancelled, OperationNotCancellable

T = TypeVar("T")

MOST_ENDED: Final = 200
"""Operations that are kept after their end."""


class Kind(Enum):
    """What an operation is for."""

    READ = "read"
    CHECK = "check"
    CHANGE_PIN = "change-pin"
    UNBLOCK_PIN = "unblock-pin"
    ISSUE = "issue"
    UPDATE = "update"
    UNLOCK = "unlock"
    FORGOTTEN_PIN = "forgotten-pin"
    RECOVER = "recover"
    SIGN_IN = "sign-in"
    RECYCLE = "recycle"
    LOCK = "lock"


class Phase(Enum):
    """Where an operation stands."""

    PREPARING = "preparing"
    PROMPTING = "prompting"
    """A person is asked for something."""
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset((Phase.DONE, Phase.FAILED, Phase.CANCELLED))


class Claimed(Protocol):
    """What an operation works on: one card, as it is in a reader now."""

    operation: str
    """Id of the operation that has it; "" when it is free."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def reader(self) -> str:
        """Name of the reader."""


@dataclass(eq=False)
class Operation:
    """One operation. ``step`` is the kind of the plan's step at work, ``outcome`` a word of ours when it is done.

    ``cancellable``: ending it now leaves the card as it was after the last finished step. ``unasked``: nobody began it;
    it is mandatory. ``continues``: it broke off, and another operation goes on by itself with what was agreed to.
    """

    kind: Kind
    card: str
    reader: str
    changed: Callable[[Operation], None] = field(repr=False)
    unasked: bool = False
    id: str = field(default_factory=lambda: uuid4().hex)
    phase: Phase = Phase.PREPARING
    percentage: int = 0
    step: str = ""
    outcome: str = ""
    cancellable: bool = True
    continues: bool = False
    error: CardwrightError | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    task: asyncio.Task[Any] | None = field(default=None, repr=False)

    @property
    def over(self) -> bool:
        """Whether it ended."""
        return self.phase in ENDED

    def show(self, **news: Any) -> None:
        """Change what is told of it, and tell."""
        for name, value in news.items():
            setattr(self, name, value)
        self.changed(self)

    @contextmanager
    def prompting(self) -> Iterator[None]:
        """A person is asked meanwhile; that can always be cancelled."""
        before, could = self.phase, self.cancellable
        self.show(phase=Phase.PROMPTING, cancellable=True)
        try:
            yield
        finally:
            self.show(phase=before, cancellable=could)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The card is changed meanwhile; that is not cancelled."""
        before, could = self.phase, self.cancellable
        self.show(phase=Phase.WORKING, cancellable=False)
        try:
            yield
        finally:
            self.show(phase=before, cancellable=could)


class Operations:
    """The registry. For one event loop. ``tell`` gets each operation whenever something of it changed."""

    def __init__(self, tell: Callable[[Operation], None]) -> None:
        self._tell = tell
        self._all: dict[str, Operation] = {}

    def start(
        self, kind: Kind, card: Claimed, work: Callable[[Operation], Awaitable[T]], *, unasked: bool = False
    ) -> Operation:
        """Begin ``work`` on ``card`` in a task of its own. Raises CardInOperation."""
        if card.operation:
            running = self._all[card.operation].kind.value
            raise CardInOperation(f"Another operation ({running}) works on the card in {card.reader}.")
        operation = Operation(kind, card.id, card.reader, self._tell, unasked)
        card.operation = operation.id
        self._all[operation.id] = operation
        self._tell(operation)
        operation.task = asyncio.create_task(self._run(operation, card, work), name=f"{kind.value}:{card.reader}")
        operation.task.add_done_callback(_seen)
        return operation

    async def run(
        self, kind: Kind, card: Claimed, work: Callable[[Operation], Awaitable[T]], *, unasked: bool = False
    ) -> T:
        """As ``start``, and wait for its result; errors pass through.

        When the caller is cancelled the operation is cancelled too, or goes on by itself where that is not safe.
        """
        operation = self.start(kind, card, work, unasked=unasked)
        assert operation.task is not None
        try:
            return await asyncio.shield(operation.task)
        except asyncio.CancelledError:
            if not operation.task.done() and operation.cancellable:
                operation.task.cancel()
            if operation.phase is Phase.CANCELLED and operation.error is not None:
                raise operation.error from None
            raise

    async def wait(self, identifier: str) -> Operation:
        """The operation, once it is over. Raises NoSuchOperation."""
        operation = self.get(identifier)
        if operation.task is not None:
            await asyncio.wait({operation.task})
        return operation

    def get(self, identifier: str) -> Operation:
        """One by its id. Raises NoSuchOperation."""
        found = self._all.get(identifier)
        if found is None:
            raise NoSuchOperation("There is no such operation.")
        return found

    @property
    def all(self) -> tuple[Operation, ...]:
        """Those that run and the last that ended, oldest first."""
        return tuple(self._all.values())

    def cancel(self, identifier: str) -> Operation:
        """End it where that is safe. Raises NoSuchOperation, OperationNotCancellable."""
        operation = self.get(identifier)
        if operation.over or not operation.cancellable or operation.task is None:
            what = "is over" if operation.over else "is writing to the card"
            raise OperationNotCancellable(f"The operation {what}.")
        operation.task.cancel()
        return operation

    async def stop(self) -> None:
        """Cancel what can be cancelled and wait for the rest, which ends at its next safe point."""
        tasks = [one.task for one in self._all.values() if one.task is not None and not one.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, operation: Operation, card: Claimed, work: Callable[[Operation], Awaitable[T]]) -> T:
        try:
            result = await work(operation)
        except asyncio.CancelledError:
            self._end(operation, card, Phase.CANCELLED, OperationCancelled("The operation was cancelled."))
            raise
        except CardwrightError as error:
            self._end(operation, card, Phase.FAILED, error)
            raise
        except BaseException as error:
            self._end(operation, card, Phase.FAILED, CardwrightError(f"An unforeseen {type(error).__name__}."))
            raise
        self._end(operation, card, Phase.DONE, None)
        return result

    def _end(self, operation: Operation, card: Claimed, phase: Phase, error: CardwrightError | None) -> None:
        card.operation = ""
        percentage = 100 if phase is Phase.DONE else operation.percentage
        now = datetime.now(UTC)
        operation.show(phase=phase, error=error, ended_at=now, cancellable=False, percentage=percentage)
        ended = [one.id for one in self._all.values() if one.over]
        for identifier in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self._all[identifier]


def _seen(task: asyncio.Task[Any]) -> None:
    """Somebody looked at the task's error: it is in the operation."""
    if not task.cancelled():
        task.exception()
