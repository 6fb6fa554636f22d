"""``cardwright pin``: what the card says of PIN and PUK, and changing them; through the daemon while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from cardwright_cardops.piv import programs
from cardwright_cardops.piv.pins import KEEP_ONE, reference_name
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.plan.inventory import SecretState
from cardwright_cardops.plan.observe import Look, observe

from .cards import Choice, card_options, the_cards
from .daemon_line import asking, at_daemon, pick, use_daemon
from .output import json_option, say, show_fields, show_json
from .secrets import AskedPins, SecretSource, secret_options

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient

last_try_option = click.option(
    "--allow-last-try", is_flag=True, help="Send the value even if it is the last try; a wrong one then blocks it."
)
direct_option = click.option("--direct", is_flag=True, help="Reach the card directly, even if the daemon runs.")


@click.group("pin")
def command() -> None:
    """PIN and PUK: status, change, unblock.

    While the daemon runs it is asked to do it, and asks you by its own dialog. With --direct, --secrets-fd or
    --pinentry the card is reached directly.
    """


@command.command("status")
@card_options
@direct_option
@json_option
def status(choice: Choice, direct: bool, as_json: bool) -> None:
    """Show what the card says of its PIN and PUK. No try is spent."""
    if use_daemon(direct=direct):

        async def work(daemon: DaemonClient) -> dict[str, SecretState]:
            told = await daemon.pin_status((await pick(daemon, choice, tokens=True)).id)
            return {"pin": told.pin, "puk": told.puk}

        states = at_daemon(work)
    else:
        with the_cards().open(choice) as card:
            inventory = card.run(observe(Look(slots=(), objects=(), thorough=True)))
        states = {"pin": inventory.pin, "puk": inventory.puk}
    if as_json:
        show_json({name: _document(state) for name, state in states.items()})
    else:
        show_fields((name.upper(), _words(state)) for name, state in states.items())


def _document(state: SecretState) -> dict[str, object]:
    return {
        "tries_left": state.tries_left,
        "tries_total": state.tries_total,
        "default": state.is_default,
        "blocked": state.is_blocked if state.tries_left is not None else None,
    }


def _words(state: SecretState) -> str:
    if state.tries_left is None:
        return "the card does not say"
    if state.is_blocked:
        return "blocked"
    total = f" of {state.tries_total}" if state.tries_total is not None else ""
    default = {True: ", factory value: change it", False: "", None: ""}[state.is_default]
    return f"{state.tries_left}{total} tries left{default}"


@command.command("change")
@card_options
@click.option("--puk", "reference", flag_value=int(PinReference.PUK), type=int, help="Change the PUK.")
@click.option("--global-pin", "reference", flag_value=int(PinReference.GLOBAL_PIN), type=int,
              help="Change the Global PIN.")  # fmt: skip
@last_try_option
@direct_option
@secret_options
def change(
    choice: Choice, reference: int | None, allow_last_try: bool, direct: bool, secrets_fd: int | None,
    pinentry: str | None,
) -> None:  # fmt: skip
    """Change the PIN, the Global PIN or the PUK.

    --secrets-fd has two lines: the value that is set now, and the new one.
    """
    which = PinReference.PIN if reference is None else PinReference(reference)
    name = reference_name(which)
    if use_daemon(direct=_own_secrets(direct, secrets_fd, pinentry)):

        async def act(daemon: DaemonClient, card: str) -> None:
            await daemon.change_pin(card, which, allow_last_try=allow_last_try, asking=asking())

        say(f"The {name} of {_through_daemon(choice, act, tokens=True)} is changed.")
        return
    with the_cards().open(choice) as card:
        source = SecretSource(
            descriptor=secrets_fd, pinentry=pinentry, act=f"change the {name} of {card.summary.name}"
        )
        keep = 0 if allow_last_try else KEEP_ONE
        marks = card.run(programs.read_marks())
        if which is PinReference.PUK:
            old, new = source.current(which), source.new(which)
            card.run(programs.change_puk(marks, old, new), keep_tries=keep)
        else:
            card.run(programs.change_pin(marks, which), AskedPins(source), keep_tries=keep)
        say(f"The {name} of {card.summary.name} is changed.")


@command.command("unblock")
@card_options
@last_try_option
@direct_option
@secret_options
def unblock(
    choice: Choice, allow_last_try: bool, direct: bool, secrets_fd: int | None, pinentry: str | None
) -> None:
    """Set a new PIN with the PUK, whether the PIN is blocked or only forgotten.

    --secrets-fd has two lines: the PUK and the new PIN. Without the PUK: 'cardwright unlock'.
    """
    if use_daemon(direct=_own_secrets(direct, secrets_fd, pinentry)):

        async def act(daemon: DaemonClient, card: str) -> None:
            await daemon.unblock_pin(card, allow_last_try=allow_last_try, asking=asking())

        _say_new_pin(_through_daemon(choice, act))
        return
    with the_cards().open(choice) as card:
        source = SecretSource(descriptor=secrets_fd, pinentry=pinentry, act=f"unblock the PIN of {card.summary.name}")
        keep = 0 if allow_last_try else KEEP_ONE
        marks = card.run(programs.read_marks())
        puk = source.current(PinReference.PUK)
        card.run(programs.unblock_pin(marks, puk), AskedPins(source), keep_tries=keep)
        _say_new_pin(card.summary.name)


def _say_new_pin(name: str) -> None:
    say(f"{name[:1].upper()}{name[1:]} has a new PIN.")


def _own_secrets(direct: bool, secrets_fd: int | None, pinentry: str | None) -> bool:
    """Whether the card is reached directly: values that come in another way do not pass through the daemon."""
    return direct or secrets_fd is not None or pinentry is not None


def _through_daemon(
    choice: Choice, act: Callable[[DaemonClient, str], Awaitable[None]], *, tokens: bool = False
) -> str:
    """Have the daemon do ``act`` on the chosen card; the card's name."""

    async def work(daemon: DaemonClient) -> str:
        card = await pick(daemon, choice, tokens=tokens)
        await act(daemon, card.id)
        return card.name

    return at_daemon(work)
