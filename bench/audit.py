"""``python -m bench.audit [--blocks N] [--entries N] [--url URL]``: how fast a generated audit chain is judged.

Without ``--url`` on SQLite in a temporary folder; otherwise in that database, which has every table and no audit.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cardwright_server.audit.service import judging
from cardwright_server.audit.verify import Expectations, Report
from cardwright_server.store.unit import Database
from tests.support.audit import Signer
from tests.support.databases import make_tables
from tests.support.long_chain import grow


async def measure(url: str, blocks: int, entries: int) -> None:
    """Print rows a second, and the longest that the loop was held up meanwhile."""
    await make_tables(url)
    database, signer, gaps = Database(url), Signer(), [0.0]
    await grow(database, signer, blocks, entries)

    async def watch() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - begun)

    watching = asyncio.create_task(watch())
    began, spent = time.monotonic(), time.process_time()
    async for step in judging(database, Expectations(signer.public), waiting=timedelta(hours=1)):
        report = step
    wall, cpu = time.monotonic() - began, time.process_time() - spent
    watching.cancel()
    await database.close()
    assert isinstance(report, Report) and report.valid
    rows = blocks * entries
    print(f"{blocks} blocks with {entries} entries each: {wall:.1f} s, {cpu:.1f} s CPU")
    print(f"{rows / wall:.0f} rows a second, {rows / cpu:.0f} a second of CPU")
    print(f"the loop waited {max(gaps) * 1000:.0f} ms at most")
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit")
    parser.add_argument("--blocks", type=int, default=5000)
    parser.add_argument("--entries", type=int, default=10)
    parser.add_argument("--url", default="")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="cw-bench-") as folder:
        url = asked.url or f"sqlite:///{Path(folder) / 'store.db'}"
        asyncio.run(measure(url, asked.blocks, asked.entries))


if __name__ == "__main__":
    main()
