"""The management application of USB keys: just what tools ask before they look at PIV."""

from __future__ import annotations

from typing import Final

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import encode

from .answers import Command, Refused, require
from .core import Core
from .profiles import MANAGEMENT_AID

READ_CONFIG: Final = 0x1D
_CAPABILITY_PIV: Final = b"\x00\x10"


class ManagementApplication:
    """SELECT answers the version text; READ CONFIG the device information (PIV is all that is enabled)."""

    aid = MANAGEMENT_AID

    def __init__(self, core: Core) -> None:
        self._core = core

    def select(self) -> bytes:
        """A text that ends in the version number."""
        return "Virtual mgr - FW version {}.{}.{}".format(*self._core.profile.version).encode()

    def leave(self) -> None:
        """Nothing to forget."""

    def chains(self, ins: int) -> int:
        """Commands of this application are short."""
        return SW.CHAINING_NOT_SUPPORTED

    def run(self, command: Command) -> bytes:
        """READ CONFIG, page 0."""
        if command.ins != READ_CONFIG:
            raise Refused(SW.INS_NOT_SUPPORTED)
        require(command.p1 == 0x00, SW.WRONG_P1P2)
        profile = self._core.profile
        values = (
            (0x01, _CAPABILITY_PIV),
            (0x02, self._core.state.serial.to_bytes(4, "big")),
            (0x03, _CAPABILITY_PIV),
            (0x04, bytes((profile.form_factor,))),
            (0x05, bytes(profile.version)),
            (0x06, b"\x00\x00"),
            (0x07, b"\x0f"),
            (0x08, b"\x00"),
            (0x0A, b"\x00"),
            (0x0D, _CAPABILITY_PIV),
            (0x0E, _CAPABILITY_PIV),
            (0x0F, b"\x00"),
        )
        body = b"".join(encode(tag, value) for tag, value in values)
        return bytes((len(body),)) + body
