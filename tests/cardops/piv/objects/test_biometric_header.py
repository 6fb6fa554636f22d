"""The CBEFF header octet for octet (SP 800-76-2 section 9, table 14), and lengths that do not add up."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.objects import BiometricObject, MalformedObject
from cardwright_cardops.piv.objects.biometric import Cbeff

DAY = bytes((20, 26, 1, 2, 3, 4, 5)) + b"Z"
HEADER = Cbeff(
    creation=DAY, not_before=b"before.Z", not_after=b"after..Z", fascn=bytes(range(25)), format_owner=0x001B,
    format_type=0x0201, biometric_type=0x000008, data_type=0x80, quality=-2, creator=b"Creator".ljust(18, b"\0"),
)  # fmt: skip
OCTETS = (
    "03" "0D" "00000005" "0003" "001B" "0201" + DAY.hex() + b"before.Z".hex() + b"after..Z".hex() + "000008" "80" "FE"
    + b"Creator".hex() + "00" * 11 + bytes(range(25)).hex() + "00000000"
)  # fmt: skip


def test_header_is_the_tables() -> None:
    """Patron header version 03; biometric data block signed and not encrypted (0D); big-endian lengths."""
    assert HEADER.encode(5, 3) == bytes.fromhex(OCTETS)
    assert len(HEADER.encode(0, 0)) == 88


def test_record_is_read_and_written() -> None:
    record = bytes.fromhex(OCTETS) + b"FMDRC" + b"CMS"
    value = b"\xbc" + bytes((len(record),)) + record + b"\xfe\x00"
    seen = BiometricObject.decode(value)
    assert seen == BiometricObject(HEADER, b"FMDRC", b"CMS")
    assert (seen.encode(), seen.signed_content) == (value, record[:-3])
    assert (seen.header.version, seen.header.security, seen.header.quality) == (3, 0x0D, -2)


@pytest.mark.parametrize(("record", "reason"), [
    (bytes.fromhex(OCTETS) + b"FMDRCCM", "says 5 and 3 octets, the record has 7"),
    (bytes.fromhex(OCTETS) + b"FMDRCCMS!", "says 5 and 3 octets, the record has 9"),
    (bytes.fromhex(OCTETS)[:87], "87 octets, fewer than its header"),
    (bytes.fromhex(OCTETS), "says 5 and 3 octets, the record has 0"),
])  # fmt: skip
def test_lengths_have_to_add_up(record: bytes, reason: str) -> None:
    with pytest.raises(MalformedObject, match=reason):
        BiometricObject.decode(b"\xbc" + bytes((len(record),)) + record + b"\xfe\x00")
    empty = HEADER.encode(0, 0)
    assert BiometricObject.decode(b"\xbc\x58" + empty + b"\xfe\x00") == BiometricObject(HEADER, b"", b"")
