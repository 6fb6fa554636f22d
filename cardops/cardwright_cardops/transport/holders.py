"""Which other programs may be holding a card.

PC/SC does not tell. On Linux a program that uses it has libpcsclite mapped, which shows for processes of the
same user (for all, as root); one that was started for another service than ours (PCSCLITE_CSOCK_NAME) does not have
the card. It is a hint for a person, never a ground to end anything.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from .connection import CardBusy

_ADVICE: Final = {
    "scdaemon": "GnuPG keeps cards to itself. Stop it with: gpgconf --kill scdaemon; or put pcsc-shared into"
    " scdaemon.conf.",
    "gsd-smartcard": "It only watches and should let go by itself; try again.",
}
_MOST_PROCESSES: Final = 4096
_SECONDS: Final = 0.5
_MARK: Final = b"libpcsclite"
_SERVICE: Final = "PCSCLITE_CSOCK_NAME"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that uses PC/SC."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def holders(root: Path = Path("/proc")) -> tuple[Holder, ...]:
    """Other processes that use PC/SC, as far as can be seen in half a second, the newest being looked at first.

    Those known to cling come first, then the others in the order of their numbers.
    """
    end = time.monotonic() + _SECONDS
    found: list[Holder] = []
    own, service = os.getpid(), os.environ.get(_SERVICE, "")
    try:
        pids = sorted((int(entry) for entry in os.listdir(root) if entry.isdecimal()), reverse=True)
    except OSError:
        return ()  # not Linux, or hidden
    for pid in islice(pids, _MOST_PROCESSES):
        if time.monotonic() > end:
            break
        if pid != own and (name := _uses_pcsc(root / str(pid), service)):
            found.append(Holder(pid, name))
    return tuple(sorted(found, key=lambda holder: (holder.name not in _ADVICE, holder.pid)))


def busy(message: str, reader: str) -> CardBusy:
    """The error of a card that somebody else has, naming who it probably is."""
    found = holders()
    error = CardBusy(message, reader=reader, holders=tuple(str(holder) for holder in found))
    hints = [hint for holder in found if (hint := _ADVICE.get(holder.name))]
    if hints:
        error.advice = " ".join(dict.fromkeys(hints))
    return error


def _uses_pcsc(process: Path, service: str) -> str:
    """The name of the process when it has libpcsclite mapped and was started for ``service``, else nothing."""
    try:
        if _MARK not in (process / "maps").read_bytes() or _service_of(process) != service:
            return ""
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""  # it ended, or belongs to somebody else


def _service_of(process: Path) -> str:
    """The socket of the smart card service that the environment of the process names; empty for the usual one."""
    rows = (process / "environ").read_bytes().split(b"\0")
    begin = _SERVICE.encode() + b"="
    return next((os.fsdecode(row.removeprefix(begin)) for row in rows if row.startswith(begin)), "")
