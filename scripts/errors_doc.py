"""Rewrite the table of docs/errors.md from the error classes: one row per code, in the order of the codes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

from cardwright_cardops.errors import CardwrightError

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
PACKAGES = ("cardops", "simulators", "daemon", "server", "clients")
TABLE_HEAD = ("| Code | What happened | What it means for the card | What to do |", "| --- | --- | --- | --- |")


def error_classes() -> list[type[CardwrightError]]:
    """Every error class of every package that gives itself a code, ordered by code; not the common root."""
    for part in PACKAGES:
        package = importlib.import_module(f"cardwright_{part}")
        for module in pkgutil.walk_packages(package.__path__, f"cardwright_{part}.", onerror=_reraise):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    classes = (cls for cls in _subclasses(CardwrightError) if "code" in vars(cls))
    return sorted(classes, key=lambda cls: (cls.code, cls.__module__))


def meaning(cls: type[CardwrightError]) -> str:
    """What a status word means, if the class is one's, then the first paragraph of the docstring, in one line."""
    described = " ".join(inspect.cleandoc(vars(cls).get("__doc__") or "").split("\n\n")[0].split())
    words: str = vars(cls).get("meaning", "")
    return f"{words[0].upper()}{words[1:]}. {described}" if words else described


def row(cls: type[CardwrightError]) -> str:
    """The class's row of the table."""
    cells = (f"`{cls.code}`", meaning(cls), cls.default_effect, cls.default_advice)
    return "| " + " | ".join(cell.replace("``", "`").replace("|", "\\|") for cell in cells) + " |"


def with_table(text: str) -> str:
    """The document with its table replaced by the one of today's classes. Raises ValueError if it has no table."""
    before, head, rest = text.partition(TABLE_HEAD[0])
    if not head:
        raise ValueError("the document has no table of errors")
    after = rest[rest.find("\n\n") :] if "\n\n" in rest else "\n"
    return before + "\n".join([*TABLE_HEAD, *map(row, error_classes())]) + after


def main() -> None:
    """Rewrite the document."""
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def _subclasses(cls: type[CardwrightError]) -> Iterator[type[CardwrightError]]:
    for subclass in cls.__subclasses__():
        if subclass.__module__.startswith("cardwright_"):
            yield subclass
            yield from _subclasses(subclass)


def _reraise(name: str) -> None:
    error = sys.exc_info()[1]
    raise ImportError(f"{name} cannot be imported") from error


if __name__ == "__main__":
    main()
