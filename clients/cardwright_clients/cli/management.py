"""Which management key a command uses: a secrets file, the factory value where the card says so, or the person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import DEFAULT_KEY, ManagementKey, ManagementKeyRefused
from cardwright_cardops.piv.programs import Marks, open_management, read_marks
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.observe import Look, observe
from cardwright_cardops.plan.records import require_same_card
from cardwright_cardops.program.items import Program
from cardwright_cardops.secret import Secret

from .cards import OpenCard
from .secrets import BadPin, SecretSource, secret_options
from .secrets_file import default_path, management_keys, open_journal

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

STAGE = "manage"


def management_options(function: F) -> F:
    """``ask_key``, ``management_key_file``, ``secrets_fd`` and ``pinentry``."""
    ask = click.option(
        "--management-key",
        "ask_key",
        is_flag=True,
        help="Ask for the management key (hex), whatever the secrets file says; a last line of --secrets-fd.",
    )
    file = click.option(
        "--management-key-file",
        type=click.Path(path_type=Path),
        help="The secrets file of the card; without it the one that 'card init' kept.",
    )
    return ask(file(secret_options(function)))


class Manager:
    """Opens the card for administration, once its management key is known."""

    def __init__(self, card: OpenCard, source: SecretSource, file: Path | None, *, ask: bool) -> None:
        if ask and file is not None:
            raise click.UsageError("--management-key and --management-key-file exclude each other.")
        self._card = card
        self._source = source
        self._file = file
        self._ask = ask

    def run(self, work: Program[T], marks: Marks, inventory: Inventory) -> T:
        """Authenticate, then ``work`` in the same stage (``STAGE``). Raises ManagementKeyRefused and more."""
        keys = self._keys(inventory)

        def program() -> Program[T]:
            yield from open_management(keys, marks, STAGE)
            return (yield from work)

        try:
            return self._card.run(program())
        except ManagementKeyRefused as error:
            if not self._ask:
                error.advice += " If another program has changed it since, give the new one with --management-key."
            raise

    def _keys(self, inventory: Inventory) -> tuple[ManagementKey, ...]:
        state = inventory.management_key
        if self._ask:
            return tuple(_typed(self._source.management_key(), state.algorithm))
        # What the card says now goes before what a file says of the past: another program may have reset the card.
        if self._file is None and state.is_default and state.algorithm is not None:
            return (ManagementKey(ManagementAlgorithm(state.algorithm), Secret(DEFAULT_KEY)),)
        file = self._file or default_path(inventory.identity)
        if self._file is not None or file.exists():
            entries = open_journal(file).entries()
            require_same_card(entries, inventory.identity)
            found = management_keys(entries)
            if found:
                return found
        return tuple(_typed(self._source.management_key(), state.algorithm))


def _typed(value: bytes, told: int | None) -> list[ManagementKey]:
    """The keys that typed octets can be; the card's own word on the algorithm decides where there is one."""
    fitting = [one for one in ManagementAlgorithm if one.key_octets == len(value)]
    if told is not None:
        fitting = [one for one in fitting if one == told]
    if not fitting:
        raise BadPin(
            f"A management key of {len(value)} octets does not fit this card.",
            advice="3TDEA and AES-192 take 48 hexadecimal digits, AES-128 takes 32, AES-256 takes 64.",
        )
    return [ManagementKey(one, Secret(value)) for one in fitting]


def look(card: OpenCard) -> tuple[Marks, Inventory]:
    """What a card is recognised by, and what it says of its management key."""
    marks = card.run(read_marks())
    return marks, card.run(observe(Look(slots=(), objects=())))
