"""What a reader needs of a card, and a reader with one slot inside this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from cardwright_cardops.transport.connection import CardRemoved, CardReset, Interface
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_cardops.transport.pcsc_errors import NoCard


class Card(Protocol):
    """A card as a reader sees it."""

    @property
    def atr(self) -> bytes:
        """The answer to reset, at most 33 octets."""

    def transmit(self, command: bytes) -> bytes:
        """One command APDU in, one response APDU out.

        May raise TransportError to say that the command or its answer never arrived: CardRemoved leaves
        the slot empty, any other loses the contact for a moment.
        """

    def reset(self) -> object:
        """Warm reset: every selection and security status is gone."""

    def power_on(self) -> object:
        """Cold reset."""

    def power_off(self) -> None:
        """The supply is gone; what is not in persistent memory is lost."""


class SlotReader:
    """A reader in this process. Cards come and go while connections are open, as under PC/SC.

    Several connections may be open to one card; a transaction of one keeps the others waiting, a reset
    by one is CardReset for the others until they reconnect. Safe for several threads.
    """

    def __init__(self, name: str = "Virtual reader 00", interface: Interface = Interface.CONTACT) -> None:
        self.name = name
        self.interface = interface
        self._card: Card | None = None
        self._insertions = 0
        self._resets = 0
        self._lock = threading.RLock()  # a transaction
        self._wire = threading.RLock()  # one command

    @property
    def card(self) -> Card | None:
        """The card in the slot."""
        return self._card

    def insert(self, card: Card) -> None:
        """Put ``card`` into the empty slot and power it. Raises ValueError when there is a card."""
        with self._wire:
            if self._card is not None:
                raise ValueError(f"there is a card in {self.name}")
            card.power_on()
            self._insertions += 1
            self._card = card

    def remove(self) -> Card:
        """Pull the card between two commands, whoever uses it. Raises ValueError when the slot is empty."""
        with self._wire:
            card, self._card = self._card, None
            if card is None:
                raise ValueError(f"there is no card in {self.name}")
            card.power_off()
        return card

    def connect(self) -> DirectConnection:
        """A connection to the card in the slot. Raises NoCard."""
        card = self._card
        if card is None:
            raise NoCard(f"There is no card in {self.name}.", reader=self.name)
        return DirectConnection(_Contact(self, card), reader=self.name, interface=self.interface)


class _Contact:
    """One connection's view of the slot: the card it met, and whether somebody reset it since."""

    __slots__ = ("_card", "_insertion", "_resets", "_slot")

    def __init__(self, slot: SlotReader, card: Card) -> None:
        self._slot = slot
        self._card = card
        self._insertion = slot._insertions
        self._resets = slot._resets

    @property
    def atr(self) -> bytes:
        return self._card.atr

    def transmit(self, command: bytes) -> bytes:
        slot = self._slot
        with slot._lock, slot._wire:
            self._check()
            try:
                return self._card.transmit(command)
            except CardRemoved:
                if slot._card is self._card:
                    slot.remove()
                raise

    def reset(self) -> None:
        with self._slot._lock, self._slot._wire:
            self._present()
            self._card.reset()
            self._slot._resets += 1
            self._resets = self._slot._resets

    def reconnect(self) -> None:
        with self._slot._lock, self._slot._wire:
            self._present()
            self._resets = self._slot._resets

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._slot._lock:
            self.reconnect()
            yield

    def _present(self) -> None:
        slot = self._slot
        if slot._card is not self._card or slot._insertions != self._insertion:
            raise CardRemoved(f"The card left {slot.name}.", reader=slot.name, sent=False)

    def _check(self) -> None:
        self._present()
        if self._resets != self._slot._resets:
            raise CardReset(f"Another program reset the card in {self._slot.name}.", reader=self._slot.name, sent=False)
