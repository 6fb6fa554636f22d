"""Key History Object: how many retired keys there are (SP 800-73-5 part 1 section 3.3.3, table 19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..containers import KEY_HISTORY, Container
from .layout import FE, Content, Inner, Leftovers, Need, write

MAX_RETIRED = 20
_ON_CARD, _OFF_CARD, _URL = 0xC1, 0xC2, 0xF3


@dataclass(frozen=True, slots=True)
class KeyHistory(Leftovers):
    """Retired keys with certificates on the card (key references from 82 up) and off it (from 95 down).

    ``url`` names the file with the certificates that are not on the card; empty when there are none.
    """

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(_ON_CARD, "keysWithOnCardCerts", (1,)),
        Inner(_OFF_CARD, "keysWithOffCardCerts", (1,)),
        Inner(_URL, "offCardCertURL", range(119), Need.OPTIONAL),
        FE,
    )

    on_card: int = 0
    off_card: int = 0
    url: str = ""

    @classmethod
    def decode(cls, value: bytes, container: Container = KEY_HISTORY) -> KeyHistory:
        """Read the value inside tag 53. Raises MalformedObject."""
        content = Content(container, cls.LAYOUT, value)
        return cls(
            on_card=content.need(_ON_CARD, 1)[0],
            off_card=content.need(_OFF_CARD, 1)[0],
            url=content.text(_URL) if content.get(_URL) else "",
            **content.kept,
        )

    def encode(self) -> bytes:
        """The value inside tag 53."""
        return write(
            (
                (_ON_CARD, bytes((self.on_card,))),
                (_OFF_CARD, bytes((self.off_card,))),
                (_URL, self.url.encode("utf-8") or None),
            ),
            self,
        )

    @property
    def on_card_slots(self) -> tuple[int, ...]:
        """The key references 82... whose certificates are on the card."""
        return tuple(range(0x82, 0x82 + min(self.on_card, MAX_RETIRED)))

    @property
    def off_card_slots(self) -> tuple[int, ...]:
        """The key references 95, 94, ... whose certificates are in the file at ``url``."""
        return tuple(range(0x95, 0x95 - min(self.off_card, MAX_RETIRED), -1))
