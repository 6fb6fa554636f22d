"""The cards that are in: who each is, what is on it, and which operation has it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Final, TypeVar
from uuid import uuid4

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import NoPin
from cardwright_cardops.piv.programs import AnotherCard
from cardwright_cardops.plan.inventory import Identity, Inventory
from cardwright_cardops.plan.observe import EVERYTHING, Look, observe
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved as CardRemovedError
from cardwright_cardops.transport.connection import CardReset, Connection, TransportError
from cardwright_cardops.transport.trace import Trace, TracedConnection
from cardwright_cardops.transport.watcher import (
    CardInserted,
    CardRemoved,
    Event,
    ReaderAdded,
    ReaderRemoved,
    ServiceBack,
    ServiceLost,
)

from .errors import NoSuchCard
from .operations import Kind, Operation, Operations
from .readers import ReaderSource
from .worker import ReaderWorker

T = TypeVar("T")

_log = logging.getLogger(__name__)

# One transaction for the whole look: another program that selects or resets in between would change the answers.
_STAGE: Final = "look"
IDENTITY: Final = Look(slots=(), objects=(), stage=_STAGE)
WHOLE: Final = replace(EVERYTHING, stage=_STAGE)
RESETS: Final = 3
"""How often a look is begun anew because another program reset the card."""
MOST_TRACED: Final = 1024
AGAIN: Final = (0.5, 2.0, 5.0, 15.0, 60.0)
"""Seconds after which a card that could not be reached is tried again."""


class CardState(Enum):
    """How well a card is known."""

    READING = "reading"
    READY = "ready"
    UNREADABLE = "unreadable"
    """It does not answer, is no PIV card, or another program keeps it; ``problem`` says which."""


@dataclass(eq=False)
class Card:
    """One card from its insertion to its removal; the same card has another ``id`` next time."""

    reader: str
    atr: bytes
    source: ReaderSource = field(repr=False)
    worker: ReaderWorker = field(repr=False)
    id: str = field(default_factory=lambda: uuid4().hex)
    state: CardState = CardState.READING
    identity: Identity = field(default_factory=Identity)
    problem: CardwrightError | None = None
    inventory: Inventory | None = field(default=None, repr=False)
    observed_at: datetime | None = None
    inserted_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    operation: str = ""
    trace: Trace = field(default_factory=lambda: Trace(MOST_TRACED, 1 << 20, names=False), repr=False)
    met: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """It was looked at once, or left before that."""
    gone: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def name(self) -> str:
        """What to call it in a sentence of ours."""
        if self.identity.serial:
            return f"card {self.identity.serial}"
        return f"card {self.identity.guid}" if self.identity.guid else f"the card in {self.reader}"

    async def left(self) -> CardwrightError:
        """Wait until it is taken out; the error that whoever waits for its person ends with."""
        await self.gone.wait()
        message = f"The card left {self.reader} while the PIN was asked for."
        return CardRemovedError(message, reader=self.reader, sent=False)


@dataclass(eq=False)
class Reader:
    """A reader, with the card in it."""

    name: str
    source: ReaderSource = field(repr=False)
    worker: ReaderWorker = field(repr=False)
    card: Card | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What happened: to a reader (``present``), a card (``present``), or the smart card service (``service``)."""

    reader: Reader | None = None
    card: Card | None = None
    present: bool = True
    service: CardwrightError | None = None


class Cards:
    """All readers and cards. For one event loop.

    ``tell`` gets a subject and what happened to it; ``inserted`` and ``removed`` are called for each card, the first
    once it is known who it is.
    """

    def __init__(self, operations: Operations, tell: Callable[[tuple[str, str], Change], None]) -> None:
        self._operations = operations
        self._tell = tell
        self._readers: dict[str, Reader] = {}
        self._sources: Sequence[ReaderSource] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self.service: CardwrightError | None = None
        """Why the smart card service cannot be used, None while it can."""
        self.inserted: list[Callable[[Card], None]] = []
        self.removed: list[Callable[[Card], None]] = []

    def start(self, sources: Sequence[ReaderSource]) -> None:
        """Begin to watch ``sources``."""
        loop = asyncio.get_running_loop()
        self._sources = sources
        for source in sources:
            source.start(partial(self._later, loop, source))

    def _later(self, loop: asyncio.AbstractEventLoop, source: ReaderSource, event: Event) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._happened, source, event)

    async def stop(self) -> None:
        """Watch no more and let every card go."""
        self._stopped = True
        for source in self._sources:
            await asyncio.to_thread(source.stop)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for reader in self._readers.values():
            reader.worker.stop()

    @property
    def readers(self) -> tuple[Reader, ...]:
        """All readers, in the order in which they came."""
        return tuple(self._readers.values())

    @property
    def all(self) -> tuple[Card, ...]:
        """All cards that are in."""
        return tuple(reader.card for reader in self._readers.values() if reader.card is not None)

    def get(self, identifier: str) -> Card:
        """The card with this id. Raises NoSuchCard."""
        for card in self.all:
            if card.id == identifier:
                return card
        raise NoSuchCard("This card is not in any reader.")

    async def inventory(self, card: Card, *, refresh: bool = False) -> Inventory:
        """What is on the card: as it was last read, or read again.

        Raises CardInOperation, TransportError, NotPivCard, NoSuchCard.
        """
        if card.inventory is None or refresh:

            async def read(operation: Operation) -> Inventory:
                return await card.worker.run(lambda: self.look(card, WHOLE))

            inventory = await self._operations.run(Kind.READ, card, read)
            card.inventory, card.observed_at = inventory, datetime.now(UTC)
            if card.state is not CardState.READY:
                self._met(card, inventory)
            return inventory
        return card.inventory

    def forget(self, card: Card) -> None:
        """What was read of ``card`` need not be true any more."""
        card.inventory = None

    async def renew(self, card: Card) -> None:
        """Read who ``card`` is anew, after an operation of ours that may have changed that. Raises as ``look``."""

        def read() -> Inventory:
            card.state = CardState.READING
            return self.look(card, IDENTITY)

        self._know(card, await card.worker.run(read))
        self._tell(("card", card.id), Change(card=card))

    def connect(self, card: Card) -> Connection:
        """A connection to ``card``, with a trace. Blocks: for the card's worker. Raises TransportError, NoSuchCard."""
        self._require_in(card)
        return TracedConnection(card.source.connect(card.reader), card.trace)

    def look(self, card: Card, what: Look, connection: Connection | None = None) -> Inventory:
        """Read ``card``. Blocks. Begun anew when another program reset the card meanwhile.

        Raises TransportError, NotPivCard, NoSuchCard, and AnotherCard where it is not the one that it was.
        """
        for attempt in range(RESETS):
            own = self.connect(card) if connection is None else connection
            try:
                inventory = run(observe(what), LocalExecutor(own, KeyItems(_NoPins())))
                break
            except CardReset:
                _log.info("another program reset the card in a reader, attempt %d", attempt + 1)
                if connection is not None or attempt + 1 == RESETS:
                    raise
            finally:
                if connection is None:
                    own.close()
        require_same(card, inventory.identity)
        return inventory

    def _require_in(self, card: Card) -> None:
        if card.gone.is_set():
            raise NoSuchCard("The card was taken out.")

    # -------------------------------------------------------------------------------------------------- events

    def _happened(self, source: ReaderSource, event: Event) -> None:
        if self._stopped:
            return
        match event:
            case ReaderAdded(reader=name):
                self._added(name, source)
            case ReaderRemoved(reader=name):
                self._taken_out(name)
                reader = self._readers.pop(name, None)
                if reader is not None:
                    reader.worker.stop()
                    self._tell(("reader", name), Change(reader, present=False))
            case CardInserted(reader=name, atr=atr):
                self._put_in(self._added(name, source), atr)
            case CardRemoved(reader=name):
                self._taken_out(name)
            case ServiceLost(error=error):
                self.service = error
                self._tell(("service", ""), Change(service=error, present=False))
            case ServiceBack():
                self.service = None
                self._tell(("service", ""), Change())

    def _added(self, name: str, source: ReaderSource) -> Reader:
        reader = self._readers.get(name)
        if reader is None:
            reader = self._readers[name] = Reader(name, source, ReaderWorker(name))
            self._tell(("reader", name), Change(reader))
        return reader

    def _put_in(self, reader: Reader, atr: bytes) -> None:
        self._taken_out(reader.name)
        card = reader.card = Card(reader.name, atr, reader.source, reader.worker)
        self._tell(("card", card.id), Change(card=card))
        task = asyncio.create_task(self._meet(card), name=f"meet:{reader.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _taken_out(self, name: str) -> None:
        reader = self._readers.get(name)
        if reader is None or reader.card is None:
            return
        card, reader.card = reader.card, None
        card.gone.set()
        card.met.set()
        self._tell(("card", card.id), Change(card=card, present=False))
        for listener in self.removed:
            listener(card)

    async def _meet(self, card: Card) -> None:
        """Find out who it is. Where another program, or a bad contact, is in the way, it is tried again later."""
        for seconds in AGAIN:
            try:
                inventory = await card.worker.run(lambda: self.look(card, IDENTITY))
            except CardwrightError as error:
                if card.gone.is_set() or card.state is CardState.READY:
                    return
                card.problem, card.state = error, CardState.UNREADABLE
                card.met.set()
                self._tell(("card", card.id), Change(card=card))
                if not isinstance(error, TransportError):
                    return
            else:
                if card.state is not CardState.READY:
                    self._met(card, inventory)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await card.gone.wait()
            if card.gone.is_set() or card.operation:
                return

    def _met(self, card: Card, inventory: Inventory) -> None:
        """It is known who the card is."""
        self._know(card, inventory)
        if card.gone.is_set():
            return
        self._tell(("card", card.id), Change(card=card))
        for listener in self.inserted:
            listener(card)

    def _know(self, card: Card, inventory: Inventory) -> None:
        card.identity, card.state, card.problem = inventory.identity, CardState.READY, None
        card.met.set()


def require_same(card: Card, identity: Identity) -> None:
    """Raise AnotherCard where ``identity`` is not that of ``card``, once that is known."""
    if card.state is CardState.READY and (card.identity.serial, card.identity.guid) != (identity.serial, identity.guid):
        raise AnotherCard("The card in the reader is not the one that was chosen.")


class _NoPins:
    """The custodian of what needs no PIN."""

    def current_pin(self, reference: int, tries: int | None) -> Secret:
        """Refused."""
        raise NoPin("Reading a card asks for no PIN.")

    def new_pin(self, reference: int) -> Secret:
        """Refused."""
        raise NoPin("Reading a card sets no PIN.")
