"""Consistent copies of the database while servers work on it, and back into an empty one."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL

from ..store.engine import parse_url
from .errors import BackupFailed, BackupUnusable, RestoreRefused


def is_sqlite(url: str) -> bool:
    """Whether the address is of SQLite."""
    return parse_url(url).get_backend_name() == "sqlite"


async def copy_out(url: str, target: Path) -> None:
    """Write one consistent state of the database to a new file. Raises BackupFailed."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        try:
            await asyncio.to_thread(_copy_sqlite, Path(parsed.database or ""), target)
        except (sqlite3.Error, OSError) as error:
            raise BackupFailed(f"the database could not be copied: {error}") from error
        return
    code, said = await _tool(parsed, "pg_dump", "--format=custom", "--no-owner", "--no-acl", "--file", str(target))
    if code:
        raise BackupFailed(f"pg_dump ended with {code}: {said}")
    target.chmod(0o600)


async def copy_in(url: str, source: Path) -> None:
    """Fill an empty database from a copy, whole or not at all. Raises BackupUnusable, RestoreRefused."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        await asyncio.to_thread(_place_sqlite, source, Path(parsed.database or ""))
        return
    database = parsed.database or ""
    options = ("--no-owner", "--no-acl", "--exit-on-error", "--single-transaction", "--dbname", database)
    code, said = await _tool(parsed, "pg_restore", *options, str(source))
    if code:
        raise BackupUnusable(f"pg_restore ended with {code}: {said}")


async def is_empty(url: str) -> bool:
    """Whether there is nothing yet where a restore would put the database. Raises RestoreRefused."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return not Path(parsed.database or "").exists()
    asked = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    code, said = await _tool(parsed, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", asked)
    if code:
        raise RestoreRefused(f"the database cannot be asked: {said}", advice="See that it exists, empty, and runs.")
    return said == "0"


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.is_file():
        raise FileNotFoundError(f"{source} does not exist")
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)
        there.execute("PRAGMA journal_mode=DELETE")
    _sync(target)


def _place_sqlite(source: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".restoring")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as there, source.open("rb") as here:
        shutil.copyfileobj(here, there)
        there.flush()
        os.fsync(there.fileno())
    os.rename(partial, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _tool(url: URL, name: str, *arguments: str) -> tuple[int, str]:
    """Run one of PostgreSQL's tools; its exit code and what it said. The address goes by environment, not argv."""
    if shutil.which(name) is None:
        raise BackupFailed(f"{name} is not installed", advice="Install PostgreSQL's client programs on this host.")
    host = url.host or url.query.get("host")
    given = {
        "PGHOST": host if isinstance(host, str) else None,
        "PGPORT": str(url.port) if url.port else None,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    environment = os.environ | {key: value for key, value in given.items() if value} | {"LC_ALL": "C"}
    process = await asyncio.create_subprocess_exec(
        *(name, *arguments),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, said.decode(errors="replace").strip()[-2000:]
