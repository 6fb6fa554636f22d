"""``cardwright completion``: what a shell reads to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .output import say
from .tree import COMPLETE, cardwright

SHELLS = ("bash", "fish", "zsh")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print what SHELL has to read to complete cardwright's commands and options.

    \b
    bash:  cardwright completion bash > ~/.local/share/bash-completion/completions/cardwright
    zsh:   cardwright completion zsh > ~/.zfunc/_cardwright   (in a folder of $fpath)
    fish:  cardwright completion fish > ~/.config/fish/completions/cardwright.fish
    """
    known = get_completion_class(shell)
    assert known is not None
    for line in known(cardwright, {}, "cardwright", COMPLETE).source().rstrip("\n").splitlines():
        say(line)
