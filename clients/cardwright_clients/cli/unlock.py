"""``cardwright unlock``: a new PIN through the server, for a card whose PIN is blocked or forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.errors import CardSuspended
from ..sdk.values import Card, Operation, Purpose
from ..sdk.words import ended
from .cards import Choice, card_options
from .daemon_line import asking, at_daemon, document, pick
from .daemon_progress import cancelling, require_done, to_the_end
from .daemon_proof import Who, proof_options, with_proof
from .output import json_option, say, show_json

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient


@click.command("unlock")
@card_options
@click.option("--forgotten", is_flag=True, help="The PIN is forgotten, not blocked.")
@click.option("--request", type=click.UUID, help="Id of the help desk's request; else the server finds it.")
@proof_options
@json_option
def command(choice: Choice, forgotten: bool, request: UUID | None, who: Who, as_json: bool) -> None:
    """Set a new PIN with the help of the server.

    The server may want to know who you are first, or that the help desk approves. The daemon asks for the new PIN.
    Whoever knows the PUK needs no server: 'cardwright pin unblock'. A PKCS#11 token is meant where no card fits; it is
    unlocked by the PIN of its security officer, which the server keeps.
    """

    async def work(daemon: DaemonClient) -> Operation:
        card = await pick(daemon, choice, tokens=True)
        asked = request or await _asked(daemon, card, forgotten)

        async def act() -> Operation:
            begin = daemon.reset_forgotten_pin if forgotten else daemon.unlock
            async with cancelling(daemon, [card]):
                begun = await begin(card.id, request=asked, asking=asking())
                (done,) = await to_the_end(daemon, [(card, begun)], quiet=as_json)
            return require_done(done)

        done = await with_proof(daemon, card, Purpose.FORGOTTEN_PIN if forgotten else Purpose.UNLOCK, who, act)
        if not as_json:
            say(f"{card.name}: {ended(done)}")
        return done

    done = at_daemon(work)
    if as_json:
        show_json({"operation": document(done)})


async def _asked(daemon: DaemonClient, card: Card, forgotten: bool) -> UUID | None:
    """The request that the help desk made for the card, None where the holder has to make one. Raises CardSuspended."""
    try:
        due = await daemon.due(card.id, refresh=True)
    except CardwrightError:
        return None  # what keeps the server from answering is told when it is asked to unlock
    if due.suspended:
        raise CardSuspended(f"{card.name} is suspended.")
    return due.request if due.purpose is (Purpose.FORGOTTEN_PIN if forgotten else Purpose.UNLOCK) else None
