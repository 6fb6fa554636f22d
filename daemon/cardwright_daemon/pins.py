"""PIN and PUK on this workstation: what the card says of them, changing, unblocking with the PUK.

The order is always: look at the card, ask the person while no transaction is open, make sure that it is still the same
card, send. A wrong value is asked for again while the card leaves more than one try.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from cardwright_cardops.iso7816.status import VerificationFailed
from cardwright_cardops.piv import programs
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import KEEP_ONE, AlreadyBlocked, Custodian, LastTry, TriesGuard, reference_name
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.plan.inventory import SecretState
from cardwright_cardops.plan.observe import Look
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.program.items import Program
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import Connection

from .asking import while_in
from .cards import Card, Cards
from .operations import Kind, Operation, Operations
from .prompts import Prompter, StagePins, act_of, ask_current, ask_new

T = TypeVar("T")

_STATUS: Final = Look(slots=(), objects=(), thorough=True, stage="look")
_WRONG: Final = "It was wrong."


@dataclass(frozen=True, slots=True)
class PinStatus:
    """What the card says of its PIN and its PUK."""

    pin: SecretState
    puk: SecretState


class Pins:
    """The acts. Each is an operation on its card."""

    def __init__(self, cards: Cards, operations: Operations) -> None:
        self._cards = cards
        self._operations = operations

    async def status(self, card: Card) -> PinStatus:
        """Ask the card; no try is spent. Raises CardInOperation, TransportError, NotPivCard."""

        async def read(operation: Operation) -> PinStatus:
            return await card.worker.run(lambda: self._status(card, None))

        return await self._operations.run(Kind.READ, card, read)

    async def change(
        self, card: Card, prompter: Prompter, reference: PinReference, rules: PinRules, *, last_try: bool = False
    ) -> None:
        """The old value to a new one, both asked for.

        Raises CardInOperation, NoPin, LastTry, AlreadyBlocked, VerificationFailed, AnotherCard, TransportError and
        other StatusErrors.
        """
        act = f"change the {reference_name(reference)} of {card.name}"
        keep = 0 if last_try else KEEP_ONE

        async def work(operation: Operation) -> None:
            async with self._held(card) as held:
                error = ""
                while True:
                    pins = StagePins()
                    try:
                        with operation.prompting():
                            tries = await held.tries(reference, keep)
                            asked = ask_current(prompter, reference, act, tries, error=error)
                            old = pins.current = await while_in(card, asked)
                            new = pins.new = await while_in(card, ask_new(prompter, reference, act, rules, old))
                        program = _changing(held.marks, reference, old, new)
                        with operation.writing():
                            await held.run(program, pins, keep)
                        return
                    except VerificationFailed as wrong:
                        error = _again(wrong, keep)
                    finally:
                        pins.wipe()

        await self._operations.run(Kind.CHANGE_PIN, card, work)
        self._cards.forget(card)

    async def unblock(self, card: Card, prompter: Prompter, rules: PinRules, *, last_try: bool = False) -> None:
        """A new PIN with the PUK, both asked for. Raises as ``change``."""
        act = act_of(Kind.UNBLOCK_PIN, card.name)
        keep = 0 if last_try else KEEP_ONE

        async def work(operation: Operation) -> None:
            async with self._held(card) as held:
                error = ""
                while True:
                    pins = StagePins()
                    try:
                        with operation.prompting():
                            tries = await held.tries(PinReference.PUK, keep)
                            asked = ask_current(prompter, PinReference.PUK, act, tries, error=error)
                            puk = pins.current = await while_in(card, asked)
                            pins.new = await while_in(card, ask_new(prompter, PinReference.PIN, act, rules))
                        with operation.writing():
                            await held.run(programs.unblock_pin(held.marks, puk), pins, keep)
                        return
                    except VerificationFailed as wrong:
                        error = _again(wrong, keep)
                    finally:
                        pins.wipe()

        await self._operations.run(Kind.UNBLOCK_PIN, card, work)
        self._cards.forget(card)

    def _status(self, card: Card, connection: Connection | None) -> PinStatus:
        inventory = self._cards.look(card, _STATUS, connection)
        return PinStatus(inventory.pin, inventory.puk)

    @asynccontextmanager
    async def _held(self, card: Card) -> AsyncIterator[_Held]:
        """The card over one connection, which ends when the card leaves; so what is sent goes to this very card."""
        connection = await card.worker.run(lambda: self._cards.connect(card))
        try:
            marks = await card.worker.run(lambda: run(programs.read_marks("look"), _executor(connection, StagePins())))
            yield _Held(self, card, connection, marks)
        finally:
            await asyncio.shield(card.worker.run(connection.close))


class _Held:
    """A card that an act holds."""

    def __init__(self, pins: Pins, card: Card, connection: Connection, marks: programs.Marks) -> None:
        self._pins = pins
        self._card = card
        self._connection = connection
        self.marks = marks

    async def tries(self, reference: PinReference, keep: int) -> int | None:
        """Tries left, None where the card does not say. Raises LastTry, AlreadyBlocked before anybody is asked."""
        status = await self._card.worker.run(lambda: self._pins._status(self._card, self._connection))
        left = (status.puk if reference is PinReference.PUK else status.pin).tries_left
        if reference is PinReference.GLOBAL_PIN or left is None:
            return None
        if left == 0:
            raise AlreadyBlocked(reference)
        if left <= keep:
            raise LastTry(reference, left)
        return left

    async def run(self, program: Program[T], pins: Custodian, keep: int) -> T:
        """Run ``program`` on the card."""
        return await self._card.worker.run(lambda: run(program, _executor(self._connection, pins, keep)))


def _changing(marks: programs.Marks, reference: PinReference, old: Secret, new: Secret) -> Program[None]:
    if reference is PinReference.PUK:
        return programs.change_puk(marks, old, new)
    return programs.change_pin(marks, reference)


def _executor(connection: Connection, pins: Custodian, keep: int = KEEP_ONE) -> LocalExecutor:
    return LocalExecutor(connection, KeyItems(pins, TriesGuard(keep), local=True))


def _again(wrong: VerificationFailed, keep: int) -> str:
    """What is said before the value is asked for again. Raises ``wrong`` where it is not."""
    if wrong.tries_left is None or wrong.tries_left <= keep:
        raise wrong
    return _WRONG
