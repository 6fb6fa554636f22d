"""What every test with other people's tools has: a folder to run them in, and ykman."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.pcscd import PLAIN, YUBICO, Pcscd
from tests.support.strangers import Seats, Tools, Ykman


@pytest.fixture(scope="module")
def seats(pcscd_process: Pcscd) -> Iterator[Seats]:
    """Readers with cards that stay in for the whole module; ask for a fresh card in each test."""
    if not pcscd_process.running:
        pcscd_process.restart(YUBICO, PLAIN)
    yield Seats(pcscd_process)
    pcscd_process.clear()


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


@pytest.fixture
def ykman(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Ykman]:
    """ykman's command line in this process, for the reader that it is given."""
    ykman_pcsc = pytest.importorskip("ykman.pcsc", reason="yubikey-manager is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("kill_scdaemon", "kill_yubikey_agent"):
        monkeypatch.setattr(ykman_pcsc, name, lambda: False)
    return Ykman
