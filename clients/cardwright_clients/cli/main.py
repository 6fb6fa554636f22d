"""``cardwright``: the tree of commands, loaded lazily, and one place where errors become words and exit codes.

Exit codes: 0 done; 1 the command failed, or a check found errors; 2 wrong usage, or a check could not run;
130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cardwright_cardops.errors import CardwrightError

    from .cards import Cards

COMMANDS = {
    "card": ("card", "See, set up and check cards"),
    "cert": ("cert", "Certificates on a card: import, export, delete"),
    "key": ("key", "Keys on a card: generate, import, attest"),
    "pin": ("pin", "PIN and PUK: status, change, unblock"),
    "readers": ("readers", "List the readers and what is in them"),
    "sim": ("sim", "Virtual cards for tests and trials"),
}


class LazyGroup(click.Group):
    """A group whose commands are (module, short help) until one of them runs."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, none imported."""
        return sorted(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in self._table:
            return None
        module = importlib.import_module(f"{__package__}.{self._table[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in sorted(self._table.items())])


@click.command(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cardwright", message="%(version)s")
def cardwright() -> None:
    """PIV smart cards that keep themselves current.

    A card is chosen with --serial, --guid or --reader; with one card present no choice is needed. PINs are asked
    for, or read from --secrets-fd; never give one on the command line.

    Exit codes: 0 done, 1 failed (or a check found errors), 2 wrong usage (or a check could not run).
    """


def main(arguments: list[str] | None = None, cards: Cards | None = None) -> None:
    """Run the command line and exit with its code. ``cards`` takes the place of those that PC/SC shows."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = cardwright.main(args=given, prog_name="cardwright", standalone_mode=False, obj=cards)
    except click.exceptions.Abort:
        click.echo("Interrupted. What was written to a card so far stands; run the command again.", err=True)
        code = 130
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except Exception as error:
        code = _report(error, as_json="--json" in given)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception, *, as_json: bool) -> int:
    """Say a CardwrightError in words, or as JSON where JSON was asked for; re-raise everything else."""
    from cardwright_cardops.errors import CardwrightError

    if not isinstance(error, CardwrightError):
        raise error
    if as_json:
        click.echo(json.dumps({"error": describe(error)}, indent=2))
    click.echo(f"Error {error.code}: {error.message}", err=True)
    for line in (error.effect, error.advice):
        if line:
            click.echo(f"  {line}", err=True)
    exit_code = getattr(error, "exit_code", 1)
    return exit_code if isinstance(exit_code, int) else 1


def describe(error: CardwrightError) -> dict[str, object]:
    """The JSON form of an error: code, message, effect, advice and what more it carries."""
    known: dict[str, object] = {
        "code": error.code, "message": error.message, "effect": error.effect, "advice": error.advice,
    }  # fmt: skip
    for name in ("sw", "tries_left", "reader", "holders"):
        value = getattr(error, name, None)
        if value is not None and value != "":
            known[name] = f"{value:04X}" if name == "sw" else value
    return known
