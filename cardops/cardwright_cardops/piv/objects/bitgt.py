"""Biometric Information Templates Group Template (SP 800-73-5 part 1 section 3.3.6, table 41)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...iso7816 import tlv
from ..containers import BITGT, Container
from .layout import Content, Inner, Leftovers, MalformedObject, Need

MAX_TEMPLATES = 2
_COUNT, _TEMPLATE = 0x02, 0x7F60


@dataclass(frozen=True, slots=True)
class BitGroup(Leftovers):
    """The templates for on-card comparison, each the opaque value of one 7F60; mostly none."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(_COUNT, "number of BITs", (1,)),
        Inner(_TEMPLATE, "BIT", range(29), Need.OPTIONAL),
    )

    templates: tuple[bytes, ...] = ()

    @classmethod
    def decode(cls, value: bytes, container: Container = BITGT) -> BitGroup:
        """Read the whole data object 7F61. Raises MalformedObject, also when the count is not that of the BITs."""
        try:
            items = tlv.parse_all(tlv.parse_one(value, container.tag).value)
        except tlv.MalformedTlv as cause:
            raise MalformedObject(container, str(cause)) from cause
        templates = tuple(item.value for item in items if item.tag == _TEMPLATE)
        content = Content(container, cls.LAYOUT, tlv.join(item for item in items if item.tag != _TEMPLATE))
        count = content.need(_COUNT, 1)[0]
        if count != len(templates) or count > MAX_TEMPLATES:
            raise content.damaged(f"{count} templates announced, {len(templates)} there")
        content.kept["order"] = tuple(item.tag for item in items)
        return cls(templates=templates, **content.kept)

    def encode(self) -> bytes:
        """The whole data object 7F61."""
        inner = tlv.encode(_COUNT, bytes((len(self.templates),)))
        inner += b"".join(tlv.encode(_TEMPLATE, template) for template in self.templates)
        return tlv.encode(BITGT.tag, inner + tlv.join(self.unknown))
