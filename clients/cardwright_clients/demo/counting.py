"""Counts that neither daemon nor server makes: at the card's contacts, and at the line between the two."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from cardwright_daemon.link.ports import CardProving, CardSession, Execute, Message, Opening
from cardwright_daemon.link.server import GrpcLink
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.around import Around

GENERATE = 0x47
"""INS of GENERATE ASYMMETRIC KEY PAIR."""


@dataclass
class Counts:
    """Since somebody set it to zero."""

    apdus: int = 0
    card_seconds: float = 0.0
    round_trips: int = 0

    def clear(self) -> None:
        """Begin anew."""
        self.apdus, self.card_seconds, self.round_trips = 0, 0.0, 0


@dataclass(eq=False)
class CountedCard(Around[VirtualCard]):
    """A card in a reader, with a clock beside it. ``pull_after``: it leaves after so many more keys were made."""

    counts: Counts = field(default_factory=Counts)
    pull_after: int | None = None
    pulled: Any = None
    """Called once when the card is to leave."""

    def transmit(self, command: bytes) -> bytes:
        """To the card and back."""
        begin = time.perf_counter()
        try:
            return self.inside.transmit(command)
        finally:
            self.counts.card_seconds += time.perf_counter() - begin
            self.counts.apdus += 1
            if self.pull_after is not None and command[1] == GENERATE:
                self.pull_after -= 1
                if self.pull_after <= 0:
                    self.pull_after = None
                    self.pulled()


class CountedLink(GrpcLink):
    """The way to the server; each session counts for the card that it is about, by its number."""

    def __init__(self, *arguments: Any, counts: dict[str, Counts], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._counts = counts

    async def prove_by_card(self, opening: Opening) -> CardProving:
        """See ``ServerLink``: the question, and what the signature is worth."""
        self._counts[opening.card.identity.serial or ""].round_trips += 2
        return await super().prove_by_card(opening)

    async def open(self, opening: Opening) -> CardSession:
        """See ``ServerLink``: the hello and its answer are the first round trip."""
        counts = self._counts[opening.card.identity.serial or ""]
        counts.round_trips += 1
        return _CountedSession(await super().open(opening), counts)


class _CountedSession:
    def __init__(self, inside: CardSession, counts: Counts) -> None:
        self._inside = inside
        self._counts = counts
        self.consent = inside.consent
        self.refuse = inside.refuse
        self.answer = inside.answer
        self.close = inside.close

    async def messages(self) -> AsyncIterator[Message]:
        async for message in self._inside.messages():
            if isinstance(message, Execute):
                # Its answers are on the way there before anything comes back.
                self._counts.round_trips += 1
            yield message
