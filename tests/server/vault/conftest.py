"""Vaults in temporary directories, over a file and over SoftHSM2."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright_server.vault.core import VaultCore
from tests.support.softhsm import SOFTHSM, SoftHsm
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


@pytest.fixture
def softhsm(tmp_path: Path) -> SoftHsm:
    """A fresh token."""
    if not SOFTHSM.exists() or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed (package softhsm2)")
    return SoftHsm.make(tmp_path)


@pytest.fixture
def hsm_core(softhsm: SoftHsm, tmp_path: Path, clock: Clock) -> Iterator[VaultCore]:
    """A new, unlocked vault over SoftHSM2."""
    core = VaultCore.create(tmp_path / "vault", softhsm.backend(), softhsm.pin.reveal(), now=clock)
    yield core
    core.close()


@pytest.fixture(params=["software", "hsm"])
def either(request: pytest.FixtureRequest) -> VaultCore:
    """A new, unlocked vault of each kind."""
    core: VaultCore = request.getfixturevalue("core" if request.param == "software" else "hsm_core")
    return core
