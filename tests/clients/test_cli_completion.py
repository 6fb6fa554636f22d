"""Completion: what shells read, and what they are told; bash, zsh and fish for real."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cardwright_clients.cli.commands import COMMANDS
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


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed; see packages.txt")


def around() -> dict[str, str]:
    """The environment of a shell that finds the command."""
    return dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", TERM="dumb")


@needs("fish")
def test_fish_completes(tmp_path: Path) -> None:
    script = "cardwright completion fish | source; complete --do-complete 'cardwright escrow r'"
    where = around() | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    ran = subprocess.run(
        ["fish", "--no-config", "-c", script], env=where, capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = ran.stdout.splitlines()
    assert line.startswith("recover\tPut keys back on the card"), ran.stderr


ZSHRC = """
autoload -U compinit && compinit -u -D
source <(cardwright completion zsh)
tell() { print -rn -- "$BUFFER" > "$ZDOTDIR/line"; exit }
zle -N tell
bindkey '^X' tell
PS1=READY
"""


@needs("zsh")
def test_zsh_completes(tmp_path: Path) -> None:
    """At a terminal: a tabulator where one command fits puts it on the line."""
    (tmp_path / ".zshrc").write_text(ZSHRC)
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            ["zsh", "-d", "-i"], env=around() | {"ZDOTDIR": str(tmp_path)}, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        ) as shell:  # fmt: skip
            os.close(theirs)
            seen = b""
            while b"READY" not in seen:
                seen += os.read(ours, 4096)
            os.write(ours, b"cardwright escrow rec\t\x18")
            with contextlib.suppress(OSError):  # how a terminal says that nobody is at its other end
                while os.read(ours, 4096):
                    pass
            assert shell.wait(60) == 0
    finally:
        os.close(ours)
    assert (tmp_path / "line").read_text() == "cardwright escrow recover "


def test_unheard_of_shells_are_refused() -> None:
    assert Desk().run("completion", "tcsh").code == 2
