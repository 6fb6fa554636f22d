"""``cardwright card``: see, set up and check cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.plan.inventory import Inventory, KeyState, Presence
from cardwright_cardops.plan.observe import observe

from .cards import CardSummary, Choice, card_options, the_cards
from .output import hex_text, json_option, say, show_fields, show_json, show_table
from .tree import LazyGroup, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = {
    "check": ("card_check", "Check the data on a card, or in an image, against the standards"),
    "init": ("card_init", "Set up a fresh card: new secrets, keys, certificates"),
    "list": ("card", "List the cards that are in"),
    "show": ("card", "Show everything that is on a card"),
    "trace": ("card", "Read a card and print the redacted record of it, for a support ticket"),
}


class CardGroup(LazyGroup):
    """The commands of this module, and those that bring heavy imports from their own."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Here, or the module of the table."""
        return _HERE.get(cmd_name) or super().get_command(ctx, cmd_name)


@click.command("card", cls=CardGroup, table=TABLE)
def command() -> None:
    """See, set up and check cards."""


@click.command("list")
@json_option
def list_cards(as_json: bool) -> None:
    """List the cards that are in, each with what it is recognised by."""
    cards = the_cards().cards()
    if as_json:
        show_json({"cards": [_summary(card) for card in cards]})
    elif not cards:
        say("There is no card in any reader.", err=True)
    else:
        rows = [
            (card.reader, card.identity.serial or "-", str(card.identity.guid or "-"), _remark(card)) for card in cards
        ]
        show_table(rows, ("READER", "SERIAL", "GUID", ""))


def _remark(card: CardSummary) -> str:
    return f"{card.problem.code}: {card.problem.message}" if card.problem is not None else ""


def _summary(card: CardSummary) -> dict[str, object]:
    identity = card.identity
    return {
        "reader": card.reader,
        "atr": card.atr.hex(),
        "serial": identity.serial or None,
        "guid": str(identity.guid) if identity.guid is not None else None,
        "fascn": identity.fascn or None,
        "problem": describe(card.problem) if card.problem is not None else None,
    }


@click.command("show")
@card_options
@json_option
def show(choice: Choice, as_json: bool) -> None:
    """Show everything that is on a card and free to read. No PIN is needed."""
    with the_cards().open(choice) as card:
        inventory = card.run(observe())
    if as_json:
        show_json({"reader": card.summary.reader, "atr": card.summary.atr.hex(), **inventory.document()})
    else:
        show_fields(_fields(card.summary, inventory))


def _fields(card: CardSummary, inventory: Inventory) -> Iterator[tuple[str, str]]:
    identity, features = inventory.identity, inventory.features
    yield "Reader", card.reader
    yield "ATR", hex_text(card.atr)
    yield "Serial", identity.serial or "-"
    yield "GUID", str(identity.guid or "-")
    yield "FASC-N", identity.fascn.upper() or "-"
    yield "Application", " ".join(part for part in (features.label, features.version) if part) or "PIV"
    yield "Expires", str(inventory.expiration or "-")
    for name, state in (("PIN", inventory.pin), ("PUK", inventory.puk)):
        left = "the card does not say" if state.tries_left is None else f"{state.tries_left} tries left"
        yield name, left + (", factory value: change it" if state.is_default else "")
    yield "Management key", "factory value: change it" if inventory.management_key.is_default else "-"
    certified = {row.slot for row in inventory.certificates}
    for key in inventory.keys:
        if key.slot not in certified:
            yield f"Slot {key.slot.label}", f"{_algorithm(key)}, no certificate"
    for row in inventory.certificates:
        holder = inventory.key(row.slot)
        algorithm = _algorithm(holder) if holder is not None else "?"
        yield f"Slot {row.slot.label}", f"{algorithm}, {row.subject}, until {row.not_after:%Y-%m-%d}"
    for item in inventory.objects:
        if item.presence is not Presence.ABSENT:
            yield f"Object {item.tag:X}", _presence(item.presence, item.size, item.defect)
    for defect in inventory.defects:
        yield "Damaged", defect


def _algorithm(key: KeyState) -> str:
    if key.algorithm is None:
        return "a key"
    return Algorithm(key.algorithm).label if key.algorithm in set(Algorithm) else f"algorithm {key.algorithm:02X}"


def _presence(presence: Presence, size: int, defect: str) -> str:
    return {
        Presence.PRESENT: f"{size} octets",
        Presence.DAMAGED: f"damaged: {defect}",
        Presence.PROTECTED: "needs the PIN",
    }.get(presence, presence.value)


@click.command("trace")
@card_options
@click.option("--out", type=click.Path(path_type=Path), help="Write it here; standard output without.")
def trace(choice: Choice, out: Path | None) -> None:
    """Read a card and print the record of every command, for a support ticket.

    The record never holds a PIN, a PUK, a key or what is read under a PIN.
    """
    from cardwright_cardops.transport.trace import Trace

    from .files import require_writable, write_output

    require_writable(out)
    record = Trace()
    try:
        with the_cards().open(choice, record) as card:
            card.run(observe())
    finally:
        write_output(out, (json.dumps({"trace": record.to_json()}, indent=2) + "\n").encode())


_HERE = {"list": list_cards, "show": show, "trace": trace}
