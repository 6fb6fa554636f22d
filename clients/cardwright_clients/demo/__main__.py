"""``python -m cardwright_clients.demo``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from cardwright_cardops.errors import CardwrightError

from .acts import Demo
from .story import DemoFailed, Story


def run(story: Story) -> None:
    """The whole demo in a folder that is gone afterwards. Raises DemoFailed, CardwrightError."""
    # gRPC's own lines would stand between ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with tempfile.TemporaryDirectory(prefix="cardwright-demo-", dir="/tmp") as folder:
        asyncio.run(Demo(Path(folder), story).run())
    story.sum_up()


def main() -> None:
    """Exit 1 with a sentence if anything was not as it should be."""
    parser = argparse.ArgumentParser(prog="cardwright demo", description="Two cards from nothing to finished.")
    parser.add_argument("--json", action="store_true", help="only the sum, as JSON")
    sys.exit(tell(as_json=parser.parse_args().json))


def tell(*, as_json: bool) -> int:
    """Run it; the exit code."""
    story = Story(quiet=as_json)
    try:
        run(story)
    except (DemoFailed, CardwrightError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(story.document(), indent=2))
    return 0


if __name__ == "__main__":
    main()
