"""The virtual card: how fast in process and through vpcd, how small; and what an item costs above SCardTransmit."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.containers import CHUID
from cardwright_cardops.program.items import Apdu, Batch, Group
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.transport import pcsc
from cardwright_cardops.transport.direct import DirectConnection
from tests.support import bare_jobs, card_states
from tests.support.pcscd import YUBICO, Pcscd

from .children import Children
from .table import against, show

READER: Final = f"{YUBICO} 00 00"
_GET_CHUID: Final = bytes.fromhex("00CB3FFF055C035FC10200")
_MEMORY: Final = """
from pathlib import Path
def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096
from cardwright_simulators.card import VirtualCard
cards = [VirtualCard('yubikey-5.7', serial=number) for number in range(1000)]
for card in cards:
    assert card.transmit(bytes.fromhex('00A4040009A00000030800001000'))[-2:] == b'\\x90\\x00'
print(resident() / 2**20)
"""


class InstantCard:
    """Answers each command at once with a CHUID that is ready."""

    atr = bytes.fromhex("3BFD1300008131FE158073C021C057597562694B657940")

    def __init__(self) -> None:
        self._answer = bytes(61) + b"\x90\x00"

    def transmit(self, command: bytes) -> bytes:
        return self._answer

    def reset(self) -> None:
        return

    power_on = power_off = reset


def run(readers: Pcscd, children: Children) -> None:
    """Measure and print."""
    card = _card_per_second()
    stack = _stack_per_second()
    milliseconds = _through_vpcd(readers)
    memory = float(children.run([sys.executable, "-c", _MEMORY]).stdout)
    show(
        "The virtual card",
        ("", "measured", "unit", "budget"),
        [
            ("card alone in process", f"{card:.0f}", "GET DATA of a CHUID a second, short APDUs, one core", ""),
            ("whole stack in process", f"{stack:.0f}", "the same, through executor, exchange and connection",
             against(stack, 20_000, least=True)),
            ("through pcscd and vpcd", f"{milliseconds:.2f}", "ms an APDU, median", against(milliseconds, 10)),
            ("1,000 cards in one process", f"{memory:.0f}", "MiB resident", against(memory, 300)),
        ],
    )  # fmt: skip
    cost = _item_cost(readers, children)
    show(
        "The runner: CPU of our process for one item of a batch of 100, card at the other end of pcscd and vpcd",
        ("", "µs", "budget"),
        [
            ("SCardTransmit with prebuilt lists", f"{cost['bare']:.1f}", ""),
            ("one item", f"{cost['ours']:.1f}", ""),
            ("above", f"{cost['above']:.1f}", against(cost["above"], 25)),
        ],
    )


def _filled() -> LocalExecutor:
    card = card_states.filled_card(Algorithm.P256)
    executor = bare_jobs.bare_executor(DirectConnection(card), short=True)
    executor.plain.send(commands.select())
    return executor


def _card_per_second() -> float:
    card = card_states.filled_card(Algorithm.P256)
    card.transmit(commands.select().encode())
    return _rate(lambda: [card.transmit(_GET_CHUID) for _ in range(1000)])


def _stack_per_second() -> float:
    executor = _filled()
    batch = Batch((Group((Apdu(commands.get_data(CHUID.tag)),) * 1000),))
    (answers,) = executor.execute(batch)
    assert all(answer.ok for answer in answers)
    return _rate(lambda: executor.execute(batch))


def _rate(thousand: Callable[[], object]) -> float:
    """Calls a second of CPU, from the median of rounds."""
    spent = []
    for _ in range(15):
        began = time.process_time()
        thousand()
        spent.append(time.process_time() - began)
    return 1000 / statistics.median(spent)


def _through_vpcd(readers: Pcscd) -> float:
    readers.insert(card_states.filled_card(Algorithm.P256), READER)
    try:
        with pcsc.connect(READER) as connection:
            connection.transmit(commands.select().encode())
            spent = []
            for _ in range(200):
                began = time.perf_counter()
                connection.transmit(_GET_CHUID)
                spent.append((time.perf_counter() - began) * 1e3)
    finally:
        readers.remove(READER)
    return statistics.median(spent)


def _item_cost(readers: Pcscd, children: Children) -> dict[str, float]:
    readers.insert(InstantCard(), READER)
    try:
        told = children.run([sys.executable, "-m", "bench.item_cost", READER]).stdout
    finally:
        readers.remove(READER)
    cost: dict[str, float] = json.loads(told)
    return cost
