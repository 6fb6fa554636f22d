"""Printed Information: what stands on the card's face (SP 800-73-5 part 1 section 3.2.2, table 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import ClassVar

from ..containers import PRINTED, Container
from .layout import FE, Content, Inner, Leftovers, Need, write

_NAME, _AFFILIATION, _EXPIRATION, _SERIAL, _ISSUER, _LINE_1, _LINE_2 = 1, 2, 4, 5, 6, 7, 8
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True, slots=True)
class Printed(Leftovers):
    """Text as printed. ``name`` and the serial number stay out of ``repr``: they are personal."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(_NAME, "Name", range(126)),
        Inner(_AFFILIATION, "Employee Affiliation", range(21)),
        Inner(_EXPIRATION, "Expiration date", (9,)),
        Inner(_SERIAL, "Agency Card Serial Number", range(21)),
        Inner(_ISSUER, "Issuer Identification", range(16)),
        Inner(_LINE_1, "Organization Affiliation line 1", range(21), Need.OPTIONAL),
        Inner(_LINE_2, "Organization Affiliation line 2", range(21), Need.OPTIONAL),
        FE,
    )

    name: str = field(repr=False)
    affiliation: str
    expiration: date
    serial_number: str = field(repr=False)
    issuer: str
    organization_1: str = ""
    organization_2: str = ""

    @classmethod
    def decode(cls, value: bytes, container: Container = PRINTED) -> Printed:
        """Read the value inside tag 53. Raises MalformedObject."""
        content = Content(container, cls.LAYOUT, value)
        return cls(
            name=content.text(_NAME),
            affiliation=content.text(_AFFILIATION),
            expiration=_date(content, content.text(_EXPIRATION)),
            serial_number=content.text(_SERIAL),
            issuer=content.text(_ISSUER),
            organization_1=content.text(_LINE_1) if content.get(_LINE_1) else "",
            organization_2=content.text(_LINE_2) if content.get(_LINE_2) else "",
            **content.kept,
        )

    def encode(self) -> bytes:
        """The value inside tag 53."""
        day = self.expiration
        return write(
            (
                (_NAME, self.name.encode("utf-8")),
                (_AFFILIATION, self.affiliation.encode("utf-8")),
                (_EXPIRATION, f"{day.year:04}{_MONTHS[day.month - 1]}{day.day:02}".encode("ascii")),
                (_SERIAL, self.serial_number.encode("utf-8")),
                (_ISSUER, self.issuer.encode("utf-8")),
                (_LINE_1, self.organization_1.encode("utf-8") or None),
                (_LINE_2, self.organization_2.encode("utf-8") or None),
            ),
            self,
        )


def _date(content: Content, text: str) -> date:
    match = re.fullmatch(r"([0-9]{4})([A-Z]{3})([0-9]{2})", text.upper())
    if match is None or match[2] not in _MONTHS:
        raise content.damaged("the expiration date is not YYYYMMMDD")
    try:
        return date(int(match[1]), _MONTHS.index(match[2]) + 1, int(match[3]))
    except ValueError as cause:
        raise content.damaged("the expiration date is no day") from cause
