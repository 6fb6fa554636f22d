"""Fingerprints, facial image, iris images: signed CBEFF records (SP 800-76-2 section 9; SP 800-73-5 part 1
section 3.1.4 and 3.1.6, appendix A tables 11, 13 and 40).

What is inside a record is personal. It stays out of ``repr`` and of every error text.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from ..containers import FINGERPRINTS, Container
from .layout import FE, Content, Inner, Leftovers, write

HEADER_SIZE = 88
_RECORD = 0xBC
_HEADER = struct.Struct(">BBIHHH8s8s8s3sBb18s25s4s")
PATRON_HEADER_VERSION = 3
SIGNED_NOT_ENCRYPTED = 0x0D


@dataclass(frozen=True, slots=True)
class Cbeff:
    """The PIV patron format header (SP 800-76-2 table 14), with what its numbers mean left to the check.

    Dates are the eight octets as they stand; ``when`` reads them. ``fascn`` are 25 octets.
    """

    creation: bytes
    not_before: bytes
    not_after: bytes
    fascn: bytes
    format_owner: int
    format_type: int
    biometric_type: int
    data_type: int
    quality: int
    creator: bytes
    version: int = PATRON_HEADER_VERSION
    security: int = SIGNED_NOT_ENCRYPTED
    reserved: bytes = bytes(4)

    def encode(self, data: int, signature: int) -> bytes:
        """The 88 octets, for blocks of these lengths. Raises struct.error for numbers that do not fit."""
        return _HEADER.pack(
            self.version, self.security, data, signature, self.format_owner, self.format_type,
            self.creation, self.not_before, self.not_after, self.biometric_type.to_bytes(3, "big"),
            self.data_type, self.quality, self.creator, self.fascn, self.reserved,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BiometricObject(Leftovers):
    """One record: header, biometric data block, and the CMS SignedData (DER) over both."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (Inner(_RECORD, "CBEFF record", range(1, 65536)), FE)

    header: Cbeff
    data: bytes = field(repr=False)
    signature: bytes = field(default=b"", repr=False)

    @classmethod
    def decode(cls, value: bytes, container: Container = FINGERPRINTS) -> BiometricObject:
        """Read the value inside tag 53. Raises MalformedObject, also when the lengths do not add up."""
        content = Content(container, cls.LAYOUT, value)
        record = content.need(_RECORD)
        if len(record) < HEADER_SIZE:
            raise content.damaged(f"the record has {len(record)} octets, fewer than its header")
        (
            version, security, data_size, signature_size, format_owner, format_type,
            creation, not_before, not_after, biometric_type,
            data_type, quality, creator, fascn, reserved,
        ) = _HEADER.unpack_from(record)  # fmt: skip
        if HEADER_SIZE + data_size + signature_size != len(record):
            raise content.damaged(
                f"the header says {data_size} and {signature_size} octets, the record has {len(record) - HEADER_SIZE}"
            )
        header = Cbeff(
            version=version, security=security, format_owner=format_owner, format_type=format_type,
            creation=creation, not_before=not_before, not_after=not_after,
            biometric_type=int.from_bytes(biometric_type, "big"), data_type=data_type, quality=quality,
            creator=creator, fascn=fascn, reserved=reserved,
        )  # fmt: skip
        middle = HEADER_SIZE + data_size
        return cls(header=header, data=record[HEADER_SIZE:middle], signature=record[middle:], **content.kept)

    @property
    def signed_content(self) -> bytes:
        """What the signature covers: header and data block.

        The header holds the size of the signature block, so that must be known before signing.
        """
        return self.header.encode(len(self.data), len(self.signature)) + self.data

    def encode(self) -> bytes:
        """The value inside tag 53."""
        return write(((_RECORD, self.signed_content + self.signature),), self)


def when(octets: bytes) -> datetime | None:
    """The instant that eight date octets (YY YY MM DD hh mm ss, then Z) name; None if they name none."""
    if len(octets) != 8 or octets[7:] != b"Z":
        return None
    century, year, month, day, hour, minute, second = octets[:7]
    try:
        return datetime(century * 100 + year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def date_octets(moment: datetime) -> bytes:
    """The eight date octets for ``moment``, which must carry a time zone; fractions of seconds fall off."""
    utc = moment.astimezone(UTC)
    century, year = divmod(utc.year, 100)
    return bytes((century, year, utc.month, utc.day, utc.hour, utc.minute, utc.second)) + b"Z"
