"""What can go wrong with the database, apart from mistakes of ours."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class StoreError(CardwrightError):
    """Base of the errors of the store."""


class DatabaseUnavailable(StoreError):
    """The database cannot be reached, or it ended the connection. Nothing of this act was recorded."""

    code = "DATABASE_UNAVAILABLE"
    default_effect = "Nothing was recorded, and nothing that needs a record was begun."
    default_advice = "See that the database runs and can be reached from the server, then try again."


class DatabaseBusy(StoreError):
    """Others kept the rows or the file busy for longer than we wait, or every attempt collided with another act."""

    code = "DATABASE_BUSY"
    default_effect = "Nothing was recorded, and nothing that needs a record was begun."
    default_advice = "Try again in a moment."


class DatabaseFull(StoreError):
    """The database has no room left, or may not write."""

    code = "DATABASE_FULL"
    default_effect = "Nothing was recorded, and nothing that needs a record was begun."
    default_advice = "Make room where the database keeps its files, then try again."


class CommitInDoubt(StoreError):
    """The connection was lost while the database was asked to commit; it may have done so or not."""

    code = "COMMIT_IN_DOUBT"
    default_effect = "The act is either recorded whole or not at all."
    default_advice = "Look whether it took effect before repeating it; what carries an idempotency key may be repeated."


class StaleVersion(StoreError):
    """Someone else changed the row since it was read."""

    code = "STALE_VERSION"
    default_effect = "Nothing was changed."
    default_advice = "Read it again, and decide again."


class SchemaMismatch(StoreError):
    """The tables of the database are older or newer than this program."""

    code = "SCHEMA_MISMATCH"
    default_effect = "The server does not start; the database is as it was."
    default_advice = "Run cardwright server migrate, or use the program version that the database was migrated for."


class MigrationRefused(StoreError):
    """A migration was asked for that is not known, or that left rows pointing nowhere."""

    code = "MIGRATION_REFUSED"
    default_effect = "The database is as it was before."
    default_advice = "See cardwright server migrate --help; report it if the named revision is one of ours."
