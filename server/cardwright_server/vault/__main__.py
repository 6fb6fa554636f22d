"""``python -m cardwright_server.vault``: run a vault, and administer it. No passphrase is ever an argument."""

from __future__ import annotations

import asyncio
import functools
import getpass
import operator
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import click
import msgspec

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

from . import messages as m
from .administration import administer, restore
from .audit_log import verify
from .backend import Backend
from .client import AdminClient, VaultClient
from .core import VaultCore
from .document import AUDIT_FOLDER, Derivation
from .errors import VaultError
from .hardening import harden
from .hsm import HsmBackend, HsmToken
from .launch import READY
from .model import KeyRole, MasterPurpose, SigningAlgorithm, VendorKdf
from .names import name_from_text
from .profiles import CertificateRule
from .service import VaultService
from .software import SoftwareBackend
from .wire import fault_of

T = TypeVar("T")

_MAX_CREDENTIAL = 1024
_MAX_BACKUP = 64 * 1024 * 1024

directory_option = click.option(
    "--directory", required=True, type=click.Path(path_type=Path), help="Where the vault's files are."
)
sockets_option = click.option(
    "--sockets", required=True, type=click.Path(path_type=Path), help="Where the vault's sockets are."
)
uid_option = click.option("--vault-uid", type=int, help="User id of the vault's process, if it is not this one.")
credential_option = click.option(
    "--credential-fd", type=int, help="Read the passphrase or PIN from this descriptor instead of asking for it."
)
hsm_options = (
    click.option("--hsm-module", type=click.Path(path_type=Path), help="PKCS#11 module of the HSM."),
    click.option("--hsm-token", help="Label of the HSM's token."),
)


def with_hsm(command: Callable[..., None]) -> Callable[..., None]:
    """The two options that choose an HSM instead of the software vault."""
    for option in hsm_options:
        command = option(command)
    return command


def _backend(module: Path | None, token: str | None, memory: int | None = None) -> Backend:
    if (module is None) is not (token is None):
        raise click.UsageError("--hsm-module and --hsm-token go together.")
    if module is not None and token is not None:
        return HsmBackend(HsmToken(module, token))
    return SoftwareBackend() if memory is None else SoftwareBackend(Derivation(bytes(16), memory=memory))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run and administer a vault. Passphrases are asked for, or read from a descriptor."""
    harden()


def _credential(descriptor: int | None, prompt: str, *, twice: bool = False) -> Secret:
    if descriptor is not None:
        with os.fdopen(descriptor, "rb") as file:
            value = file.readline(_MAX_CREDENTIAL + 1).rstrip(b"\n")
    else:
        value = getpass.getpass(f"{prompt}: ").encode()
        if twice and value != getpass.getpass(f"{prompt}, again: ").encode():
            raise click.ClickException("The two are not the same.")
    if not value:
        raise click.ClickException("Nothing was given.")
    return Secret(value)


@main.command()
@directory_option
@credential_option
@with_hsm
@click.option("--memory", default=256 * 1024, show_default=True, help="Memory of Argon2id in KiB.")
@click.option("--fault-fd", type=int, hidden=True, help="Write what is wrong there, for the program that asks.")
def init(
    directory: Path,
    credential_fd: int | None,
    memory: int,
    fault_fd: int | None,
    hsm_module: Path | None,
    hsm_token: str | None,
) -> None:
    """Make a new vault: in a file, or in an HSM whose token and user PIN are there already."""
    prompt = "New passphrase" if hsm_module is None else "User PIN of the HSM"
    credential = _credential(credential_fd, prompt, twice=hsm_module is None)
    try:
        VaultCore.create(directory, _backend(hsm_module, hsm_token, memory), credential.reveal()).close()
    except VaultError as error:
        if fault_fd is None:
            raise
        with os.fdopen(fault_fd, "wb") as file:
            file.write(msgspec.json.encode(fault_of(error)))
        raise SystemExit(1) from error
    click.echo(f"A new vault is in {directory}.")
    if hsm_module is None:
        click.echo("Without its passphrase, or a backup and the backup's passphrase, it is lost.")


@main.command()
@directory_option
@sockets_option
@credential_option
@click.option("--client-uid", type=int, multiple=True, help="Another user id that may use the vault.")
@click.option("--end-with-stdin", is_flag=True, help="End when standard input does.")
@with_hsm
def run(
    directory: Path,
    sockets: Path,
    credential_fd: int | None,
    client_uid: tuple[int, ...],
    end_with_stdin: bool,
    hsm_module: Path | None,
    hsm_token: str | None,
) -> None:
    """Serve a vault, locked unless a passphrase comes through a descriptor."""
    core = VaultCore(directory, _backend(hsm_module, hsm_token))
    if credential_fd is not None:
        administer(core, m.Unlock(_credential(credential_fd, "").reveal()))
    asyncio.run(_serve(VaultService(core, clients=client_uid), sockets, end_with_stdin))


async def _serve(service: VaultService, sockets: Path, end_with_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    if end_with_stdin:
        loop.add_reader(sys.stdin.fileno(), _drain, ending)
    await service.start(sockets)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    waiting = {asyncio.create_task(ending.wait()), asyncio.create_task(service.failed())}
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await service.close()
    for task in waiting - done:
        task.cancel()
    for task in done:
        task.result()


def _drain(ending: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        ending.set()
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


@main.group()
def admin() -> None:
    """What only the holder of the passphrase may do."""


@dataclass(frozen=True, slots=True)
class _Administrator:
    """Where the vault listens, and where the passphrase comes from."""

    sockets: Path
    uid: int | None
    descriptor: int | None

    def do(self, act: Callable[[AdminClient], Awaitable[T]]) -> T:
        """Ask for the passphrase, and act."""

        async def work() -> T:
            client = AdminClient(self.sockets, _credential(self.descriptor, "Passphrase or PIN"), uid=self.uid)
            try:
                return await act(client)
            finally:
                await client.close()

        return asyncio.run(work())


def administrative(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every act of the administrator; the command gets an ``_Administrator`` first."""

    @functools.wraps(command)
    def wrapped(sockets: Path, vault_uid: int | None, credential_fd: int | None, **arguments: object) -> None:
        command(_Administrator(sockets, vault_uid, credential_fd), **arguments)

    return sockets_option(uid_option(credential_option(wrapped)))


@admin.command()
@administrative
@click.option("--spend-last-try", is_flag=True, help="Send the PIN even if a wrong one would lock the HSM.")
def unlock(by: _Administrator, spend_last_try: bool) -> None:
    """Unlock the vault."""
    by.do(lambda client: client.unlock(spend_last_try=spend_last_try))


@admin.command()
@administrative
def lock(by: _Administrator) -> None:
    """Lock the vault."""
    by.do(lambda client: client.lock())


@admin.command()
@sockets_option
@uid_option
def status(sockets: Path, vault_uid: int | None) -> None:
    """Say how the vault is, as JSON."""

    async def work() -> bytes:
        client = VaultClient(sockets, uid=vault_uid)
        try:
            return msgspec.json.format(msgspec.json.encode(await client.status()))
        finally:
            await client.close()

    click.echo(asyncio.run(work()))


@admin.command("create-key")
@administrative
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([one.value for one in KeyRole]))
@click.option("--algorithm", required=True, type=click.Choice([one.value for one in SigningAlgorithm]))
@click.option("--subject", default="", help="Distinguished name, for example 'CN=Root,O=Example' (RFC 4514).")
@click.option("--profile", "profiles", multiple=True, help="A profile that this CA signs under.")
def create_key(
    by: _Administrator,
    name: str,
    role: str,
    algorithm: str,
    subject: str,
    profiles: tuple[str, ...],
) -> None:
    """Make a signing key."""
    kind, size = KeyRole(role), SigningAlgorithm(algorithm)
    der = name_from_text(subject)
    by.do(lambda client: client.create_key(name, kind, size, der, profiles))


@admin.command("rotate-master")
@administrative
@click.argument("purpose", type=click.Choice([one.value for one in MasterPurpose]))
def rotate_master(by: _Administrator, purpose: str) -> None:
    """Begin a new version of a master key."""
    version = by.do(lambda client: client.rotate_master(MasterPurpose(purpose)))
    click.echo(f"{purpose} has version {version} now.")


@admin.command("destroy-master")
@administrative
@click.argument("purpose", type=click.Choice([one.value for one in MasterPurpose]))
@click.argument("version", type=int)
@click.confirmation_option(prompt="Everything that needs this version is lost. Go on?")
def destroy_master(by: _Administrator, purpose: str, version: int) -> None:
    """Destroy an old version of a master key."""
    by.do(lambda client: client.destroy_master(MasterPurpose(purpose), version))


@admin.command("import-vendor-master")
@administrative
@click.argument("lot")
@click.option("--kdf", required=True, type=click.Choice([one.value for one in VendorKdf]))
@click.option("--components", default=2, show_default=True, type=click.IntRange(1, 9),
              help="How many components are asked for, one after another, in hexadecimal digits; their XOR is the key.")
@click.option("--component-fd", type=int, multiple=True, help="Read a component from this descriptor; may be repeated.")
@click.option("--check", default="", help="The key's check value, 6 hexadecimal digits: another key is refused.")
def import_vendor_master(
    by: _Administrator, lot: str, kdf: str, components: int, component_fd: tuple[int, ...], check: str
) -> None:
    """Take in the master key from which a vendor derived the management keys of LOT (its id). It never comes out."""
    sources: tuple[int | None, ...] = component_fd or (None,) * components
    parts = [_hex(_credential(one, f"Component {n} of {len(sources)}")) for n, one in enumerate(sources, 1)]
    if len({len(part) for part in parts}) != 1:
        raise click.ClickException("The components have different lengths.")
    key = Secret(bytes(functools.reduce(operator.xor, octets) for octets in zip(*parts, strict=True)))
    wanted = _hex(Secret(check.encode())) if check else b""
    found = by.do(lambda client: client.import_vendor_master(lot, VendorKdf(kdf), key, wanted))
    click.echo(f"The vault has the key; its check value is {found.hex().upper()}.")


def _hex(text: Secret) -> bytes:
    try:
        return bytes.fromhex(text.reveal().decode("ascii"))
    except ValueError:
        raise click.ClickException("These are not hexadecimal digits.") from None


@admin.command("set-rule")
@administrative
@click.argument("name")
@click.argument("file", type=click.File("rb"))
def set_rule(by: _Administrator, name: str, file: BinaryIO) -> None:
    """Add or replace a certificate profile, from a TOML file."""
    try:
        rule = msgspec.toml.decode(file.read(), type=CertificateRule)
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"No profile: {error}") from None
    by.do(lambda client: client.set_rule(name, rule))


@admin.command("set-limit")
@administrative
@click.argument("name")
@click.option("--per-hour", type=click.IntRange(min=0))
@click.option("--per-day", type=click.IntRange(min=0))
def set_limit(by: _Administrator, name: str, per_hour: int | None, per_day: int | None) -> None:
    """Replace a quota; what is left out is not limited."""
    by.do(lambda client: client.set_limit(name, m.Limit(per_hour, per_day)))


@admin.command("change-passphrase")
@administrative
@click.option("--new-fd", type=int, help="Read the new passphrase from this descriptor.")
def change_passphrase(by: _Administrator, new_fd: int | None) -> None:
    """Choose another passphrase."""
    new = _credential(new_fd, "New passphrase", twice=True)
    by.do(lambda client: client.change_credential(new))


@admin.command()
@administrative
@click.option("--backup-fd", type=int, help="Read the backup's passphrase from this descriptor.")
@click.argument("file", type=click.Path(path_type=Path))
def backup(by: _Administrator, backup_fd: int | None, file: Path) -> None:
    """Write a backup under a passphrase of its own."""
    passphrase = _credential(backup_fd, "Passphrase of the backup", twice=True)
    write_whole(file, by.do(lambda client: client.backup(passphrase)))


@admin.command("restore")
@directory_option
@credential_option
@click.argument("file", type=click.File("rb"))
def restore_backup(directory: Path, credential_fd: int | None, file: BinaryIO) -> None:
    """Put a backup in place while the vault does not run; it keeps the backup's passphrase."""
    passphrase = _credential(credential_fd, "Passphrase of the backup")
    epoch = restore(directory, file.read(_MAX_BACKUP), passphrase.reveal(), time.time)
    click.echo(f"Restored. The vault is in epoch {epoch}.")


@admin.command("new-epoch")
@administrative
def new_epoch(by: _Administrator) -> None:
    """Let audit chains go on after the server's database was restored."""
    click.echo(by.do(lambda client: client.new_epoch()))


@admin.command("verify-audit")
@directory_option
def verify_audit(directory: Path) -> None:
    """Check the vault's audit from its first entry; compare what it says with an anchor kept elsewhere."""
    count, head = verify(directory / AUDIT_FOLDER)
    click.echo(f"{count} entries, head {head}")


if __name__ == "__main__":
    try:
        main()
    except CardwrightError as error:
        raise SystemExit(f"{error.code}: {error.explain()}") from None
