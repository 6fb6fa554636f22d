"""Vaults in temporary directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright_server.vault.core import VaultCore
from tests.support.vault import Clock, Pki, make_core, make_pki, run


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> Iterator[VaultCore]:
    """A new, unlocked software vault."""
    core = make_core(tmp_path / "vault", clock)
    yield core
    core.close()


@pytest.fixture
def pki(core: VaultCore, clock: Clock) -> Pki:
    """With a certified root and issuing CA."""
    return run(make_pki(core, clock))
