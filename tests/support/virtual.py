"""Virtual cards as the tests use them: a card, its connection and an executing end in one line."""

from __future__ import annotations

from dataclasses import dataclass

from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.commands import select
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.piv.pins import FixedPins, TriesGuard
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import PROFILES, VirtualCard
from cardwright_simulators.card.keypool import KeyPool

PIN = Secret(b"123456")
PUK = Secret(b"12345678")
NEW_PIN = Secret(b"271828")
NEW_PUK = Secret(b"31415926")

POOL = KeyPool()
"""RSA keys made once a process: what is tested is never the making of primes."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A virtual card with what drives it."""

    card: VirtualCard
    connection: DirectConnection
    executor: LocalExecutor
    keys: KeyItems


def bench(
    profile: str = "yubikey-5.7",
    *,
    current: Secret | None = PIN,
    new: Secret | None = None,
    keep: int = 1,
    short: bool = False,
    selected: bool = True,
) -> Bench:
    """A fresh card of ``profile``, its PIV application selected."""
    card = VirtualCard(profile, key_pool=POOL)
    connection = DirectConnection(card)
    keys = KeyItems(FixedPins(current, new), TriesGuard(keep), local=True)
    executor = LocalExecutor(connection, keys, Limits(extended=False) if short else None)
    if selected:
        executor.plain.send(select())
    return Bench(card, connection, executor, keys)


def default_management_key(profile: str) -> ManagementKey:
    """The value of 9B that a card of ``profile`` leaves the factory with."""
    made = PROFILES[profile]
    return ManagementKey(ManagementAlgorithm(made.management_algorithm), Secret(made.management_key))
