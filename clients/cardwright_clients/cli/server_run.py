"""``cardwright server run``: the server's process."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .server_place import installation, passphrase, passphrase_option, place_options


@click.command("run")
@place_options
@passphrase_option
def command(data: Path | None, config: Path | None, passphrase_fd: int | None) -> None:
    """Serve until SIGTERM or Ctrl+C, then let card sessions end and stop.

    Events are written to standard output, a line of JSON each. The vault's passphrase is asked for, read from
    --passphrase-fd, or taken from the systemd credential 'vault-passphrase'; it is tried once and kept nowhere. With a
    vault that somebody else runs and has unlocked none is needed.
    """
    # gRPC's own lines would stand between ours, those of an address in use, which we say, among them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    here = installation(data, config)
    from cardwright_server.serving import main

    asked = here.vault is not None or passphrase_fd is not None
    main(here, passphrase(passphrase_fd) if asked else None)
