"""Cards of a few lines, for tests of what lies between a program and a card."""

from __future__ import annotations

import threading
from collections.abc import Callable

ATR_T1 = bytes.fromhex("3BFD1300008131FE158073C021C057597562694B657940")
ATR_T0 = bytes.fromhex("3B6500002063CBAD20")


class SmallCard:
    """Notes every command and answers what ``answers`` says for its instruction, else 9000.

    What stands in ``log`` came over the wire: commands as they are, and "on", "off", "reset".
    """

    def __init__(self, answers: dict[int, bytes] | None = None, atr: bytes = ATR_T1) -> None:
        self.atr = atr
        self.answers = answers or {}
        self.log: list[bytes | str] = []
        self.before: Callable[[bytes], None] = lambda command: None
        """Called with each command before it is answered."""

    @property
    def commands(self) -> list[bytes]:
        """The commands among ``log``."""
        return [entry for entry in self.log if isinstance(entry, bytes)]

    def transmit(self, command: bytes) -> bytes:
        self.before(command)
        self.log.append(command)
        return self.answers.get(command[1], b"\x90\x00")

    def reset(self) -> None:
        self.log.append("reset")

    def power_on(self) -> None:
        self.log.append("on")

    def power_off(self) -> None:
        self.log.append("off")


class HangingCard(SmallCard):
    """A card that starts to hang at a command with the instruction ``ins`` until ``release`` is set."""

    def __init__(self, ins: int) -> None:
        super().__init__()
        self.hangs = threading.Event()
        self.release = threading.Event()
        self._ins = ins
        self.before = self._hang

    def _hang(self, command: bytes) -> None:
        if command[1] == self._ins:
            self.hangs.set()
            assert self.release.wait(30), "nobody released the card"
