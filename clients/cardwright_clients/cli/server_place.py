"""What commands about the server on this host share: which data folder, and where the vault's passphrase comes from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

if TYPE_CHECKING:
    from cardwright_server.config import Installation

F = TypeVar("F", bound=Callable[..., Any])
CREDENTIAL: Final = "vault-passphrase"
"""Name of the systemd credential (``LoadCredential=``, systemd.exec(5))."""
LONGEST: Final = 1024


class PassphraseMissing(CardwrightError):
    """There is no passphrase for the vault, or the two entries of a new one differ."""

    code = "PASSPHRASE_MISSING"
    default_effect = "Nothing was started or changed."
    default_advice = "Type it at the prompt, give --passphrase-fd, or the systemd credential 'vault-passphrase'."


def data_option(function: F) -> F:
    """``--data``."""
    option = click.option("--data", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
                          help="Data folder; without it below XDG_DATA_HOME.")  # fmt: skip
    return option(function)


def place_options(function: F) -> F:
    """``--data`` and ``--config``."""
    option = click.option("--config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                          help="Configuration; without it server.toml in the data folder.")  # fmt: skip
    return data_option(option(function))


def passphrase_option(function: F) -> F:
    """``--passphrase-fd``."""
    option = click.option("--passphrase-fd", type=int, metavar="N",
                          help="Read the vault's passphrase (or the HSM's PIN) from this descriptor.")  # fmt: skip
    return option(function)


def installation(data: Path | None, config: Path | None) -> Installation:
    """The installation that is meant. Raises ConfigurationRefused."""
    from cardwright_server.config import load

    return load(data, config)


def passphrase(
    descriptor: int | None,
    *,
    new: bool = False,
    systemd: bool = True,
    name: str = "the vault",
    option: str = "--passphrase-fd",
) -> Secret:
    """The passphrase of ``name``, once. ``new``: typed twice. ``option`` is where the descriptor comes from.

    Raises PassphraseMissing.
    """
    if descriptor is not None:
        try:
            with os.fdopen(descriptor, "rb") as file:
                value = file.readline(LONGEST + 1).rstrip(b"\r\n")
        except OSError as error:
            raise PassphraseMissing(f"Descriptor {descriptor} cannot be read: {error.strerror}.") from error
    elif systemd and (credential := _systemd()) is not None:
        value = credential
    elif sys.stdin is not None and sys.stdin.isatty():
        value = _typed(new, name)
    else:
        advice = None if systemd else f"Type it at the prompt, or give {option}."
        raise PassphraseMissing(f"Nobody can be asked for the passphrase of {name}.", advice=advice)
    if not 0 < len(value) <= LONGEST:
        raise PassphraseMissing(f"The passphrase of {name} is empty or too long.")
    return Secret(value)


def _typed(new: bool, name: str) -> bytes:
    what = f"New passphrase for {name}" if new else f"Passphrase of {name}"
    value: str = click.prompt(what, hide_input=True, err=True, default="", show_default=False)
    if new and value != click.prompt("Again", hide_input=True, err=True, default="", show_default=False):
        raise PassphraseMissing("The two entries are not the same.")
    return value.encode()


def _systemd() -> bytes | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder) / CREDENTIAL
    if not folder or not path.exists():
        return None
    try:
        return path.read_bytes()[: LONGEST + 1].partition(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        raise PassphraseMissing(f"The systemd credential cannot be read: {error.strerror}.") from error
