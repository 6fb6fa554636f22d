"""``cardwright escrow``: keys of the card's holder that the server keeps."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.values import Card, EscrowedKey, Operation, Purpose, UpdatePreview
from ..sdk.words import ended
from .cards import Choice, card_options
from .daemon_consent import consent, show_steps
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
@click.option("--yes", is_flag=True, help="Agree to whatever else is due, without being asked.")
@click.option("--confirm", "confirmed", multiple=True, metavar="ACT",
              help="Confirm an act that has to be confirmed by its name: delete, 'set retries', ...")  # fmt: skip
@proof_options
@json_option
def recover(
    keys: tuple[str, ...], choice: Choice, yes: bool, confirmed: tuple[str, ...], who: Who, as_json: bool
) -> None:
    """Put keys back on the card, into retired slots: all that the server gives to this card.

    A KEY is named by the beginning of its fingerprint, as 'escrow list' shows it; where one that was named is not
    given, nothing is done. Keys of another card of yours have to be approved for this one. What else is due is done,
    too, such as a renewal: it is shown, and begins once you agree. The daemon asks for your PIN.
    """

    async def work(daemon: DaemonClient) -> tuple[UpdatePreview, Operation | None]:
        card = await pick(daemon, choice, tokens=True)
        wanted = [_meant(one, await _keys(daemon, card, who)).fingerprint for one in keys]
        preview = await with_proof(
            daemon, card, Purpose.RECOVER, who, lambda: daemon.preview(card.id, Purpose.RECOVER, keys=wanted)
        )
        if preview.nothing_due:
            if not as_json:
                say(f"{card.name}: nothing has to be put back.")
            return preview, None
        if not as_json or not yes:
            show_steps(card, "keys are put back", preview, err=as_json)
        try:
            acts = consent(card, preview, yes=yes or _only_puts_back(preview), confirmed=confirmed)
        except (click.Abort, click.UsageError):
            await daemon.dismiss(card.id)
            raise
        async with cancelling(daemon, [card]):
            begun = await daemon.start(card.id, preview, confirmed=acts, asking=asking())
            (done,) = await to_the_end(daemon, [(card, begun)], quiet=as_json)
        require_done(done)
        if not as_json:
            say(f"{card.name}: {ended(done)}")
        return preview, done

    preview, done = at_daemon(work)
    if as_json:
        show_json({"steps": document(preview.steps), "operation": document(done)})


def _only_puts_back(preview: UpdatePreview) -> bool:
    """Whether a plan does nothing but what ``recover`` was asked for."""
    from cardwright_cardops.piv import containers
    from cardwright_cardops.plan import steps

    def puts_back(step: steps.Step) -> bool:
        match step:
            case steps.ImportKey() | steps.WriteCertificate():
                return step.slot.is_retired and not getattr(step, "replaces", "")
            case steps.WriteObject():
                return step.tag in (containers.KEY_HISTORY.tag, containers.SECURITY_OBJECT.tag)
        return False

    return preview.plan is not None and all(map(puts_back, preview.plan.steps))


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
