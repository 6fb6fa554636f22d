"""The report of a workstation for the help desk: versions, states, codes. No name, no number of a person or card."""

from __future__ import annotations

import platform
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cardwright_cardops.errors import CardwrightError

MOST_ERRORS: Final = 50
LIBRARIES: Final = ("cryptography", "grpcio", "protobuf", "pyscard", "python-pkcs11")


@dataclass(frozen=True, slots=True)
class Happened:
    """An error: its code, when, and in which call or operation."""

    code: str
    at: datetime
    where: str


class Errors:
    """The last errors, by their codes only."""

    def __init__(self) -> None:
        self._last: deque[Happened] = deque(maxlen=MOST_ERRORS)

    def note(self, error: CardwrightError, where: str) -> None:
        """Keep the code of ``error``."""
        self._last.append(Happened(error.code, datetime.now(UTC), where))

    @property
    def last(self) -> tuple[Happened, ...]:
        """Oldest first."""
        return tuple(self._last)


def version_of(name: str) -> str:
    """Version of an installed distribution, "" where it is not installed."""
    from importlib import metadata  # as slow to load as a fifth of the daemon, so not before somebody asks

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def system() -> str:
    """Kind and version of the operating system, without the name of the machine."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"
