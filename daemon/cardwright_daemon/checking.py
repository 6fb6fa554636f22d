"""Conformance checks of cards that are in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.objects.certificate import readable
from cardwright_cardops.piv.pins import TriesGuard
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run

from .asking import while_in
from .cards import IDENTITY, Card, Cards
from .errors import BadRequest
from .operations import Kind, Operation, Operations
from .prompts import Prompter, StagePins, act_of, ask_current

if TYPE_CHECKING:
    from cardwright_cardops.check import CardData, Report


@dataclass(frozen=True, slots=True)
class Evidence:
    """Further certificates and revocation lists, all DER."""

    trust: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()


class Checks:
    """Reads a card and checks it. Each is an operation on its card."""

    def __init__(self, cards: Cards, operations: Operations) -> None:
        self._cards = cards
        self._operations = operations

    async def check(
        self, card: Card, *, level: str, at: datetime, evidence: Evidence, prompter: Prompter | None = None
    ) -> Report:
        """Check ``card`` at ``level``; with a prompter the PIN is asked for, and every key is tried.

        Raises CardInOperation, BadRequest, TransportError, StatusError, NoPin, LastTry, AnotherCard.
        """
        # What a check needs takes longer to import than the rest of the daemon.
        from cardwright_cardops.check import Level, check

        try:
            trust = [readable(der) for der in evidence.trust]
        except ValueError:
            raise BadRequest("One of the further certificates is none.") from None

        async def work(operation: Operation) -> CardData:
            return await self._read(card, operation, prompter)

        data = await self._operations.run(Kind.CHECK, card, work)
        return await asyncio.to_thread(check, data, level=Level(level), at=at, trust=trust, crls=evidence.crls)

    async def _read(self, card: Card, operation: Operation, prompter: Prompter | None) -> CardData:
        pins = StagePins()
        try:
            if prompter is not None:
                with operation.prompting():
                    asked = ask_current(prompter, PinReference.PIN, act_of(Kind.CHECK, card.name), None)
                    pins.current = await while_in(card, asked)
            return await card.worker.run(lambda: self._taken(card, pins, prompter is not None))
        finally:
            pins.wipe()

    def _taken(self, card: Card, pins: StagePins, with_pin: bool) -> CardData:
        from cardwright_cardops.check.live import read_card

        connection = self._cards.connect(card)
        try:
            self._cards.look(card, IDENTITY, connection)  # a PIN goes to this very card only
            executor = LocalExecutor(connection, KeyItems(pins, TriesGuard(), local=True))
            return run(read_card(with_pin=with_pin, name=card.name), executor)
        finally:
            connection.close()
