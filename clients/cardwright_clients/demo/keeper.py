"""A folder that is gone once the demo and everything that it started have ended, however they ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from .story import DemoFailed

_PATIENCE = 20.0
_SCRIPT = 'cat >/dev/null; rm -rf -- "$0"'
"""Its input ends when nobody has the other end of the pipe any more."""
_LOWEST = 10
"""Lower descriptors have meanings of their own in what is started."""


class Keeper:
    """A process beside the demo that removes ``folder``: it waits for the end of all who have ``descriptor``.

    A context manager. It is in a session of its own, so that neither Ctrl-C nor a kill of the demo meets it.
    """

    def __init__(self) -> None:
        # Short: a socket's path has 107 octets at most.
        self.folder = Path(tempfile.mkdtemp(prefix=f"cardwright-demo-{os.getpid()}-", dir="/tmp"))
        reading, writing = os.pipe()
        self.descriptor = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
        os.close(writing)
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, str(self.folder)], stdin=reading, start_new_session=True
            )
        finally:
            os.close(reading)

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises DemoFailed if something goes on that the demo started."""
        os.close(self.descriptor)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"Something that the demo started does not end; {self.folder} is still there.") from error


def tied() -> list[str]:
    """How a command begins that ends with the process that started it, where the machine can do that."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "TERM", "--"] if program else []
