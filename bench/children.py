"""Processes that are measured: a home of their own, bytecode cached for all alike, nobody's agents ended."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_LONGEST: Final = 60.0


class Children:
    """Runs programs with ``folder`` as home and working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own = folder / "bin"
        own.mkdir()
        # ykman ends other people's scdaemon and yubikey-agent with pkill when it cannot connect at once.
        (own / "pkill").symlink_to(shutil.which("false") or "/bin/false")
        self._environment = {
            "PATH": f"{own}:{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            "PCSCLITE_CSOCK_NAME": os.environ["PCSCLITE_CSOCK_NAME"],
        }

    def run(self, command: Sequence[str], descriptor: int | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run ``command`` to its end; ``descriptor`` stays open in it."""
        return subprocess.run(
            command, env=self._environment, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_LONGEST, pass_fds=() if descriptor is None else (descriptor,), check=False,
        )  # fmt: skip

    def cpu(self, command: Sequence[str]) -> float:
        """Seconds of user and system time of one run. Raises CalledProcessError."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run(command).check_returncode()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
