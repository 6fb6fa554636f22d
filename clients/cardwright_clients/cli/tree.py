"""The tree of commands, loaded lazily, and one place where errors become words and exit codes."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .main import ABOUT, COMMANDS

if TYPE_CHECKING:
    from cardwright_cardops.errors import CardwrightError

    from .cards import Cards


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


@click.command(cls=LazyGroup, table=COMMANDS, help=ABOUT, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cardwright", message="%(version)s")
def cardwright() -> None:
    """Everything below is a command of its own."""


def run(arguments: list[str], cards: Cards | None = None) -> int:
    """Run one command line; its exit code."""
    try:
        code = cardwright.main(args=arguments, prog_name="cardwright", standalone_mode=False, obj=cards)
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
        code = _report(error, as_json="--json" in arguments)
    return code if isinstance(code, int) else 0


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
