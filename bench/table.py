"""Tables on standard output: columns as wide as their widest cell, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence


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
