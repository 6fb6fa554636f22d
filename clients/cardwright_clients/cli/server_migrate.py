"""``cardwright server migrate``: the database's tables."""

from __future__ import annotations

from pathlib import Path

import click

from .output import json_option, say, show_json
from .server_place import installation, place_options


@click.command("migrate")
@place_options
@click.option("--check", is_flag=True, help="Only say where the database stands; exit code 1 if it is behind.")
@json_option
def command(data: Path | None, config: Path | None, check: bool, as_json: bool) -> int:
    """Bring the database to the tables that this program works with.

    Several processes may start it at once. With SQLite the server has to be stopped first; make a backup before.
    """
    import asyncio

    from cardwright_server.loss import require_database
    from cardwright_server.opening import make_folders, own_folder
    from cardwright_server.store.migrate import status, upgrade

    here = installation(data, config)
    if check:
        found = asyncio.run(status(here.database))
    elif here.database.startswith("sqlite"):
        with own_folder(here):
            asyncio.run(require_database(here))
            found = asyncio.run(upgrade(here.database))
    else:
        make_folders(here)
        asyncio.run(require_database(here))
        found = asyncio.run(upgrade(here.database))
    if as_json:
        show_json(
            {"current": found.current, "database": list(found.database), "program": list(found.program),
             "unknown": list(found.unknown)}
        )  # fmt: skip
    elif found.current:
        say("The database is of this program's version.")
    elif found.unknown:
        say(f"The database was migrated by a newer program: {', '.join(found.unknown)}.")
    else:
        say(f"The database lacks: {', '.join(sorted(set(found.program) - set(found.database)))}.")
    return 0 if found.current else 1
