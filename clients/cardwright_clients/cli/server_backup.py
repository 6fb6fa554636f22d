"""``cardwright server backup``: a copy to restore from."""

from __future__ import annotations

from pathlib import Path

import click

from .output import json_option, say, show_json
from .server_place import installation, passphrase, passphrase_option, place_options


@click.command("backup")
@place_options
@passphrase_option
@click.option("--backup-fd", type=int, metavar="N",
              help="Read the new passphrase of the vault in the backup from this descriptor.")  # fmt: skip
@click.argument("target", type=click.Path(path_type=Path))
@json_option
def command(
    data: Path | None, config: Path | None, passphrase_fd: int | None, backup_fd: int | None, target: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Write a backup of database, vault and configuration into the new folder TARGET, while the server works.

    The vault in it is sealed under a passphrase of its own; nothing else in it is, so keep it as the database itself.
    With an HSM there is no vault in it, and no passphrase is asked for. The second medium is not in it: keep that on
    another disk, and copy it as often as you can, because a restore needs it to know what happened since the backup.
    """
    import asyncio

    from cardwright_cardops.secret import Secret
    from cardwright_server.operation.backup import back_up, vault_admin
    from cardwright_server.operation.manifest import Manifest

    here = installation(data, config)
    credential = new = Secret(b"")
    if not here.config.vault.hsm_module:
        credential = passphrase(passphrase_fd)
        new = passphrase(backup_fd, new=True, systemd=False, name="the vault in the backup", option="--backup-fd")

    async def work() -> Manifest:
        async with vault_admin(here, credential) as admin:
            return await back_up(here, admin, new, target)

    made = asyncio.run(work())
    if as_json:
        show_json({"target": str(target), "made_at": made.made_at.isoformat(), "engine": made.engine,
                   "anchor": made.anchor, "files": dict(made.files)})  # fmt: skip
        return
    say(f"A backup is in {target}: {', '.join(made.files)}.")
    if "vault.backup" not in made.files:
        say("The vault's keys are in an HSM: back those up by its own means, and the vault's folder with them.")
    if made.anchor:
        say(f"Anchor of the audit chain, to be kept elsewhere: {made.anchor}")
