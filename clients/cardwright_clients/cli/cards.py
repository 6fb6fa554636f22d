"""The cards that a command works on: one small protocol, today over PC/SC itself, later through the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import Custodian, NoPin, TriesGuard, reference_name
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.observe import Look, observe
from cardwright_cardops.program.items import Program
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import Executor, run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import Connection, TransportError
from cardwright_cardops.transport.trace import Trace, TracedConnection

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class CardNotFound(CardwrightError):
    """No card, or none that fits the choice."""

    code = "CARD_NOT_FOUND"
    default_effect = "Nothing was changed on any card."
    default_advice = "Put the card in; 'cardwright card list' shows what is there."


class CardAmbiguous(CardwrightError):
    """Several cards and no choice."""

    code = "CARD_AMBIGUOUS"
    default_effect = "Nothing was changed on any card."
    default_advice = "Choose one with --serial, --guid or --reader."


class NoPins:
    """The custodian of commands that need no PIN."""

    def current_pin(self, reference: int, tries: int | None) -> Secret:
        """Refused."""
        raise NoPin(f"This command does not ask for the {reference_name(reference)}.")

    def new_pin(self, reference: int) -> Secret:
        """Refused."""
        raise NoPin(f"This command sets no {reference_name(reference)}.")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which card: serial number, GUID, or a part of the reader's name. All None: the only one there is."""

    serial: str | None = None
    guid: UUID | None = None
    reader: str | None = None

    def fits(self, summary: CardSummary) -> bool:
        """Whether ``summary`` is what was asked for."""
        identity = summary.identity
        return (
            (self.serial is None or identity.serial == self.serial)
            and (self.guid is None or identity.guid == self.guid)
            and (self.reader is None or self.reader.lower() in summary.reader.lower())
        )


@dataclass(frozen=True, slots=True)
class ReaderSummary:
    """A reader: ``atr`` is empty without a card."""

    name: str
    atr: bytes
    mute: bool = False


UNKNOWN = Identity()


@dataclass(frozen=True, slots=True)
class CardSummary:
    """A card in a reader, or why it could not be looked at."""

    reader: str
    atr: bytes
    identity: Identity = UNKNOWN
    problem: CardwrightError | None = None

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        if self.identity.serial:
            return f"card {self.identity.serial}"
        return f"card {self.identity.guid}" if self.identity.guid else f"the card in {self.reader}"


class OpenCard(Protocol):
    """One card, held as long as the command runs."""

    @property
    def summary(self) -> CardSummary:
        """Who it is."""

    def run(self, program: Program[T], pins: Custodian | None = None, *, keep_tries: int = 1) -> T:
        """Run a program on the card. Raises what the program raises."""

    def executor(self, pins: Custodian, *, keep_tries: int = 1) -> Executor:
        """An executing end for more than one program. Its stage ends with the program that opened it."""


class Cards(Protocol):
    """All cards that can be reached."""

    def readers(self) -> tuple[ReaderSummary, ...]:
        """The readers. Raises PcscNotRunning, PcscAccessDenied."""

    def cards(self) -> tuple[CardSummary, ...]:
        """The cards, each looked at. Raises as ``readers`` does."""

    def open(self, choice: Choice, trace: Trace | None = None) -> AbstractContextManager[OpenCard]:
        """The card that ``choice`` names; ``trace`` keeps the redacted record of what goes to it.

        Raises CardNotFound, CardAmbiguous, TransportError.
        """


class DirectCard:
    """A card through a Connection of our own."""

    def __init__(self, connection: Connection, summary: CardSummary) -> None:
        self._connection = connection
        self._summary = summary

    @property
    def summary(self) -> CardSummary:
        """Who it is."""
        return self._summary

    def run(self, program: Program[T], pins: Custodian | None = None, *, keep_tries: int = 1) -> T:
        """Run a program on the card."""
        return run(program, self.executor(pins or NoPins(), keep_tries=keep_tries))

    def executor(self, pins: Custodian, *, keep_tries: int = 1) -> Executor:
        """An executing end for more than one program."""
        return LocalExecutor(self._connection, KeyItems(pins, TriesGuard(keep_tries), local=True))


IDENTITY = Look(slots=(), objects=())


class DirectCards:
    """Cards over connections that ``connect`` makes; over PC/SC unless told otherwise."""

    def __init__(
        self,
        list_readers: Callable[[], tuple[ReaderSummary, ...]] | None = None,
        connect: Callable[[str], Connection] | None = None,
    ) -> None:
        self._list = list_readers or _pcsc_readers
        self._connect = connect or _pcsc_connect

    def readers(self) -> tuple[ReaderSummary, ...]:
        """The readers."""
        return self._list()

    def cards(self) -> tuple[CardSummary, ...]:
        """The cards, each looked at."""
        with ExitStack() as held:
            return tuple(summary for summary, _ in self._look_at_all(held))

    def _present(self) -> list[ReaderSummary]:
        return [reader for reader in self._list() if reader.atr or reader.mute]

    def _look_at_all(self, held: ExitStack) -> list[tuple[CardSummary, Connection | None]]:
        """Every card, with the connection over which it was looked at; ``held`` closes them."""
        return [self._look(reader, held) for reader in self._present()]

    def _look(self, reader: ReaderSummary, held: ExitStack) -> tuple[CardSummary, Connection | None]:
        try:
            connection = self._connect(reader.name)
        except TransportError as error:
            return CardSummary(reader.name, reader.atr, problem=error), None
        held.callback(connection.close)
        try:
            inventory = DirectCard(connection, CardSummary(reader.name, reader.atr)).run(observe(IDENTITY))
        except CardwrightError as error:
            return CardSummary(reader.name, reader.atr, problem=error), connection
        return CardSummary(reader.name, reader.atr, inventory.identity), connection

    @contextmanager
    def open(self, choice: Choice, trace: Trace | None = None) -> Iterator[OpenCard]:
        """The card that ``choice`` names, over the very connection by which it was recognised.

        A connection ends when its card leaves, so another card put in meanwhile is never taken for the chosen one. The
        only card there is needs no look first.
        """
        with ExitStack() as held:
            present = self._present()
            if len(present) == 1 and choice == Choice():
                summary, connection = CardSummary(present[0].name, present[0].atr), self._connect(present[0].name)
                held.callback(connection.close)
            else:
                looked = [self._look(reader, held) for reader in present]
                summary = choose(tuple(one for one, _ in looked), choice)
                if summary.problem is not None:
                    raise summary.problem
                connection = _only(summary, looked)
            yield DirectCard(TracedConnection(connection, trace) if trace is not None else connection, summary)


def _only(chosen: CardSummary, looked: list[tuple[CardSummary, Connection | None]]) -> Connection:
    """The connection of the chosen card; the others are let go. Raises CardNotFound."""
    found: Connection | None = None
    for summary, connection in looked:
        if summary is chosen:
            found = connection
        elif connection is not None:
            connection.close()
    if found is None:
        raise CardNotFound("The chosen card cannot be reached any more.")
    return found


def choose(cards: tuple[CardSummary, ...], choice: Choice) -> CardSummary:
    """The one card that fits. Raises CardNotFound, CardAmbiguous; the latter lists them."""
    fitting = [card for card in cards if choice.fits(card)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        if cards and choice != Choice():
            raise CardNotFound(
                "None of the cards that are in is the one you chose." + _listed(cards),
                effect="The cards were looked at; nothing was changed on any.",
                advice="Put the chosen card in, or choose one of these with --serial, --guid or --reader.",
            )
        raise CardNotFound("There is no card in any reader.", effect="Nothing was sent to any card.")
    raise CardAmbiguous(f"There are {len(fitting)} cards, and none was chosen." + _listed(tuple(fitting)))


def _listed(cards: tuple[CardSummary, ...]) -> str:
    rows = []
    for card in cards:
        who = card.problem.message if card.problem else f"serial {card.identity.serial or '-'}, "
        who += "" if card.problem else f"GUID {card.identity.guid or '-'}"
        rows.append(f"\n  {card.reader}: {who}")
    return "".join(rows)


def _pcsc_readers() -> tuple[ReaderSummary, ...]:
    from cardwright_cardops.transport import pcsc

    return tuple(ReaderSummary(row.reader, row.atr, row.present and not row.atr) for row in pcsc.readers())


def _pcsc_connect(reader: str) -> Connection:
    from cardwright_cardops.transport import pcsc

    return pcsc.connect(reader)


def card_options(function: F) -> F:
    """The options that choose a card, as one argument ``choice``."""

    @click.option("--serial", help="The card with this serial number.")
    @click.option("--guid", type=click.UUID, help="The card with this GUID.")
    @click.option("--reader", help="The card in the reader whose name contains this.")
    def wrapped(serial: str | None, guid: UUID | None, reader: str | None, **arguments: Any) -> Any:
        return function(choice=Choice(serial, guid, reader), **arguments)

    wrapped.__name__ = function.__name__
    wrapped.__doc__ = function.__doc__
    wrapped.__dict__.setdefault("__click_params__", []).extend(getattr(function, "__click_params__", []))
    return cast(F, wrapped)


def the_cards() -> Cards:
    """The cards of this run: those handed to ``main``, else all that PC/SC shows."""
    given = click.get_current_context().obj
    return cast(Cards, given) if given is not None else DirectCards()
