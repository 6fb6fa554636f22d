"""The link of a daemon without a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.secret import Secret

from .ports import (
    CardProving,
    CardSession,
    Due,
    EscrowedKey,
    LinkState,
    Method,
    MethodKind,
    Opening,
    Pfx,
    Proof,
    Purpose,
    Push,
    ServerNotConfigured,
    SignInChallenge,
)


class NoServer:
    """Every call raises ServerNotConfigured."""

    @property
    def state(self) -> LinkState:
        """NOT_CONFIGURED."""
        return LinkState.NOT_CONFIGURED

    @property
    def error(self) -> CardwrightError | None:
        """None: nothing is wrong with having no server."""
        return None

    async def start(self, pushed: Callable[[Push], None]) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def watch(self, cards: Sequence[Identity]) -> None:
        """Nothing to do."""

    async def due(self, card: Identity, proof: bytes = b"") -> Due:
        """See ``ServerLink``."""
        _refuse()

    async def methods(self, card: Identity, purpose: Purpose | None, account: str) -> tuple[Method, ...]:
        """See ``ServerLink``."""
        _refuse()

    async def prove(
        self, card: Identity, purpose: Purpose, account: str, kind: MethodKind, values: Mapping[str, Secret]
    ) -> Proof:
        """See ``ServerLink``."""
        _refuse()

    async def prove_by_card(self, opening: Opening) -> CardProving:
        """See ``ServerLink``."""
        _refuse()

    async def open(self, opening: Opening) -> CardSession:
        """See ``ServerLink``."""
        _refuse()

    async def escrowed(self, card: Identity, proof: Proof | None) -> tuple[EscrowedKey, ...]:
        """See ``ServerLink``."""
        _refuse()

    async def pfx(self, card: Identity, key: str, proof: Proof | None) -> Pfx:
        """See ``ServerLink``."""
        _refuse()

    async def sign_in_challenge(self, link: str) -> SignInChallenge:
        """See ``ServerLink``."""
        _refuse()

    async def sign_in(self, link: str, token: bytes) -> str:
        """See ``ServerLink``."""
        _refuse()


def _refuse() -> NoReturn:
    raise ServerNotConfigured("The daemon knows no server.")
