"""Card Capability Container (SP 800-73-5 part 1 section 3.1.1 and appendix A table 8).

PIV needs one value of it, the data model number; the rest survives from the older GSC-IS standard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..containers import CCC, Container
from .layout import FE, Content, Inner, Leftovers, Need, write

PIV_DATA_MODEL = 0x10
_DATA_MODEL = 0xF5


@dataclass(frozen=True, slots=True)
class Ccc(Leftovers):
    """The container's fields, opaque but for the data model. All of them are written, mostly empty."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(0xF0, "Card Identifier", (0, 21)),
        Inner(0xF1, "Capability Container version", (0, 1)),
        Inner(0xF2, "Capability Grammar version", (0, 1)),
        Inner(0xF3, "Applications CardURL", range(129), Need.OPTIONAL),
        Inner(0xF4, "PKCS#15", (0, 1)),
        Inner(_DATA_MODEL, "Registered Data Model number", (1,)),
        Inner(0xF6, "Access Control Rule Table", (0, 17)),
        Inner(0xF7, "Card APDUs", (0,)),
        Inner(0xFA, "Redirection Tag", (0,)),
        Inner(0xFB, "Capability Tuples", (0,)),
        Inner(0xFC, "Status Tuples", (0,)),
        Inner(0xFD, "Next CCC", (0,)),
        Inner(0xE3, "Extended Application CardURL", range(49), Need.LEGACY),
        Inner(0xB4, "Security Object Buffer", range(49), Need.LEGACY),
        FE,
    )

    card_identifier: bytes = b""
    container_version: bytes = b""
    grammar_version: bytes = b""
    card_url: bytes = b""
    pkcs15: bytes = b""
    data_model: int = PIV_DATA_MODEL
    access_rules: bytes = b""
    card_apdus: bytes = b""
    redirection: bytes = b""
    capability_tuples: bytes = b""
    status_tuples: bytes = b""
    next_ccc: bytes = b""

    @classmethod
    def decode(cls, value: bytes, container: Container = CCC) -> Ccc:
        """Read the value inside tag 53. Raises MalformedObject."""
        content = Content(container, cls.LAYOUT, value)

        def opaque(tag: int) -> bytes:
            return content.get(tag) or b""

        return cls(
            card_identifier=opaque(0xF0),
            container_version=opaque(0xF1),
            grammar_version=opaque(0xF2),
            card_url=opaque(0xF3),
            pkcs15=opaque(0xF4),
            data_model=content.need(_DATA_MODEL, 1)[0],
            access_rules=opaque(0xF6),
            card_apdus=opaque(0xF7),
            redirection=opaque(0xFA),
            capability_tuples=opaque(0xFB),
            status_tuples=opaque(0xFC),
            next_ccc=opaque(0xFD),
            **content.kept,
        )

    def encode(self) -> bytes:
        """The value inside tag 53."""
        return write(
            (
                (0xF0, self.card_identifier),
                (0xF1, self.container_version),
                (0xF2, self.grammar_version),
                (0xF3, self.card_url),
                (0xF4, self.pkcs15),
                (_DATA_MODEL, bytes((self.data_model,))),
                (0xF6, self.access_rules),
                (0xF7, self.card_apdus),
                (0xFA, self.redirection),
                (0xFB, self.capability_tuples),
                (0xFC, self.status_tuples),
                (0xFD, self.next_ccc),
            ),
            self,
        )
