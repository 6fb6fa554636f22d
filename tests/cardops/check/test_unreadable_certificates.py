"""Certificates of which the library can read a part only: a finding, never a crash."""

from __future__ import annotations

import pytest

from cardwright_cardops.check import Level, Severity, check
from tests.support.piv_card import AT, PivCard

VERSION = ("A003020102", "A003020125")
CURVE = ("06082A8648CE3D030107", "06082A8648CE3D03016D")
SIGNATURE = ("06082A8648CE3D040302", "06082A8648CE3D04036D")
USAGE = ("0603551D250101FF040C300A060860", "0603551D250101FF040C300A060880")


@pytest.mark.parametrize(
    ("tag", "change", "code"),
    [
        (0x5FC10A, VERSION, "OBJECT_MALFORMED"),
        (0x5FC10A, CURVE, "OBJECT_MALFORMED"),
        (0x5FC10A, SIGNATURE, "CERT_SIGNATURE_WEAK"),
        (0x5FC102, VERSION, "SIGNATURE_INVALID"),
        (0x5FC102, CURVE, "SIGNATURE_INVALID"),
        (0x5FC102, USAGE, "SIGNATURE_INVALID"),
    ],
)
@pytest.mark.parametrize("level", Level)
def test_half_readable_certificate_is_reported(tag: int, change: tuple[str, str], code: str, level: Level) -> None:
    before, after = map(bytes.fromhex, change)

    def late(built: dict[int, bytes | None]) -> None:
        answer = built[tag] or b""
        assert before in answer
        built[tag] = answer.replace(before, after)

    report = check(PivCard(late=late).data(), level=level, at=AT)
    found = {each.code: each.severity for each in report.findings if each.object == f"{tag:X}"}
    assert code in found
    assert level is Level.BASIC or found[code] is Severity.ERROR
