"""Tables on standard output: columns as wide as their widest cell, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """Print one table under its title."""
    print(f"\n{title}")
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if cell[:1].isdigit() or cell == "-" else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  " + "  ".join(cells).rstrip())
    if note:
        print(f"  {note}")


def against(value: float, limit: float, *, least: bool = False) -> str:
    """``value`` against a budget, in words."""
    good = value >= limit if least else value <= limit
    return f"{'within' if good else 'OUTSIDE'} {'at least' if least else 'at most'} {limit:g}"


@dataclass
class Budgets:
    """What was to be reached, and what was, of one run."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def judge(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """At most ``limit``; NaN, where nothing was measured, is outside."""
        verdict = "within" if value <= limit else "OUTSIDE"
        self.rows.append((what, f"{limit:g} {unit}".strip(), f"{value:.3g} {unit}".strip(), verdict))

    def report(self, what: str, value: str) -> None:
        """What has no budget."""
        self.rows.append((what, "-", value, ""))

    def show(self, title: str) -> None:
        """Print all."""
        show(title, ("", "budget, at most", "measured", ""), self.rows)
