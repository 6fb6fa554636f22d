"""What must be open before anything works: the folder, which belongs to one process at a time, and the vault."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

from .config import ConfigurationRefused, Installation, VaultSection
from .vault.client import AdminClient, VaultClient
from .vault.errors import VaultUnavailable
from .vault.launch import VaultProcess
from .vault.messages import Fault
from .vault.model import LockState
from .vault.wire import error_of

LONGEST_SOCKET = 107
"""Octets of a Unix socket's path (sun_path)."""
_LONGEST_FAULT = 4096
"""A pipe holds as much without a reader (PIPE_BUF)."""


class DataFolderInUse(CardwrightError):
    """Another process serves from this folder."""

    code = "DATA_FOLDER_IN_USE"
    default_effect = "Nothing was started or changed."
    default_advice = "Stop the other process first; several servers of one database each have a folder of their own."


class DataFolderUnusable(CardwrightError):
    """The folder cannot be made or written, or others may enter it."""

    code = "DATA_FOLDER_UNUSABLE"
    default_effect = "Nothing was started or changed."
    default_advice = "Give the folder to the server's user alone (mode 0700), on a disk with room."


@contextmanager
def own_folder(installation: Installation) -> Iterator[None]:
    """Hold the data folder, making it where it is missing. Raises DataFolderInUse, DataFolderUnusable."""
    make_folders(installation)
    try:
        descriptor = os.open(installation.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataFolderUnusable(f"{installation.lock} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataFolderInUse(f"another process uses {installation.data}") from None
        yield
    finally:
        os.close(descriptor)


def make_folders(installation: Installation) -> None:
    """Raises DataFolderUnusable, ConfigurationRefused."""
    for socket in (installation.local_socket, installation.vault_sockets / "admin.sock"):
        if len(os.fsencode(socket)) > LONGEST_SOCKET:
            raise ConfigurationRefused(f"the path {socket} is too long for a socket; choose a shorter data folder")
    try:
        installation.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (installation.run, installation.tls):
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (installation.data, installation.run):
            status = folder.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise DataFolderUnusable(f"{folder} is open to others than its owner, or is not ours")
    except OSError as error:
        raise DataFolderUnusable(f"{installation.data} cannot be made: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class OpenVault:
    """A vault that is unlocked. ``process`` is None where somebody else runs it."""

    client: VaultClient
    admin: AdminClient | None
    process: VaultProcess | None

    async def ended(self) -> int:
        """Wait for the vault's process to end; for ever, if it is not ours. Gives its exit status."""
        if self.process is None:
            await asyncio.Event().wait()
            raise AssertionError("nothing sets this event")
        return await self.process.wait()


@asynccontextmanager
async def open_vault(
    installation: Installation, passphrase: Secret | None, *, administer: bool = True
) -> AsyncIterator[OpenVault]:
    """The vault, started if it is ours, and unlocked by ``passphrase``, which is tried once.

    Unless it is to ``administer`` the vault, this process keeps the passphrase no longer than that, and wipes it.
    Raises VaultUnlockRefused, VaultDamaged, VaultUnavailable.
    """
    config = installation.config.vault
    process = None
    if installation.vault is not None:
        process = await VaultProcess.start(installation.vault, installation.vault_sockets, None, hsm_arguments(config))
    admin = None
    client = VaultClient(installation.vault_sockets, uid=config.uid)
    try:
        if passphrase is not None:
            admin = AdminClient(installation.vault_sockets, passphrase, uid=config.uid)
            if process is not None or (await client.status()).state is LockState.LOCKED:
                await admin.unlock()
            if not administer:
                await admin.close()
                admin = None
                passphrase.wipe()
        yield OpenVault(client, admin, process)
    finally:
        if admin is not None:
            await admin.close()
        await client.close()
        if process is not None:
            await process.stop()


async def make_vault(installation: Installation, passphrase: Secret, memory: int | None) -> None:
    """A new vault of our own, by a process of its own. ``memory``: KiB for Argon2id.

    Raises what that process says: VaultUnlockRefused and HsmUnusable of an HSM, VaultExists, VaultUnavailable.
    """
    assert installation.vault is not None
    reading, writing = os.pipe()
    told, telling = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cardwright_server.vault", "init"),
            *("--directory", os.fspath(installation.vault), "--credential-fd", str(reading)),
            *("--fault-fd", str(telling)),
            *(("--memory", str(memory)) if memory is not None else ()),
            *hsm_arguments(installation.config.vault),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(reading, telling),
        )
        with suppress(BrokenPipeError):
            os.write(writing, passphrase.reveal() + b"\n")
    finally:
        os.close(reading)
        os.close(writing)
        os.close(telling)
    with open(told, "rb") as faults:
        status = await process.wait()
        fault = faults.read(_LONGEST_FAULT)
    if fault:
        raise error_of(msgspec.json.decode(fault, type=Fault))
    if status != 0:
        raise VaultUnavailable(f"The vault was not made (exit status {status}).")


def has_vault(folder: Path) -> bool:
    """Whether a vault was made there."""
    return (folder / "vault.keys").exists()


def hsm_arguments(config: VaultSection) -> tuple[str, ...]:
    """Arguments of the vault's process that choose an HSM."""
    module, token = config.hsm_module, config.hsm_token
    return ("--hsm-module", module, "--hsm-token", token) if module else ()
