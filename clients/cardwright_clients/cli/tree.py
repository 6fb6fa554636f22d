"""The tree of commands, loaded lazily, and one place where errors become words and exit codes."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from .commands import ABOUT, COMMANDS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from cardwright_cardops.errors import CardwrightError

    from .cards import Cards


TRACEBACK = "CARDWRIGHT_TRACEBACK"
"""For developers: set, every error also shows where it comes from. A traceback may name files of the machine."""

COULD_NOT_CHECK = 2
"""Exit code of ``card check`` when it could not run: 1 says that there are findings."""

COMPLETE = "_CARDWRIGHT_COMPLETE"
"""Environment variable by which the completion of a shell asks for words; click's, by the program's name."""

LISTED = "\n  "
"""What stands between the rows of a list in a message, as of the cards there are."""


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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands that begin so, from the table alone."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in sorted(self._table.items())]
        return [one for one in found if one.value.startswith(incomplete)] + click.Command.shell_complete(
            self, ctx, incomplete
        )

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
    from .output import say

    try:
        code = cardwright.main(args=arguments, prog_name="cardwright", standalone_mode=False, obj=cards)
    except click.exceptions.Abort:
        say("Interrupted. What was written to a card so far stands; run the command again.", err=True)
        code = 130
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        code = _usage(error, as_json="--json" in arguments)
    except BrokenPipeError:
        discard_output()
        code = 1
    except UnicodeEncodeError as error:
        # Names of files may be any octets, as the system gives them; all else goes to others as text.
        if all(map(_is_text, arguments)):
            code = _report(error, arguments)
        else:
            code = _usage(click.UsageError("An argument is no text in UTF-8."), as_json="--json" in arguments)
    except Exception as error:
        code = _report(error, arguments)
    return code if isinstance(code, int) else 0


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _usage(error: click.ClickException, *, as_json: bool) -> int:
    """Say what was wrong with the command line, in words and, where asked for, as JSON."""
    from .output import say, show_json

    if as_json:
        told = {
            "code": "USAGE", "message": error.format_message(), "effect": "Nothing was sent to any card.",
            "advice": "See the command's --help.",
        }  # fmt: skip
        show_json({"error": told})
    words = io.StringIO()
    error.show(words)
    for line in words.getvalue().splitlines():
        say(line, err=True)
    return error.exit_code


def _report(error: Exception, arguments: list[str]) -> int:
    """Say an error in words, and as JSON where JSON was asked for; its exit code."""
    from cardwright_cardops.errors import CardwrightError

    from .output import say, show_json

    known = error if isinstance(error, CardwrightError) else _unforeseen(error, arguments)
    if os.environ.get(TRACEBACK):
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line, err=True)
    first, *rest = known.message.split(LISTED)
    say(f"Error {known.code}: {first}", err=True)
    for line in (*rest, known.effect, known.advice):
        if line:
            say(f"  {line}", err=True)
    if "--json" in arguments:
        with contextlib.suppress(CardwrightError):  # standard output may take no more; it was said in words
            show_json({"error": describe(known)})
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # full, closed, not there
        discard_output()
    return COULD_NOT_CHECK if arguments[:2] == ["card", "check"] else 1


def _unforeseen(error: Exception, arguments: list[str]) -> CardwrightError:
    """An error that no one gave a code. Its own text may hold anything, so only its kind and place are told."""
    from cardwright_cardops.errors import CardwrightError

    from .files import FileUnusable

    stands = "What was written to a card so far stands; 'cardwright card show' tells what is on it."
    if arguments[:1] == ["server"]:
        stands = "What the server recorded so far stands; 'cardwright server status' tells how it is."
    elif arguments[:2] == ["daemon", "enrol"]:
        stands = "The workstation may not be enrolled, or its configuration not be written: run the same command again."
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        return FileUnusable(f"Reading or writing failed: {name}{error.strerror}.", effect=stands)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return CardwrightError(
        f"An unforeseen {type(error).__name__} in {os.path.basename(frame.filename)}, line {frame.lineno}.",
        effect=stands,
        advice=f"This is a mistake in cardwright: please report it. {TRACEBACK}=1 shows where it comes from.",
    )


def discard_output() -> None:
    """Let nothing more go to a standard output that takes no more, not even what is left at the end."""
    stream = sys.__stdout__
    if stream is not None and sys.stdout is stream:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


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
