"""A database that is gone: found out before an empty one takes its place, and while a server works on it."""

from __future__ import annotations

from pathlib import Path

from cardwright_cardops.errors import CardwrightError

from .config import Installation
from .opening import has_vault
from .store.engine import parse_url
from .store.migrate import status
from .store.second_medium import is_begun


class DatabaseMissing(CardwrightError):
    """There was an installation here, and its database is not there any more."""

    code = "DATABASE_MISSING"
    default_effect = "Nothing was started, and no other database was put in its place."
    default_advice = (
        "Put the database back where it was, or name the right one in the configuration; if it is lost, restore a "
        "backup: 'cardwright server restore'."
    )


async def require_database(installation: Installation) -> None:
    """That an installation which was here, by its vault or its second medium, still has a database with tables.

    Nothing is made. Raises DatabaseMissing, and StoreError for a database that cannot be asked.
    """
    if not (installation.vault is not None and has_vault(installation.vault)) and not is_begun(
        installation.second_medium
    ):
        return
    path = _file_of(installation)
    if path is not None and not path.exists():
        raise DatabaseMissing(f"there is no database in {path}, but there was one")
    if not (await status(installation.database)).database:
        raise DatabaseMissing("the database is empty, but there was one with tables")


class SameFile:
    """Whether the file of an SQLite database is still the one that was opened; always so for another database."""

    def __init__(self, installation: Installation) -> None:
        self._path = _file_of(installation)
        self._was = self._identity()

    def require(self) -> None:
        """Raise DatabaseMissing if it was removed or another one stands there: what is written now is lost."""
        if self._identity() != self._was:
            raise DatabaseMissing(
                f"{self._path} was removed or replaced while the server worked on it",
                effect="The server ended; what was recorded in the last seconds is on the second medium only.",
            )

    def _identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def _file_of(installation: Installation) -> Path | None:
    url = parse_url(installation.database)
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None
