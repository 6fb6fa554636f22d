"""Databases for tests: a fresh SQLite file or PostgreSQL database for each, and what they were asked.

One PostgreSQL server is started per test process, in a folder of its own, on a Unix socket, by an unprivileged
account (it refuses root), and ends with the process however that ends. A new database is a copy of one with tables, or
one that a test before had and that was emptied: a copy costs ten times as much.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cardwright_server.store.unit import Database

ENGINES = ("sqlite", "postgresql")
ACCOUNTS = ("postgres", "nobody")
"""Whose account runs PostgreSQL when the tests run as root."""
TEMPLATE = "tables"
_EMPTY = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DO $$
DECLARE one regclass;
BEGIN
    FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    LOOP EXECUTE format('DELETE FROM %s', one); END LOOP;
END $$;
"""
"""Ends the sessions that a test left, and removes all rows in any order: no triggers but those of foreign keys."""
_SHAPE = """
SELECT md5(string_agg(concat_ws(' ', attrelid::regclass, attname, atttypid, attnotnull),
                      ',' ORDER BY attrelid, attnum)),
       count(*) FILTER (WHERE relkind = 'i'), pg_database_size(current_database()) / 50000000,
       (SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
        WHERE datname = current_database())
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace
"""
"""What a test may have altered: columns, indexes, settings; and whether there is much of what it removed."""
_INITDB = ("-U", "cardwright", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
_LOGGED = re.compile(r"\bLOG:  (?:statement|execute [^:]*): (.*)")


@dataclass
class PostgreSql:
    """A running server: its folder is also that of its socket."""

    folder: Path
    process: subprocess.Popen[bytes]
    made: int = 0
    _emptied: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """Everything the server wrote; with log_statement=all for a database also its statements."""
        return self.folder / "log"

    def url(self, name: str) -> str:
        """Address of one of its databases."""
        return f"postgresql://cardwright@/{name}?host={self.folder}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement by psql, outside everything under test; gives what it prints, unaligned."""
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-U", "cardwright", database]
        done = subprocess.run([*command, "-c", statement], check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def create(self, template: str = "template0") -> str:
        """A new database; gives its name."""
        self.made += 1
        name = f"test{self.made}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @cached_property
    def _shape(self) -> str:
        return self.sql(_SHAPE, TEMPLATE)

    def lend(self) -> str:
        """A database with every table, empty. Give it back."""
        return self._emptied.pop() if self._emptied else self.create(TEMPLATE)

    def take_back(self, name: str) -> None:
        """Empty a database for the next test; one that is not like a new one then is removed."""
        shape = self.sql(f"{_EMPTY};{_SHAPE}", name).splitlines()[-1]
        if shape == self._shape:
            self._emptied.append(name)
        else:
            self.drop(name)


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    pytest.skip("PostgreSQL is not installed (packages.txt names it)")


def _as_server() -> tuple[list[str], int | None]:
    """A prefix that runs a command under the right account and ends it with us, and that account."""
    prefix = ["setpriv", "--pdeathsig", "QUIT"]
    if os.geteuid() != 0:
        return prefix, None
    for name in ACCOUNTS:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return [*prefix, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"], account.pw_uid
    pytest.skip("PostgreSQL refuses root, and there is no unprivileged account to run it")


@contextmanager
def running_postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL server; it does not wait for disks, since no test survives a power failure either."""
    binaries = _binaries()
    prefix, account = _as_server()
    folder = Path(tempfile.mkdtemp(prefix="cw-pg-", dir="/tmp"))  # short: a socket's path has 107 octets at most
    if account is not None:
        os.chown(folder, account, -1)
    folder.chmod(0o755)
    data = folder / "data"
    try:
        subprocess.run(
            [*prefix, binaries / "initdb", "-D", data, *_INITDB],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            check=True,
            capture_output=True,
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": folder,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 60,
            "shared_buffers": "64MB",
            "log_line_prefix": "%d [%p] ",
            "log_min_messages": "log",
            "jit": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*prefix, binaries / "postgres", "-D", data, *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        server = PostgreSql(folder, process)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(server: PostgreSql) -> None:
    ready = [str(_binaries() / "pg_isready"), "-q", "-h", str(server.folder)]
    deadline = time.monotonic() + 60
    while subprocess.run(ready, check=False).returncode != 0:
        if server.process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"PostgreSQL did not start: {server.log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """The test process's own PostgreSQL server."""
    with running_postgresql() as server:
        yield server


async def make_tables(url: str) -> None:
    """Every table of the code. The migrations' tests hold that they make the same ones."""
    from cardwright_server.store.tables import load
    from cardwright_server.store.unit import Database

    database = Database(url)
    async with database.engine.begin() as connection:
        await connection.run_sync(load().create_all)
    await database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table, empty, to be copied."""
    path = tmp_path_factory.mktemp("store") / "template.db"
    asyncio.run(make_tables(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql: PostgreSql) -> str:
    """Name of a database with every table, empty, to be copied."""
    postgresql.sql(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
    asyncio.run(make_tables(postgresql.url(TEMPLATE)))
    return TEMPLATE


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    name: str = request.param
    return name


@pytest.fixture
def empty_url(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database without any table, on each engine."""
    if engine_name == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def database_url(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database with every table, empty, on each engine."""
    if engine_name == "sqlite":
        path = tmp_path / "store.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    request.getfixturevalue("postgresql_template")
    name = server.lend()
    yield server.url(name)
    server.take_back(name)


@pytest.fixture
async def open_database(database_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., Database]]:
    """Opens the test's database as often as wanted, as several processes would; closed at the end of the test.

    Takes the keyword arguments of ``Database``; each gets a second medium in the same folder unless told otherwise.
    """
    from cardwright_server.store.second_medium import SecondMedium
    from cardwright_server.store.unit import Database

    opened: list[Database] = []
    media: list[SecondMedium] = []

    def open_one(**options: Any) -> Database:
        if "second_medium" not in options:
            media.append(SecondMedium(tmp_path / "second-medium"))
            options["second_medium"] = media[-1]
        opened.append(Database(database_url, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        await one.close()
    for medium in media:
        await medium.close()


@pytest.fixture
def database(open_database: Callable[..., Database]) -> Database:
    """A database with every table, empty, on each engine."""
    return open_database()


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is told; give it to ``open_database(clock=clock)``."""
    return Clock()


@dataclass
class Clock:
    """Time that only the test moves; both engines then use it in place of their own."""

    now: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> None:
        """Move on (or back) by a timedelta's keyword arguments."""
        self.now += timedelta(**parts)


@contextmanager
def statements_of(database: Database) -> Iterator[list[str]]:
    """Statements that SQLAlchemy sent while inside, without BEGIN and COMMIT."""
    from sqlalchemy import event

    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


@contextmanager
def statements_logged(server: PostgreSql, name: str) -> Iterator[list[str]]:
    """Statements that PostgreSQL itself logged for a database while inside, BEGIN and COMMIT included.

    Only sessions that begin inside are logged: open the ``Database`` there.
    """
    server.sql(f"ALTER DATABASE {name} SET log_statement = 'all'")
    start = server.log.stat().st_size
    seen: list[str] = []
    try:
        yield seen
    finally:
        with server.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()
        prefix = f"{name} ["
        seen.extend(found[1] for line in lines if line.startswith(prefix) and (found := _LOGGED.search(line)))
