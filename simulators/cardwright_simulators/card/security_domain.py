"""The issuer security domain: what hosts ask it, and its SCP03 key sets (GlobalPlatform Card Specification 11)."""

from __future__ import annotations

from typing import Final

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import encode

from .answers import Command, Refused
from .core import Core
from .profiles import SECURITY_DOMAIN_AID
from .scp03 import SecurityDomainSession

GET_DATA: Final = 0xCA
PUT_KEY: Final = 0xD8
KEY_INFORMATION: Final = 0xE0
CARD_DATA: Final = 0x66
_GLOBALPLATFORM: Final = bytes.fromhex("2A864886FC6B")
_RECOGNITION: Final = encode(
    0x73,
    encode(0x06, _GLOBALPLATFORM + b"\x01")
    + encode(0x60, encode(0x06, _GLOBALPLATFORM + b"\x02\x02\x03\x01"))
    + encode(0x64, encode(0x06, _GLOBALPLATFORM + b"\x04\x03\x70")),
)


class SecurityDomainApplication:
    """SELECT, GET DATA (key information, card data) and PUT KEY inside a channel."""

    aid = SECURITY_DOMAIN_AID

    def __init__(self, core: Core, session: SecurityDomainSession | None) -> None:
        self._core = core
        self._session = session

    def select(self) -> bytes:
        """File control information: the AID and the longest command data."""
        longest = encode(0x9F65, b"\xff")
        return encode(0x6F, encode(0x84, self.aid) + encode(0xA5, longest))

    def leave(self) -> None:
        """Nothing to forget: the channel is the card's."""

    def chains(self, ins: int) -> int:
        """PUT KEY may be chained."""
        return SW.OK if ins == PUT_KEY else SW.CHAINING_NOT_SUPPORTED

    def run(self, command: Command) -> bytes:
        """Execute one command. Raises Refused."""
        if command.ins == GET_DATA:
            return self._get_data(command.p1 << 8 | command.p2)
        if command.ins == PUT_KEY and self._session is not None:
            header = CommandAPDU(0x80, PUT_KEY, command.p1, command.p2, command.data)
            answer = self._session.put_key(header)
            self._core.changed("channel keys", command.data[0], 64)
            return answer
        raise Refused(SW.INS_NOT_SUPPORTED)

    def _get_data(self, tag: int) -> bytes:
        if tag == CARD_DATA:
            value = _RECOGNITION
        elif tag == KEY_INFORMATION and self._session is not None:
            value = self._session.key_information()
        else:
            raise Refused(SW.REFERENCE_NOT_FOUND)
        return encode(tag, value) if self._core.profile.templates_wrapped else value
