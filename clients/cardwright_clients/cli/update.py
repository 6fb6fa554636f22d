"""``cardwright update``: what the server wants done on cards, shown in words, and done once the person agrees."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from cardwright_cardops.errors import CardwrightError

from ..sdk.values import Card, CardState, Due, DueChanged, Missed, Operation, Purpose, Synced, UpdatePreview
from ..sdk.words import ACTIVATED, due_words, ended, mandatory_words
from .cards import Choice, card_options
from .daemon_consent import consent, show_steps
from .daemon_line import all_readable, asking, at_daemon, document, fits, pick
from .daemon_progress import cancelling, to_the_end, why_not_done
from .daemon_proof import Who, proof_options, with_proof
from .output import json_option, say, show_json
from .secrets import on_terminal

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient


@dataclass(frozen=True, slots=True)
class Terms:
    """How the person wants it: ``yes`` is consent in advance, ``confirmed`` the acts confirmed in advance.

    ``recycle``: a card is erased that shows nothing any more by which the server could say so.
    """

    yes: bool
    confirmed: frozenset[str]
    show_only: bool
    as_json: bool
    who: Who
    recycle: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A card with what is due and what would be done. ``error`` says why that could not be found out, or was not
    agreed to; ``operation`` is what was done."""

    card: Card
    due: Due | None = None
    preview: UpdatePreview | None = None
    operation: Operation | None = None
    error: CardwrightError | None = None

    @property
    def can_start(self) -> bool:
        """Whether there is something to do."""
        return self.error is None and self.preview is not None and not self.preview.nothing_due


@click.command("update")
@card_options
@click.option("--all", "everything", is_flag=True, help="Every card that is in; they are worked on at once.")
@click.option("--yes", is_flag=True, help="Agree to what is shown without being asked.")
@click.option("--confirm", "confirmed", multiple=True, metavar="ACT",
              help="Confirm an act that has to be confirmed by its name: delete, 'set retries', ...")  # fmt: skip
@click.option("--show", "show_only", is_flag=True, help="Only show what would be done.")
@click.option("--later", type=click.FloatRange(0, 720, min_open=True), metavar="HOURS",
              help="Do not offer it before then.")  # fmt: skip
@click.option("--watch", is_flag=True, help="Keep on: offer what becomes due, until interrupted.")
@click.option("--recycle", is_flag=True,
              help="Finish erasing a card that does not show any more which one it is.")  # fmt: skip
@proof_options
@json_option
def command(
    choice: Choice, everything: bool, yes: bool, confirmed: tuple[str, ...], show_only: bool, later: float | None,
    watch: bool, recycle: bool, who: Who, as_json: bool,
) -> None:  # fmt: skip
    """Bring a card to what the server wants.

    What is due is shown in words, with how long it takes; it begins once you agree, and the daemon asks for your PIN.
    If the card is taken out in the middle, put it back: the rest is done then. A PKCS#11 token is meant where no card
    fits, and with --all too.
    """
    if sum((watch, show_only, later is not None)) > 1:
        raise click.UsageError("Of --watch, --show and --later only one can be given.")
    if everything and choice != Choice():
        raise click.UsageError("With --all no card is chosen.")
    if not (yes or show_only or later is not None or on_terminal()):
        raise click.UsageError("There is no terminal to show the plan on: give --yes, --show or --later.")
    terms = Terms(yes, frozenset(confirmed), show_only, as_json, who, recycle)
    if watch:
        at_daemon(lambda daemon: _watch(daemon, choice, terms))
        return

    async def once(daemon: DaemonClient) -> list[Offer]:
        cards = await all_readable(daemon) if everything else (await pick(daemon, choice, tokens=True),)
        if later is not None:
            return [await _put_off(daemon, card, timedelta(hours=later), terms) for card in cards]
        return await _update(daemon, cards, terms)

    _conclude(at_daemon(once), as_json)


async def _put_off(daemon: DaemonClient, card: Card, hours: timedelta, terms: Terms) -> Offer:
    """Not now."""
    due = await daemon.postpone(card.id, datetime.now(UTC) + hours)
    if not terms.as_json and not due:
        say(f"{card.name}: {due_words(due)}.")
    elif not terms.as_json and due.postponed_until is not None:
        say(f"{card.name}: not offered before {due.postponed_until:%Y-%m-%d %H:%M} UTC.")
    return Offer(card, due)


def _conclude(offers: list[Offer], as_json: bool) -> None:
    """Print results, and end with the error or the code that they call for."""
    failed = [offer for offer in offers if offer.error is not None]
    if len(offers) == 1 and offers[0].error is not None:
        raise offers[0].error
    if as_json:
        show_json({"cards": [_document(offer) for offer in offers]})
    elif not offers:
        say("There is no card in any reader.", err=True)
    for offer in failed:
        assert offer.error is not None
        say(f"Error {offer.error.code}: {offer.card.name}: {offer.error.explain()}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


async def _watch(daemon: DaemonClient, choice: Choice, terms: Terms) -> None:
    """Offer what becomes due."""
    if not terms.as_json:
        say("Waiting for cards that something is due for. Ctrl-C ends it.", err=True)
    async with aclosing(daemon.events()) as events:
        async for event in events:
            if isinstance(event, Missed) and event.count is None:
                say("The daemon is gone; waiting for it.", err=True)
            elif isinstance(event, Synced | Missed):
                await _offer_to(daemon, [card.id for card in await daemon.cards(tokens=True)], choice, terms)
            elif isinstance(event, DueChanged) and event.due:
                await _offer_to(daemon, [event.card], choice, terms)


async def _offer_to(daemon: DaemonClient, wanted: list[str], choice: Choice, terms: Terms) -> None:
    """Offer what is due to those of the cards that are still in, are meant, and are not put off."""
    for card in await daemon.cards(tokens=True):
        if card.id not in wanted or card.state is not CardState.READY or card.operation or not fits(choice, card):
            continue
        try:
            due = await daemon.due(card.id)
            if not due or due.continues or due.is_postponed():
                continue
            (offer,) = await _update(daemon, (card,), terms)
        except CardwrightError as error:
            offer = Offer(card, error=error)
        except click.Abort:
            await daemon.dismiss(card.id)
            say("Not now.", err=True)
            continue
        if terms.as_json:
            show_json(_document(offer), indent=None)
        elif offer.error is not None:
            say(f"Error {offer.error.code}: {offer.card.name}: {offer.error.explain()}", err=True)


async def _update(daemon: DaemonClient, cards: tuple[Card, ...], terms: Terms) -> list[Offer]:
    """Preview every card, ask for consent card by card, then work on all at once."""
    offers = [await _offered(daemon, card, terms) for card in cards]
    agreed = [offer for offer in offers if offer.can_start and not terms.show_only]
    try:
        asked = {offer.card.id: _consent(offer, terms) for offer in agreed}
    except (click.Abort, click.UsageError):
        for offer in agreed:
            await daemon.dismiss(offer.card.id)
        raise
    async with cancelling(daemon, [offer.card for offer in agreed]):
        done, failed = await _carry_out(daemon, agreed, asked, quiet=terms.as_json)
    results = []
    for offer in offers:
        operation_done = done.get(offer.card.id)
        why = offer.error or failed.get(offer.card.id) or (why_not_done(operation_done) if operation_done else None)
        if operation_done is not None and why is None and not terms.as_json:
            say(f"{offer.card.name}: {ended(operation_done)}")
        results.append(Offer(offer.card, offer.due, offer.preview, operation_done, why))
    return results


async def _carry_out(
    daemon: DaemonClient, agreed: list[Offer], asked: dict[str, list[str]], *, quiet: bool
) -> tuple[dict[str, Operation], dict[str, CardwrightError]]:
    """Start what was agreed to and follow it: by card, how each operation ended, and why one was not begun."""
    begun: list[tuple[Card, Operation]] = []
    failed: dict[str, CardwrightError] = {}
    for offer in agreed:
        assert offer.preview is not None
        assert offer.due is not None
        try:
            operation = await daemon.start_shown(
                offer.card.id, offer.preview, offer.due.purpose, request=offer.due.request,
                confirmed=asked[offer.card.id], asking=asking(),
            )  # fmt: skip
        except CardwrightError as error:
            failed[offer.card.id] = error
            continue
        if isinstance(operation, UpdatePreview):
            from cardwright_cardops.plan.init import PlanChanged

            await daemon.dismiss(offer.card.id)
            failed[offer.card.id] = PlanChanged("What has to be done is not what was shown any more.")
        else:
            begun.append((offer.card, operation))
    done = await to_the_end(daemon, begun, quiet=quiet)
    return {one.card: one for one in done}, failed


async def _offered(daemon: DaemonClient, card: Card, terms: Terms) -> Offer:
    """What is due for a card and what would be done, shown."""
    try:
        due = await daemon.due(card.id, refresh=True)
        if not due:
            if not terms.as_json:
                say(f"{card.name}: {due_words(due)}.")
            return Offer(card, due)
        if (due.is_over or (due.activates and terms.show_only)) and not terms.recycle:
            if not terms.as_json:
                say(f"{card.name}: {due_words(due)}.")
            return Offer(card, due)
        if terms.recycle:
            due = replace(due, purpose=Purpose.RECYCLE, request=None)
        preview = await with_proof(
            daemon, card, due.purpose, terms.who,
            lambda: daemon.preview_when_free(card.id, due.purpose, request=due.request),
        )  # fmt: skip
    except CardwrightError as error:
        return Offer(card, error=error)
    if preview.nothing_due:
        if not terms.as_json:
            say(f"{card.name}: {ACTIVATED if due.activates else 'nothing is due'}.")
    elif not terms.as_json or not terms.yes:
        _show(card, due, preview, err=terms.as_json)
    if terms.show_only:
        await daemon.dismiss(card.id)
    return Offer(card, due, preview)


def _show(card: Card, due: Due, preview: UpdatePreview, *, err: bool) -> None:
    show_steps(card, due_words(due), preview, err=err)
    if sentence := mandatory_words(due):
        say(sentence, err=err)


def _consent(offer: Offer, terms: Terms) -> list[str]:
    """See ``consent``."""
    assert offer.preview is not None
    return consent(offer.card, offer.preview, yes=terms.yes, confirmed=terms.confirmed)


def _document(offer: Offer) -> dict[str, Any]:
    preview, operation = offer.preview, offer.operation
    return {
        "card": document(offer.card),
        "due": document(offer.due),
        "seconds": None if preview is None else preview.seconds,
        "steps": [] if preview is None else document(preview.steps),
        "confirmations": [] if preview is None else list(preview.confirmations),
        "operation": document(operation),
        "error": document(offer.error),
    }
