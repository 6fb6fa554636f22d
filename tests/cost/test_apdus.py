"""Exact numbers of APDUs, counted outside of our code: around the card, and on the wire between vpcd and the card.

The floor is SELECT and the work. ``card init`` adds identity, features, defaults found, self-signed certificates
and the read-back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.references import ACTIVE_SLOTS, Slot
from cardwright_cardops.plan import bare
from cardwright_cardops.plan.init import Secrets, initialize
from cardwright_cardops.plan.journal_file import FileJournal
from cardwright_cardops.plan.policy import DevicePolicy, parse_keys
from cardwright_cardops.plan.records import Kind, MemoryJournal
from cardwright_cardops.program.items import Program
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport import pcsc
from cardwright_cardops.transport.connection import Connection
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from tests.oracle.card import Expected, judge
from tests.support import bare_jobs, card_init, card_states
from tests.support.card_init import CASES, Case
from tests.support.pcscd import PLAIN, Pcscd
from tests.support.relay import CountedCard, CountingRelay, Traffic

P256, RSA2048 = Algorithm.P256, Algorithm.RSA2048
READER = f"{PLAIN} 00 00"


def fresh(algorithm: Algorithm) -> VirtualCard:
    return card_states.fresh_card()


def blocked(algorithm: Algorithm) -> VirtualCard:
    return card_states.blocked_card()


@dataclass(frozen=True)
class Job:
    """A bare job and its exact cost."""

    card: Callable[[Algorithm], VirtualCard]
    program: Callable[[], Program[Any]]
    algorithm: Algorithm
    short: bool
    cost: Traffic


PERSONALIZE_P256, PERSONALIZE_RSA = (
    lambda: bare_jobs.personalization(P256, card_states.certified(P256)),
    lambda: bare_jobs.personalization(RSA2048, card_states.certified(RSA2048)),
)

JOBS = {
    "personalize P-256 short": Job(fresh, PERSONALIZE_P256, P256, True, Traffic(20, 2251, 293)),
    "personalize RSA-2048 short": Job(fresh, PERSONALIZE_RSA, RSA2048, True, Traffic(33, 4521, 919)),
    "personalize P-256 extended": Job(fresh, PERSONALIZE_P256, P256, False, Traffic(16, 2257, 285)),
    "personalize RSA-2048 extended": Job(fresh, PERSONALIZE_RSA, RSA2048, False, Traffic(16, 4464, 885)),
    "read P-256 short": Job(card_states.filled_card, bare_jobs.reading, P256, True, Traffic(11, 101, 2011)),
    "read RSA-2048 short": Job(card_states.filled_card, bare_jobs.reading, RSA2048, True, Traffic(19, 141, 3611)),
    "read P-256 extended": Job(card_states.filled_card, bare_jobs.reading, P256, False, Traffic(7, 102, 2003)),
    "read RSA-2048 extended": Job(card_states.filled_card, bare_jobs.reading, RSA2048, False, Traffic(7, 102, 3587)),
    "verify PIN": Job(card_states.filled_card, bare_jobs.verifying, P256, True, Traffic(2, 28, 23)),
    "change PIN": Job(card_states.filled_card, bare_jobs.changing, P256, True, Traffic(2, 36, 23)),
    "unblock PIN": Job(blocked, bare_jobs.unblocking, P256, True, Traffic(2, 36, 23)),
}
INIT = {
    "P-256 short": (P256, True, 20 + 27),
    "RSA-2048 short": (RSA2048, True, 33 + 41),
    "P-256 extended": (P256, False, 16 + 23),
    "RSA-2048 extended": (RSA2048, False, 16 + 23),
}
"""The bare personalization in the same mode, and all the safety above it."""
INIT_BY_KIND = {
    "yubikey-5.7": 39,
    "yubikey-5.4 short": 47,
    "pivapplet": 48,
    "tdes-only": 39,
    "t0-short": 68,
    "sp800-73-5": 39,
    "globalplatform": 39,
}
BOTH_WAYS = [pytest.param(False, id="in process"), pytest.param(True, id="vpcd", marks=pytest.mark.pcscd)]


@dataclass(frozen=True)
class Wire:
    """A connection to a card, and what counts on the way."""

    connection: Connection
    counts: CountedCard | CountingRelay


@contextmanager
def wired(card: VirtualCard, request: pytest.FixtureRequest, through_vpcd: bool) -> Iterator[Wire]:
    """``card`` in this process, or in a reader with the relay between vpcd and the card."""
    if not through_vpcd:
        counted = CountedCard(card)
        yield Wire(DirectConnection(counted), counted)
        return
    readers: Pcscd = request.getfixturevalue("pcscd")
    with CountingRelay(card, readers.port(READER)) as relay:
        readers.wait_for_card(READER, present=True)
        with pcsc.connect(READER) as connection:
            yield Wire(connection, relay)
    readers.wait_for_card(READER, present=False)


def init_case(algorithm: Algorithm, short: bool) -> Case:
    """The card that ``card init`` makes where the bare job makes its own."""
    name = algorithm.label
    keys = f"9a={name},9c={name},9d={name}:import,9e={name}"
    wanted = {int(slot): (int(algorithm), slot is not Slot.KEY_MANAGEMENT) for slot in ACTIVE_SLOTS}
    return Case(card_states.PROFILE, keys, wanted, short=short)


@pytest.mark.parametrize("through_vpcd", BOTH_WAYS)
@pytest.mark.parametrize("name", JOBS)
def test_bare_jobs_cost_the_floor(name: str, through_vpcd: bool, request: pytest.FixtureRequest) -> None:
    job = JOBS[name]
    with wired(job.card(job.algorithm), request, through_vpcd) as wire:
        run(job.program(), bare_jobs.bare_executor(wire.connection, short=job.short))
        assert wire.counts.traffic == job.cost


@pytest.mark.parametrize("through_vpcd", BOTH_WAYS)
@pytest.mark.parametrize("name", INIT)
def test_card_init_costs_its_safety_and_no_more(
    name: str, through_vpcd: bool, request: pytest.FixtureRequest
) -> None:
    algorithm, short, apdus = INIT[name]
    case, journal = init_case(algorithm, short), MemoryJournal()
    card = case.card()
    policy = DevicePolicy(slots=parse_keys(case.keys))
    with wired(card, request, through_vpcd) as wire:
        pins = FixedPins(Secret(card_init.PIN), Secret(card_init.PIN))
        limits = Limits(extended=False) if short else None
        executor = LocalExecutor(wire.connection, KeyItems(pins, local=True), limits)
        initialize(executor, policy, Secrets(new_puk=Secret(card_init.PUK)), journal, now=card_init.NOW)
        assert wire.counts.traffic.apdus == apdus
    assert case.faults_of(card, journal) == []
    assert_as_many_blocks_as_measured(card, algorithm)


def assert_as_many_blocks_as_measured(card: VirtualCard, algorithm: Algorithm) -> None:
    """Our certificates cost as many APDUs as those of the sizes that the public tools were measured with."""
    measured = len(card_states.certified(algorithm).content)
    objects = json.loads(card.snapshot())["objects"]
    for slot in ACTIVE_SLOTS:
        answer = len(objects[f"{slot.certificate_tag:X}"]) // 2
        content = answer - len(b"\x53\x82\x00\x00")
        assert written(content) == written(measured), slot
        assert -(-answer // 256) == -(-(measured + 4) // 256), slot


def written(content: int) -> int:
    """APDUs of a PUT DATA with ``content`` octets, short and chained."""
    header = len(b"\x5c\x03\x5f\xc1\x05\x53\x82\x00\x00")
    return -(-(header + content) // 255)


@pytest.mark.parametrize("kind", CASES)
def test_card_init_on_every_kind_of_card(kind: str) -> None:
    card, journal = CountedCard(CASES[kind].card()), MemoryJournal()
    CASES[kind].run(card, journal)
    assert card.traffic.apdus == INIT_BY_KIND[kind]


def test_nothing_due_costs_one_look() -> None:
    case, journal = CASES["yubikey-5.7"], MemoryJournal()
    made = case.card()
    case.run(made, journal)
    card = CountedCard(made)
    case.run(card, journal)
    # SELECT, version, serial; metadata of PIN, PUK, 9B and four slots; CHUID, Discovery, CCC, four certificates.
    assert card.traffic.apdus == 3 + 7 + 3 + 4


@pytest.mark.pcscd
def test_the_command_line_costs_what_its_library_does(pcscd: Pcscd, tmp_path: Path) -> None:
    case = init_case(P256, short=False)
    card, kept = case.card(), tmp_path / "secrets"
    with CountingRelay(card, pcscd.port(READER)) as relay:
        pcscd.wait_for_card(READER, present=True)
        readable, writable = os.pipe()
        os.write(writable, card_init.PIN + b"\n" + card_init.NUMERIC_PUK + b"\n")
        os.close(writable)
        subprocess.run(
            [sys.executable, "-c", "from cardwright_clients.cli.main import main; main()", "card", "init", "--yes",
             "--keys", case.keys, "--secrets-fd", str(readable), "--secrets-out", str(kept)],
            pass_fds=[readable], check=True, timeout=60,
        )  # fmt: skip
        os.close(readable)
        assert relay.traffic.apdus == INIT["P-256 extended"][2]
    pcscd.wait_for_card(READER, present=False)
    keys = frozenset(
        entry.value.reveal() for entry in FileJournal.resume(kept).entries()
        if entry.kind is Kind.MANAGEMENT_KEY and entry.value is not None
    )  # fmt: skip
    expected = Expected(case.expected, card_init.PIN, card_init.NUMERIC_PUK, keys, now=datetime.now(UTC))
    assert judge(card.snapshot(), expected) == []


@pytest.mark.pcscd
def test_the_relay_counts_what_the_card_was_sent(pcscd: Pcscd) -> None:
    card = CountedCard(card_states.filled_card(RSA2048))
    with CountingRelay(card, pcscd.port(READER)) as relay:
        pcscd.wait_for_card(READER, present=True)
        with pcsc.connect(READER) as connection:
            executor = bare_jobs.bare_executor(connection, short=True)
            run(bare_jobs.reading(), executor)
            refused = run(bare.read(0x5FC10F), executor)
        assert refused == {}
        assert relay.traffic == card.traffic == Traffic(21, 141 + 15 + 11, 3611 + 21 + 2, 1)
    pcscd.wait_for_card(READER, present=False)
