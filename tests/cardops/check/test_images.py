"""The published card images: every defect that was observed on one is found, by its own code, and no other error."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cardwright_cardops.check import Level, Severity, check, load_image

SLOTS = {"9A": "5FC105", "9C": "5FC10A", "9D": "5FC10B", "9E": "5FC101"}
RECORDS = {"fingerprints": "5FC103", "face": "5FC108"}

DEFECTS = (
    (r"(9.) certificate: SAN UUID differs from CHUID GUID", "CERT_UUID_MISMATCH"),
    (r"(9.) certificate: SAN FASC-N differs from CHUID", "CERT_FASCN_MISMATCH"),
    (r"(9.) certificate: SKID is not SHA-1 of its public key", "CERT_SKI_MISMATCH"),
    (r"(9.) certificate: issuing CA certificate is the expired one", "CERT_ISSUER_EXPIRED"),
    (r"(9.) certificate: expired at .*", "CERT_EXPIRED"),
    (r"(9.) certificate: expires .* after CHUID expiry .*", "CERT_OUTLIVES_CARD"),
    (r"(9.): private key does not match certificate", "KEY_MISMATCH"),
    (r"(CHUID) FASC-N encoding wrong .*", "CHUID_FASCN_MALFORMED"),
    (r"(CHUID) signature digest does not match CHUID content", "SIGNATURE_DIGEST_MISMATCH"),
    (r"(CHUID) expired at .*", "CHUID_EXPIRED"),
    (r"(content signer) certificate expired at .*", "CONTENT_SIGNER_EXPIRED"),
    (r"(security object): hash of container .* does not match", "SECURITY_OBJECT_HASH_MISMATCH"),
    (r"(fingerprints|face): CBEFF header FASC-N differs from CHUID", "CBEFF_FASCN_MISMATCH"),
    (r"(fingerprints|face): signed attribute pivFASC-N differs from CHUID", "SIGNED_FASCN_MISMATCH"),
    (r"(fingerprints|face): signed attribute entryUUID differs from CHUID GUID", "SIGNED_UUID_MISMATCH"),
    (r"(fingerprints|face): CMS digest does not match biometric record", "SIGNATURE_DIGEST_MISMATCH"),
    (r"(fingerprints|face): CMS signature value does not verify", "SIGNATURE_INVALID"),
    (r"(fingerprints|face): CBEFF validity ends .* before CHUID expiry .*", "CBEFF_ENDS_BEFORE_CARD"),
    (r"(fingerprints|face): CBEFF expired at .*", "CBEFF_EXPIRED"),
)
OBJECTS = SLOTS | RECORDS | {"CHUID": "5FC102", "content signer": "5FC102", "security object": "5FC106"}

NOTES = (
    (r"(9.) certificate: no UUID URN in SAN", "CERT_UUID_ABSENT"),
    (r"()GUID is not RFC 4122 variant", "CHUID_GUID_NOT_UUID"),
    (r"()discovery object not present", "DISCOVERY_ABSENT"),
    (r"(face): container empty", "OBJECT_EMPTY"),
    (r"(9.) certificate DER is .* bytes .*", "TAG_LENGTH"),
    (r"9.: directory holds 2 different certificates; .*()", ""),
)
NOTED = SLOTS | RECORDS
NOTE_OBJECTS = {"CHUID_GUID_NOT_UUID": "5FC102", "DISCOVERY_ABSENT": "7E"}

CARDS = (
    "01_Golden_PIV", "02_Golden_PIV-I", "03_SKID_Mismatch", "04_Tampered_CHUID", "06_Tampered_PHOTO",
    "07_Tampered_Fingerprints", "09_Expired_CHUID_Signer", "10_Expired_Cert_Signer", "11_Certs_Expire_after_CHUID",
    "13_Certs_are_expired", "14_Expired_CHUID", "16_Card_Authentication_FASCN_mismatch", "17_PHOTO_FASCN_mismatch",
    "18_Fingerprints_FASCN_mismatch", "19_CHUID_UUID_mismatch", "21_PHOTO_UUID_mismatch",
    "23_Public_Private_Key_mismatch", "25_Disco_Object_Not_Present", "26_Disco_Object_Present_App_PIN_Only",
    "27_Disco_Object_Present_App_PIN_Primary", "28_Disco_Object_Present_Global_PIN_Primary",
    "37_Golden_FIPS_201-2_PIV_PPS_F512_D64", "39_Golden_FIPS_201-2_Fed_PIV-I-X", "39_Golden_FIPS_201-2_Fed_PIV-I",
    "42_OCSP_Expired", "43_OCSP_revoked_w_nocheck", "44_OCSP_revoked_wo_nocheck", "45_OCSP_Invalid_Signature",
    "46_Golden_FIPS_201-2_PIV", "46_Golden_FIPS_201-2_PIV_ICI_8", "46_Golden_FIPS_201-2_PIV_ICI_9",
    "47_Golden_FIPS_201-2_PIV_SAN_Order-X", "48_T0_with_Non-Zero_PPS_LEN_Value",
    "49_FIPS_201-2_Facial_Image_CBEFF_Expired", "50_FIPS_201-2_Facial_Image_CBEFF_Expires_before_CHUID",
    "52_FIPS_201-2_Fingerprint_CBEFF_Expires_before_CHUID", "53_FIPS_201-2_Large_Card_Auth_Cert",
    "54_Golden_FIPS_201-2_NFI_PIV-I-X", "54_Golden_FIPS_201-2_NFI_PIV-I", "58_Revoked_Card_Auth_Cert",
    "59_Valid_CBEFF_for_Card_51",
)  # fmt: skip


@cache
def pki(folder: Path) -> tuple[list[x509.Certificate], list[bytes]]:
    """All certificates that can be parsed, faulty bridges included, and all CRLs."""
    seen = json.loads((folder / "icam-pki.json").read_text())
    certificates = [x509.load_der_x509_certificate(bytes.fromhex(row["der"])) for row in seen["certs"]]
    return certificates, [bytes.fromhex(row["der"]) for row in seen["crls"]]


def expected(texts: list[str], table: tuple[tuple[str, str], ...], objects: dict[str, str]) -> set[tuple[str, str]]:
    found = set()
    for text in texts:
        rows = [(match, code) for pattern, code in table if (match := re.fullmatch(pattern, text))]
        assert len(rows) == 1, text
        match, code = rows[0]
        if code:
            found.add((code, objects.get(match[1], NOTE_OBJECTS.get(code, "?"))))
    return found


def level_of(image: dict[str, Any]) -> Level:
    """The level that a card claims by the policy of its 9A certificate."""
    return Level.PIV_I if "2.16.840.1.101.3.2.1.48.248" in image["certs"]["9A"]["policies"] else Level.PIV


def times(folder: Path) -> list[datetime]:
    index = json.loads((folder / "icam-cards" / "INDEX.json").read_text())
    return [datetime.fromisoformat(day).replace(tzinfo=UTC) for day in index["evaluated_at"]]


def test_all_images_are_named_here(shared_data: Path) -> None:
    index = json.loads((shared_data / "icam-cards" / "INDEX.json").read_text())
    assert {row["file"] for row in index["cards"]} == {f"{card}.json" for card in CARDS}


@pytest.mark.parametrize("basic", [False, True], ids=["claimed", "basic"])
@pytest.mark.parametrize("card", CARDS)
def test_every_defect_and_nothing_else(shared_data: Path, card: str, basic: bool) -> None:
    path = shared_data / "icam-cards" / f"{card}.json"
    image = json.loads(path.read_text())
    trust, crls = pki(shared_data)
    level = Level.BASIC if basic else level_of(image)
    data = load_image(path)
    reports = [check(data, level=level, at=at, trust=trust, crls=crls) for at in times(shared_data)]
    errors = {(each.code, each.object) for report in reports for each in report.of(Severity.ERROR)}
    assert errors == expected(image["observed_defects"], DEFECTS, OBJECTS)
    if not basic:
        others = {(each.code, each.object) for report in reports for each in report.findings} - errors
        assert expected(image["notes"], NOTES, NOTED) <= others


@pytest.mark.parametrize("number", ["02", "03", "04", "05", "16"])
def test_nist_cards_are_good(shared_data: Path, number: str) -> None:
    data = load_image(shared_data / "nist-sd33-cards" / f"sd33-card-{number}.json")
    level = Level.PIV_I if number == "16" else Level.PIV
    report = check(data, level=level, at=times(shared_data)[1])
    assert report.of(Severity.ERROR) == ()
    assert len(report.objects) == len(data.objects)
    before = check(data, level=level, at=datetime(2019, 8, 4, tzinfo=UTC))
    assert {each.code for each in before.of(Severity.ERROR)} == {"CERT_NOT_YET_VALID", "CONTENT_SIGNER_NOT_YET_VALID"}
