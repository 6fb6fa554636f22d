"""Acts with a fresh PIN that are no rewriting of the card: keys from escrow as PFX, and signing in to a portal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from cardwright_cardops.iso7816.status import VerificationFailed
from cardwright_cardops.piv import programs
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import KEEP_ONE, TriesGuard
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.observe import Look
from cardwright_cardops.program.items import Item, Program, SignIn, VerifyPin, ask
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.transport.connection import Connection

from .cards import Card, Cards
from .errors import BadRequest
from .link.ports import Pfx, Purpose, ServerLink, SignInChallenge
from .operations import Kind, Operation, Operations
from .pins import while_in
from .prompts import Prompter, StagePins, ask_current
from .proving import Proofs

T = TypeVar("T")

MAX_AUDIENCE: Final = 200
_LOOK: Final = Look(slots=(Slot.AUTHENTICATION,), objects=(), thorough=True, stage="look")
_STAGE: Final = "act"


class KeyActs:
    """The acts. Each is an operation on its card, and asks for the PIN anew, naming the act."""

    def __init__(self, cards: Cards, operations: Operations, link: ServerLink, proofs: Proofs) -> None:
        self._cards = cards
        self._operations = operations
        self._link = link
        self._proofs = proofs

    async def pfx(self, card: Card, key: str, prompter: Prompter) -> bytes:
        """One key as PKCS #12; its password is shown to the person, and forgotten.

        Raises what ``ServerLink.pfx`` raises, NoPin, VerificationFailed, LastTry, AnotherCard, TransportError.
        """

        async def work(operation: Operation) -> Pfx:
            act = f"download a key with {card.name}"
            await self._with_pin(card, operation, prompter, act, lambda inventory: ())
            return await self._link.pfx(card.identity, key, self._proofs.of(card, Purpose.RECOVER))

        claimed = await self._operations.run(Kind.RECOVER, card, work)
        try:
            # It is shown once the file is safe here: a claim cannot be repeated.
            await prompter.tell(f"The password of the downloaded key is: {claimed.password.reveal().decode('ascii')}")
        finally:
            claimed.password.wipe()
        return claimed.content

    async def sign_in(self, card: Card, link: str, prompter: Prompter) -> str:
        """Sign in to the portal that waits for ``link``; the address to open in the browser. Raises as ``pfx``."""

        async def work(operation: Operation) -> str:
            challenge = await self._link.sign_in_challenge(link)
            audience = _shown(challenge)

            def items(inventory: Inventory) -> tuple[Item, ...]:
                key = inventory.key(Slot.AUTHENTICATION)
                if key is None or key.algorithm is None:
                    raise BadRequest("This card has no key to sign in with.", advice="Have the card issued first.")
                return (SignIn(key.algorithm, audience, challenge.nonce),)

            act = f"sign in to {audience} with {card.name}"
            token = await self._with_pin(card, operation, prompter, act, items)
            return await self._link.sign_in(link, token)

        return await self._operations.run(Kind.SIGN_IN, card, work)

    async def _with_pin(
        self,
        card: Card,
        operation: Operation,
        prompter: Prompter,
        act: str,
        items: Callable[[Inventory], tuple[Item, ...]],
    ) -> bytes:
        """Verify a PIN that is asked for now, then send ``items`` in the same transaction; the last one's data."""
        connection = await card.worker.run(lambda: self._cards.connect(card))
        try:
            inventory = await card.worker.run(lambda: self._cards.look(card, _LOOK, connection))
            marks = await card.worker.run(lambda: _run(connection, StagePins(), programs.read_marks("look")))
            wanted, error, tries = items(inventory), "", inventory.pin.tries_left
            while True:
                with operation.prompting():
                    asked = ask_current(prompter, PinReference.PIN, act, tries, error=error)
                    pins = StagePins(await while_in(card, asked))
                try:
                    with operation.writing():
                        return await card.worker.run(partial(_run, connection, pins, _verified(marks, wanted)))
                except VerificationFailed as wrong:
                    if wrong.tries_left is None or wrong.tries_left <= KEEP_ONE:
                        raise
                    error, tries = "It was wrong.", wrong.tries_left
                finally:
                    pins.wipe()
        finally:
            await asyncio.shield(card.worker.run(connection.close))


def _run(connection: Connection, pins: StagePins, program: Program[T]) -> T:
    return run(program, LocalExecutor(connection, KeyItems(pins, TriesGuard(KEEP_ONE), local=True)))


def _verified(marks: programs.Marks, items: tuple[Item, ...]) -> Program[bytes]:
    yield from programs.confirm(marks, _STAGE)
    answers = yield from ask(VerifyPin(), *items, stage=_STAGE, essential=True)
    answers[0].require("verifying the PIN")
    return answers[-1].require("signing in") if items else b""


def _shown(challenge: SignInChallenge) -> str:
    """The audience as it may stand in a prompt: an origin, nothing else. Raises BadRequest."""
    audience = challenge.audience
    host = audience.removeprefix("https://")
    plain = host and host.isascii() and all(letter.isalnum() or letter in ".-:" for letter in host)
    if not audience.startswith("https://") or not plain or len(audience) > MAX_AUDIENCE:
        raise BadRequest("The server named no origin to sign in to.")
    return audience
