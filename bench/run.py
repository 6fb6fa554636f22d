"""All measurements, side by side with the public tools that are installed: ``make bench``.

APDU counts are exact; times are good as ratios within one run only.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.support.pcscd import YUBICO, Pcscd

from . import cards, side_by_side, starting
from .children import Children


def main() -> None:
    """Everything, in about two minutes."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cardwright-bench-") as folder:
        children = Children(Path(folder))
        starting.run(children)
        readers = Pcscd(YUBICO)
        readers.start()
        try:
            cards.run(readers, children)
            side_by_side.run(readers, children)
        finally:
            readers.stop()
    print(f"\nAll of it took {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
