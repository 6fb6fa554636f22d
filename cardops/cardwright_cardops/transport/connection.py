"""The one protocol between a card and everything above it, and the errors of the way to the card."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from ..errors import CardwrightError

T = TypeVar("T")


class Interface(Enum):
    """How the card is coupled to the reader (SP 800-73-5 treats the two differently)."""

    CONTACT = "contact"
    CONTACTLESS = "contactless"


class Transmission(Enum):
    """Transmission protocol of ISO 7816-3."""

    T0 = "T=0"
    T1 = "T=1"


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of a connection without asking the card."""

    reader: str
    atr: bytes
    transmission: Transmission = Transmission.T1
    interface: Interface = Interface.CONTACT


class Connection(Protocol):
    """A card that takes one APDU and gives one answer. Not safe for two threads at once."""

    @property
    def link(self) -> Link:
        """Reader, ATR, protocol."""

    def transmit(self, command: bytes) -> bytes:
        """One command APDU to the card, its response APDU back.

        Raises TransportError; its ``sent`` says whether the card can have seen the command.
        """

    def perform(self, work: Callable[[], T]) -> T:
        """Do ``work``, a sequence of ``transmit``, where it is cheapest, and return its value.

        Raises what ``work`` raises, and DeadlinePassed while ``work`` still hangs: what it found out so far has
        to be kept where the caller can see it.
        """

    def transaction(self) -> AbstractContextManager[None]:
        """Nobody else reaches the card inside. Not re-entrant.

        Raises TransportError on entry. Leaving never raises: a transaction that cannot be ended is over.
        """

    def reset(self) -> None:
        """Reset the card (warm), dropping every security status. Raises TransportError."""

    def close(self) -> None:
        """Let the card go as it is (LEAVE). Never raises; further calls do nothing."""


class TransportError(CardwrightError):
    """The way to the card failed. ``sent`` is False only when the card surely saw nothing of the command."""

    code = "TRANSPORT"
    default_advice = "Take the card out, put it back and try again."

    def __init__(
        self,
        message: str,
        *,
        reader: str = "",
        sent: bool = True,
        effect: str | None = None,
        advice: str | None = None,
    ) -> None:
        if effect is None and not self.default_effect:
            effect = (
                "Whether the card carried out the last command is not known."
                if sent
                else "The card was not changed by this command."
            )
        super().__init__(message, effect=effect, advice=advice)
        self.reader = reader
        self.sent = sent


class CardRemoved(TransportError):
    """The card left the reader."""

    code = "CARD_REMOVED"
    default_advice = "Put the card back and start again: what was finished is not repeated."


class CardReset(TransportError):
    """Somebody reset the card: every security status and selection is gone."""

    code = "CARD_RESET"
    default_advice = "Start again; another program is using the same card."


class CardUnresponsive(TransportError):
    """The card does not answer at all, or not within the command's deadline."""

    code = "CARD_UNRESPONSIVE"


class ReaderGone(TransportError):
    """The reader was unplugged or failed."""

    code = "READER_GONE"
    default_advice = "Plug the reader in again and start again."


class CardBusy(TransportError):
    """Another program holds the card. ``holders`` names processes where that can be known."""

    code = "CARD_BUSY"
    default_advice = "Close the other program and try again."

    def __init__(
        self, message: str, *, reader: str = "", holders: tuple[str, ...] = (), sent: bool = False
    ) -> None:
        if holders:
            message = f"{message} It is probably held by {', '.join(holders)}."
        super().__init__(message, reader=reader, sent=sent)
        self.holders = holders
