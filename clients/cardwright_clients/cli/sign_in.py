"""``cardwright sign-in``: the holder of a card proves who they are, to the server or to a portal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..sdk.values import Card, MethodKind, Purpose
from .cards import Choice, card_options
from .daemon_line import asking, at_daemon, document, pick
from .daemon_progress import cancelling
from .output import json_option, say, show_json

if TYPE_CHECKING:
    from datetime import datetime

    from ..sdk.daemon import DaemonClient


@click.command("sign-in")
@click.argument("link", metavar="[LINK]", default="")
@card_options
@json_option
def command(link: str, choice: Choice, as_json: bool) -> None:
    """Prove with a card who you are: its key 9A signs what the other side asks, behind your PIN.

    Without LINK you sign in to the server: until the time that is told, the daemon can do for you what the server lets
    the holder of the card do, such as listing escrowed keys. LINK is the one-time link of a portal; the address
    that is printed opens it, in the browser that began.
    """

    async def to_portal(daemon: DaemonClient) -> str:
        card = await pick(daemon, choice)
        async with cancelling(daemon, [card]):
            return await daemon.sign_in(card.id, link, asking=asking())

    async def to_server(daemon: DaemonClient) -> tuple[Card, datetime | None]:
        card = await pick(daemon, choice)
        async with cancelling(daemon, [card]):
            return card, await daemon.prove(card.id, Purpose.RECOVER, MethodKind.CARD, asking=asking())

    if link:
        url = at_daemon(to_portal)
        if as_json:
            show_json({"url": url})
        else:
            say(url)
        return
    card, until = at_daemon(to_server)
    if as_json:
        show_json({"card": document(card), "until": document(until)})
    else:
        ends = "" if until is None else f" until {until:%H:%M} UTC"
        say(f"{card.name}: you are signed in to the server{ends}.")
