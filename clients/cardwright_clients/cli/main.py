"""``cardwright``: the entry. It answers ``--help`` itself, because the machinery of commands takes three times as
long to load as the interpreter to start; everything else is in ``tree``.

Exit codes: 0 done; 1 the command failed, or a check found errors; 2 wrong usage, or a check could not run;
130 interrupted.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cards import Cards

COMMANDS = {
    "agent": ("agent", "Notifications on the desktop: what is due, Start and Later"),
    "card": ("card", "See, set up and check cards"),
    "cert": ("cert", "Certificates on a card: import, export, delete"),
    "completion": ("completion", "Completion for bash, zsh or fish"),
    "daemon": ("daemon", "The workstation daemon, in the foreground; enrolment"),
    "escrow": ("escrow", "Keys that the server keeps: list, put back, download"),
    "demo": ("demo", "Show the main job: two cards from nothing to finished"),
    "key": ("key", "Keys on a card: generate, import, attest"),
    "pin": ("pin", "PIN and PUK: status, change, unblock"),
    "readers": ("readers", "List the readers and what is in them"),
    "report": ("report", "The workstation, for the help desk"),
    "server": ("server", "The card management server"),
    "sign-in": ("sign_in", "Prove with a card who you are, to the server or a portal"),
    "sim": ("sim", "Virtual cards for tests and trials"),
    "status": ("status", "The daemon, its cards, and what is due"),
    "unlock": ("unlock", "A new PIN with the help of the server"),
    "update": ("update", "What the server wants done: see it, start it, put it off"),
    "watch": ("watch", "Readers, cards and operations as they change"),
}
"""Module and short help of each command."""

ABOUT = """\
PIV smart cards that keep themselves current.

A card is chosen with --serial, --guid or --reader; with one card present no
choice is needed. PINs are asked for, or read from --secrets-fd; never give
one on the command line.

Exit codes: 0 done, 1 failed (or a check found errors), 2 wrong usage (or a
check could not run).
"""
"""Wrapped as click wraps it on 80 columns."""


def main(arguments: list[str] | None = None, cards: Cards | None = None) -> None:
    """Run the command line and exit with its code. ``cards`` takes the place of those that PC/SC shows."""
    given = sys.argv[1:] if arguments is None else arguments
    if given in (["--help"], ["-h"]):
        sys.exit(_help())
    _leave_no_core()
    from .tree import run

    sys.exit(run(given, cards))


def _leave_no_core() -> None:
    """No core file of this process or of what it starts: PINs and keys are in its memory."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _help() -> int:
    try:
        print(help_text(), end="", flush=True)
    except OSError as error:
        from .tree import discard_output

        discard_output()
        print(f"Error FILE: The output cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def help_text() -> str:
    """What click says for ``--help`` on 80 columns."""
    about = "".join(f"  {line}".rstrip() + "\n" for line in ABOUT.splitlines())
    width = max(map(len, COMMANDS))
    rows = "".join(f"  {name:<{width}}  {text}\n" for name, (_, text) in sorted(COMMANDS.items()))
    return (
        f"Usage: cardwright [OPTIONS] COMMAND [ARGS]...\n\n{about}\n"
        "Options:\n"
        "  --version   Show the version and exit.\n"
        "  -h, --help  Show this message and exit.\n\n"
        f"Commands:\n{rows}"
    )
