"""A good card, changed in one respect at a time: exactly the findings of that change appear, for every code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check import RULES, CardData, Level, check
from cardwright_cardops.check.profiles import NACI
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv import signed
from cardwright_cardops.piv.objects import (
    Ccc,
    Discovery,
    Fascn,
    KeyHistory,
    PinUsagePolicy,
    Printed,
)
from cardwright_cardops.piv.objects.biometric import date_octets
from tests.support.card_changes import (
    CHUID,
    FACE,
    FINGER,
    PRINTED,
    another_key,
    answers,
    chuid,
    chuid_signed,
    early,
    everywhere,
    flipped_signature,
    header,
    late,
    no_dn,
    profile,
    replace_policy,
    resigned_security_object,
    retired,
    sm_signer,
    swap,
    unsign,
    without,
)
from tests.support.piv_card import AT, FASCN, GUID, POLICY, PivCard, Profile, crl, key

OTHER = UUID("00112233-4455-4677-8899-aabbccddeeff")
OTHER_FASCN = Fascn("4700", "0256", "009999").encode()
Expected = set[tuple[str, str]]
GOOD_CRLS = [crl("CA"), crl("Root")]


def findings(card: PivCard, level: Level, *, crls: list[bytes], at: datetime = AT, trust: bool = True) -> Expected:
    data = card.data()
    report = check(data, level=level, at=at, trust=card.trust if trust else (), crls=crls)
    return {(finding.code, finding.object) for finding in report.findings}


def proof_of(kind: str) -> Callable[[PublicKeyTypes], bool]:
    def refuses(public: PublicKeyTypes) -> bool:
        raise CardwrightError("the card said no")

    return refuses if kind == "refuses" else lambda public: False


Row = tuple[str, Callable[[], PivCard], Expected]
ROWS: list[Row] = [
    ("nothing", PivCard, set()),
    # structure
    ("trailing octets", lambda: answers(T5FC107=b"\x53\x00\x00"), {("OBJECT_UNREADABLE", "5FC107")}),
    (
        "damaged certificate", lambda: early(0x5FC10A, lambda value: bytes.fromhex("700430020500710100FE00")),
        {("OBJECT_MALFORMED", "5FC10A")},
    ),
    ("no CCC", lambda: without(0x5FC107), {("OBJECT_ABSENT", "5FC107")}),
    ("empty 9C", lambda: answers(T5FC10A=b"\x53\x00"), {("OBJECT_EMPTY", "5FC10A")}),
    ("unread face", lambda: answers(T5FC108=None), {("OBJECT_NOT_READ", "5FC108")}),
    ("unknown container", lambda: answers(T5FC1FF=b"\x53\x00"), {("OBJECT_UNKNOWN", "5FC1FF")}),
    (
        "unknown tag", lambda: early(PRINTED, lambda value: value[:-2] + bytes.fromhex("8F0101FE00")),
        {("TAG_UNKNOWN", "5FC109")},
    ),
    (
        "legacy tag", lambda: early(0x5FC107, lambda value: value[:-2] + bytes.fromhex("E300FE00")),
        {("TAG_LEGACY", "5FC107")},
    ),
    ("no FE", lambda: early(PRINTED, lambda value: value[:-2]), {("TAG_MISSING", "5FC109")}),
    (
        "CertInfo before certificate",
        lambda: early(0x5FC10A, lambda value: b"\x71\x01\x00" + value[:-5] + b"\xfe\x00"),
        {("TAG_ORDER", "5FC10A")},
    ),
    (
        "long name", lambda: PivCard(printed=Printed("A" * 126, "", date(2030, 1, 1), "1", "2")),
        {("TAG_LENGTH", "5FC109")},
    ),
    (
        "long form of a length", lambda: early(PRINTED, swap(PRINTED, b"\x01\x0cAda", b"\x01\x81\x0cAda")),
        {("LENGTH_NOT_SHORTEST", "5FC109")},
    ),
    # CHUID
    (
        "FASC-N parity", lambda: everywhere(fascn=FASCN[:-1] + bytes((FASCN[-1] ^ 1,))),
        {("CHUID_FASCN_MALFORMED", "5FC102")},
    ),
    (
        "not federal", lambda: everywhere(fascn=Fascn("9999", "9999", "999999").encode()),
        {("CHUID_FASCN_NOT_FEDERAL", "5FC102")},
    ),
    ("no agency", lambda: everywhere(fascn=Fascn("0000", "0001", "000001").encode()), {
        ("CHUID_FASCN_ZERO", "5FC102")}),
    ("GUID version 3", lambda: everywhere(guid=UUID(int=GUID.int ^ 7 << 76)), {("CHUID_GUID_NOT_UUID", "5FC102")}),
    (
        "expired", lambda: chuid(expiration=date(2027, 4, 30)),
        {("CHUID_EXPIRED", "5FC102"), ("CERT_OUTLIVES_CARD", "5FC105"), ("CERT_OUTLIVES_CARD", "5FC101"),
         ("SIGNING_CERT_OUTLIVES_CARD", "5FC10A"), ("PRINTED_EXPIRATION_MISMATCH", "5FC109")},
    ),
    (
        "expires late", lambda: chuid(expiration=date(2034, 1, 1)),
        {("CHUID_EXPIRATION_FAR", "5FC102"), ("PRINTED_EXPIRATION_MISMATCH", "5FC109"),
         ("CBEFF_ENDS_BEFORE_CARD", "5FC103"), ("CBEFF_ENDS_BEFORE_CARD", "5FC108")},
    ),
    (
        "unsigned", lambda: early(CHUID, lambda value: value[: value.index(b"\x3e\x82")] + b"\x3e\x00\xfe\x00"),
        {("CHUID_UNSIGNED", "5FC102"), ("SIGNATURE_INVALID", "5FC103"), ("SIGNATURE_INVALID", "5FC108"),
         ("SIGNATURE_INVALID", "5FC106")},
    ),
    # signatures
    (
        "no CMS", lambda: chuid_signed(raw=bytes.fromhex("3003020101")),
        {("SIGNATURE_MALFORMED", "5FC102"), ("SIGNATURE_INVALID", "5FC103"), ("SIGNATURE_INVALID", "5FC108"),
         ("SIGNATURE_INVALID", "5FC106")},
    ),
    (
        "changed expiration", lambda: early(CHUID, swap(CHUID, b"20300101", b"20300102")),
        {("SIGNATURE_DIGEST_MISMATCH", "5FC102"), ("PRINTED_EXPIRATION_MISMATCH", "5FC109"),
         ("CBEFF_ENDS_BEFORE_CARD", "5FC103"), ("CBEFF_ENDS_BEFORE_CARD", "5FC108")},
    ),
    ("changed signature", lambda: early(FINGER, flipped_signature), {("SIGNATURE_INVALID", "5FC103")}),
    (
        "other content type", lambda: chuid_signed(content_type=signed.BIOMETRIC_CONTENT),
        {("SIGNATURE_PROFILE", "5FC102")},
    ),
    (
        "signer not inside", lambda: chuid_signed(include_certificate=False),
        {("SIGNATURE_PROFILE", "5FC102"), ("SIGNATURE_INVALID", "5FC102"), ("SIGNATURE_INVALID", "5FC103"),
         ("SIGNATURE_INVALID", "5FC108"), ("SIGNATURE_INVALID", "5FC106")},
    ),
    (
        "attribute of another name", lambda: early(FINGER, no_dn),
        {("SIGNED_ATTRIBUTE_ABSENT", "5FC103"), ("SIGNATURE_INVALID", "5FC103")},
    ),
    (
        "no pivFASC-N", lambda: PivCard(attributes={FINGER: {"fascn": None}}),
        {("SIGNED_ATTRIBUTE_ABSENT", "5FC103")},
    ),
    (
        "another card's FASC-N signed", lambda: PivCard(attributes={FINGER: {"fascn": OTHER_FASCN}}),
        {("SIGNED_FASCN_MISMATCH", "5FC103")},
    ),
    (
        "another card's UUID signed", lambda: PivCard(attributes={FACE: {"uuid": OTHER}}),
        {("SIGNED_UUID_MISMATCH", "5FC108")},
    ),
    # content signers
    (
        "signer expired", lambda: profile("signer", not_after=datetime(2027, 4, 1, tzinfo=UTC)),
        {("CONTENT_SIGNER_EXPIRED", "5FC102")},
    ),
    (
        "signer too new", lambda: profile("signer", not_before=datetime(2027, 6, 1, tzinfo=UTC)),
        {("CONTENT_SIGNER_NOT_YET_VALID", "5FC102")},
    ),
    (
        "signer for something else", lambda: profile("signer", extended=("1.3.6.1.5.5.7.3.2",)),
        {("CONTENT_SIGNER_EKU", "5FC102")},
    ),
    ("signer without policy", lambda: profile("signer", policies=()), {("CONTENT_SIGNER_POLICY", "5FC102")}),
    (
        "signer ends early", lambda: profile("signer", not_after=datetime(2028, 1, 1, tzinfo=UTC)),
        {("CONTENT_SIGNER_ENDS_EARLY", "5FC102")},
    ),
    # Security Object
    (
        "CCC changed after hashing", lambda: late(PivCard(), 0x5FC107, lambda value: Ccc(card_url=b"x").encode()),
        {("SECURITY_OBJECT_HASH_MISMATCH", "5FC106")},
    ),
    ("hash without container", lambda: resigned_security_object(drop=True), {("SECURITY_OBJECT_MAP", "5FC106")}),
    (
        "no such container", lambda: resigned_security_object(extra=(9, 0xFFFF)),
        {("SECURITY_OBJECT_UNKNOWN", "5FC106")},
    ),
    (
        "hashed and gone", lambda: resigned_security_object(extra=(9, 0x6060)),
        {("SECURITY_OBJECT_MISSES", "5FC106")},
    ),
    ("SHA-384 signed with SHA-256", lambda: resigned_security_object(digest="sha384"), {
        ("SECURITY_OBJECT_DIGEST", "5FC106")}),
    ("no hashes", lambda: resigned_security_object(content=b"\x30\x00"), {("SIGNATURE_MALFORMED", "5FC106")}),
    (
        "Discovery left out", lambda: PivCard(hashed=(0x5FC107, CHUID, FINGER, FACE, PRINTED)),
        {("SECURITY_OBJECT_COVERAGE", "5FC106")},
    ),
    # biometrics
    ("wrong type", lambda: header(format_type=0x501), {("CBEFF_HEADER", "5FC103")}),
    ("wrong creator", lambda: header(creator=b"x" * 18), {("CBEFF_HEADER", "5FC103")}),
    ("no date", lambda: header(creation=bytes(8)), {("CBEFF_DATES", "5FC103")}),
    (
        "dates reversed", lambda: header(not_before=date_octets(AT), not_after=date_octets(AT - timedelta(days=1))),
        {("CBEFF_DATES_REVERSED", "5FC103"), ("CBEFF_EXPIRED", "5FC103"), ("CBEFF_ENDS_BEFORE_CARD", "5FC103")},
    ),
    ("not yet valid", lambda: header(not_before=date_octets(AT + timedelta(days=1))), {
        ("CBEFF_NOT_YET_VALID", "5FC103")}),
    (
        "ends before the card", lambda: header(not_after=date_octets(AT + timedelta(days=1))),
        {("CBEFF_ENDS_BEFORE_CARD", "5FC103")},
    ),
    ("another card's header", lambda: header(fascn=OTHER_FASCN), {("CBEFF_FASCN_MISMATCH", "5FC103")}),
    (
        "no signature block", lambda: early(FINGER, unsign), {("BIOMETRIC_UNSIGNED", "5FC103")},
    ),
    ("no minutiae record", lambda: PivCard(records={FINGER: b"FMR", FACE: b"x"}), {
        ("FINGERPRINT_RECORD", "5FC103"), ("FACE_RECORD", "5FC108")}),
    # certificates
    ("9A expired", lambda: profile("9A", not_after=datetime(2027, 4, 1, tzinfo=UTC)), {("CERT_EXPIRED", "5FC105")}),
    (
        "9E too new", lambda: profile("9E", not_before=datetime(2027, 6, 1, tzinfo=UTC)),
        {("CERT_NOT_YET_VALID", "5FC101")},
    ),
    (
        "9D for four years", lambda: profile("9D", not_after=datetime(2031, 1, 1, tzinfo=UTC)),
        {("CERT_VALIDITY_LONG", "5FC10B")},
    ),
    ("another UUID in 9C", lambda: profile("9C", uuids=(OTHER,)), {("CERT_UUID_MISMATCH", "5FC10A")}),
    ("no UUID in 9E", lambda: profile("9E", uuids=()), {("CERT_UUID_ABSENT", "5FC101")}),
    ("another FASC-N in 9A", lambda: profile("9A", fascn=OTHER_FASCN), {("CERT_FASCN_MISMATCH", "5FC105")}),
    ("no FASC-N in 9A", lambda: profile("9A", fascn=None), {("CERT_FASCN_ABSENT", "5FC105")}),
    ("a mail address in 9E", lambda: profile("9E", more_names=(x509.RFC822Name("a@b.example"),)), {
        ("CERT_NAME_FORM", "5FC101")}),
    ("9C signs without repudiation", lambda: profile("9C", usages=("digital_signature",)), {
        ("CERT_KEY_USAGE", "5FC10A")}),
    ("9E for clients too", lambda: profile("9E", extended=("2.16.840.1.101.3.6.8", "1.3.6.1.5.5.7.3.2")), {
        ("CERT_EKU", "5FC101")}),
    ("9E not critical", lambda: profile("9E", extended_critical=False), {("CERT_EKU", "5FC101")}),
    ("9E without EKU", lambda: profile("9E", extended=()), {("CERT_EKU", "5FC101")}),
    ("9A for anything", lambda: profile("9A", extended=("2.5.29.37.0",)), {("CERT_EKU_BROAD", "5FC105")}),
    ("9D without mail", lambda: profile("9D", extended=()), {("CERT_EKU_ABSENT", "5FC10B")}),
    ("9A under 9E's policy", lambda: profile("9A", policies=(POLICY + "17",)), {("CERT_POLICY_WRONG", "5FC105")}),
    ("9C without policy", lambda: profile("9C", policies=()), {("CERT_POLICY_ABSENT", "5FC10A")}),
    ("9A under a test policy", lambda: profile("9A", policies=("2.16.840.1.101.3.2.1.48.11",)), {
        ("CERT_POLICY_TEST", "5FC105")}),
    (
        "9D with RSA 1024", lambda: another_key("9D", "rsa1024"),
        {("CERT_KEY_ALGORITHM", "5FC10B"), ("CERT_KEY_USAGE", "5FC10B")},
    ),
    (
        "9D with RSA 2048 beyond 2030, usage not critical", lambda: another_key("9D", "rsa2048"),
        {("CERT_KEY_SUNSET", "5FC10B"), ("CERT_KEY_USAGE", "5FC10B"), ("CERT_VALIDITY_LONG", "5FC10B")},
    ),
    (
        "9A with P-521 and no key identifier", lambda: another_key("9A", "p521"),
        {("CERT_KEY_ALGORITHM", "5FC105"), ("CERT_SKI_ABSENT", "5FC105")},
    ),
    ("9A with Ed25519", lambda: another_key("9A", "ed25519"), {("CERT_KEY_ALGORITHM", "5FC105")}),
    ("9A with another's key identifier", lambda: profile("9A", key_identifier=bytes(20)), {
        ("CERT_SKI_MISMATCH", "5FC105")}),
    ("9C without issuer's key identifier", lambda: profile("9C", authority=False), {("CERT_AKI_ABSENT", "5FC10A")}),
    (
        "https addresses", lambda: profile("9A", addresses="https"), {("CERT_AIA", "5FC105"), ("CERT_CRLDP", "5FC105")},
    ),
    (
        "9A with background investigation indicator",
        lambda: profile("9A", more=(x509.UnrecognizedExtension(x509.ObjectIdentifier(NACI), b"\1\1\0"),)),
        {("CERT_NACI", "5FC105")},
    ),
    ("9C is a CA", lambda: profile("9C", is_ca=True), {("CERT_IS_CA", "5FC10A")}),
    ("9A with another private key", lambda: PivCard(proofs={"9A": "9C"}), {("KEY_MISMATCH", "5FC105")}),
    # paths
    (
        "CA expired", lambda: profile("ca", not_after=datetime(2027, 4, 1, tzinfo=UTC)),
        {("CERT_ISSUER_EXPIRED", tag) for tag in ("5FC105", "5FC10A", "5FC10B", "5FC101", "5FC102")},
    ),
    ("9C from nowhere", lambda: profile("9C", issuer="Elsewhere"), {("CERT_UNTRUSTED", "5FC10A")}),
    # the rest
    ("data model 2", lambda: PivCard(ccc=Ccc(data_model=2)), {("CCC_DATA_MODEL", "5FC107")}),
    ("no Discovery", lambda: without(0x7E), {("DISCOVERY_ABSENT", "7E")}),
    ("another AID", lambda: early(0x7E, lambda value: Discovery(aid=b"\xa0\0\0\3\x08").encode()), {
        ("DISCOVERY_AID", "7E"), ("TAG_LENGTH", "7E")}),
    ("policy 41", lambda: PivCard(policy=PinUsagePolicy(0x41, 0)), {("DISCOVERY_POLICY", "7E")}),
    ("VCI without signer", lambda: PivCard(policy=PinUsagePolicy(0x4C, 0)), {("DISCOVERY_NEEDS_OBJECT", "7E")}),
    ("OCC without templates", lambda: PivCard(policy=PinUsagePolicy(0x50, 0)), {("DISCOVERY_NEEDS_OBJECT", "7E")}),
    (
        "VCI with pairing code unread", lambda: replace_policy(sm_signer("Other Signer"), 0x48),
        {("OBJECT_NOT_READ", "5FC123")},
    ),
    ("VCI as it should be", lambda: sm_signer("Other Signer"), set()),
    ("retired, no history", lambda: retired(2, None), {("KEY_HISTORY_ABSENT", "5FC10C")}),
    ("retired, history short", lambda: retired(2, KeyHistory(1)), {("KEY_HISTORY_COUNT", "5FC10C")}),
    ("too many retired", lambda: retired(0, KeyHistory(15, 6, "http://a/" + "A" * 64)), {
        ("KEY_HISTORY_COUNT", "5FC10C")}),
    ("retired, no address", lambda: retired(2, KeyHistory(2, 1)), {("KEY_HISTORY_URL", "5FC10C")}),
    ("retired as they should be", lambda: retired(2, KeyHistory(2, 1, "http://a.example/" + "aB" * 32)), set()),
    (
        "printed otherwise", lambda: PivCard(printed=Printed("A", "B", date(2031, 1, 1), "C", "D")),
        {("PRINTED_EXPIRATION_MISMATCH", "5FC109")},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_exactly_the_findings_of_one_change(make: Callable[[], PivCard], expected: Expected) -> None:
    assert findings(make(), Level.PIV, crls=GOOD_CRLS) == expected


def serial(card: PivCard, name: str, number: int) -> PivCard:
    card.profiles[name] = replace(card.profiles[name], serial=number)
    return card


def test_revocation() -> None:
    card = serial(serial(PivCard(), "9E", 77), "ca", 88)
    everything = {"5FC105", "5FC10A", "5FC10B", "5FC101", "5FC102"}
    assert findings(card, Level.PIV, crls=[crl("CA", (77,)), crl("Root")]) == {("CERT_REVOKED", "5FC101")}
    assert findings(card, Level.PIV, crls=[crl("CA"), crl("Root", (88,))]) == {
        ("CERT_ISSUER_REVOKED", tag) for tag in everything
    }
    assert findings(card, Level.PIV, crls=[]) == {("REVOCATION_NOT_CHECKED", tag) for tag in everything}
    # a missing CRL of the root does not hide that the CA revoked a certificate
    assert findings(card, Level.PIV, crls=[crl("CA", (77,))]) == {("CERT_REVOKED", "5FC101")} | {
        ("REVOCATION_UNKNOWN", tag) for tag in everything
    }
    stale = crl("CA", age=timedelta(days=60))
    assert findings(card, Level.PIV, crls=[stale, crl("Root")]) == {("REVOCATION_UNKNOWN", tag) for tag in everything}


def test_another_ca_of_the_same_name_revokes_nothing() -> None:
    card = serial(PivCard(), "9E", 77)
    seen = x509.load_der_x509_crl(crl("CA", (77,)))
    builder = x509.CertificateRevocationListBuilder(
        seen.issuer, seen.last_update_utc, seen.next_update_utc, list(seen.extensions), list(seen)
    )
    forged = builder.sign(key("Mallory"), hashes.SHA256()).public_bytes(Encoding.DER)
    assert findings(card, Level.PIV, crls=[forged, *GOOD_CRLS]) == set()
    found = findings(card, Level.PIV, crls=[forged, crl("Root")])
    assert {code for code, _ in found} == {"REVOCATION_UNKNOWN"}


def test_without_anchors_paths_are_not_judged() -> None:
    codes = {code for code, _ in findings(PivCard(), Level.PIV, crls=[], trust=False)}
    assert codes == {"PATH_NOT_CHECKED"}
    assert findings(PivCard(), Level.BASIC, crls=[], trust=False) == set()


@pytest.mark.parametrize(("kind", "code"), [("refuses", "KEY_NOT_PROVED"), ("other", "KEY_MISMATCH")])
def test_a_live_card_that_does_not_prove_a_key(kind: str, code: str) -> None:
    card = PivCard()
    data = card.data()
    asked = CardData(data.objects, {**data.proofs, 0x9E: proof_of(kind)})
    report = check(asked, level=Level.PIV, at=AT, trust=card.trust, crls=GOOD_CRLS)
    assert [(finding.code, finding.object) for finding in report.findings] == [(code, "5FC101")]


def test_a_piv_i_card() -> None:
    card = everywhere(fascn=Fascn("9999", "9999", "999999").encode())
    for slot, policy, fascn in (("9A", "45", None), ("9E", "46", None), ("9C", "18", None), ("9D", "18", None)):
        card.profiles[slot] = replace(card.profiles[slot], policies=(POLICY + policy,), fascn=fascn)
    card.profiles["signer"] = replace(
        card.profiles["signer"], policies=(POLICY + "47",), extended=("2.16.840.1.101.3.8.7",)
    )
    for tag in (FINGER, FACE):
        card.attributes[tag]["fascn"] = None
    assert findings(card, Level.PIV_I, crls=GOOD_CRLS) == {("CHUID_FASCN_NOT_FEDERAL", "5FC102")}
    card.profiles["9E"] = replace(card.profiles["9E"], fascn=card.chuid.fascn)
    assert ("CERT_FASCN_FORBIDDEN", "5FC101") in findings(card, Level.PIV_I, crls=GOOD_CRLS)


ELSEWHERE = {
    "CERT_REVOKED", "CERT_ISSUER_REVOKED", "REVOCATION_NOT_CHECKED", "REVOCATION_UNKNOWN", "PATH_NOT_CHECKED",
    "KEY_NOT_PROVED", "CERT_FASCN_FORBIDDEN",
    "SIGNATURE_ALGORITHM_WEAK", "SIGNER_DN_MISMATCH", "CONTENT_SIGNER_KEY", "CONTENT_SIGNER_DIFFERS",
    "CERT_SIGNATURE_WEAK", "CERT_PATH_INVALID", "PATH_TOO_MANY",
    "NO_OBJECTS", "FACTORY_SECRET",
}  # fmt: skip
"""Codes made by the other tests of this file, of test_signers.py, test_report.py and test_candidate_paths.py."""


def test_every_code_is_made_by_some_test() -> None:
    made = {code for _, _, expected in ROWS for code, _ in expected}
    assert RULES.keys() - made == ELSEWHERE


def test_profiles_are_independent() -> None:
    first, second = PivCard(), PivCard()
    first.profiles["9A"] = Profile("x", "y")
    assert second.profiles["9A"].subject == "Ada"
