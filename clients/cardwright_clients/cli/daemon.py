"""``cardwright daemon``: the workstation daemon, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from .output import json_option, say, show_json


@click.command("daemon")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file (TOML).")
@json_option
def command(config: Path | None, as_json: bool) -> None:
    """Run the workstation daemon until interrupted. One runs for each user.

    It watches the readers, asks for PINs, and does what the server wants done on cards once you agree. The commands
    that need it find it by its socket.
    """
    from cardwright_daemon.config import load
    from cardwright_daemon.start import serve

    def ready(socket: Path) -> None:
        if as_json:
            show_json({"socket": str(socket)}, indent=None)
        else:
            say(f"The daemon listens at {socket}. Ctrl-C ends it.")

    serve(load(config), ready)
