"""What is good enough at which level."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check import CardData, Level, Severity, check, same_key
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.objects import Ccc, CertificateObject, Chuid, Fascn
from tests.support.piv_card import AT, PivCard, crl, key, name_of


def self_signed(subject: str) -> x509.Certificate:
    """As a card tool makes one for a key: a name, a validity, nothing else."""
    return (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(name_of(subject))
        .public_key(key(subject).public_key())
        .serial_number(5)
        .not_valid_before(datetime(2027, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2028, 1, 1, tzinfo=UTC))
        .sign(key(subject), hashes.SHA256())
    )


def fresh_card() -> CardData:
    """A security key after its first setup: unsigned CHUID, CCC, two self-signed certificates."""
    chuid = Chuid(
        Fascn("9999", "9999", "999999").encode(), UUID("6f7d9a2e-6e0b-4d3c-9c55-0a1b2c3d4e5f"), date(2030, 1, 1)
    )
    values = {0x5FC102: chuid.encode(), 0x5FC107: Ccc().encode()}
    for slot, tag in (("9A", 0x5FC105), ("9C", 0x5FC10A)):
        values[tag] = CertificateObject(self_signed(slot).public_bytes(Encoding.DER)).encode()
    proofs = {0x9A: same_key(key("9A").public_key()), 0x9C: same_key(key("9C").public_key())}
    return CardData({tag: containers.wrap(tag, value) for tag, value in values.items()}, proofs)


def test_a_fresh_security_key_is_good_at_basic_only() -> None:
    card = fresh_card()
    report = check(card, at=AT)
    assert report.good
    assert {(each.code, each.severity) for each in report.findings} == {
        ("CHUID_UNSIGNED", Severity.INFO),
        ("DISCOVERY_ABSENT", Severity.INFO),
        ("CERT_KEY_USAGE", Severity.WARNING),
    }
    for level in (Level.CIV, Level.PIV, Level.PIV_I):
        assert not check(card, level=level, at=AT).good


def test_basic_finds_contradictions() -> None:
    card = fresh_card()
    wrong = CardData(card.objects, {0x9A: same_key(key("9C").public_key())})
    assert [each.code for each in check(wrong, at=AT).of(Severity.ERROR)] == ["KEY_MISMATCH"]
    late = check(card, at=datetime(2029, 1, 1, tzinfo=UTC))
    assert {each.code for each in late.of(Severity.ERROR)} == {"CERT_EXPIRED"}


@pytest.mark.parametrize(
    ("level", "errors"), [(Level.CIV, set()), (Level.PIV, {"CERT_POLICY_WRONG", "CERT_FASCN_ABSENT"})]
)
def test_a_company_card_is_civ(level: Level, errors: set[str]) -> None:
    card = PivCard()
    for slot in ("9A", "9E"):
        card.profiles[slot] = replace(card.profiles[slot], policies=(), fascn=None)
    data = card.data()
    report = check(data, level=level, at=AT, trust=card.trust, crls=[crl("CA"), crl("Root")])
    assert {each.code for each in report.of(Severity.ERROR)} == errors
