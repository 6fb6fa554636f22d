"""CPU of one item of a batch above a bare SCardTransmit with prebuilt lists. Run as a process of its own:

    python -m bench.item_cost READER
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from smartcard import scard

from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.containers import CHUID
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.program.items import Apdu, Batch, Group
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.transport import pcsc

ITEMS = 100
ROUNDS = 40


class Bare:
    """SCardTransmit in a loop, everything made beforehand."""

    def __init__(self, reader: str, command: bytes) -> None:
        _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        _, self._handle, self._protocol = scard.SCardConnect(
            context, reader, scard.SCARD_SHARE_SHARED, scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        )
        self._pci = {1: scard.SCARD_PCI_T0, 2: scard.SCARD_PCI_T1}[self._protocol]
        self._lists = [list(command) for _ in range(ITEMS)]

    def round(self) -> None:
        handle, pci, transmit = self._handle, self._pci, scard.SCardTransmit
        scard.SCardBeginTransaction(handle)
        for command in self._lists:
            result, answer = transmit(handle, pci, command)
            assert result == 0 and answer[-2:] == [0x90, 0x00]
        scard.SCardEndTransaction(handle, scard.SCARD_LEAVE_CARD)


class Ours:
    """The same commands as one batch, made beforehand, through connection and executor."""

    def __init__(self, reader: str) -> None:
        self._executor = LocalExecutor(pcsc.connect(reader), KeyItems(FixedPins()), Limits(extended=False))
        self._batch = Batch((Group(tuple(Apdu(commands.get_data(CHUID.tag)) for _ in range(ITEMS))),))

    def round(self) -> None:
        (answers,) = self._executor.execute(self._batch)
        assert all(answer.ok for answer in answers)


def measure(reader: str) -> dict[str, float]:
    """Microseconds of CPU for one item, medians of rounds that take turns: ``bare``, ``ours``, ``above``."""
    command = bytes.fromhex("00CB3FFF055C035FC10200")
    sides: dict[str, Bare | Ours] = {"bare": Bare(reader, command), "ours": Ours(reader)}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            began = time.process_time()
            side.round()
            spent[name].append((time.process_time() - began) / ITEMS * 1e6)
    bare, ours = (statistics.median(spent[name]) for name in ("bare", "ours"))
    above = statistics.median(two - one for one, two in zip(spent["bare"], spent["ours"], strict=True))
    return {"bare": bare, "ours": ours, "above": above}


if __name__ == "__main__":
    json.dump(measure(sys.argv[1]), sys.stdout)
