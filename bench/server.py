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
from .table import Budgets, against, show

ENROLLED: Final = 50
"""Certificates; each stands on several connections."""
ROUND_TRIP: Final = 0.2
PIN: Final = b"739146"
SETTLES: Final = 3.0
"""Seconds after which what was done before is done with: events, blocks of the audit, the database's own counts."""
IDLE: Final = 4.0
FLAT: Final = 1.25
"""Times as much for each card in parallel as for one alone, at most: what two runs of the same differ by."""
_SERIALS: Final = count(60_000_000)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. ``insertions`` come ``within`` so many seconds."""

    devices: int = 100_000
    stations: int = 1000
    rate: float = 500.0
    seconds: float = 10.0
    insertions: int = 10_000
    within: float = 60.0
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
    name: str
    budgets: Budgets

    def statements(self) -> int:
        """Transactions of the database so far: a statement of its own is one. As old as its processes tell it."""
        counted = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname ="
        return int(self.postgresql.sql(f"{counted} '{self.name}'"))

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
        stand = Stand(chosen, here, Desk(here), postgresql, name, Budgets())
        asyncio.run(_measure(stand, names))
    stand.budgets.show("the server's budgets")


async def _measure(stand: Stand, names: list[Named]) -> None:
    async with stand.fleet() as newcomers:
        identities = newcomers.identities
    size = stand.size
    crowd = Plan(size.insertions / size.within, size.within, names=names)
    async with stand.fleet(identities) as fleet:
        standing = await fleet.stand(crowd)
        many = len(standing.times.seconds)
        await fleet.insertions(Plan(min(50.0, size.rate), 1.0, names=names))
        await asyncio.sleep(SETTLES)
        await _idle(stand, many)
        await _checks(stand, fleet, Plan(size.rate, size.seconds, names=names), 50)
        await _checks(stand, fleet, crowd, 100)
        stand.budgets.judge("standing streams that ended", many - sum(one.stands for one in fleet.stations), 0)
        await _issuances(stand, fleet)
    await _restarted(stand, identities, crowd)
    await _slopes(stand)


async def _idle(stand: Stand, standing: int) -> None:
    before = stand.used()
    await asyncio.sleep(IDLE)
    used = stand.used() - before
    stand.budgets.report(
        f"idle with {standing} streams, a second",
        f"{used.server / IDLE * 1e3:.0f} ms of the server, {used.database / IDLE * 1e3:.0f} of PostgreSQL",
    )


async def _checks(stand: Stand, fleet: Fleet, plan: Plan, p99: float) -> None:
    """Due-checks at a rate, and what each costs."""
    size, before, asked = stand.size, stand.used(), stand.statements()
    checks = await fleet.insertions(plan)
    used, times = stand.used() - before, checks.times
    await asyncio.sleep(SETTLES)
    statements = (stand.statements() - asked) / max(1, len(times.seconds))
    many = max(1, len(times.seconds))
    show(
        f"due-checks with proof, {plan.rate:.0f} a second for {plan.seconds:g} s, {size.devices} devices, "
        f"{len(fleet.stations)} standing mTLS streams",
        ("answered", "errors", "p50 ms", "p99 ms", "longest", "server ms CPU each", "PostgreSQL", "this client"),
        [
            (
                str(len(times.seconds)), _errors(checks), f"{times.at(0.5) * 1e3:.1f}", f"{times.at(0.99) * 1e3:.1f}",
                f"{times.at(1) * 1e3:.0f}", f"{used.server / many * 1e3:.2f}", f"{used.database / many * 1e3:.2f}",
                f"{checks.cpu_seconds / many * 1e3:.2f}",
            )
        ],
        f"An open loop: a check that is answered late counts from when it was due. Taken: {checks.seconds:.1f} s.",
    )  # fmt: skip
    what = f"due-checks, {plan.rate:.0f} a second for {plan.seconds:g} s"
    stand.budgets.judge(f"{what}: p99", times.at(0.99) * 1e3, p99, "ms")
    stand.budgets.judge(".. without an answer", sum(times.errors.values()), 0)
    stand.budgets.judge(".. statements for each, with all else that the server asks", statements, 2)
    stand.budgets.report(".. CPU of the server for each", f"{used.server / many * 1e3:.2f} ms")


async def _issuances(stand: Stand, fleet: Fleet) -> None:
    rows, each = [], {}
    for parallel in sorted({1, min(10, stand.size.cards), stand.size.cards}):
        tasks = await asyncio.to_thread(stand.tasks, max(4, parallel))
        before = stand.used()
        part = await fleet.issuances(Plan(tasks=tasks, parallel=parallel))
        used, many = stand.used() - before, max(1, len(part.times.seconds))
        each[parallel] = (used.server + used.vault + used.database) / many
        stand.budgets.judge(f"issuances, {parallel} in parallel: failed", sum(part.times.errors.values()), 0)
        stand.budgets.report(".. cards a minute", f"{many / part.seconds * 60:.0f}")
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
    least, most = min(each), max(each)
    stand.budgets.judge(
        f"CPU for each card, {most} in parallel to {least} (flat)", each[most] / each[least], FLAT, "times"
    )


async def _restarted(stand: Stand, identities: Sequence[Identity], plan: Plan) -> None:
    await asyncio.to_thread(stand.here.process.stop)
    await asyncio.to_thread(stand.here.process.start)
    before = stand.used()
    async with stand.fleet(identities) as fleet:
        cold = await fleet.stand(plan)
    many = max(1, len(cold.times.seconds))
    stand.budgets.judge("cold connections after a restart: not served", sum(cold.times.errors.values()), 0)
    stand.budgets.report(f".. until all {many} are served", f"{cold.seconds:.1f} s")
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
            stand.budgets.judge(f"round trips, {what}", round(slope), most)
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
