"""The command line as a process of its own, through a real pcscd, on cards that ``cardwright sim card`` puts in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.pcscd import Pcscd

COMMAND = str(Path(sys.executable).with_name("cardwright"))
pytestmark = pytest.mark.pcscd


def cardwright(*arguments: str, secrets: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    reading, writing = os.pipe()
    try:
        os.write(writing, secrets.encode())
        os.close(writing)
        given = [*arguments, *(["--secrets-fd", str(reading)] if secrets else [])]
        return subprocess.run(
            [COMMAND, *given], capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
            pass_fds=(reading,), env={**os.environ, **environment},
        )  # fmt: skip
    finally:
        os.close(reading)


@contextmanager
def simulated(pcscd: Pcscd, reader: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """``cardwright sim card`` in ``reader``; out again at the end, by an interrupt as from a keyboard."""
    card = subprocess.Popen(
        [COMMAND, "sim", "card", "--vpcd", pcscd.address(reader), *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert card.stdout is not None and "is in the reader" in card.stdout.readline()
        pcscd.wait_for_card(reader, present=True)
        yield card
    finally:
        card.send_signal(signal.SIGINT)
        assert card.wait(30) == 130
        pcscd.wait_for_card(reader, present=False)


def test_a_simulated_card_is_set_up_shown_checked_and_keeps_its_state(pcscd: Pcscd, tmp_path: Path) -> None:
    reader = pcscd.readers[0]
    options = ("--serial", "4711", "--state", str(tmp_path / "card.json"))
    home = str(tmp_path / "state")
    with simulated(pcscd, reader, *options):
        listed = json.loads(cardwright("card", "list", "--json").stdout)["cards"]
        assert [row["serial"] for row in listed] == ["4711"]
        made = cardwright("card", "init", secrets="271828\n31415926\n", XDG_STATE_HOME=home)
        assert made.returncode == 0, made.stderr
    with simulated(pcscd, reader, *options):
        shown = json.loads(cardwright("card", "show", "--json").stdout)
        assert [row["slot"] for row in shown["certificates"]] == ["9A", "9C", "9D", "9E"]
        assert shown["pin"]["is_default"] is False
        assert cardwright("card", "check").returncode == 0
        exported = cardwright("cert", "export", "9e").stdout
        parsed = subprocess.run(
            ["openssl", "x509", "-noout", "-subject"], input=exported, capture_output=True, text=True, check=False
        )
        assert "Card Authentication" in parsed.stdout, parsed.stderr
        tool = subprocess.run(["pkcs15-tool", "-c"], capture_output=True, text=True, check=False)
        assert tool.stdout.count("X.509 Certificate [") == 4, tool.stderr


def test_cards_in_several_readers_are_told_apart(pcscd: Pcscd) -> None:
    first, second = pcscd.readers[0], pcscd.readers[2]
    with (
        simulated(pcscd, first, "--serial", "1"),
        simulated(pcscd, second, "--serial", "2", "--profile", "yubikey-5.4"),
    ):
        assert cardwright("pin", "status").returncode == 1
        chosen = json.loads(cardwright("card", "show", "--serial", "2", "--json").stdout)
        assert chosen["features"]["version"].startswith("5.4") and chosen["reader"] == second
        readers = json.loads(cardwright("readers", "--json").stdout)["readers"]
        assert [row["card"] for row in readers] == [name in (first, second) for name in pcscd.readers]


def test_a_second_card_for_one_slot_is_refused(pcscd: Pcscd) -> None:
    reader = pcscd.readers[0]
    with simulated(pcscd, reader, "--serial", "1"):
        ran = cardwright("sim", "card", "--serial", "2", "--vpcd", pcscd.address(reader))
        assert ran.returncode == 1 and "VPCD_SILENT" in ran.stderr and "is in the reader" not in ran.stdout
        assert [row["serial"] for row in json.loads(cardwright("card", "list", "--json").stdout)["cards"]] == ["1"]


def test_readers_watch_tells_what_comes_and_goes(pcscd: Pcscd) -> None:
    reader = pcscd.readers[1]
    watch = subprocess.Popen([COMMAND, "readers", "--watch", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert watch.stdout is not None
        seen = [json.loads(watch.stdout.readline()) for _ in pcscd.readers]
        assert {row["event"] for row in seen} == {"ReaderAdded"}
        with simulated(pcscd, reader):
            inserted = json.loads(watch.stdout.readline())
            assert (inserted["event"], inserted["reader"]) == ("CardInserted", reader) and inserted["atr"]
        assert json.loads(watch.stdout.readline())["event"] == "CardRemoved"
    finally:
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 130


def test_a_fault_from_the_command_line_strikes(pcscd: Pcscd) -> None:
    with simulated(pcscd, pcscd.readers[0], "--fault", "ins=CB:sw=6F00"):
        assert json.loads(cardwright("card", "list", "--json").stdout)["cards"]


def test_without_pcscd_the_error_says_so(tmp_path: Path) -> None:
    ran = cardwright("card", "list", PCSCLITE_CSOCK_NAME=str(tmp_path / "nobody"))
    assert ran.returncode == 1 and "PCSC_NOT_RUNNING" in ran.stderr


def test_without_vpcd_the_simulated_card_says_so() -> None:
    ran = cardwright("sim", "card", "--vpcd", "127.0.0.1:1")
    assert ran.returncode == 1 and "Error " in ran.stderr
    assert "VPCD_ADDRESS" in cardwright("sim", "card", "--vpcd", "nowhere").stderr
