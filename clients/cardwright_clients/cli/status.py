"""``cardwright status``: the daemon, its server, the cards, and what is due."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.values import Card, CardKind, CardState, Due, LinkState, Operation, Readers, WorkstationReport
from ..sdk.words import due_words, mandatory_words
from .daemon_line import at_daemon, document, failed_words
from .output import json_option, say, show_fields, show_json, show_table

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient

LINKS = {
    LinkState.NOT_CONFIGURED: "none configured",
    LinkState.CONNECTED: "connected",
    LinkState.UNREACHABLE: "cannot be reached",
    LinkState.REFUSED: "does not accept this workstation",
}


@dataclass(frozen=True, slots=True)
class _State:
    report: WorkstationReport
    readers: Readers
    cards: tuple[Card, ...]
    due: dict[str, Due | CardwrightError]
    operations: tuple[Operation, ...]


@click.command("status")
@json_option
def command(as_json: bool) -> None:
    """Show how the daemon and its cards stand, and what is due."""
    state = at_daemon(_look)
    if as_json:
        show_json(_document(state))
        return
    report = state.report
    fields = [("daemon", f"{report.version or 'unknown version'}, since {report.started_at:%Y-%m-%d %H:%M} UTC")]
    fields.append(("server", LINKS[report.link] + (f" ({report.link_error})" if report.link_error else "")))
    if state.readers.service is not None:
        fields.append(("smart cards", state.readers.service.message))
    fields += [("PKCS#11", failed_words(module)) for module in state.readers.modules]
    show_fields(fields)
    by_id = {card.id: card for card in state.cards}
    rows = [(one.name, *_row(by_id.get(one.card), state)) for one in state.readers.readers]
    rows += [(card.reader, *_row(card, state)) for card in state.cards if card.kind is CardKind.PKCS11]
    if not rows:
        say("There is no reader." if not state.readers.modules else "There is no reader, and no token is known.")
    else:
        show_table(rows, ("READER", "CARD", "STATE"))


async def _look(daemon: DaemonClient) -> _State:
    report, cards, operations = await asyncio.gather(
        daemon.report(), daemon.settled_cards(tokens=True), daemon.operations()
    )
    readers = await daemon.readers()  # which modules fail is known once tokens were looked for
    ready = [card for card in cards if card.state is CardState.READY]
    due: dict[str, Due | CardwrightError] = {}
    if report.link is not LinkState.NOT_CONFIGURED:
        told = await asyncio.gather(*(_due(daemon, card) for card in ready))
        due = {card.id: one for card, one in zip(ready, told, strict=True)}
    return _State(report, readers, cards, due, tuple(one for one in operations if not one.over))


async def _due(daemon: DaemonClient, card: Card) -> Due | CardwrightError:
    try:
        return await daemon.due(card.id)
    except CardwrightError as error:
        return error


def _row(card: Card | None, state: _State) -> tuple[str, str]:
    """A card's name, and how it stands."""
    if card is None:
        return "-", ""
    if card.problem is not None:
        return "?", card.problem.message
    at_work = next((one for one in state.operations if one.card == card.id), None)
    if at_work is not None:
        return card.name, f"{at_work.kind.value}: {at_work.percentage} % {at_work.words}".rstrip()
    due = state.due.get(card.id)
    if due is None:
        return card.name, card.state.value
    if isinstance(due, CardwrightError):
        return card.name, f"what is due is not known: {due.message}"
    put_off = f", put off until {due.postponed_until:%Y-%m-%d %H:%M} UTC" if due and due.postponed_until else ""
    must = f". {sentence}" if (sentence := mandatory_words(due)) else ""
    return card.name, due_words(due) + put_off + must


def _document(state: _State) -> dict[str, object]:
    return {
        "daemon": {"version": state.report.version, "started_at": document(state.report.started_at)},
        "server": {"state": document(state.report.link), "error": state.report.link_error or None},
        "service": document(state.readers.service),
        "modules": document(state.readers.modules),
        "readers": document(state.readers.readers),
        "cards": [
            {
                **document(card),
                "due": None if isinstance(found := state.due.get(card.id), CardwrightError) else document(found),
                "due_error": document(found) if isinstance(found, CardwrightError) else None,
            }
            for card in state.cards
        ],
        "operations": document(state.operations),
    }
