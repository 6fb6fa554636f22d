"""Every fault in sessions on PKCS#11 tokens; part of ``make faults``.

    python -m tests.faults.tokens [--job J] [--every N]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.support.databases import make_tables
from tests.support.token_faults import JOBS, failures, make_token_faults


async def tried(job: str, step: int) -> dict[str, list[str]]:
    """Try a share of the cases of one job; prints how many there were, and what is wrong after which."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.db"
        await make_tables(f"sqlite:///{template}")
        place = Path(folder) / "place"
        place.mkdir()
        faults = await make_token_faults(job, place, template)
        cases = await faults.cases()
        wrong = await failures(faults, cases[::step])
        faults.world.issuing.core.close()
    minutes = (time.monotonic() - begun) / 60
    print(f"token        {job:9} {len(cases[::step]):3} of {len(cases):3} cases, {minutes:.1f} minutes")
    for case, found in wrong.items():
        print(f"  {case}: {'; '.join(found)}")
    return wrong


def main() -> int:
    """Ends with 1 where a case ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=list(JOBS))
    parser.add_argument("--every", type=int, default=1, metavar="N")
    chosen = parser.parse_args()
    wrong = [asyncio.run(tried(job, chosen.every)) for job in ([chosen.job] if chosen.job else JOBS)]
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
