"""``cardwright server init``: an installation from nothing."""

from __future__ import annotations

from pathlib import Path

import click

from .output import json_option, say, show_json
from .server_place import installation, passphrase, passphrase_option, place_options


@click.command("init")
@place_options
@passphrase_option
@click.option("--vault-memory", type=click.IntRange(1024, 4 * 1024 * 1024), metavar="KIB",
              help="Memory that each try of a new vault's passphrase costs. [default: 262144]")  # fmt: skip
@json_option
def command(
    data: Path | None, config: Path | None, passphrase_fd: int | None, vault_memory: int | None, as_json: bool
) -> None:
    """Make whatever is missing of an installation, and a credential for its first two operators.

    Made are the database, the vault, authorities for cards, workstations and servers, a content signer and OCSP
    responders; the policies that come with the program are published, 'civ' is assigned to the group 'everyone'.

    The credential is shown once. It is good for an hour, on this host, and for nothing but 'server enrol-first'. Run
    the command again if the hour passed; what is there stays as it is.
    """
    import asyncio

    from cardwright_server.founding import found

    here = installation(data, config)
    steps = {"database": "Database", "vault": "Vault", "authorities": "Authorities", "policies": "Policies"}
    made = asyncio.run(
        found(
            here,
            lambda new: passphrase(passphrase_fd, new=new),
            memory=vault_memory,
            report=lambda step: say(f"{steps[step]} …", err=True),
        )
    )
    credential = made.credential.reveal().decode()
    if as_json:
        show_json(
            {"data": str(here.data), "organization": str(made.org), "credential": credential,
             "ends": made.ends.isoformat()}
        )  # fmt: skip
        return
    say(f"The installation is in {here.data}.")
    say("Without the vault's passphrase, or a backup, it is lost.")
    if not here.config.issuance.status_base:
        say(f"Certificates name {here.status_base} for revocation lists and OCSP. If nobody can reach that,")
        say("set issuance.status_base in server.toml before the first card is issued.")
    say()
    say(f"Credential of the first two operators, until {made.ends:%Y-%m-%d %H:%M} UTC:")
    say()
    say(f"    {credential}")
    say()
    say("Next: 'cardwright server run', and on this host, for two persons:")
    say("    cardwright server enrol-first administrator --login LOGIN --name NAME")
    say("    cardwright server enrol-first security-officer --login LOGIN --name NAME")
