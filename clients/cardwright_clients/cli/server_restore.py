"""``cardwright server restore``: back from a backup, and on to what happened since."""

from __future__ import annotations

from pathlib import Path

import click

from .output import json_option, say, show_json
from .server_place import installation, passphrase, passphrase_option, place_options


@click.command("restore")
@place_options
@passphrase_option
@click.option("--without-second-medium", "forgetting", is_flag=True,
              help="The second medium is lost for good: what happened since the backup is forgotten, revocations and "
                   "archived keys too.")  # fmt: skip
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
def command(
    data: Path | None, config: Path | None, passphrase_fd: int | None, forgetting: bool, source: Path, as_json: bool
) -> None:
    """Restore the backup in the folder SOURCE, and replay what the second medium remembers.

    No server may run. Nothing is overwritten: move a damaged database away first. A vault that is still in the data
    folder is kept, and its passphrase is asked for; if it is lost, too, it comes from the backup and the passphrase is
    the backup's. A restore that was interrupted is finished by the same command; no server starts before that.

    The second medium has to be where the configuration names it ('second-medium' in the data folder otherwise). On
    another host, write server.toml into the new data folder or copy the journals there first.
    """
    import asyncio

    from cardwright_server.operation.restore import own_vault, restore

    here = installation(data, config)
    credential = passphrase(passphrase_fd)
    done = asyncio.run(restore(here, source, credential, lambda: own_vault(here, credential), forgetting=forgetting))
    if as_json:
        show_json({"made_at": done.made_at.isoformat(), "events": done.events, "replayed": done.replayed,
                   "vault_epoch": done.vault_epoch, "journal_epoch": done.journal_epoch})  # fmt: skip
        return
    say(f"Restored to {done.made_at:%Y-%m-%d %H:%M} UTC, and {done.replayed} of {done.events} remembered events on.")
    say("Start the server. OCSP answers 'try later' until new revocation lists are out, which is within a minute.")
    say("Cards that were changed since are looked at, and finished, when they are next in a reader.")
