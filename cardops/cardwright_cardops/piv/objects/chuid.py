"""Card Holder Unique Identifier (SP 800-73-5 part 1 section 3.1.2 and appendix A table 9)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import ClassVar
from uuid import UUID

from ...iso7816 import tlv
from ..containers import CHUID, Container
from . import fascn as fascn_codec
from .fascn import Fascn
from .layout import FE, Content, Inner, Leftovers, MalformedObject, Need, write

BUFFER_LENGTH, FASCN, GUID, EXPIRATION, CARDHOLDER_UUID, SIGNATURE = 0xEE, 0x30, 0x34, 0x35, 0x36, 0x3E


@dataclass(frozen=True, slots=True)
class Chuid(Leftovers):
    """The card's identity. ``fascn`` stays as octets, so that a wrong one can still be read and reported.

    ``signature`` is the DER of a CMS SignedData without content, empty on unsigned cards.
    """

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(BUFFER_LENGTH, "Buffer Length", (2,), Need.LEGACY),
        Inner(FASCN, "FASC-N", (fascn_codec.SIZE,)),
        Inner(0x32, "Organizational Identifier", (4,), Need.LEGACY),
        Inner(0x33, "DUNS", (9,), Need.LEGACY),
        Inner(GUID, "GUID", (16,)),
        Inner(EXPIRATION, "Expiration Date", (8,)),
        Inner(CARDHOLDER_UUID, "Cardholder UUID", (16,), Need.OPTIONAL),
        Inner(0x3D, "Authentication Key Map", range(513), Need.LEGACY),
        Inner(SIGNATURE, "Issuer Asymmetric Signature", range(2817)),
        FE,
    )

    fascn: bytes
    guid: UUID
    expiration: date
    cardholder_uuid: UUID | None = None
    signature: bytes = field(default=b"", repr=False)

    @property
    def identifier(self) -> Fascn:
        """The fields of the FASC-N. Raises MalformedFascn."""
        return Fascn.decode(self.fascn)

    @classmethod
    def decode(cls, value: bytes, container: Container = CHUID) -> Chuid:
        """Read the value inside tag 53. Raises MalformedObject."""
        content = Content(container, cls.LAYOUT, value)
        holder = content.get(CARDHOLDER_UUID)
        if holder and len(holder) != 16:
            raise content.damaged(f"tag {CARDHOLDER_UUID:X} has {len(holder)} octets instead of 16")
        return cls(
            fascn=content.need(FASCN, fascn_codec.SIZE),
            guid=UUID(bytes=content.need(GUID, 16)),
            expiration=_date(content, content.need(EXPIRATION, 8)),
            cardholder_uuid=UUID(bytes=holder) if holder else None,
            signature=content.get(SIGNATURE) or b"",
            **content.kept,
        )

    def encode(self) -> bytes:
        """The value inside tag 53."""
        holder = self.cardholder_uuid
        return write(
            (
                (FASCN, self.fascn),
                (GUID, self.guid.bytes),
                (EXPIRATION, _eight_digits(self.expiration)),
                (CARDHOLDER_UUID, holder.bytes if holder else None),
                (SIGNATURE, self.signature),
            ),
            self,
        )


def signature_input(value: bytes) -> bytes:
    """What the issuer signs: the data objects of ``value`` in card order without 3E and the legacy EE.

    The trailing FE 00 is part of it. Each is taken in the form that the card holds, not written anew.
    Raises MalformedObject when ``value`` is no BER-TLV.
    """
    try:
        items = tlv.parse_all(value)
    except tlv.MalformedTlv as cause:
        raise MalformedObject(CHUID, f"not BER-TLV: {cause}") from cause
    kept, at = bytearray(), 0
    for item in items:
        first = at + len(tlv.encode_tag(item.tag))
        end = first + 1 + (value[first] & 0x7F if value[first] >= 0x80 else 0) + len(item.value)
        if item.tag not in (SIGNATURE, BUFFER_LENGTH):
            kept += value[at:end]
        at = end
    return bytes(kept)


def _eight_digits(day: date) -> bytes:
    return f"{day.year:04}{day.month:02}{day.day:02}".encode("ascii")


def _date(content: Content, raw: bytes) -> date:
    if not re.fullmatch(rb"[0-9]{8}", raw):
        raise content.damaged("the expiration date is not YYYYMMDD")
    try:
        return date(int(raw[:4]), int(raw[4:6]), int(raw[6:]))
    except ValueError as cause:
        raise content.damaged("the expiration date is no day") from cause
