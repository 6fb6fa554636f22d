"""``make demo``: a virtual card is set up, looked at and checked with the commands that anyone would type.

No reader, no pcscd and no network is needed, and nothing is left behind. Everything is asserted: the demo fails where
a card would not be right.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path

from cardwright_cardops.transport.connection import Connection
from cardwright_cardops.transport.direct import DirectConnection

from .cli.cards import DirectCards, ReaderSummary
from .cli.main import main as command_line

READER = "Virtual reader 00"


class DemoFailed(Exception):
    """A command did not do what it should."""


class Desk:
    """One virtual card in a reader that exists only here, and the command line in front of it."""

    def __init__(self, folder: Path) -> None:
        from cardwright_simulators.card import FileStore, VirtualCard

        self._folder = folder
        self.card = VirtualCard("yubikey-5.7", serial=20261122, store=FileStore(folder / "card.json"))
        self._cards = DirectCards(lambda: (ReaderSummary(READER, self.card.atr),), self._connect)

    def _connect(self, reader: str) -> Connection:
        return DirectConnection(self.card, reader=reader)

    def run(self, line: str, *, secrets: str = "", expect: int = 0) -> str:
        """Run one command as a person would, show it, and return what it printed."""
        before, start = self.card.apdu_count, time.monotonic()
        print(f"\n$ cardwright {line}", flush=True)
        arguments = shlex.split(line)
        reading, writing = os.pipe()
        try:
            os.write(writing, secrets.encode())
            os.close(writing)
            if secrets:
                arguments += ["--secrets-fd", str(reading)]
            out = TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True)
            with redirect_stdout(out):
                try:
                    command_line(arguments, self._cards)
                except SystemExit as stop:
                    code = stop.code
        finally:
            os.close(reading)
        out.seek(0)
        text = out.read()
        print("\n".join(f"  {row}" for row in text.splitlines()[:24]))
        print(f"  ({self.card.apdu_count - before} commands to the card, {time.monotonic() - start:.2f} s)", flush=True)
        if code != expect:
            raise DemoFailed(f"'cardwright {line}' ended with {code}, not with {expect}.")
        return text


def demo() -> None:
    """Set up, look, check, use, and see that a mistake costs nothing. Raises DemoFailed."""
    with tempfile.TemporaryDirectory(prefix="cardwright-demo-") as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder)
        desk = Desk(folder)
        print("A fresh card, as it leaves the factory: default PIN, PUK and management key, no keys.")
        desk.run("card list")
        print("\nIt is set up: new PIN, PUK and management key, CHUID, CCC, four keys with certificates.")
        print("The new PIN and PUK come from a file descriptor here; a person is asked for them.")
        desk.run("card init", secrets="271828\n31415926\n")
        desk.run("card show")
        print("\nThe check reads the card again and finds nothing wrong.")
        report = json.loads(desk.run("card check --json"))
        if report["findings"] and any(row["severity"] == "error" for row in report["findings"]):
            raise DemoFailed("The card is not good.")
        print("\nSetting it up again finds nothing to do.")
        desk.run("card init", secrets="271828\n31415926\n")
        print("\nA wrong PIN costs one try, and the last try is never spent.")
        desk.run("pin change", secrets="111111\n161803\n", expect=1)
        desk.run("pin status")
        desk.run("pin change", secrets="271828\n161803\n")
        state = json.loads(desk.run("pin status --json"))
        if state["pin"]["tries_left"] != 3 or state["pin"]["default"]:
            raise DemoFailed("The PIN is not as it should be.")
        print("\nDone: the card is set up, good, and its secrets are its own.")


def main() -> None:
    """Run the demo; exit 1 with a sentence if anything was not as it should be."""
    try:
        demo()
    except DemoFailed as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
