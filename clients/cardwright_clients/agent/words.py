"""Texts of the notices."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..sdk.values import Card, Due, Operation, OperationKind, Purpose, UpdatePreview
from ..sdk.words import ACTIVATED, METHODS, due_words, ended, estimate, mandatory_words
from .notices import Notice

START: Final = "Start"
LATER: Final = "Later"
MORE: Final = "All steps"
FEW: Final = 4
"""Steps that are named; of the others it is said how many there are."""
BY_METHOD: Final = {text[:1].upper() + text[1:]: kind for kind, text in METHODS.items()}
"""Words on the buttons for ways to prove who one is."""


_WANTED: Final = {Purpose.ISSUE: "can be issued", Purpose.LOCK: "is to be locked"}


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def alert(card: Card, due: Due, preview: UpdatePreview | None) -> Notice:
    """What is due, what will change and how long it takes; without ``preview`` the server wants a proof first.

    Where not every step is named there is a button that shows them all: ``details``.
    """
    more = preview is not None and len(preview.steps) > FEW
    made = _offer(card, due, preview, FEW)
    return replace(made, buttons=(*made.buttons, MORE)) if more else made


def details(card: Card, due: Due, preview: UpdatePreview) -> Notice:
    """The same with every step."""
    return _offer(card, due, preview, len(preview.steps))


def _offer(card: Card, due: Due, preview: UpdatePreview | None, most: int) -> Notice:
    what = _WANTED.get(due.purpose, "has to be updated")
    if due.activates:
        what = "waits for you"
    parts = [_upper(due_words(due)) + "."]
    if preview is None:
        parts.append("The server wants to know who you are first; then you see what will be done.")
    else:
        named = [step.words for step in preview.steps[:most]]
        more = len(preview.steps) - len(named)
        steps = "; ".join([*named, f"{more} more"] if more else named)
        parts.append(f"It takes about {estimate(preview.seconds)}: {steps}.")
        if preview.confirmations:
            parts.append("Some of it has to be confirmed by name: run 'cardwright update'.")
    if sentence := mandatory_words(due):
        parts.append(sentence)
    can_start = preview is None or not preview.confirmations
    buttons = ((START,) if can_start else ()) + (() if due.is_mandatory() else (LATER,))
    return Notice(_upper(f"{card.name} {what}"), " ".join(parts), buttons, urgent=due.is_mandatory())


def activated(card: Card) -> Notice:
    """The holder has it."""
    return Notice(_upper(f"{card.name} is activated"), _upper(ACTIVATED) + ".")


def revoked(card: Card, due: Due) -> Notice:
    """Nothing is done to the card any more."""
    return Notice(_upper(f"{card.name} was revoked"), _upper(due_words(due)) + ".", urgent=True)


def changed(card: Card, due: Due, preview: UpdatePreview) -> Notice:
    """The same, where the plan is not the one that was shown."""
    made = alert(card, due, preview)
    return Notice(made.title, f"It is another plan now. {made.text}", made.buttons, made.urgent)


def begun(name: str, kind: OperationKind) -> Notice:
    """What is mandatory begins."""
    if kind is OperationKind.LOCK:
        return Notice(_upper(f"{name} is being locked"), "It has to be done now. You are not asked for anything.")
    return Notice(_upper(f"{name} is being updated"), "It has to be done now. You may be asked for your PIN.")


def who(card: Card) -> str:
    """Title of the question who one is."""
    return f"Who are you? The server asks, for {card.name}"


def progress(name: str, operation: Operation) -> Notice:
    """How far an operation is."""
    return Notice(_upper(f"{name}: {operation.percentage} %"), f"{operation.words}. Leave the card in.")


def result(name: str, operation: Operation) -> Notice:
    """How an operation ended."""
    if operation.error is None:
        return Notice(_upper(name), ended(operation))
    made = failure(name, ended(operation), operation.error.message, operation.error.advice)
    return replace(made, buttons=(START,)) if operation.unasked else made


def failure(name: str, what: str, why: str, advice: str) -> Notice:
    """Something went wrong; it can be tried again."""
    return Notice(_upper(name), " ".join(part for part in (what, why, advice) if part), (START, LATER))
