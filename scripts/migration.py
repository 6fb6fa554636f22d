"""Draft a revision for one domain: ``scripts/migration.py <domain> "what it does"``.

Compares the domain's tables in the code with those that the revisions so far make, on a fresh SQLite file, and writes
``server/cardwright_server/store/migrations/versions/<domain>_<number>.py``. Read the draft before committing it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate.api import AutogenContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine

from cardwright_server.store.columns import Document, UtcTime
from cardwright_server.store.migrate import SCRIPTS, config, upgrade
from cardwright_server.store.tables import load

VERSIONS = SCRIPTS / "versions"
RUFF = Path(sys.executable).with_name("ruff")


def draft(domain: str, message: str) -> Path:
    """Write the revision; gives its file."""
    number = 1 + sum(1 for _ in VERSIONS.glob(f"{domain}_[0-9]*.py"))
    name = f"{domain}_{number:04d}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fresh.db"
        url = URL.create("sqlite", database=str(path))
        asyncio.run(upgrade(url.render_as_string()))
        engine = create_engine(url)
        with engine.connect() as connection:
            _revision(connection, domain, message, name, first=number == 1)
        engine.dispose()
    made = VERSIONS / f"{name}.py"
    lines = made.read_text(encoding="utf-8").splitlines(keepends=True)
    made.write_text("".join(line for line in lines if not line.lstrip().startswith("# ###")), encoding="utf-8")
    subprocess.run([RUFF, "check", "-q", "--fix", "--exit-zero", made], check=True)
    subprocess.run([RUFF, "format", "-q", made], check=True)
    return made


def _revision(connection: Connection, domain: str, message: str, name: str, *, first: bool) -> None:
    settings = config()
    settings.set_main_option("file_template", "%%(rev)s")
    settings.attributes["connection"] = connection
    own = {table.name for table in load().tables.values() if table.info["domain"] == domain}
    if not own:
        raise SystemExit(f"no table is of the domain {domain}")

    for table in load().tables.values():
        table.info.clear()  # Alembic would print it; it is for the program, not for the database.

    def mine(_thing: Any, thing_name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return kind != "table" or thing_name in own

    settings.attributes["drafting"] = {"include_object": mine, "render_item": _render}
    command.revision(
        settings,
        message,
        autogenerate=True,
        rev_id=name,
        branch_label=domain if first else None,
        head="base" if first else f"{domain}@head",
    )
    assert ScriptDirectory.from_config(config()).get_revision(name)


def _render(kind: str, item: Any, _context: AutogenContext) -> str | bool:
    # Revisions stand alone: they must mean the same when the code's own types have changed.
    if kind == "type" and isinstance(item, UtcTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Document):
        return "sa.Text()"
    return False


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    print(draft(sys.argv[1], sys.argv[2]))
