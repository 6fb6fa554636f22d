"""Initial secrets of cards from a file: never from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cardwright_cardops.errors import CardwrightError
from cardwright_proto.cms.v1 import devices_pb2 as pb

from .files import read_bounded

MAX_FILE: Final = 4 << 20
_TEXTS: Final = {"pin": pb.SECRET_NAME_PIN, "puk": pb.SECRET_NAME_PUK}
_KEYS: Final = {
    "management_key": pb.SECRET_NAME_MANAGEMENT_KEY,
    "scp03": pb.SECRET_NAME_SCP03,
}


class SecretsMalformed(CardwrightError):
    """A file of initial secrets that is not as the command's help says. It says where, never what stands there."""

    code = "INITIAL_SECRETS_FILE"
    default_effect = "Nothing was sent to the server."
    default_advice = "pin and puk are texts, management_key and scp03 hexadecimal. A vendor's master is for the vault."


def of_lot(path: Path) -> list[pb.InitialSecret]:
    """The secrets that a lot's devices share. Raises SecretsMalformed, FileUnusable."""
    return _secrets(_document(path), "the file")


def of_devices(path: Path) -> list[pb.DeliveredDevice]:
    """Devices with their own secrets. Raises SecretsMalformed, FileUnusable."""
    document = _document(path)
    rows = document.pop("devices", None)
    if document or not isinstance(rows, list):
        raise SecretsMalformed(f"{path} is not a list of [[devices]].")
    made = []
    for place, row in enumerate(rows, 1):
        where = f"device {place}"
        serial = row.pop("serial", None) if isinstance(row, dict) else None
        if not isinstance(serial, str):
            raise SecretsMalformed(f"The serial of {where} is missing, or no text.")
        made.append(pb.DeliveredDevice(serial=serial, secrets=_secrets(row, where)))
    return made


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_bounded(path, MAX_FILE).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        # The parser's own text may quote a secret.
        raise SecretsMalformed(f"{path} is not TOML.") from None


def _secrets(row: Mapping[str, Any], where: str) -> list[pb.InitialSecret]:
    made = []
    for name, value in row.items():
        if name not in _TEXTS and name not in _KEYS:
            raise SecretsMalformed(f"There is a field in {where} that is no secret's name.")
        if not isinstance(value, str):
            raise SecretsMalformed(f"The {name} of {where} is no text.")
        if name in _TEXTS:
            made.append(pb.InitialSecret(name=_TEXTS[name], value=value.encode()))
            continue
        try:
            made.append(pb.InitialSecret(name=_KEYS[name], value=bytes.fromhex(value)))
        except ValueError:
            raise SecretsMalformed(f"The {name} of {where} is not hexadecimal.") from None
    return made
