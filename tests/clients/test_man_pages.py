"""docs/man is what the commands say, and groff reads it without a complaint."""

from __future__ import annotations

import subprocess

import pytest

from cardwright_clients.cli.commands import COMMANDS
from scripts.man_pages import FOLDER, pages


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_pages_are_what_the_commands_say(made: dict[str, str]) -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert {name for name in kept.keys() | made.keys() if kept.get(name) != made.get(name)} == set(), "run: make docs"


def test_every_command_has_its_page(made: dict[str, str]) -> None:
    assert set(made) == {"cardwright.1"} | {f"cardwright-{name}.1" for name in COMMANDS}


def test_groff_has_no_complaint_and_shows_the_options(made: dict[str, str]) -> None:
    every = "".join(made.values())
    ran = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=100n"], input=every, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert ran.stderr == ""
    page = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u"], input=made["cardwright-escrow.1"], capture_output=True,
        text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert "ESCROW RECOVER" in page and "--account NAME" in page and "EXIT STATUS" in page
