"""``make faults``: everything that can go wrong in a session, on every kind of card, one thing at a time.

    python -m tests.faults.run [--profile P] [--job J] [--every N] [--processes N]

Prints for each kind of card and job how many cases there were, how long they took, and which ended badly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.support.databases import make_tables
from tests.support.fault_cases import Case, failures, undisturbed
from tests.support.fault_world import JOBS, PROFILES, make_fault_world


@dataclass(frozen=True)
class Tried:
    """What came of one job on one kind of card. ``tried`` by kind; ``of`` is how many cases there are."""

    profile: str
    job: str
    tried: dict[str, int]
    of: int
    seconds: float
    failed: dict[str, list[str]]

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.tried.items())
        total = sum(self.tried.values())
        minutes = f"{self.seconds / 60:.1f} minutes"
        return f"{self.profile:12} {self.job:7} {total:4} of {self.of:4} cases ({kinds}), {minutes}"


def combinations() -> Iterator[tuple[str, str]]:
    """Every kind of card with every job that it can."""
    return ((profile, job) for profile in PROFILES for job in JOBS)


def every(cases: Sequence[Case], step: int) -> list[Case]:
    """The share of each ``step``-th case, the same whenever it is asked for."""
    return list(cases[::step])


async def tried(profile: str, job: str, step: int, folder: Path) -> Tried:
    """Try a share of the cases of one job on one kind of card."""
    begun = time.monotonic()
    template = folder / "template.db"
    if not template.exists():
        await make_tables(f"sqlite:///{template}")
    here = await make_fault_world(profile, job, folder / f"{profile}-{job}", template)
    try:
        wanted, _ = await JOBS[job](here)
        course = await undisturbed(here, wanted)
        mine = every(course.cases, step)
        failed = await failures(here, course, mine)
    finally:
        await here.close()
    counts = Counter(one.kind for one in mine)
    return Tried(profile, job, dict(counts), len(course.cases), time.monotonic() - begun, failed)


def _alone(profile: str, job: str, step: int) -> Tried:
    with tempfile.TemporaryDirectory(prefix="cw-faults-") as folder:
        return asyncio.run(tried(profile, job, step, Path(folder)))


def main(words: Sequence[str] | None = None) -> int:
    """Gives the exit status: 1 if any case ended badly."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--job", choices=list(JOBS))
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(words)
    wanted = [
        (profile, job)
        for profile, job in combinations()
        if asked.profile in (None, profile) and asked.job in (None, job)
    ]
    begun = time.monotonic()
    results = []
    # Not forked: gRPC does not survive that.
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_alone, profile, job, asked.every) for profile, job in wanted]):
            one = done.result()
            results.append(one)
            print(one, flush=True)
            for case, wrong in one.failed.items():
                print(f"    {case}:", *wrong, sep="\n        ", flush=True)
    cases, bad = sum(sum(one.tried.values()) for one in results), sum(len(one.failed) for one in results)
    print(f"{cases} cases, {bad} ended badly, {(time.monotonic() - begun) / 60:.1f} minutes")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
