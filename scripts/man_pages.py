"""Write docs/man from the commands themselves: cardwright.1, and one page for each command below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from cardwright_clients.cli.tree import cardwright

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "man"
PROGRAM = "cardwright"
CODES = """\
0 done, 1 failed (or a check found errors), 2 wrong usage (or a check could not run), 130 interrupted. With --json an
error is an object whose "code" is stable."""


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    root = click.Context(cardwright, info_name=PROGRAM, **cardwright.context_settings)
    made = {f"{PROGRAM}.1": _page(root, below=False)}
    for name in cardwright.list_commands(root):
        command = cardwright.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        made[f"{PROGRAM}-{name}.1"] = _page(context, below=True)
    return made


def _page(context: click.Context, *, below: bool) -> str:
    command = context.command
    title = context.command_path.replace(" ", "-")
    lines = [
        '.\\" Made by scripts/man_pages.py from the commands: do not edit.',
        f'.TH {_quoted(title.upper())} 1 "" {_quoted(PROGRAM)} "User commands"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(command.get_short_help_str(200).rstrip('.'))}",
    ]
    sections = list(_commands(context)) if below else [context]
    lines += [".SH SYNOPSIS"]
    for one in sections:
        usage = " ".join(one.command.collect_usage_pieces(one))
        lines += [f".B {_text(one.command_path)}", _text(usage), ".br"]
    lines += [".SH DESCRIPTION", *_prose(command.help or "")]
    lines += [*_options(context, ".SH OPTIONS")]
    for one in sections:
        if one is not context:
            lines += [f".SH {_quoted(one.command_path.removeprefix(PROGRAM + ' ').upper())}"]
            lines += [*_prose(one.command.help or ""), *_options(one, "")]
    if not below:
        assert isinstance(command, click.Group)
        lines += [".SH COMMANDS"]
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            about = found.get_short_help_str(200)
            lines += [".TP", f".BR {PROGRAM}\\-{_text(name)} (1)", _text(about)]
    lines += [".SH EXIT STATUS", *_prose(CODES)]
    if below:
        lines += [".SH SEE ALSO", f".BR {PROGRAM} (1)"]
    return "\n".join(lines) + "\n"


def _commands(context: click.Context) -> Iterator[click.Context]:
    """A command and all below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            found = context.command.get_command(context, name)
            assert found is not None
            yield from _commands(click.Context(found, info_name=name, parent=context))


def _options(context: click.Context, head: str) -> Iterator[str]:
    rows = [
        record
        for one in context.command.get_params(context)
        if isinstance(one, click.Option) and (record := one.get_help_record(context)) is not None
    ]
    if rows and head:
        yield head
    for names, about in rows:
        yield from (".TP", f"\\fB{_text(names)}\\fR", _text(" ".join(about.split())))


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; one that begins with ``\\b`` keeps its lines."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        if paragraph.lstrip().startswith("\b"):
            yield ".nf"
            yield from (_text(line.strip()) for line in paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Text of a line, with what roff would read otherwise written out."""
    made = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace('"', "\\(dq")
    made = "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in made)
    return "\\&" + made if made.startswith(".") else made


def _quoted(text: str) -> str:
    return f'"{_text(text)}"'


def main() -> None:
    """Rewrite the folder."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for path in FOLDER.glob("*.1"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
