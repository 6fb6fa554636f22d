"""What the daemon would do to a card, shown, and the person's consent to it."""

from __future__ import annotations

from collections.abc import Collection

import click

from ..sdk.values import Card, UpdatePreview
from ..sdk.words import estimate
from .interrupts import interruptible
from .output import say
from .secrets import on_terminal


def show_steps(card: Card, why: str, preview: UpdatePreview, *, err: bool) -> None:
    """The steps, one a line. ``why``: what they are for, in words."""
    say(f"{card.name}: {why}. In about {estimate(preview.seconds)} this is done:", err=err)
    for step in preview.steps:
        say(f"  {step.words}", err=err)


def consent(card: Card, preview: UpdatePreview, *, yes: bool, confirmed: Collection[str]) -> list[str]:
    """Ask whether to begin, unless ``yes``, and for every act that wants a confirmation of its own; the acts then.

    Raises Abort, and UsageError where nobody can be asked.
    """
    missing = [act for act in preview.confirmations if act not in confirmed]
    if missing and not on_terminal():
        named = ", ".join(missing)
        raise click.UsageError(f"The plan for {card.name} holds acts to --confirm by name: {named}.")
    if not (yes or on_terminal()):
        raise click.UsageError(f"There is no terminal to agree on to what is done with {card.name}: give --yes.")
    with interruptible():
        for act in missing:
            click.confirm(f"It includes the act '{act}'. Do you want that", abort=True, err=True)
        if not yes:
            click.confirm(f"Begin with {card.name}?", abort=True, err=True)
    return list(preview.confirmations)
