"""``cardwright demo``: the main job, shown."""

from __future__ import annotations

import click

from .output import json_option


@click.command("demo")
@click.option(
    "--reader",
    type=click.Choice(["virtual", "pcsc"]),
    default="virtual",
    show_default=True,
    help="Readers of the demo itself, or virtual ones of a pcscd that it starts.",
)
@json_option
def command(reader: str, as_json: bool) -> int:
    """Show the main job on this machine alone: a server, a workstation with two virtual readers, two cards.

    Two cards are issued at once; keys are renewed although a card is pulled in the middle; an old message still opens;
    a blocked card is unlocked; a key is downloaded; both cards are checked. Everything is asserted, nothing is left
    behind, and neither reader nor network is needed. With --reader pcsc it goes through a real pcscd, one of the demo's
    own, and yubico-piv-tool and OpenSC read the finished cards. --json gives what each job took.
    """
    from ..demo.__main__ import tell

    return tell(as_json=as_json, reader=reader)
