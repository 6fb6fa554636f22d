"""``cardwright server audit verify`` on the database of a stopped server: says how far it is, begins at an anchor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_server.store import migrate
from cardwright_server.store.unit import Database
from tests.support.audit import Signer
from tests.support.command_line import Desk
from tests.support.long_chain import grow


@pytest.fixture
async def installed(tmp_path: Path) -> tuple[str, ...]:
    """A data folder with a chain of a thousand blocks; the options that name it and its key."""
    data, key = tmp_path / "data", tmp_path / "key.pem"
    data.mkdir(mode=0o700)
    url = f"sqlite:///{data / 'store.db'}"
    await migrate.upgrade(url)
    database, signer = Database(url), Signer()
    await grow(database, signer, 1000, 1)
    await database.close()
    public = signer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key.write_text(f"Key: {signer.name}\n{public}")
    return "--data", str(data), "--key", str(key)


def test_progress_is_told_and_a_later_run_begins_where_this_one_ended(installed: tuple[str, ...]) -> None:
    whole = Desk().run("server", "audit", "verify", *installed)
    assert whole.code == 0
    assert [line for line in whole.err.splitlines() if "blocks" in line] == [
        f"{100 * tenth} of 1000 blocks" for tenth in range(1, 11)
    ]
    anchor = whole.out.splitlines()[-1].removeprefix("Anchor: ")
    later = Desk().run("server", "audit", "verify", *installed, "--since", anchor, "--json")
    said = json.loads(later.out)
    assert (later.code, later.err, said["valid"], said["blocks"], said["anchor"]) == (0, "", True, 1, anchor)
    assert Desk().run("server", "audit", "verify", *installed, "--since", "nonsense").code == 2
