"""Proving to the server who one is, where it wants that before it does something."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.values import PROVED_BY_CARD, Card, Method, MethodKind, Purpose
from ..sdk.words import METHODS
from .daemon_line import asking
from .interrupts import interruptible
from .output import say
from .secrets import on_terminal

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

WANTED: Final = frozenset({"PROOF_REQUIRED", "PROOF_EXPIRED"})
"""Codes by which the server says that a proof is needed."""


@dataclass(frozen=True, slots=True)
class Who:
    """What the command line said of the person: account name and method, None where it did not."""

    account: str | None = None
    method: MethodKind | None = None


def proof_options(function: F) -> F:
    """The options that say who the person is and how they prove it, as one argument ``who``."""

    @click.option("--account", metavar="NAME", help="Your account name, if the server asks who you are.")
    @click.option("--method", type=click.Choice([kind.value for kind in METHODS if kind is not MethodKind.CARD]),
                  help="How to prove who you are, if the server asks.")  # fmt: skip
    @wraps(function)
    def command(*args: Any, account: str | None, method: str | None, **options: Any) -> Any:
        return function(*args, who=Who(account, MethodKind(method) if method else None), **options)

    return command  # type: ignore[return-value]


async def with_proof(
    daemon: DaemonClient, card: Card, purpose: Purpose, who: Who, act: Callable[[], Awaitable[T]]
) -> T:
    """What ``act`` gives; if the server wants a proof first, the person is asked for it and ``act`` tried again."""
    try:
        return await act()
    except CardwrightError as error:
        if error.code not in WANTED:
            raise
        await prove(daemon, card, purpose, who, error)
    return await act()


async def prove(daemon: DaemonClient, card: Card, purpose: Purpose, who: Who, wanted: CardwrightError) -> None:
    """Have the daemon ask for the proof. Raises ``wanted`` where there is no way, and what the server says."""
    if purpose in PROVED_BY_CARD and who.method is None:
        await daemon.prove(card.id, purpose, MethodKind.CARD, asking=asking())
        return
    account = who.account
    if account is None and on_terminal():
        account = _ask("Account name", getpass.getuser())
    offered = await daemon.methods(card.id, purpose, account or "")
    ways = tuple(one for one in offered if one.kind is not MethodKind.CARD)
    method = _chosen(ways, who.method)
    if method is None:
        raise wanted
    if account is None:
        raise _missing(ways)
    for number, question in enumerate(method.questions, 1):
        say(f"Question {number} of {len(method.questions)}: {question}", err=True)
    await daemon.prove(card.id, purpose, method.kind, account, asking=asking())


def _chosen(offered: tuple[Method, ...], wanted: MethodKind | None) -> Method | None:
    if wanted is not None:
        return next((one for one in offered if one.kind is wanted), None)
    if len(offered) <= 1:
        return offered[0] if offered else None
    if not on_terminal():
        raise _missing(offered)
    say("The server wants to know who you are. You can prove it by", err=True)
    for number, one in enumerate(offered, 1):
        say(f"  {number}  {METHODS[one.kind]}", err=True)
    with interruptible():
        picked = click.prompt("Which", type=click.IntRange(1, len(offered)), err=True)
    return offered[picked - 1]


def _missing(offered: tuple[Method, ...]) -> click.UsageError:
    names = ", ".join(one.kind.value for one in offered)
    return click.UsageError(f"The server wants to know who you are: give --account and --method ({names}).")


def _ask(what: str, default: str) -> str:
    with interruptible():
        return str(click.prompt(what, default=default, err=True))
