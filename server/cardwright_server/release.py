"""Which versions this program is of, and speaks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.wire_reading import MAX_MESSAGE

PROTOCOL: Final = 1
"""Version of the contract between server, workstations and portals."""
OLDEST: Final = max(1, PROTOCOL - 2)
"""The contract of two releases before is spoken, too."""
LONGEST_MESSAGE: Final = MAX_MESSAGE + 4096
"""Octets of a message with what it is wrapped in."""


class VersionsApart(CardwrightError):
    """Caller and server speak no common version of the contract."""

    code = "VERSIONS_APART"
    default_effect = "Nothing was done."
    default_advice = "Update the older of the two; a server speaks the versions of two releases before its own."


def release() -> str:
    """The version of the installed program."""
    try:
        return version("cardwright")
    except PackageNotFoundError:
        return "unknown"


def common(newest: int, oldest: int) -> int:
    """The version that a connection uses. Raises VersionsApart."""
    if not 1 <= (oldest or newest) <= newest or newest < OLDEST or (oldest or newest) > PROTOCOL:
        raise VersionsApart(f"the caller speaks {oldest or newest} to {newest}, the server {OLDEST} to {PROTOCOL}")
    return min(newest, PROTOCOL)
