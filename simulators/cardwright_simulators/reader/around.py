"""A card around another card: what watches it, counts, or has something go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from .slot import Card

C = TypeVar("C", bound=Card)


@dataclass(eq=False)
class Around(Generic[C]):
    """For a reader it is the card ``inside``; a subclass says what is otherwise.

    The card may be exchanged while it is in a reader, which then notices nothing.
    """

    inside: C

    @property
    def atr(self) -> bytes:
        """The card's."""
        return self.inside.atr

    def transmit(self, command: bytes) -> bytes:
        """To the card and back."""
        return self.inside.transmit(command)

    def reset(self) -> object:
        """The card's."""
        return self.inside.reset()

    def power_on(self) -> object:
        """The card's."""
        return self.inside.power_on()

    def power_off(self) -> None:
        """The card's."""
        self.inside.power_off()
