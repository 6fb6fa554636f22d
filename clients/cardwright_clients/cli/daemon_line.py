"""Commands on the daemon: the way to it, and the card that is meant."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.workstation import SOCKET, FolderUnsafe, default_folder, has_folder, require_own

from ..sdk.values import Asking, Card, CardKind, FailedModule
from .cards import CardSummary, Choice, choose
from .output import say
from .tree import describe

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work on an event loop of its own."""
    return asyncio.run(work)


def at_daemon(work: Callable[[DaemonClient], Awaitable[T]]) -> T:
    """What ``work`` does with the daemon of this user. Raises DaemonNotRunning, FolderUnsafe, and what it raises."""

    from ..sdk.daemon import DaemonClient

    async def connected() -> T:
        # gRPC's own lines would stand between ours.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        async with DaemonClient() as daemon:
            return await work(daemon)

    return run(connected())


def daemon_runs() -> bool:
    """Whether a daemon of this user takes connections. Raises FolderUnsafe."""
    folder = default_folder()
    if not has_folder(folder):
        return False
    require_own(folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(str(folder / SOCKET))
        except OSError:
            return False
    return True


def use_daemon(*, direct: bool) -> bool:
    """Whether a command that can do without the daemon goes through it; where it cannot, that is said.

    ``direct``: the caller wants to reach the card itself.
    """
    if click.get_current_context().obj is not None:
        return False
    if direct:
        with suppress(FolderUnsafe):
            if daemon_runs():
                say("The card is reached directly, beside the daemon, which runs.", err=True)
        return False
    if daemon_runs():
        return True
    say("The daemon does not run: the card is reached directly.", err=True)
    return False


async def pick(daemon: DaemonClient, choice: Choice, *, tokens: bool = False) -> Card:
    """The card that ``choice`` names. With ``tokens`` also one of a PKCS#11 module, where no PIV card fits.

    Raises CardNotFound, CardAmbiguous, and why the chosen card cannot be read.
    """
    found = await daemon.settled_cards(tokens=tokens)
    cards = tuple(card for card in found if card.kind is CardKind.PIV)
    if not any(fits(choice, card) for card in cards) and len(found) > len(cards):
        cards = tuple(card for card in found if card.kind is CardKind.PKCS11)
    if not cards:
        readers = await daemon.readers()
        for module in readers.modules if tokens else ():
            say(f"PKCS#11: {failed_words(module)}", err=True)
        if readers.service is not None:
            raise readers.service
    summaries = {id(summary := _summary(card)): (summary, card) for card in cards}
    chosen = choose(tuple(summary for summary, _ in summaries.values()), choice)
    if chosen.problem is not None:
        raise chosen.problem
    return summaries[id(chosen)][1]


async def all_readable(daemon: DaemonClient) -> tuple[Card, ...]:
    """Every card and PKCS#11 token that can be read; of the others it is said why not."""
    cards = await daemon.settled_cards(tokens=True)
    for card in cards:
        if card.problem is not None:
            say(f"{card.reader}: {card.problem.message}", err=True)
    for module in (await daemon.readers()).modules:
        say(f"PKCS#11: {failed_words(module)}", err=True)
    return tuple(card for card in cards if card.problem is None)


def failed_words(module: FailedModule) -> str:
    """Which module it is, why it cannot be used, and what to do."""
    return f"{module.path} cannot be used. {module.problem.message} {module.problem.advice}".rstrip()


def fits(choice: Choice, card: Card) -> bool:
    """Whether ``card`` is what was chosen."""
    return choice.fits(_summary(card))


def _summary(card: Card) -> CardSummary:
    return CardSummary(card.reader, card.atr, card.identity, card.problem)


def asking() -> Asking:
    """Where the daemon asks for this command."""
    return Asking.here()


def document(value: Any) -> Any:
    """A value of the SDK as JSON: words for enums, ISO 8601 for moments, hexadecimal for octets."""
    if isinstance(value, CardwrightError):
        return describe(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: document(getattr(value, one.name)) for one in fields(value) if one.repr}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [document(one) for one in value]
    if isinstance(value, dict):
        return {name: document(one) for name, one in value.items()}
    return value

