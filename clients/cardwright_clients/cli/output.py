"""What a command prints: a table for people, JSON for programs, progress for the patient."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""Every listing has it."""


def show_json(value: object) -> None:
    """Print ``value`` as JSON, keys as they come."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(rows: Iterable[Sequence[str]], head: Sequence[str]) -> None:
    """Print columns as wide as their widest cell."""
    table = [list(head), *[list(row) for row in rows]]
    widths = [max(len(row[index]) for row in table) for index in range(len(head))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print one ``name: value`` a line, values aligned."""
    pairs = list(fields)
    width = max((len(name) for name, _ in pairs), default=0) + 1
    for name, value in pairs:
        click.echo(f"{name + ':':<{width}} {value}")


class Progress:
    """Steps on standard error: on a terminal one line that is written over, else one line a step."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()

    def __call__(self, number: int, doing: str) -> None:
        """Show that step ``number`` begins."""
        if self._quiet:
            return
        line = f"step {number}: {doing}"
        if self._terminal:
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        else:
            click.echo(line, err=True)

    def end(self) -> None:
        """Leave the line that was written over."""
        if self._terminal and not self._quiet:
            click.echo(err=True)


def hex_text(value: bytes) -> str:
    """Octets as people read them: upper case, no separators."""
    return value.hex().upper()


