"""``cardwright watch``: readers, cards, operations and what is due, as it changes."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from ..sdk.values import (
    CardChanged,
    CardState,
    DueChanged,
    Event,
    Missed,
    OperationChanged,
    ReaderChanged,
    ServiceChanged,
    Synced,
)
from ..sdk.words import due_words, ended, mandatory_words
from .daemon_line import at_daemon, document
from .output import json_option, say, show_json

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient

_NAMES = {
    ReaderChanged: "reader",
    CardChanged: "card",
    OperationChanged: "operation",
    ServiceChanged: "service",
    DueChanged: "due",
    Synced: "synced",
    Missed: "missed",
}


@click.command("watch")
@json_option
def command(as_json: bool) -> None:
    """Show what is there and what happens, a line each, until interrupted.

    With --json each line is an object whose "event" is reader, card, operation, service, due, synced or missed.
    """

    async def work(daemon: DaemonClient) -> None:
        names: dict[str, str] = {}
        async with aclosing(daemon.events()) as events:
            async for event in events:
                if isinstance(event, CardChanged):
                    names[event.card.id] = event.card.name
                if as_json:
                    show_json({"event": _NAMES[type(event)], **document(event)}, indent=None)
                elif (line := _words(event, names)) is not None:
                    say(line)
                if isinstance(event, CardChanged) and not event.present:
                    names.pop(event.card.id, None)

    at_daemon(work)


def _words(event: Event, names: dict[str, str]) -> str | None:
    """One line, None for what people need not see."""
    match event:
        case ReaderChanged(reader, present):
            return f"reader     {reader.name}{'' if present else ' is gone'}"
        case CardChanged(card, False):
            return f"card       {card.name} was taken out of {card.reader}"
        case CardChanged(card) if card.problem is not None:
            return f"card       {card.reader}: {card.problem.message}"
        case CardChanged(card):
            what = "is being read" if card.state is CardState.READING else card.name
            return f"card       {card.reader}: {what}"
        case OperationChanged(operation) if operation.over:
            why = f" {operation.error.message} ({operation.error.code})" if operation.error is not None else ""
            return f"operation  {names.get(operation.card, operation.reader)}: {ended(operation)}{why}"
        case OperationChanged(operation):
            doing = operation.words or operation.phase.value
            name = names.get(operation.card, operation.reader)
            what = f"{operation.kind.value}{' (mandatory)' if operation.unasked else ''}"
            return f"operation  {name}: {what} {operation.percentage} %, {doing}"
        case ServiceChanged(None):
            return "service    smart cards can be used"
        case ServiceChanged(error) if error is not None:
            return f"service    {error.message}"
        case DueChanged(card_id, due):
            more = f". {must}" if (must := mandatory_words(due)) else ""
            return f"due        {names.get(card_id, 'a card')}: {due_words(due)}{more}"
        case Missed(None):
            return "daemon     is gone; waiting for it"
        case Missed(count):
            return f"missed     {count} events"
    return None
