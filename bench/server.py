"""What a server bears: a real process on PostgreSQL, cards loaded by SQL, simulated workstations over mutual TLS.

``python -m bench.server``; less of everything by its options. The workstations run in this process, on the same
processors: where the server's own part counts, it is taken from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.keypool import KeyPool
from cardwright_simulators.workstation import Fleet, Identity, Named, Part, Plan, Task
from cardwright_simulators.workstation.session import Session
from tests.support.databases import PostgreSql, running_postgresql
from tests.support.delay import delayed_port
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.load import LIMITS, many_cards, site_on, to_issue

from .processes import cpu, family
from .table import against, show

ENROLLED: Final = 50
"""Certificates; each stands on several connections."""
ROUND_TRIP: Final = 0.2
PIN: Final = b"739146"
_SERIALS: Final = count(60_000_000)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    devices: int = 100_000
    stations: int = 1000
    rate: float = 500.0
    seconds: float = 10.0
    cards: int = 100


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of processor time."""

    server: float
    vault: float
    database: float

    def __sub__(self, other: Used) -> Used:
        return Used(self.server - other.server, self.vault - other.vault, self.database - other.database)


@dataclass(frozen=True, slots=True)
class Stand:
    """What is measured."""

    size: Size
    here: Site
    desk: Desk
    postgresql: PostgreSql

    def used(self) -> Used:
        """So far, of the processes that run now."""
        assert self.here.process.process is not None
        server, *vault = family(self.here.process.process.pid)
        return Used(cpu(server), cpu(*vault), cpu(*family(self.postgresql.process.pid)))

    def fleet(self, identities: Sequence[Identity] = ()) -> Fleet:
        """The workstations, with the server as it listens now."""
        addresses = self.here.process.addresses
        operator = Identity.read(self.here.data / "operators" / "ann.pem")
        many = self.size.stations if identities else min(ENROLLED, self.size.stations)
        return Fleet(many, addresses["calls"], addresses["entry"], administrator=operator, identities=identities)

    def tasks(self, many: int) -> list[Task]:
        """New blank cards with their requests."""
        first = next(_SERIALS)
        for _ in range(many - 1):
            next(_SERIALS)
        return [Task(**one) for one in to_issue(self.desk, many, first)]


def run(size: Size | None = None) -> None:
    """Measure and print."""
    chosen = size or Size()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * chosen.stations + 1000)), hard))
    with running_postgresql() as postgresql, site_on(postgresql, LIMITS) as (here, name):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [Named(guid, key=key) for guid in many_cards(postgresql, name, chosen.devices, key.public_key())]
        asyncio.run(_measure(Stand(chosen, here, Desk(here), postgresql), names))


async def _measure(stand: Stand, names: list[Named]) -> None:
    async with stand.fleet() as newcomers:
        identities = newcomers.identities
    plan = Plan(stand.size.rate, stand.size.seconds, names=names)
    async with stand.fleet(identities) as fleet:
        standing = await fleet.stand(plan)
        before = stand.used()
        checks = await fleet.insertions(plan)
        _show_checks(stand, standing, checks, stand.used() - before)
        await _issuances(stand, fleet)
    await _restarted(stand, identities, plan)
    await _slopes(stand)


def _show_checks(stand: Stand, standing: Part, checks: Part, used: Used) -> None:
    times, size = checks.times, stand.size
    many = max(1, len(times.seconds))
    show(
        f"due-checks with proof, {size.rate:g} a second for {size.seconds:g} s, {size.devices} devices, "
        f"{len(standing.times.seconds)} standing mTLS streams",
        ("answered", "errors", "p50 ms", "p99 ms", "", "server ms CPU each", "PostgreSQL", "this client"),
        [
            (
                str(len(times.seconds)), _errors(checks), f"{times.at(0.5) * 1e3:.1f}", f"{times.at(0.99) * 1e3:.1f}",
                against(times.at(0.99) * 1e3, 50), f"{used.server / many * 1e3:.2f}",
                f"{used.database / many * 1e3:.2f}", f"{checks.cpu_seconds / many * 1e3:.2f}",
            )
        ],
        f"An open loop: a check that is answered late counts from when it was due. Taken: {checks.seconds:.1f} s.",
    )  # fmt: skip


async def _issuances(stand: Stand, fleet: Fleet) -> None:
    rows = []
    for parallel in sorted({1, min(10, stand.size.cards), stand.size.cards}):
        tasks = await asyncio.to_thread(stand.tasks, max(4, parallel))
        before = stand.used()
        part = await fleet.issuances(Plan(tasks=tasks, parallel=parallel))
        used, many = stand.used() - before, max(1, len(part.times.seconds))
        rows.append(
            (
                str(parallel), str(len(part.times.seconds)), _errors(part), f"{many / part.seconds * 60:.0f}",
                f"{part.times.at(0.5):.2f}", f"{used.server / many * 1e3:.0f}", f"{used.vault / many * 1e3:.0f}",
                f"{used.database / many * 1e3:.0f}", f"{part.cpu_seconds / many * 1e3:.0f}",
            )
        )  # fmt: skip
    show(
        "issuance of instant virtual cards under civ: four keys, one of them escrowed, proof of the person included",
        ("parallel", "issued", "errors", "a minute", "p50 s", "server ms CPU each", "vault", "PostgreSQL", "client"),
        rows,
    )


async def _restarted(stand: Stand, identities: Sequence[Identity], plan: Plan) -> None:
    await asyncio.to_thread(stand.here.process.stop)
    await asyncio.to_thread(stand.here.process.start)
    before = stand.used()
    async with stand.fleet(identities) as fleet:
        cold = await fleet.stand(plan)
    many = max(1, len(cold.times.seconds))
    show(
        "cold mTLS connections at once after a restart of the server",
        ("connected", "errors", "s until all are served", "p50 s", "server ms CPU each"),
        [
            (
                str(len(cold.times.seconds)), _errors(cold), f"{cold.seconds:.2f}", f"{cold.times.at(0.5):.2f}",
                f"{(stand.used() - before).server / many * 1e3:.2f}",
            )
        ],
    )  # fmt: skip


async def _slopes(stand: Stand) -> None:
    """Round trips: how much longer it takes over a line that is longer, on a connection that stands."""
    process, pool = stand.here.process, KeyPool.shared()
    operator = Identity(stand.desk.issuer.key, stand.desk.issuer.chain, process.root)
    tasks = await asyncio.to_thread(stand.tasks, 6)
    cards = [VirtualCard("yubikey-5.7", serial=task.serial, key_pool=pool) for task in tasks]
    rows = []
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(delayed_port(process.addresses["calls"], 0.0))
        channel = await stack.enter_async_context(operator.connect(line.address))

        async def took(number: int, purpose: Any, request: str) -> float:
            loop = asyncio.get_running_loop()
            session = Session(channel, cards[number], Secret(PIN))
            began = loop.time()
            await session.run(purpose, request=request)
            return loop.time() - began

        await channel.channel_ready()
        for what, purpose, most in (
            ("full issuance", sessions_pb2.PURPOSE_ISSUE, 6),
            ("nothing due", sessions_pb2.PURPOSE_UPDATE, 1),
        ):
            taken: dict[float, list[float]] = {0.0: [], ROUND_TRIP: []}
            for number, task in enumerate(tasks):
                length = (0.0, ROUND_TRIP)[number % 2]
                line.delay = length / 2
                request = task.request if purpose == sessions_pb2.PURPOSE_ISSUE else ""
                taken[length].append(await took(number, purpose, request))
            near, far = statistics.median(taken[0.0]), statistics.median(taken[ROUND_TRIP])
            slope = (far - near) / ROUND_TRIP
            rows.append((what, f"{near:.2f}", f"{far:.2f}", f"{slope:.2f}", against(round(slope), most)))
    show(
        f"round trips: slope of the time over a line of 0 and {ROUND_TRIP * 1e3:g} ms",
        ("", "s without", "s with", "round trips", ""),
        rows,
        "Counted exactly on the line by tests/cost/test_round_trips.py: 5, 1, and 4 for a renewal of two.",
    )


def _errors(part: Part) -> str:
    return " ".join(f"{code}:{many}" for code, many in sorted(part.times.errors.items())) or "0"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench.server", description=__doc__)
    usual = Size()
    for name in Size.__slots__:
        value = getattr(usual, name)
        parser.add_argument(f"--{name}", type=type(value), default=value)
    run(replace(usual, **vars(parser.parse_args())))


if __name__ == "__main__":
    main()
