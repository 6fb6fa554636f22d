"""Acts with a fresh PIN that are no rewriting of the card: keys from escrow as PFX, and signing in to a portal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
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
from cardwright_cardops.wire_reading import MAX_MESSAGE

from .asking import while_in
from .cards import Card, Cards
from .errors import BadRequest
from .link.ports import Opening, Pfx, Proof, Purpose, ServerLink, SignInChallenge
from .operations import Kind, Operation, Operations
from .prompts import Prompter, StagePins, ask_current
from .proving import KIND_OF, Proofs
from .tokens import Device, TokenDevice

T = TypeVar("T")

MAX_AUDIENCE: Final = 200
_LOOK: Final = Look(
    slots=(Slot.AUTHENTICATION, Slot.CARD_AUTHENTICATION), objects=(), thorough=True, stage="look"
)
_STAGE: Final = "act"
_ITEMS: Final = ("apdu", "verify_pin", "sign_in")
"""What a proof is made of, as the contract names it."""


class KeyActs:
    """The acts. Each is an operation on its card, and asks for the PIN anew, naming the act."""

    def __init__(
        self, cards: Cards, operations: Operations, link: ServerLink, proofs: Proofs, *, software: Callable[[], str]
    ) -> None:
        self._software = software
        self._cards = cards
        self._operations = operations
        self._link = link
        self._proofs = proofs

    async def prove(self, card: Device, purpose: Purpose, prompter: Prompter) -> datetime:
        """Prove to the server, for what comes next, that the holder is here; until when it holds. Raises as ``pfx``."""
        act = f"prove to the server who you are, with {card.name}"

        async def work(operation: Operation) -> Proof:
            return await self._proved(card, operation, prompter, act)

        return self._proofs.keep(card, purpose, await self._operations.run(KIND_OF[Purpose.PROVE], card, work))

    async def pfx(self, card: Device, key: str, prompter: Prompter) -> bytes:
        """One key as PKCS #12; its password is shown to the person, and forgotten.

        Raises what ``ServerLink.pfx`` raises, NoPin, VerificationFailed, LastTry, AnotherCard, TransportError.
        """

        async def work(operation: Operation) -> Pfx:
            proof = await self._proved(card, operation, prompter, f"download a key with {card.name}")
            try:
                return await self._link.pfx(card.identity, key, proof)
            finally:
                proof.token.wipe()

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
            act = f"sign in to {_shown(challenge)} with {card.name}"
            async with self._opened(card) as opened:
                token = await self._signed(card, opened, operation, prompter, act, challenge)
            return await self._link.sign_in(link, token)

        return await self._operations.run(Kind.SIGN_IN, card, work)

    async def _proved(self, card: Device, operation: Operation, prompter: Prompter, act: str) -> Proof:
        """What the server gives for a signature of the card, behind a PIN that is asked for now."""
        if isinstance(card, TokenDevice):
            return await self._proved_by_token(card, operation, prompter, act)
        async with self._opened(card) as opened:
            opening = Opening(Purpose.PROVE, opened[1], card.reader, self._software(), (), _ITEMS, MAX_MESSAGE)
            proving = await self._link.prove_by_card(opening)
            try:
                token = await self._signed(card, opened, operation, prompter, act, proving.challenge)
                return await proving.finish(token)
            finally:
                await asyncio.shield(proving.close())

    async def _proved_by_token(
        self, device: TokenDevice, operation: Operation, prompter: Prompter, act: str
    ) -> Proof:
        from .token_relay import look_at, signed_in  # takes long to load, with the guard

        features, inventory = await look_at(device)
        software = self._software()
        opening = Opening(
            Purpose.PROVE, inventory, device.reader, software, (), _ITEMS, MAX_MESSAGE, token=features
        )
        proving = await self._link.prove_by_card(opening)
        try:
            return await proving.finish(await signed_in(device, operation, prompter, act, proving.challenge))
        finally:
            await asyncio.shield(proving.close())

    @asynccontextmanager
    async def _opened(self, card: Card) -> AsyncIterator[tuple[Connection, Inventory]]:
        """A connection, and what the card is like over it."""
        connection = await card.worker.run(lambda: self._cards.connect(card))
        try:
            yield connection, await card.worker.run(lambda: self._cards.look(card, _LOOK, connection))
        finally:
            await asyncio.shield(card.worker.run(connection.close))

    async def _signed(
        self,
        card: Card,
        opened: tuple[Connection, Inventory],
        operation: Operation,
        prompter: Prompter,
        act: str,
        challenge: SignInChallenge,
    ) -> bytes:
        """Sign ``challenge`` with 9A behind a PIN that is asked for now, in one transaction."""
        connection, inventory = opened
        key = inventory.key(Slot.AUTHENTICATION)
        if key is None or key.algorithm is None:
            raise BadRequest("This card has no key to sign in with.", advice="Have the card issued first.")
        wanted = SignIn(key.algorithm, challenge.audience, challenge.nonce)
        marks = await card.worker.run(lambda: _run(connection, StagePins(), programs.read_marks("look")))
        error, tries = "", inventory.pin.tries_left
        while True:
            with operation.prompting():
                asked = ask_current(prompter, PinReference.PIN, act, tries, error=error)
                pins = StagePins(await while_in(card, asked))
            try:
                with operation.writing():
                    return await card.worker.run(partial(_signed, connection, pins, inventory, marks, wanted))
            except VerificationFailed as wrong:
                if wrong.tries_left is None or wrong.tries_left <= KEEP_ONE:
                    raise
                error, tries = "It was wrong.", wrong.tries_left
            finally:
                pins.wipe()


def _signed(
    connection: Connection, pins: StagePins, inventory: Inventory, marks: programs.Marks, wanted: SignIn
) -> bytes:
    """Verify the PIN and sign, on the card of ``inventory``: one with a key in 9E proves first that it is that one.

    Raises GuardRefused.
    """
    from cardwright_cardops.guard.present import require_same  # takes long to load

    from .relay import reading

    executor = LocalExecutor(connection, KeyItems(pins, TriesGuard(KEEP_ONE), local=True))
    try:
        require_same(executor, reading(inventory), _STAGE)
        return run(_verified(marks, wanted), executor)
    finally:
        executor.end_stage()


def _run(connection: Connection, pins: StagePins, program: Program[T]) -> T:
    return run(program, LocalExecutor(connection, KeyItems(pins, TriesGuard(KEEP_ONE), local=True)))


def _verified(marks: programs.Marks, item: Item) -> Program[bytes]:
    yield from programs.confirm(marks, _STAGE)
    answers = yield from ask(VerifyPin(), item, stage=_STAGE, essential=True)
    answers[0].require("verifying the PIN")
    return answers[-1].require("signing in")


def _shown(challenge: SignInChallenge) -> str:
    """The audience as it may stand in a prompt: an origin, nothing else. Raises BadRequest."""
    audience = challenge.audience
    host = audience.removeprefix("https://")
    plain = host and host.isascii() and all(letter.isalnum() or letter in ".-:" for letter in host)
    if not audience.startswith("https://") or not plain or len(audience) > MAX_AUDIENCE:
        raise BadRequest("The server named no origin to sign in to.")
    return audience
