"""``cardwright``: the entry. It answers ``--help`` itself, because the machinery of commands takes three times as
long to load as the interpreter to start; everything else is in ``tree``.

Exit codes: 0 done; 1 the command failed, or a check found errors; 2 wrong usage, or a check could not run;
130 interrupted.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .commands import help_text

if TYPE_CHECKING:
    from .cards import Cards


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
