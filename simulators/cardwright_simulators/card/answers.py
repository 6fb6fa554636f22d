"""The small values that the layers of the card hand each other."""

from __future__ import annotations

from typing import NamedTuple

from cardwright_cardops.iso7816.status import SW


class Command(NamedTuple):
    """One logical command after chaining and unwrapping.

    ``sm`` says that it came under PIV secure messaging, ``scp`` that it came under an SCP03 channel.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    sm: bool = False
    scp: bool = False


class Refused(Exception):
    """A command ends with this status word and no data."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


def require(condition: bool, sw: int = SW.WRONG_DATA) -> None:
    """Refuse with ``sw`` unless ``condition``."""
    if not condition:
        raise Refused(sw)
