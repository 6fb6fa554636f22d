"""Discovery Object: which PINs the card takes (SP 800-73-5 part 1 section 3.3.2, appendix A table 18)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...iso7816 import tlv
from ..containers import DISCOVERY, Container
from .layout import Content, Inner, Leftovers, MalformedObject, write

PIV_AID = bytes.fromhex("A000000308000010000100")
_AID, _POLICY = 0x4F, 0x5F2F
ALLOWED_POLICIES = frozenset(bytes.fromhex("40484C50585C60686C70787C"))
"""First octets of the PIN usage policy that the standard lists."""


@dataclass(frozen=True, slots=True)
class PinUsagePolicy:
    """The two octets of tag 5F2F, and what their bits say."""

    first: int = 0x40
    second: int = 0x00

    @property
    def application_pin(self) -> bool:
        """The PIV application PIN (80) satisfies access rules; always so on a proper card."""
        return bool(self.first & 0x40)

    @property
    def global_pin(self) -> bool:
        """The Global PIN (00) satisfies access rules too."""
        return bool(self.first & 0x20)

    @property
    def occ(self) -> bool:
        """On-card biometric comparison satisfies access rules."""
        return bool(self.first & 0x10)

    @property
    def vci(self) -> bool:
        """The virtual contact interface is there."""
        return bool(self.first & 0x08)

    @property
    def vci_without_pairing_code(self) -> bool:
        """The virtual contact interface opens without pairing code."""
        return bool(self.first & 0x04)

    @property
    def global_pin_preferred(self) -> bool:
        """The cardholder is used to the Global PIN: ask for that one."""
        return self.global_pin and self.second == 0x20

    @property
    def is_allowed(self) -> bool:
        """Whether the standard has this value."""
        return self.first in ALLOWED_POLICIES and self.second in ((0x10, 0x20) if self.global_pin else (0,))


@dataclass(frozen=True, slots=True)
class Discovery(Leftovers):
    """The AID of the application and its PIN usage policy."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(_AID, "PIV AID", (len(PIV_AID),)),
        Inner(_POLICY, "PIN Usage Policy", (2,)),
    )

    aid: bytes = PIV_AID
    policy: PinUsagePolicy = PinUsagePolicy()

    @classmethod
    def decode(cls, value: bytes, container: Container = DISCOVERY) -> Discovery:
        """Read the whole data object 7E. Raises MalformedObject."""
        try:
            inner = tlv.parse_one(value, container.tag).value
        except tlv.MalformedTlv as cause:
            raise MalformedObject(container, str(cause)) from cause
        content = Content(container, cls.LAYOUT, inner)
        first, second = content.need(_POLICY, 2)
        return cls(aid=content.need(_AID), policy=PinUsagePolicy(first, second), **content.kept)

    def encode(self) -> bytes:
        """The whole data object 7E."""
        policy = bytes((self.policy.first, self.policy.second))
        return tlv.encode(DISCOVERY.tag, write(((_AID, self.aid), (_POLICY, policy)), self, end=False))
