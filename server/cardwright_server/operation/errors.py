"""What can go wrong with a backup or a restore."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class BackupFailed(CardwrightError):
    """A backup could not be made."""

    code = "BACKUP_FAILED"
    default_effect = "There is no new backup; the server goes on as before."
    default_advice = "Remove what the message names, or make room, then try again."


class BackupUnusable(CardwrightError):
    """What was given is no backup of ours, or it was altered or cut."""

    code = "BACKUP_UNUSABLE"
    default_effect = "Nothing was restored."
    default_advice = "Take another backup, whole, as 'cardwright server backup' wrote it."


class RestoreRefused(CardwrightError):
    """A restore would overwrite something, or the installation is not in a state to take one."""

    code = "RESTORE_REFUSED"
    default_effect = "Nothing was restored, and nothing was overwritten."
    default_advice = "Restore into an empty data folder and an empty database of the same kind."


class RestoreUnfinished(CardwrightError):
    """A restore was begun and did not end."""

    code = "RESTORE_UNFINISHED"
    default_effect = "The server does not start: it would not know of certificates, keys and secrets made since."
    default_advice = "Run 'cardwright server restore' with the same backup once more; it goes on where it was."
