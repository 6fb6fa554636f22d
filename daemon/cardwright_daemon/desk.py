"""All parts of the daemon in one place, as the API reaches them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from cardwright_cardops.secret import Secret

from .cards import Card, Cards, Change
from .checking import Checks
from .config import Config
from .due import DueChecks
from .errors import HeadlessPinRefused, NotForTokens
from .events import Hub
from .keys import KeyActs
from .link.ports import Due, ServerLink
from .mandatory import Mandatory
from .operations import Operation, Operations
from .pins import Pins
from .prompts import DialogPrompter, HeadlessPrompter, Prompter, seat_of
from .proving import Proofs
from .report import Errors
from .sessions import Sessions
from .tokens import TOKEN, Device, TokenDevice, Tokens


@dataclass(frozen=True, slots=True)
class DueNews:
    """The server said what is due for a card."""

    card: Device
    due: Due


@dataclass(frozen=True, slots=True)
class TokenNews:
    """A PKCS#11 token came, or went."""

    token: TokenDevice
    present: bool


News: TypeAlias = Change | Operation | DueNews | TokenNews


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the caller of a call sits, and values that came with it in place of questions."""

    tty: str = ""
    tty_type: str = ""
    display: str = ""
    current: bytes = field(default=b"", repr=False)
    new: bytes = field(default=b"", repr=False)


@dataclass(eq=False)
class Desk:
    """The parts. ``asker`` takes the place of dialogs, in programs that ask in another way."""

    config: Config
    hub: Hub[News]
    operations: Operations
    cards: Cards
    tokens: Tokens
    pins: Pins
    checks: Checks
    link: ServerLink
    proofs: Proofs
    sessions: Sessions
    due: DueChecks
    mandatory: Mandatory
    keys: KeyActs
    errors: Errors
    asker: Prompter | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    refused: int = 0
    one_dialog: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def card(self, identifier: str) -> Card:
        """A PIV card, once it was looked at. Raises NoSuchCard, NotForTokens."""
        if identifier.startswith(TOKEN):
            raise NotForTokens("This device is reached through a PKCS#11 module.")
        card = self.cards.get(identifier)
        await card.met.wait()
        return self.cards.get(identifier)

    async def device(self, identifier: str) -> Device:
        """A card or a PKCS#11 token. Raises NoSuchCard."""
        if identifier.startswith(TOKEN):
            return await self.tokens.get(identifier)
        return await self.card(identifier)

    def prompter(self, around: Surroundings) -> Prompter:
        """Who is asked. Raises HeadlessPinRefused, BadRequest."""
        if around.current or around.new:
            if not self.config.pins.headless:
                raise HeadlessPinRefused("This daemon takes no PIN from its callers.")
            given = {"current": around.current, "new": around.new}
            return HeadlessPrompter(**{name: Secret(value) for name, value in given.items() if value})
        if self.asker is not None:
            return self.asker
        seat = seat_of(around.tty, around.tty_type, around.display)
        return DialogPrompter(self.config.pins, self.one_dialog, seat)
