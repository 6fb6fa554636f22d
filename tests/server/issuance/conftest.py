"""Worlds for the tests of issuance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cardwright_server.store.unit import Database
from tests.support.issuance import World, make_world


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    """An installation on each engine."""
    made = await make_world(database, tmp_path)
    yield made
    made.core.close()
