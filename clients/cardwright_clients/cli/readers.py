"""``cardwright readers``: the readers and what is in them, once or as it changes."""

from __future__ import annotations

import click

from .cards import ReaderSummary, the_cards
from .output import hex_text, json_option, say, show_json, show_table


@click.command("readers")
@click.option("--watch", is_flag=True, help="Keep on, one line for each change, until interrupted.")
@json_option
def command(watch: bool, as_json: bool) -> None:
    """List the readers and what is in them."""
    if watch:
        _watch(as_json)
        return
    readers = the_cards().readers()
    if as_json:
        show_json({"readers": [_document(reader) for reader in readers]})
    elif not readers:
        say("There is no reader. Plug one in, or start a virtual card with 'cardwright sim card'.", err=True)
    else:
        show_table([(reader.name, _card(reader)) for reader in readers], ("READER", "CARD"))


def _card(reader: ReaderSummary) -> str:
    if reader.mute:
        return "a card that does not answer"
    return hex_text(reader.atr) if reader.atr else "-"


def _document(reader: ReaderSummary) -> dict[str, object]:
    return {"name": reader.name, "card": bool(reader.atr) or reader.mute, "mute": reader.mute, "atr": reader.atr.hex()}


def _watch(as_json: bool) -> None:
    """One line an event; JSON lines where JSON was asked for."""
    from cardwright_cardops.transport.watcher import Watcher

    with Watcher() as watcher:
        for event in watcher:
            kind = type(event).__name__
            reader = getattr(event, "reader", "")
            atr = getattr(event, "atr", b"")
            if as_json:
                show_json({"event": kind, "reader": reader, "atr": atr.hex()}, indent=None)
            else:
                say(f"{kind:<14} {reader} {hex_text(atr)}".rstrip())
