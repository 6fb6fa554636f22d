"""``cardwright escrow``: keys of the card's holder that the server keeps."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.values import Card, EscrowedKey, Operation, Purpose
from ..sdk.words import ended
from .cards import Choice, card_options
from .daemon_line import asking, at_daemon, document, pick
from .daemon_progress import cancelling, require_done, to_the_end
from .daemon_proof import Who, proof_options, with_proof
from .files import require_writable, write_output
from .output import json_option, say, show_json, show_table

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient

SHORTEST: Final = 8
"""Digits that name a key, at least."""


class NoSuchEscrowedKey(CardwrightError):
    """No escrowed key of the card's holder, or several, begin with what was given."""

    code = "ESCROWED_KEY_UNKNOWN"
    default_effect = "Nothing was recovered or claimed."
    default_advice = "'cardwright escrow list' shows the keys; give more of the fingerprint."


@click.group("escrow")
def command() -> None:
    """Keys that the server keeps for you: list, put back on a card, download."""


@command.command("list")
@card_options
@proof_options
@json_option
def list_keys(choice: Choice, who: Who, as_json: bool) -> None:
    """List the keys that the server keeps for the holder of the card."""

    async def work(daemon: DaemonClient) -> tuple[EscrowedKey, ...]:
        card = await pick(daemon, choice, tokens=True)
        return await _keys(daemon, card, who)

    keys = at_daemon(work)
    if as_json:
        show_json({"keys": document(keys)})
    elif not keys:
        say("The server keeps no key.")
    else:
        rows = [
            (
                key.fingerprint[:16],
                key.algorithm or "-",
                _day(key.not_before),
                _day(key.not_after),
                "yes" if key.on_card else "no",
                "yes" if key.downloadable else "no",
            )
            for key in keys
        ]
        show_table(rows, ("KEY", "ALGORITHM", "FROM", "UNTIL", "ON CARD", "PFX"))


@command.command("recover")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@card_options
@proof_options
@json_option
def recover(keys: tuple[str, ...], choice: Choice, who: Who, as_json: bool) -> None:
    """Put keys back on the card, into retired slots: all that the server gives to this card.

    A KEY is named by the beginning of its fingerprint, as 'escrow list' shows it; where one that was named is not
    given, nothing is done. Keys of another card of yours have to be approved for this one. What else is due is done,
    too. The daemon asks for your PIN.
    """

    async def work(daemon: DaemonClient) -> Operation:
        card = await pick(daemon, choice, tokens=True)
        wanted = [_meant(one, await _keys(daemon, card, who)).fingerprint for one in keys]

        async def act() -> Operation:
            async with cancelling(daemon, [card]):
                begun = await daemon.recover(card.id, wanted, asking=asking())
                (done,) = await to_the_end(daemon, [(card, begun)], quiet=as_json)
            return require_done(done)

        done = await with_proof(daemon, card, Purpose.RECOVER, who, act)
        if not as_json:
            say(f"{card.name}: {ended(done)}")
        return done

    done = at_daemon(work)
    if as_json:
        show_json({"operation": document(done)})


@command.command("pfx")
@click.argument("key", metavar="KEY")
@card_options
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it; else standard output.")
@proof_options
def pfx(key: str, choice: Choice, out: Path | None, who: Who) -> None:
    """Download a key as PKCS #12 (PFX). It can be claimed once.

    The daemon asks for your PIN and shows the password of the file: write it down, it is nowhere else.
    """
    if out is None and sys.stdout is not None and sys.stdout.isatty():
        raise click.UsageError("A PFX is not for a terminal: give --out.")
    require_writable(out)

    async def work(daemon: DaemonClient) -> bytes:
        card = await pick(daemon, choice, tokens=True)
        wanted = _meant(key, await _keys(daemon, card, who)).fingerprint
        return await with_proof(
            daemon, card, Purpose.RECOVER, who, lambda: daemon.pfx(card.id, wanted, asking=asking())
        )

    content = at_daemon(work)
    write_output(out, content, private=True)
    if out is not None:
        say(f"The key is in {out}.")


async def _keys(daemon: DaemonClient, card: Card, who: Who) -> tuple[EscrowedKey, ...]:
    return await with_proof(daemon, card, Purpose.RECOVER, who, lambda: daemon.escrowed_keys(card.id))


def _meant(given: str, keys: tuple[EscrowedKey, ...]) -> EscrowedKey:
    """The key whose fingerprint begins so. Raises NoSuchEscrowedKey."""
    text = given.lower().replace(":", "")
    if re.fullmatch(f"[0-9a-f]{{{SHORTEST},64}}", text) is None:
        raise NoSuchEscrowedKey(f"A key is named by {SHORTEST} to 64 hexadecimal digits of its fingerprint.")
    found = [key for key in keys if key.fingerprint.startswith(text)]
    if len(found) != 1:
        raise NoSuchEscrowedKey(f"{len(found) or 'No'} keys begin with {text}.")
    return found[0]


def _day(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d}"
