"""``cardwright card init``: a fresh card, or a half-made one, to a good state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cardwright_cardops.piv.management_key import ManagementKeyRefused
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.plan.candidates import ManagementKeyUnknown
from cardwright_cardops.plan.capabilities import CapabilityMissing
from cardwright_cardops.plan.init import Secrets, initialize, look_for
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.plan.planner import plan
from cardwright_cardops.plan.policy import DevicePolicy, PolicyMalformed, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import Journal, fold, require_not_reset, require_same_card
from cardwright_cardops.plan.steps import Step
from cardwright_cardops.plan.words import step_words
from cardwright_cardops.secret import Secret

from .cards import Choice, OpenCard, card_options, the_cards
from .files import read_bounded
from .output import Progress, json_option, say, show_json
from .secrets import AskedPins, SecretSource, on_terminal, secret_options
from .secrets_file import default_path, open_journal, settle

MAX_POLICY = 64 << 10
"""Octets of a policy file: many times the largest policy there can be."""
MAX_POLICY_LINE = 8 << 10
MAX_DOTS = 32
"""Dots in one line: reading dotted keys takes time that grows with the square of their number."""
DEFAULT_KEYS = "9a=p256,9c=p256,9d=p256:import,9e=p256"
KEYS_MADE_HERE = "9a=p256,9c=p256,9d=rsa2048,9e=p256"
"""For cards that take no key from outside: 9D of RSA, because there it signs its own certificate too."""


@click.command("init")
@card_options
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help="A device policy (TOML or JSON).")
@click.option("--keys", help=f"Instead of a policy: SLOT=ALGORITHM[:import], … [default: {DEFAULT_KEYS}]")
@click.option("--replace", is_flag=True, help="Allow to overwrite keys that are on the card and do not fit.")
@click.option("--management-key", "ask_key", is_flag=True,
              help="Ask for the management key (hex) that is in use now; a third line of --secrets-fd.")  # fmt: skip
@click.option("--keep-management-key", is_flag=True,
              help="Leave the management key as it is: for cards that cannot change it.")  # fmt: skip
@click.option("--secrets-out", type=click.Path(path_type=Path),
              help="Keep the new secrets here; without it below XDG_STATE_HOME.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Begin without showing the plan and asking.")
@secret_options
@json_option
def command(
    choice: Choice, policy_file: Path | None, keys: str | None, replace: bool, ask_key: bool,
    keep_management_key: bool, secrets_out: Path | None, yes: bool, secrets_fd: int | None, pinentry: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Set up a fresh card, or finish what an interrupted set-up began.

    The card gets a new PIN, PUK and management key, a CHUID and CCC, keys and self-signed certificates. --secrets-fd
    has two lines: the new PIN and the new PUK. The management key, the PUK and imported keys are kept in the secrets
    file: each is written there before the command that sets it goes to the card, and nothing is taken out again.

    A PIN or PUK that is not the factory's any more stays as it is: give the one that is set.

    On a terminal the plan is shown and consent asked for. With --secrets-fd nothing is asked; --replace then wants
    --yes. Without a terminal one of --yes and --secrets-fd must be given.
    """
    policy = _policy(policy_file, keys, replace, keep_management_key)
    asks = _must_ask(policy, yes, secrets_fd)
    with the_cards().open(choice) as card, _with_options_named(policy_file is None, ask_key):
        source = SecretSource(descriptor=secrets_fd, pinentry=pinentry, act=f"set up {card.summary.name}")
        agreed = _consent(card, policy, secrets_out) if asks else ""
        pins = AskedPins(source)
        pins.new_pin(PinReference.PIN)
        secrets = Secrets(
            new_puk=source.new(PinReference.PUK),
            management_key=Secret(source.management_key()) if ask_key else None,
        )
        shown = Progress(quiet=as_json)
        journal = _Journals(secrets_out)
        report = initialize(
            card.executor(pins),
            policy,
            secrets,
            journal,
            now=datetime.now(UTC),
            expected=agreed,
            progress=_Steps(shown),
        )
        shown.end()
        stays = journal.not_ours()
        kept = settle(journal.path, report.inventory.identity) if journal.path is not None else None
    if as_json:
        done = [step_words(step) for step in report.done]
        known = str(kept) if kept is not None and kept.exists() else None
        show_json({"done": done, "secrets": known, "stays": stays, **report.inventory.document()})
    elif report.done:
        say(f"The card is set up: {len(report.done)} steps. Its secrets are in {kept}: keep that file.")
        for name in stays:
            say(f"The {name.upper()} was set before and stays as it was; that file does not know it.")
    else:
        say("The card is set up already; nothing was changed.")


@contextmanager
def _with_options_named(by_options: bool, ask_key: bool) -> Iterator[None]:
    """Name the options of this command in the advice of errors that they help against."""
    try:
        yield
    except CapabilityMissing as error:
        if by_options:
            error.advice = (
                f"Ask for what the card can do: with --keys {KEYS_MADE_HERE} it makes every key itself,"
                " with --keep-management-key its management key stays."
            )
        raise
    except (ManagementKeyRefused, ManagementKeyUnknown) as error:
        if not ask_key:
            error.advice += " --management-key asks for it."
        raise


def _must_ask(policy: DevicePolicy, yes: bool, secrets_fd: int | None) -> bool:
    """Whether a person has to agree to the plan. Raises UsageError where one has to and none is there."""
    if yes:
        return False
    if secrets_fd is not None:
        if policy.replace:
            raise click.UsageError("With --secrets-fd nothing is asked, so replacing keys wants --yes as well.")
        return False
    if not on_terminal():
        raise click.UsageError("There is no terminal to show the plan on: give --yes or --secrets-fd.")
    return True


class _Journals:
    """Opens the journal once the card is known: its default place has the card's number in its name."""

    def __init__(self, chosen: Path | None) -> None:
        self.path = chosen
        self._journal: Journal | None = None

    def __call__(self, identity: Identity) -> Journal:
        self.path = self.path or default_path(identity)
        self._journal = open_journal(self.path)
        return self._journal

    def not_ours(self) -> list[str]:
        """Which of PIN and PUK no session of this journal has set: "pin", "puk"."""
        records = fold(() if self._journal is None else self._journal.entries())
        return [name for name, ours in (("pin", records.pin_settled), ("puk", records.puk.settled)) if not ours]


class _Steps:
    """Shows steps as they begin."""

    def __init__(self, show: Progress) -> None:
        self._show = show
        self._number = 0

    def __call__(self, step: Step, done: bool) -> None:
        if not done:
            self._number += 1
            self._show(self._number, step_words(step))


def _consent(card: OpenCard, policy: DevicePolicy, secrets_out: Path | None) -> str:
    """Show the plan and ask; the digest of what was agreed to. Raises Abort."""
    inventory = card.run(observe(look_for(policy)))
    entries = open_journal(secrets_out or default_path(inventory.identity)).entries()
    require_same_card(entries, inventory.identity)
    require_not_reset(entries, inventory)
    steps = plan(policy, inventory, fold(entries), now=datetime.now(UTC))
    if not steps:
        return steps.digest
    say(f"On {card.summary.name} this will be done, in about {max(1, round(steps.seconds))} s:", err=True)
    for step in steps.steps:
        say(f"  {step_words(step)}", err=True)
    click.confirm("Begin?", abort=True, err=True)
    return steps.digest


def _policy(file: Path | None, keys: str | None, replace: bool, keep_key: bool) -> DevicePolicy:
    if file is None:
        secrets = SecretsPolicy(management_key=not keep_key)
        return DevicePolicy(slots=parse_keys(DEFAULT_KEYS if keys is None else keys), replace=replace, secrets=secrets)
    if keys is not None or replace or keep_key:
        raise click.UsageError("--keys, --replace and --keep-management-key are said in the policy, if there is one.")
    return read_policy(file)


def read_policy(file: Path) -> DevicePolicy:
    """A device policy in TOML or JSON. Raises PolicyMalformed."""
    import json
    import tomllib

    raw = read_bounded(file, MAX_POLICY)
    try:
        text = raw.decode()
        if text.lstrip().startswith("{"):
            document = json.loads(text, object_pairs_hook=_members)
        else:
            if any(len(line) > MAX_POLICY_LINE or line.count(".") > MAX_DOTS for line in text.split("\n")):
                raise ValueError(f"a line has more than {MAX_POLICY_LINE} characters or {MAX_DOTS} dots")
            document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyMalformed(f"{file} is neither TOML nor JSON: {error}.") from error
    return DevicePolicy.from_document(document)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member is named twice")
    return made
