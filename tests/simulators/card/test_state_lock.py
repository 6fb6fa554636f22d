"""One state file is one card: a second process does not start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cardwright_simulators.card import FileStore, VirtualCard
from cardwright_simulators.card.store import StateInUse
from tests.support.command_line import Desk

OTHER = (
    "import sys; from cardwright_simulators.card.store import FileStore, StateInUse\n"
    "try:\n    FileStore(sys.argv[1]).lock()\n"
    "except StateInUse:\n    sys.exit(7)\n"
)


def test_another_process_is_kept_off_until_the_card_is_released(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    store = FileStore(path)
    store.lock()
    store.lock()
    card = VirtualCard("sp800-73-5", store=store)
    before = card.state_hash()
    assert subprocess.run([sys.executable, "-c", OTHER, str(path)], timeout=60).returncode == 7
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with pytest.raises(StateInUse):
        FileStore(link).lock()
    FileStore(tmp_path / "other.json").lock()
    assert card.state_hash() == before
    store.release()
    assert subprocess.run([sys.executable, "-c", OTHER, str(path)], timeout=60).returncode == 0


def test_a_second_sim_card_on_one_file_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    first = FileStore(path)
    first.lock()
    ran = Desk().run("sim", "card", "--state", str(path), "--vpcd", "127.0.0.1:1")
    assert ran.code == 1 and "SIM_STATE_IN_USE" in ran.err
    assert not path.exists()
    first.release()
    assert "SIM_STATE_IN_USE" not in Desk().run("sim", "card", "--state", str(path), "--vpcd", "127.0.0.1:1").err


@pytest.mark.parametrize("place", ["/", "{folder}", "{folder}/absent/card.json"])
def test_a_place_that_cannot_hold_a_card_is_said(tmp_path: Path, place: str) -> None:
    with pytest.raises(OSError):
        FileStore(place.format(folder=tmp_path)).lock()
    assert list(tmp_path.iterdir()) == []
