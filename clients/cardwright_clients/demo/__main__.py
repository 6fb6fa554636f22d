"""``python -m cardwright_clients.demo``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys

from cardwright_cardops.errors import CardwrightError

from .acts import Demo
from .keeper import Keeper
from .readers import PCSC, VIRTUAL, opened
from .story import DemoFailed, Story, failing_clearly


def run(story: Story, kind: str) -> None:
    """The whole demo in a folder that is gone afterwards. Raises DemoFailed, CardwrightError."""
    # gRPC's own lines would stand between ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with Keeper() as keeper, opened(kind, keeper) as readers, failing_clearly("The demo"):
        asyncio.run(Demo(keeper, story, readers).run())
    story.sum_up()


def main() -> None:
    """Exit 1 with a sentence if anything was not as it should be."""
    parser = argparse.ArgumentParser(prog="cardwright demo", description="Two cards from nothing to finished.")
    parser.add_argument("--json", action="store_true", help="only the sum, as JSON")
    parser.add_argument("--reader", choices=(VIRTUAL, PCSC), default=VIRTUAL, help="the demo's own, or pcscd's")
    given = parser.parse_args()
    sys.exit(tell(as_json=given.json, reader=given.reader))


def tell(*, as_json: bool, reader: str) -> int:
    """Run it; the exit code."""
    story = Story(quiet=as_json)
    try:
        run(story, reader)
    except DemoFailed as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except CardwrightError as error:
        print(f"\nThe demo failed: {error.code}: {error.explain()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing is left behind.", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(story.document(), indent=2))
    return 0


if __name__ == "__main__":
    main()
