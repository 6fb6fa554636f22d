"""What people do to cards while a command runs: through a real pcscd, with the command line as other processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from cardwright_simulators.reader.slot import Card
from tests.clients.test_cli_pcscd import COMMAND, cardwright, simulated
from tests.support.cards import SmallCard
from tests.support.pcscd import Pcscd
from tests.support.virtual import POOL

pytestmark = pytest.mark.pcscd

OLD, NEW = "123456", "654321"
CHANGE = 0x24


def tries(*arguments: str) -> int:
    return int(json.loads(cardwright("pin", "status", "--json", *arguments).stdout)["pin"]["tries_left"])


def error(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 1 and "Traceback" not in ran.stderr and "INTERNAL" not in ran.stderr, ran.stderr
    return ran.stderr


@pytest.mark.parametrize(("when", "changed"), [("remove", False), ("remove-after", True)])
def test_a_card_pulled_during_pin_change(when: str, changed: bool, pcscd: Pcscd, tmp_path: Path) -> None:
    """Whether the PIN was changed cannot be known, and is not claimed; the next command finds out."""
    reader, state = pcscd.readers[0], str(tmp_path / "card.json")
    card = subprocess.Popen(
        [COMMAND, "sim", "card", "--vpcd", pcscd.address(reader), "--state", state, "--fault", f"ins=24:{when}"],
        stdout=subprocess.DEVNULL,
    )
    try:
        pcscd.wait_for_card(reader, present=True)
        said = error(cardwright("pin", "change", secrets=f"{OLD}\n{NEW}\n"))
        assert "CARD_REMOVED" in said and "not known" in said
        assert card.wait(30) == 0, "a card that was pulled is no error of the virtual card"
    finally:
        card.kill()
        card.wait()
    pcscd.wait_for_card(reader, present=False)
    with simulated(pcscd, reader, "--state", state):
        now, other = (NEW, OLD) if changed else (OLD, NEW)
        assert tries() == 3
        assert cardwright("pin", "change", secrets=f"{now}\n{other}\n").returncode == 0


@pytest.mark.parametrize(("when", "made"), [("remove", False), ("remove-after", True)])
def test_a_card_pulled_during_key_generate(when: str, made: bool, pcscd: Pcscd, tmp_path: Path) -> None:
    reader, state = pcscd.readers[0], str(tmp_path / "card.json")
    card = subprocess.Popen(
        [COMMAND, "sim", "card", "--vpcd", pcscd.address(reader), "--state", state, "--fault", f"ins=47:{when}"],
        stdout=subprocess.DEVNULL,
    )
    try:
        pcscd.wait_for_card(reader, present=True)
        out = tmp_path / "key.pem"
        said = error(cardwright("key", "generate", "9a", "--out", str(out)))
        assert "CARD_REMOVED" in said and "not known" in said and not out.exists()
        assert card.wait(30) == 0
    finally:
        card.kill()
        card.wait()
    pcscd.wait_for_card(reader, present=False)
    with simulated(pcscd, reader, "--state", state):
        again = cardwright("key", "generate", "9a")
        assert (again.returncode, "SLOT_OCCUPIED" in again.stderr) == ((1, True) if made else (0, False))
        assert "BEGIN PUBLIC KEY" in cardwright("key", "generate", "9a", "--overwrite").stdout


class Hanging:
    """A card that stops at CHANGE REFERENCE DATA until it is released; then it carries the command out."""

    def __init__(self, card: VirtualCard) -> None:
        self._card = card
        self.atr = card.atr
        self.power_on, self.power_off, self.reset = card.power_on, card.power_off, card.reset
        self.hangs, self.release = threading.Event(), threading.Event()

    def transmit(self, command: bytes) -> bytes:
        if command[1] == CHANGE:
            self.hangs.set()
            assert self.release.wait(60), "nobody released the card"
        return self._card.transmit(command)


def test_a_command_that_is_killed_leaves_the_card_to_the_next(pcscd: Pcscd) -> None:
    """The kill strikes while the card works; the card finishes by itself."""
    card = Hanging(VirtualCard("yubikey-5.7", key_pool=POOL))
    pcscd.insert(card, pcscd.readers[0])
    reading, writing = os.pipe()
    command = subprocess.Popen([COMMAND, "pin", "change", "--secrets-fd", str(reading)], pass_fds=(reading,))
    os.close(reading)
    os.write(writing, f"{OLD}\n{NEW}\n".encode())
    os.close(writing)
    assert card.hangs.wait(60)
    command.kill()
    command.wait()
    card.release.set()
    assert tries() == 3
    assert cardwright("pin", "change", secrets=f"{NEW}\n{OLD}\n").returncode == 0


def test_two_terminals_at_once_wait_for_each_other(pcscd: Pcscd) -> None:
    with simulated(pcscd, pcscd.readers[0], "--timing", "instant"), ThreadPoolExecutor(4) as pool:
        slots = ("9a", "9c", "9d", "9e")
        ran = list(pool.map(lambda slot: cardwright("key", "generate", slot), slots))
        assert [one.returncode for one in ran] == [0] * 4, [one.stderr for one in ran]
        shown = json.loads(cardwright("card", "show", "--json").stdout)
        kept = {row["slot"]: row["public_key"] for row in shown["keys"]}
        assert {"9A", "9C", "9D", "9E"} <= set(kept)
        assert len({one.stdout for one in ran}) == 4


def test_a_card_that_can_keep_nothing_any_more_says_so(pcscd: Pcscd, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with simulated(pcscd, pcscd.readers[0], "--state", str(folder / "card.json")):
        moved = shutil.move(folder, tmp_path / "elsewhere")
        said = error(cardwright("pin", "change", secrets=f"{OLD}\n{NEW}\n"))
        assert "Error " in said
        shutil.move(moved, folder)
        assert cardwright("pin", "change", secrets=f"{OLD}\n{NEW}\n").returncode == 0


@pytest.mark.parametrize("locale", [{"LANG": "C", "LC_ALL": "C"}, {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}])
def test_any_locale(locale: dict[str, str], pcscd: Pcscd, tmp_path: Path) -> None:
    environment = {**locale, "XDG_STATE_HOME": str(tmp_path), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with simulated(pcscd, pcscd.readers[0], "--serial", "4711"):
        for line in ("--help", "card init --help", "readers", "card list", "card show", "card check", "pin status"):
            ran = cardwright(*line.split(), **environment)
            assert ran.returncode == (line == "card check") and "Traceback" not in ran.stderr, ran.stderr
        made = cardwright("card", "init", secrets="271828\n31415926\n", **environment)
        assert made.returncode == 0, made.stderr
        file = tmp_path / "é.pem"
        assert cardwright("cert", "export", "9a", "--out", str(file), **environment).returncode == 0
        assert file.exists()
        absent = cardwright("cert", "import", "9a", str(tmp_path / "ñ.pem"), "--overwrite", **environment)
        assert "FILE" in error(absent)


@pytest.mark.parametrize(
    ("card", "code"),
    [
        (SmallCard(atr=b"\xff\xff"), "CARD_UNRESPONSIVE"),
        (FaultyCard(SmallCard(), "apdu=1+:lost"), "CARD_UNRESPONSIVE"),
        (SmallCard({0xA4: bytes.fromhex("6A82")}), "NOT_PIV"),
    ],
    ids=["no ATR to speak of", "answers nothing", "another kind"],
)
def test_cards_that_are_none_are_told_from_an_empty_reader(card: Card, code: str, pcscd: Pcscd) -> None:
    empty = error(cardwright("card", "show"))
    assert "CARD_NOT_FOUND" in empty and "Nothing was sent to any card" in empty
    pcscd.insert(card, pcscd.readers[0])
    row, = json.loads(cardwright("card", "list", "--json").stdout)["cards"]
    assert row["reader"] == pcscd.readers[0] and code in json.dumps(row)
    assert f"Error {code}" in error(cardwright("card", "show"))
    chosen = error(cardwright("card", "show", "--serial", "7"))
    assert "CARD_NOT_FOUND" in chosen and "were looked at" in chosen and "Nothing was sent" not in chosen
