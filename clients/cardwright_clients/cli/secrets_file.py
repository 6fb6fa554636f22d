"""The secrets file of a card: where it is unless told otherwise, and what it may be.

``card init`` writes it before the card changes; the other commands find the management key in it.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import click

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.journal_file import FileJournal, JournalMalformed
from cardwright_cardops.plan.records import Entry, JournalFailed, Kind, shows_card


class SecretsFileExposed(CardwrightError):
    """A secrets file that others can read, or that is no plain file."""

    code = "SECRETS_FILE_EXPOSED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Make it a plain file that only you can read (chmod 600), or give another."


UNNUMBERED = "unnumbered"
"""Names for cards that have no number yet begin so: ``settle`` renames the file once the card has its GUID."""


def default_path(identity: Identity) -> Path:
    """Where the secrets of a card are kept unless told otherwise: below XDG_STATE_HOME, by serial number or GUID.

    A card that got its GUID or card key in a session that was interrupted is found by what that session recorded. A
    card that shows nothing recorded gets a name of its own: the secrets of another card are never taken for its.
    """
    if identity.serial:
        return _named(identity.serial)
    if identity.guid is not None and (path := _named(str(identity.guid))).exists():
        return path
    if (begun := _begun(identity)) is not None:
        return begun
    return _named(f"{UNNUMBERED}-{secrets.token_hex(6)}" if identity.guid is None else str(identity.guid))


def settle(path: Path, identity: Identity) -> Path:
    """Give the finished journal of an unnumbered card the card's GUID for a name. Raises JournalFailed."""
    ours = path.name.startswith(UNNUMBERED) and path.absolute().parent == _folder().absolute()
    if not ours or identity.guid is None:
        return path
    settled = _named(str(identity.guid))
    try:
        os.link(path, settled)  # never over another card's file
        path.unlink()
    except OSError as error:
        raise JournalFailed(
            f"The secrets file {path} could not be renamed to {settled.name}: {error.strerror}.",
            effect="The card is set up; the file holds its secrets under the old name.",
            advice="Rename the file by hand before another card is set up.",
        ) from error
    return settled


def _folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(home) / "cardwright" / "cards"


def _named(name: str) -> Path:
    return _folder() / f"{name}.secrets"


def _begun(identity: Identity) -> Path | None:
    """The file of an interrupted session on a card without a number, if this is that card."""
    for path in sorted(_folder().glob(f"{UNNUMBERED}*.secrets")):
        try:
            entries = open_journal(path).entries()
        except (SecretsFileExposed, JournalMalformed, JournalFailed):
            continue  # what cannot be read is no evidence for any card
        if shows_card(entries, identity):
            return path
    return None


def open_journal(path: Path) -> FileJournal:
    """The journal at ``path``: the one of an earlier session if there is one, to which is only ever added.

    Raises SecretsFileExposed, JournalMalformed, JournalFailed.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalFailed(f"The folder {path.parent} cannot be made: {error.strerror}.") from error
        return _for_this_command(FileJournal.begin(path))
    except OSError as error:
        raise JournalFailed(f"The file {path} cannot be looked at: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SecretsFileExposed(f"{path} is not a plain file that only you can read.")
    return _for_this_command(FileJournal.resume(path))


def _for_this_command(journal: FileJournal) -> FileJournal:
    """The file is locked while the command runs and no longer."""
    command = click.get_current_context(silent=True)
    if command is not None:
        command.call_on_close(journal.close)
    return journal


def management_keys(entries: tuple[Entry, ...]) -> tuple[ManagementKey, ...]:
    """The management keys that the card may have, newest first: only one where the card confirmed it."""
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
