"""What starting costs: CPU of fresh interpreters that take turns, as ratios. Bytecode is cached for all alike."""

from __future__ import annotations

import statistics
import sys
from typing import Final

from .children import Children
from .table import against, show

ROUNDS: Final = 11
PEERS: Final = "import cryptography.x509, smartcard"
PACKAGE: Final = "import cardwright_cardops"
HELP: Final = "from cardwright_clients.cli.main import main; main(['--help'])"
STATEMENTS: Final = {
    "the interpreter": "pass",
    "cryptography.x509 and smartcard": PEERS,
    "cardwright_cardops": PACKAGE,
    ".. the way to a card": "from cardwright_cardops.transport import pcsc\n"
    "from cardwright_cardops.program import local, runner",
    ".. and PINs, keys, reading": "from cardwright_cardops.transport import pcsc\n"
    "from cardwright_cardops.program import local, runner\n"
    "from cardwright_cardops.piv import key_items\nfrom cardwright_cardops.plan import observe",
    ".. and plans and checks": "from cardwright_cardops.transport import pcsc\n"
    "from cardwright_cardops.program import local, runner\n"
    "from cardwright_cardops.piv import key_items\nfrom cardwright_cardops.plan import init\n"
    "import cardwright_cardops.check",
    "click": "import click",
    "cardwright --help": HELP,
}


def run(children: Children) -> None:
    """Measure and print."""
    spent: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(ROUNDS + 1):
        for name, statement in STATEMENTS.items():
            seconds = children.cpu([sys.executable, "-c", statement])
            if number:  # the first round compiles
                spent[name].append(seconds * 1e3)
    middle = {name: statistics.median(values) for name, values in spent.items()}
    bare, peers = middle["the interpreter"], middle["cryptography.x509 and smartcard"]
    budgets = {
        "cardwright_cardops": against(middle["cardwright_cardops"] / peers, 1.3),
        "cardwright --help": against(middle["cardwright --help"] / bare, 3),
    }
    show(
        "Starting: CPU of a fresh interpreter, and what it imports",
        ("", "ms", "of interpreter", "of x509 and smartcard", "budget"),
        [
            (name, f"{value:.1f}", f"{value / bare:.2f}", f"{value / peers:.2f}", budgets.get(name, ""))
            for name, value in middle.items()
        ],
    )
