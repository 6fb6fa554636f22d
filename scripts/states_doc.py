"""Rewrite docs/states.md from the machines in the code: every ``Machine`` that a module of the server holds."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import cardwright_server
from cardwright_server.machine import Machine

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "states.md"
HEAD = """# States

Everything that has a life of its own moves by one of these tables, and by nothing else: the server executes them, the
tests walk them with several clients at once, and this page is printed from them (`make docs`).

`From` is `(none)` where the row is made. `By` is the part in which someone acts; who may play it is decided by
authorization. `If` names a condition that must hold; rows for the same event are tried in this order. `Effects` are
carried out in the same transaction.
"""


def machines() -> dict[str, Machine[Any, Any]]:
    """Every machine of the server by its name. Raises ValueError if two share a name."""
    found: dict[str, Machine[Any, Any]] = {}
    for module in pkgutil.walk_packages(cardwright_server.__path__, f"{cardwright_server.__name__}."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Machine) and found.setdefault(value.name, value) is not value:
                raise ValueError(f"two machines are called {value.name}")
    return dict(sorted(found.items()))


def text() -> str:
    """The whole document."""
    parts = [f"\n## {name[0].upper()}{name[1:]}\n\n{machine.markdown()}" for name, machine in machines().items()]
    return HEAD + "".join(parts)


def main() -> None:
    """Rewrite the document."""
    DOCUMENT.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
