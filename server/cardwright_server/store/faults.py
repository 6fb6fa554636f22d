"""What a failed statement means for the unit of work: begin again, give up, or pass the error on."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from .errors import DatabaseBusy, DatabaseFull, DatabaseUnavailable, StoreError


class Fault(Enum):
    """What to do about an error of the database."""

    COLLISION = auto()
    """Another transaction won: begin again."""
    TAKEN = auto()
    """A unique value is there already. Under SERIALIZABLE it may have come in between: begin again once."""
    BUSY = auto()
    GONE = auto()
    FULL = auto()
    OURS = auto()
    """A mistake in a statement, or a broken rule of the schema: pass it on."""


# PostgreSQL, appendix A: classes by their first two characters, single codes by all five.
_CODES = {
    "40001": Fault.COLLISION,
    "40P01": Fault.COLLISION,
    "55P03": Fault.COLLISION,
    "23505": Fault.TAKEN,
    "57014": Fault.BUSY,
    "53300": Fault.BUSY,
    "25P03": Fault.BUSY,
    "25006": Fault.GONE,
    "57P01": Fault.GONE,
    "57P02": Fault.GONE,
    "57P03": Fault.GONE,
    "3D000": Fault.GONE,
    "28000": Fault.GONE,
    "28P01": Fault.GONE,
    "53100": Fault.FULL,
}
_CLASSES = {"08": Fault.GONE, "58": Fault.GONE, "53": Fault.FULL}

# SQLite's primary result codes; the extended ones add to them above the lowest octet.
_RESULTS = {
    sqlite3.SQLITE_BUSY: Fault.COLLISION,
    sqlite3.SQLITE_LOCKED: Fault.COLLISION,
    sqlite3.SQLITE_FULL: Fault.FULL,
    sqlite3.SQLITE_READONLY: Fault.FULL,
    sqlite3.SQLITE_IOERR: Fault.FULL,
    sqlite3.SQLITE_CANTOPEN: Fault.GONE,
    sqlite3.SQLITE_CORRUPT: Fault.GONE,
    sqlite3.SQLITE_NOTADB: Fault.GONE,
}


def fault_of(error: BaseException) -> Fault:
    """What an error that left SQLAlchemy or a driver means. ``Fault.OURS`` for everything unknown."""
    if isinstance(error, PoolTimeout):
        return Fault.BUSY
    if not isinstance(error, DBAPIError):
        # asyncpg's failure to connect, and its patience with a silent server, come through as they are.
        return Fault.GONE if isinstance(error, ConnectionError | TimeoutError) else Fault.OURS
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        return _CODES.get(state) or _CLASSES.get(state[:2]) or Fault.OURS
    result = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(result, int):
        return _RESULTS.get(result & 0xFF, Fault.OURS)
    return Fault.GONE if error.connection_invalidated and not isinstance(error, IntegrityError) else Fault.OURS


def store_error(fault: Fault, error: BaseException) -> StoreError | None:
    """Our error for it, or None where the error itself is passed on."""
    detail = str(getattr(error, "orig", None) or error).strip().splitlines()
    said = f": {detail[0]}" if detail and detail[0] else ""
    match fault:
        case Fault.COLLISION | Fault.BUSY:
            return DatabaseBusy("the database is busy")
        case Fault.GONE:
            return DatabaseUnavailable(f"the database cannot be used{said}")
        case Fault.FULL:
            return DatabaseFull(f"the database cannot write{said}")
        case _:
            return None
