"""The secrets file of a card: the journal that ``card init`` keeps, one JSON object a line, only ever added to.

Each line is on the disk before the card changes. The file is 0600 from its first moment; a file that others can
read, a link, or a file of another card is refused.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.records import Entry, JournalFailed, Kind
from cardwright_cardops.secret import Secret

MAX_FILE = 1 << 20
_ONLY_OWNER = stat.S_IRWXG | stat.S_IRWXO


class SecretsFileUnusable(CardwrightError):
    """A secrets file that is damaged, open to others, or not a plain file."""

    code = "SECRETS_FILE"
    default_effect = "Nothing was sent to the card."
    default_advice = "Give the file that 'card init' wrote for this card, readable by you alone (chmod 600)."


def default_path(identity: Identity) -> Path:
    """Where the secrets of a card are kept unless told otherwise: below XDG_STATE_HOME."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    name = identity.serial or (str(identity.guid) if identity.guid else "unnumbered")
    return Path(home) / "cardwright" / "cards" / f"{name}.secrets"


class SecretsFile:
    """A Journal in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = read(path) if path.exists() or path.is_symlink() else ()

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def entries(self) -> tuple[Entry, ...]:
        """Everything kept so far, oldest first."""
        return self._entries

    def note(self, entries: tuple[Entry, ...]) -> None:
        """Add ``entries``; they are on the disk when this returns. Raises JournalFailed."""
        lines = "".join(json.dumps(_document(entry)) + "\n" for entry in entries).encode()
        try:
            fresh = not self._path.exists()
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                if os.write(descriptor, lines) != len(lines):
                    raise OSError(None, "the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if fresh:
                _sync_folder(self._path.parent)
        except OSError as error:
            raise JournalFailed(f"The secrets file {self._path} cannot be written: {error.strerror}.") from error
        self._entries += entries


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of a secrets file. A last line that was cut by a crash is passed over.

    Raises SecretsFileUnusable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & _ONLY_OWNER or status.st_uid != os.geteuid():
                raise SecretsFileUnusable(f"{path} is not a plain file that only you can read.")
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise SecretsFileUnusable(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > MAX_FILE:
        raise SecretsFileUnusable(f"{path} is too large to be a secrets file.")
    whole, _, _ = raw.rpartition(b"\n")
    try:
        return tuple(_entry(json.loads(line)) for line in whole.splitlines())
    except (ValueError, KeyError, TypeError) as error:
        raise SecretsFileUnusable(f"{path} is not a secrets file.") from error


def management_keys(entries: tuple[Entry, ...]) -> tuple[ManagementKey, ...]:
    """The management keys that the card may have, newest first: one where the card confirmed it."""
    found: list[ManagementKey] = []
    names: dict[str, ManagementKey] = {}
    for entry in entries:
        if entry.kind is Kind.MANAGEMENT_KEY and entry.value is not None and entry.algorithm is not None:
            key = ManagementKey(ManagementAlgorithm(entry.algorithm), entry.value)
            names[entry.reference] = key
            found.insert(0, key)
        elif entry.kind is Kind.MANAGEMENT_KEY_SET and entry.reference in names:
            found = [names[entry.reference]]
    return tuple(found)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _document(entry: Entry) -> dict[str, Any]:
    full = {
        "kind": entry.kind.value,
        "reference": entry.reference,
        "slot": entry.slot.label if entry.slot is not None else "",
        "fingerprint": entry.fingerprint,
        "algorithm": entry.algorithm,
        "value": entry.value.reveal().hex() if entry.value is not None else "",
        "serial": entry.serial,
        "guid": str(entry.guid) if entry.guid is not None else "",
    }
    return {name: value for name, value in full.items() if value not in ("", None)}


def _entry(document: Mapping[str, Any]) -> Entry:
    known = {"kind", "reference", "slot", "fingerprint", "algorithm", "value", "serial", "guid"}
    if set(document) - known:
        raise ValueError("unknown member")
    return Entry(
        kind=Kind(document["kind"]),
        reference=str(document.get("reference", "")),
        slot=Slot(int(document["slot"], 16)) if "slot" in document else None,
        fingerprint=str(document.get("fingerprint", "")),
        algorithm=int(document["algorithm"]) if "algorithm" in document else None,
        value=Secret(bytes.fromhex(document["value"])) if "value" in document else None,
        serial=str(document.get("serial", "")),
        guid=UUID(document["guid"]) if "guid" in document else None,
    )
