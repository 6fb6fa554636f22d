"""A PostgreSQL database that a test had is like a new one for the next, or is gone."""

from __future__ import annotations

import pytest

from tests.support.databases import PostgreSql

ROW = "INSERT INTO lease (name, holder, until, fence) VALUES ('one', gen_random_uuid(), now(), 1)"


def given_back(postgresql: PostgreSql, statement: str) -> tuple[str, str]:
    """A database that a test did something to, and the one that the next test is lent."""
    mine = postgresql.lend()
    postgresql.sql(statement, mine)
    postgresql.take_back(mine)
    theirs = postgresql.lend()
    postgresql.take_back(theirs)
    return mine, theirs


@pytest.mark.usefixtures("postgresql_template")
def test_rows_of_one_test_are_not_there_in_the_next(postgresql: PostgreSql) -> None:
    mine, theirs = given_back(postgresql, ROW)
    assert mine == theirs
    assert postgresql.sql("SELECT count(*) FROM lease", theirs) == "0"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE lease ADD COLUMN more text",
        "ALTER TABLE lease ALTER COLUMN fence TYPE integer",
        "CREATE INDEX more ON lease (until)",
        "DROP TABLE lease",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''1MB''', current_database()); END $$",
    ],
)
@pytest.mark.usefixtures("postgresql_template")
def test_what_was_altered_is_not_lent_again(postgresql: PostgreSql, statement: str) -> None:
    mine, theirs = given_back(postgresql, statement)
    assert mine != theirs
    assert postgresql.sql(f"SELECT count(*) FROM pg_database WHERE datname = '{mine}'") == "0"
