"""A virtual card driven by raw APDUs written in hex, short form, as a test reads them."""

from __future__ import annotations

from typing import Any

from cardwright_cardops.iso7816.tlv import encode, parse_one
from cardwright_cardops.transport.connection import Transmission
from cardwright_simulators.card import KeyPool, Profile, VirtualCard
from cardwright_simulators.card.authenticate import encipher

PIV = "A000000308000010000100"
OTHER = "A000000151000000"
ABSENT = "A0000000990001"
PIN = "313233343536FFFF"
WRONG_PIN = "313233343530FFFF"
PUK = "3132333435363738"
POOL = KeyPool.shared()
"""One pool for all tests of a process: RSA keys are made once per machine."""


class RawCard:
    """Sends hex, collects GET RESPONSE pieces, gives (data hex, status word)."""

    def __init__(self, profile: Profile | str = "sp800-73-5", **options: Any) -> None:
        self.card = VirtualCard(profile, key_pool=POOL, **options)

    @classmethod
    def around(cls, card: VirtualCard) -> RawCard:
        """A driver of a card that is there already."""
        host = cls.__new__(cls)
        host.card = card
        return host

    def raw(self, *parts: str) -> str:
        """One APDU, its answer as it came."""
        return self.card.transmit(bytes.fromhex("".join(parts))).hex().upper()

    def send(self, header: str, data: str | bytes = "", *, le: bool = True) -> tuple[str, int]:
        """One command, chained where its data is long; the whole answer."""
        octets = bytes.fromhex(data) if isinstance(data, str) else data
        head = bytes.fromhex(header)
        while len(octets) > 255:
            block, octets = octets[:255], octets[255:]
            answer = self.card.transmit(bytes((head[0] | 0x10,)) + head[1:] + b"\xff" + block)
            if answer != b"\x90\x00":
                return answer[:-2].hex().upper(), int.from_bytes(answer[-2:], "big")
        body = bytes((len(octets),)) + octets if octets else b""
        le = le and (not octets or self.card.profile.transmission is not Transmission.T0)
        answer = self.card.transmit(head + body + (b"\x00" if le else b""))
        collected = answer[:-2]
        while answer[-2] == 0x61:
            answer = self.card.transmit(bytes((0x00, 0xC0, 0x00, 0x00, answer[-1])))
            collected += answer[:-2]
        return collected.hex().upper(), int.from_bytes(answer[-2:], "big")

    def sw(self, header: str, data: str | bytes = "", *, le: bool = True) -> int:
        """The status word of one command."""
        return self.send(header, data, le=le)[1]

    def select(self, aid: str = PIV) -> int:
        return self.sw("00A40400", aid)

    def verify(self, value: str = "", reference: str = "80") -> int:
        return self.sw("002000" + reference, value, le=False)

    def get(self, tag: str) -> tuple[str, int]:
        return self.send("00CB3FFF", f"5C{len(tag) // 2:02X}{tag}")

    def put(self, tag: str, value: bytes) -> int:
        return self.sw("00DB3FFF", bytes.fromhex(f"5C{len(tag) // 2:02X}{tag}") + wrap(0x53, value), le=False)

    def admin(self) -> int:
        """Prove the factory management key by external authentication."""
        profile = self.card.profile
        algorithm = f"{profile.management_algorithm:02X}"
        data, sw = self.send(f"0087{algorithm}9B", "7C028100")
        assert sw == 0x9000
        answer = encipher(profile.management_algorithm, profile.management_key, bytes.fromhex(data)[4:])
        return self.sw(f"0087{algorithm}9B", wrap(0x7C, wrap(0x82, answer)), le=False)

    def generate(self, slot: str, algorithm: str = "11") -> bytes:
        """A new key; the value of 7F49."""
        data, sw = self.send("004700" + slot, f"AC038001{algorithm}")
        assert sw == 0x9000
        return parse_one(bytes.fromhex(data), 0x7F49).value

    def use(self, slot: str, data: bytes, algorithm: str = "11", tag: int = 0x81) -> tuple[str, int]:
        """GENERAL AUTHENTICATE with a challenge, or with another tag."""
        return self.send(f"0087{algorithm}{slot}", wrap(0x7C, b"\x82\x00" + wrap(tag, data)))


def wrap(tag: int, value: bytes) -> bytes:
    """One data object."""
    return encode(tag, value)
