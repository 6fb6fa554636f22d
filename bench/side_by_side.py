"""Our jobs and those of the public tools on the same cards, in one run: APDUs and octets counted on the wire
between vpcd and the card, time from the first process to the end of the last."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.objects import Ccc
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.around import Around
from tests.support import bare_jobs, card_states
from tests.support.pcscd import YUBICO, Pcscd
from tests.support.relay import CountingRelay, Traffic

from . import tools
from .children import Children
from .table import show
from .tools import Way

READER: Final = f"{YUBICO} 00 00"
"""ykman takes no reader of another name."""
P256, RSA2048 = Algorithm.P256, Algorithm.RSA2048
RUNS: Final = 3
LONG: Final = 1.5
"""Seconds; what takes longer runs once."""


@dataclass(frozen=True, slots=True)
class Job:
    """``name`` as our_jobs.py has it; ``keys`` for ``card init`` where it does the same."""

    title: str
    name: str
    card: Callable[[], VirtualCard]
    keys: str = ""


JOBS: Final = (
    Job("read what is public, P-256", "read", lambda: card_states.filled_card(P256)),
    Job("read what is public, RSA-2048", "read", lambda: card_states.filled_card(RSA2048)),
    Job("verify the PIN", "verify", lambda: card_states.filled_card(P256)),
    Job("change the PIN", "change", lambda: card_states.filled_card(P256)),
    Job("unblock the PIN", "unblock", card_states.blocked_card),
    Job("personalize, P-256", "personalize-p256", card_states.fresh_card, "9a=p256,9c=p256,9d=p256:import,9e=p256"),
    Job(
        "personalize, RSA-2048", "personalize-rsa2048", card_states.fresh_card,
        "9a=rsa2048,9c=rsa2048,9d=rsa2048:import,9e=rsa2048",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of doing a job took; ``failed`` are processes that did not exit with 0."""

    traffic: Traffic
    seconds: float
    failed: int


def run(readers: Pcscd, children: Children) -> None:
    """Measure and print."""
    files = children.folder
    # The card in it changes between runs without pcscd noticing, which would take it 0.8 s; all are of one kind.
    seat = Around(card_states.fresh_card())
    _write_files(files)
    with CountingRelay(seat, readers.port(READER)) as relay:
        readers.wait_for_card(READER, present=True)
        for job in JOBS:
            ways = [tools.ours(READER, job.name, form, files) for form in ("short", "extended")]
            if job.keys:
                ways.append(Way("cardwright card init", ()))
            for peer in (tools.yubikit, tools.yubico_piv_tool, tools.opensc, tools.ykman):
                ways += peer(READER, job.name, files)
            costs = [(way, _measure(seat, relay, children, job, way)) for way in ways]
            first = costs[0][1].seconds
            show(
                job.title,
                ("", "processes", "APDUs", "refused", "octets out", "octets in", "ms", "of first", ""),
                [_row(way, cost, first) for way, cost in costs],
            )


def _row(way: Way, cost: Cost, first: float) -> tuple[str, ...]:
    counts = cost.traffic
    return (
        way.name, str(len(way.commands) or 1), str(counts.apdus), str(counts.refused), str(counts.octets_out),
        str(counts.octets_in), f"{cost.seconds * 1e3:.0f}", f"{cost.seconds / first:.2f}",
        f"{cost.failed} failed" if cost.failed else "",
    )  # fmt: skip


def _measure(seat: Around[VirtualCard], relay: CountingRelay, children: Children, job: Job, way: Way) -> Cost:
    """A new card for each run; counts of the last, the median of times."""
    times: list[float] = []
    while True:
        seat.inside = job.card()
        before, began = relay.traffic, time.perf_counter()
        if way.commands:
            failed = sum(children.run(command).returncode != 0 for command in way.commands)
        else:
            failed = _init(children, job)
        times.append(time.perf_counter() - began)
        if len(times) == RUNS or times[0] > LONG:
            return Cost(relay.traffic - before, statistics.median(times), failed)


def _init(children: Children, job: Job) -> int:
    """``cardwright card init``, its secrets through a pipe."""
    kept = children.folder / "secrets"
    kept.unlink(missing_ok=True)
    readable, writable = os.pipe()
    os.write(writable, b"271828\n31415926\n")
    os.close(writable)
    command = [sys.executable, "-c", "from cardwright_clients.cli.main import main; main()", "card", "init", "--yes"]
    command += ["--keys", job.keys, "--secrets-fd", str(readable), "--secrets-out", str(kept)]
    try:
        return int(children.run(command, readable).returncode != 0)
    finally:
        os.close(readable)


def _write_files(folder: Path) -> None:
    for name, algorithm in (("p256", P256), ("rsa2048", RSA2048)):
        made = card_states.certified(algorithm)
        (folder / f"{name}.pem").write_bytes(made.certificate.public_bytes(Encoding.PEM))
        key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(key)
    (folder / f"{containers.CHUID.tag:X}").write_bytes(bare_jobs.chuid())
    (folder / f"{containers.CCC.tag:X}").write_bytes(Ccc().encode())
