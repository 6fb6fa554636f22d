"""Pairing Code Reference Data Container (SP 800-73-5 part 1 section 3.3.8, appendix A table 43)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ...secret import Secret
from ..containers import PAIRING_CODE, Container
from .layout import FE, Content, Inner, Leftovers, write

SIZE = 8
_CODE = 0x99


@dataclass(frozen=True, slots=True)
class PairingCode(Leftovers):
    """The eight digits that open the virtual contact interface. A secret: it never shows in ``repr``."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (Inner(_CODE, "pairing code", (SIZE,)), FE)

    code: Secret

    @classmethod
    def decode(cls, value: bytes, container: Container = PAIRING_CODE) -> PairingCode:
        """Read the value inside tag 53. Raises MalformedObject, also when the code is not eight digits."""
        content = Content(container, cls.LAYOUT, value)
        code = content.need(_CODE, SIZE)
        if not re.fullmatch(rb"[0-9]{8}", code):
            raise content.damaged("the pairing code is not eight digits")
        return cls(code=Secret(code), **content.kept)

    def encode(self) -> bytes:
        """The value inside tag 53."""
        return write(((_CODE, self.code.reveal()),), self)
