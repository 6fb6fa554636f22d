"""``cardwright server vault``: master keys of a running server's vault."""

from __future__ import annotations

import click

from cardwright_proto.cms.v1 import system_pb2 as pb
from cardwright_proto.cms.v1.system_pb2_grpc import SystemServiceStub

from .output import json_option, say, show_json
from .secrets import on_terminal
from .server_admin_link import ServerLine, connected
from .server_admin_words import chosen, numbers
from .server_place import PassphraseMissing, passphrase, passphrase_option

_ROTATED = ("management-key", "puk", "archive", "biometric", "initial-secret")
"""The key of the audit's commitments is not rotated: what was committed has to stay provable."""
_master = click.argument("master", type=chosen(pb.MasterKey, only=_ROTATED))


@click.group("vault")
def command() -> None:
    """Master keys of the vault, by a security officer who knows its passphrase.

    What the vault has to be told besides, on its host: 'python -m cardwright_server.vault admin'.
    """


@command.command("rotate")
@_master
@passphrase_option
@json_option
@connected
def rotate(line: ServerLine, master: str, passphrase_fd: int | None, as_json: bool) -> None:
    """Make a new version of the key MASTER.

    Archived keys and initial secrets are sealed anew by the server itself. Cards get PUKs and management keys by the
    new version at their next contact that may write them. Older versions still open and answer, until destroyed.
    """
    request = pb.RotateMasterRequest(key=numbers(pb.MasterKey, [master])[0], vault_passphrase=_typed(passphrase_fd))
    made = line.call(lambda channel: SystemServiceStub(channel).RotateMaster, request)
    if as_json:
        show_json({"master": master, "version": made.version})
        return
    say(f"Version {made.version} of {master} is in use.")


@command.command("destroy")
@_master
@click.argument("version", type=click.IntRange(1, 2**32 - 1))
@click.option("--confirm", metavar="MASTER.VERSION", help="Confirm by the name of what is destroyed, as in puk.1.")
@passphrase_option
@json_option
@connected
def destroy(
    line: ServerLine, master: str, version: int, confirm: str | None, passphrase_fd: int | None, as_json: bool
) -> None:
    """Destroy the old VERSION of the key MASTER for good.

    Refused while anything in the database needs it, and in the hour after its rotation (MASTER_IN_USE). What backups
    hold under it cannot be opened any more, unless the vault of that backup is restored with them.
    """
    name = f"{master}.{version}"
    if confirm is None and not on_terminal():
        raise click.UsageError(f"Without a terminal --confirm {name} is needed.")
    if confirm is None:
        confirm = click.prompt(f"Destroyed for good. Type {name} to confirm", err=True, default="", show_default=False)
    if confirm != name:
        raise click.UsageError(f"{name} was not confirmed; nothing was asked of the server.")
    request = pb.DestroyMasterRequest(
        key=numbers(pb.MasterKey, [master])[0], version=version, vault_passphrase=_typed(passphrase_fd)
    )
    line.call(lambda channel: SystemServiceStub(channel).DestroyMaster, request)
    if as_json:
        show_json({"master": master, "destroyed": version})
        return
    say(f"Version {version} of {master} is destroyed.")


def _typed(descriptor: int | None) -> str:
    """The vault's passphrase as the contract carries it. Raises PassphraseMissing."""
    try:
        return passphrase(descriptor, systemd=False).reveal().decode()
    except UnicodeDecodeError:
        raise PassphraseMissing("The passphrase is no text in UTF-8, which is all that a server takes.") from None
