"""All measurements, side by side with the public tools that are installed: ``make bench``.

APDU counts are exact; times are good as ratios within one run only.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.support.installation import copied, founded_site
from tests.support.pcscd import YUBICO, Pcscd

from . import cards, daemon, server, side_by_side, starting
from .children import Children


def main() -> None:
    """Everything, in about ten minutes: two for cards, two for the daemon, the rest for the server."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cardwright-bench-") as folder:
        children = Children(Path(folder))
        starting.run(children)
        readers = Pcscd(YUBICO)
        readers.start()
        try:
            cards.run(readers, children)
            side_by_side.run(readers, children)
            with founded_site() as original, copied(original) as here:
                here.process.start()
                daemon.run(readers, here)
        finally:
            readers.stop()
    server.run()
    print(f"\nAll of it took {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
