"""A proof that the card itself is here, for the question what is due: 9E signs without a PIN, so nobody is asked.

Nobody is disturbed either: a proof begins with SELECT, with which many cards forget a verified PIN, so it waits for
another program that has one verified.

Without it the server says no more than whether something is due: a number that anyone can read off a card is not
enough to learn what happens to its holder.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.piv import commands, programs
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.proofs import check_nonce
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.observe import Look
from cardwright_cardops.program.items import Program, Prove, ask
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run

from .cards import Card, Cards
from .prompts import StagePins
from .tokens import Device, TokenDevice

_log = logging.getLogger(__name__)
_LOOK: Final = Look(slots=(Slot.CARD_AUTHENTICATION,), objects=(), stage="look")
_STAGE: Final = "presence"
_VERIFIED: Final = SW.OK.to_bytes(2, "big")
MOST_WAITS: Final = 60
WAIT_SECONDS: Final = 1.0
"""How often, and after how long each, it is looked again whether another program is still logged in to a card."""


class Presence:
    """Makes the proofs.

    Each is one call of the reader's worker, and no operation: nobody who wants something of the card has to wait for
    more than that, or is told that the card is at work.
    """

    def __init__(self, cards: Cards) -> None:
        self._cards = cards

    async def until_free(self, card: Device) -> None:
        """Wait, a minute at most, while another program has a PIN verified on ``card``."""
        if isinstance(card, TokenDevice):
            return
        for _ in range(MOST_WAITS):
            try:
                if card.operation or not await card.worker.run(lambda: self._logged_in(card)):
                    return
            except CardwrightError as error:
                _log.info("it could not be seen whether a card is in use: %s", error.code)
                return
            await asyncio.sleep(WAIT_SECONDS)

    def _logged_in(self, card: Card) -> bool:
        """Without SELECT: where another application is selected, the card says that it knows no such PIN."""
        connection = self._cards.connect(card)
        try:
            with connection.transaction():
                return connection.transmit(commands.pin_state().encode()) == _VERIFIED
        finally:
            connection.close()

    async def proof(self, card: Device) -> bytes:
        """What 9E signed about this minute; b"" where the card has no such key, is at work, or does not answer."""
        guid = card.identity.guid
        # An operation may hold a transaction between two calls of the worker; another one would wait for it for ever.
        if guid is None or card.operation:
            return b""
        nonce = check_nonce(guid, datetime.now(UTC))
        try:
            if isinstance(card, TokenDevice):
                return await card.worker.run(lambda: card.proof(nonce))
            return await card.worker.run(lambda: self._signed(card, nonce))
        except CardwrightError as error:
            _log.info("a card gave no proof for a check: %s", error.code)
            return b""

    def _signed(self, card: Card, nonce: bytes) -> bytes:
        connection = self._cards.connect(card)
        try:
            key = self._cards.look(card, _LOOK, connection).key(Slot.CARD_AUTHENTICATION)
            if key is None or key.algorithm is None:
                return b""
            executor = LocalExecutor(connection, KeyItems(StagePins(), local=True))
            return run(_proved(key.algorithm, nonce), executor)
        finally:
            connection.close()


def _proved(algorithm: int, nonce: bytes) -> Program[bytes]:
    marks = yield from programs.read_marks(_STAGE)
    yield from programs.confirm(marks, _STAGE)
    (answer,) = yield from ask(Prove(Slot.CARD_AUTHENTICATION, algorithm, nonce), stage=_STAGE)
    return answer.require("proving that the card is here")
