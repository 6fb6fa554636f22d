"""Completion: what shells read, and what they are told; bash for real."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cardwright_clients.cli.main import COMMANDS
from tests.support.command_line import Desk

BIN = Path(sys.executable).parent


def complete(words: str, number: int, shell: str = "zsh") -> list[str]:
    """What a shell is told for a line of which word ``number`` is being typed."""
    around = dict(
        os.environ, _CARDWRIGHT_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD=str(number),
        PATH=f"{BIN}:{os.environ['PATH']}",
    )  # fmt: skip
    ran = subprocess.run(["cardwright"], env=around, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout.splitlines()


def test_commands_come_with_what_they_do() -> None:
    assert complete("cardwright u", 1) == [
        "plain", "unlock", COMMANDS["unlock"][1], "plain", "update", COMMANDS["update"][1],
    ]  # fmt: skip
    assert complete("cardwright update --yes --wa", 3)[:2] == ["plain", "--watch"]
    assert complete("cardwright server pol", 2)[1] == "policy"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    ran = Desk().run("completion", shell)
    assert ran.code == 0
    assert f"_CARDWRIGHT_COMPLETE={shell}_complete" in ran.out


def test_bash_completes() -> None:
    script = f"""
        PATH={shlex.quote(str(BIN))}:$PATH
        source <(cardwright completion bash)
        COMP_WORDS=(cardwright escrow r) COMP_CWORD=2
        _cardwright_completion cardwright
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ran = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.splitlines() == ["recover"], ran.stderr


def test_unheard_of_shells_are_refused() -> None:
    assert Desk().run("completion", "tcsh").code == 2
