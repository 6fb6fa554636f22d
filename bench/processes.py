"""What processes need, as the kernel counts it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICK: Final = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12
"""Fields of /proc/PID/stat behind the name of the program (proc(5): 14 and 15 of all)."""


def family(pid: int) -> list[int]:
    """A process and all that it started; those that end meanwhile, as PostgreSQL's cleaners do, are left out."""
    found = [pid]
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def cpu(*pids: int) -> float:
    """Seconds of user and system time of these processes so far, without those that ended."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[_USER]) + int(fields[_SYSTEM])
    return total / _TICK


def voluntary_switches(pid: int) -> int:
    """How often the threads of a process gave the processor away because they had to wait."""
    return sum(_status(task / "status", "voluntary_ctxt_switches") for task in Path(f"/proc/{pid}/task").iterdir())


def resident(pid: int) -> float:
    """MiB in memory."""
    return _status(Path(f"/proc/{pid}/status"), "VmRSS") / 1024


def _status(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise KeyError(name)
