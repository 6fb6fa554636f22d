"""Names that openssl would encode to the same octets, and names that are refused."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509

from cardwright_server.issuance import profiles
from cardwright_server.issuance.errors import CertificateRefused, ProfileMalformed
from cardwright_server.issuance.names import HolderNames, alternative_names, sid_extension, subject
from tests.support.issuance import BASE, FASCN, NAMES

PROFILES = profiles.load()
ADA = HolderNames(
    common_name="Ada Lovelace",
    email="ada@example.test",
    upn="ada@example.test",
    sid="S-1-5-21-1-2-3-500",
    principal="ada/admin@EXAMPLE.TEST",
    fascn=FASCN,
    card_uuid=UUID("12345678-1234-5678-1234-567812345678"),
)
KERBEROS = """
asn1 = SEQUENCE:principal
[principal]
realm = EXPLICIT:0,GENERALSTRING:EXAMPLE.TEST
name = EXPLICIT:1,SEQUENCE:name
[name]
type = EXPLICIT:0,INTEGER:1
parts = EXPLICIT:1,SEQUENCE:parts
[parts]
first = GENERALSTRING:ada
second = GENERALSTRING:admin
"""
SID = """
asn1 = SEQUENCE:names
[names]
one = IMPLICIT:0,SEQUENCE:other
[other]
oid = OID:1.3.6.1.4.1.311.25.2.1
value = EXPLICIT:0,FORMAT:ASCII,OCTETSTRING:S-1-5-21-1-2-3-500
"""


def encoded(folder: Path, configuration: str) -> bytes:
    """What openssl makes of a description."""
    (folder / "asn1.cnf").write_text(configuration)
    command = ["openssl", "asn1parse", "-genconf", "asn1.cnf", "-noout", "-out", "asn1.der"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=20)
    return (folder / "asn1.der").read_bytes()


def others(names: HolderNames) -> dict[str, bytes]:
    found = alternative_names(PROFILES.pick("piv-authentication"), names)
    assert found is not None
    return {one.type_id.dotted_string: one.value for one in found.get_values_for_type(x509.OtherName)}


def test_kerberos_name_is_what_openssl_makes(tmp_path: Path) -> None:
    assert others(ADA)["1.3.6.1.5.2.2"] == encoded(tmp_path, KERBEROS)


def test_sid_is_what_openssl_makes(tmp_path: Path) -> None:
    assert sid_extension(ADA.sid).value == encoded(tmp_path, SID)


def test_fascn_is_an_octet_string_and_the_upn_text() -> None:
    found = others(ADA)
    assert found["2.16.840.1.101.3.6.6"] == b"\x04\x19" + FASCN
    assert found["1.3.6.1.4.1.311.20.2.3"] == b"\x0c\x10ada@example.test"


@pytest.mark.parametrize(
    "change",
    [
        {"upn": "ada"},
        {"upn": "a b@c"},
        {"email": "ada@"},
        {"principal": "ada"},
        {"principal": "@REALM"},
        {"principal": "ada//x@REALM"},
        {"fascn": b"short"},
        {"card_uuid": None},
        {"email": "ädä@example.test"},
    ],
)
def test_malformed_names_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CertificateRefused) as refused:
        alternative_names(PROFILES.pick("piv-authentication"), replace(ADA, **change))
    assert refused.value.reason == "names"


@pytest.mark.parametrize("sid", ["", "S-1", "X-1-5-21", "S-1-5-x", "S-1-5-²", "S-1-" + "5" * 300])
def test_what_is_no_sid_is_refused(sid: str) -> None:
    with pytest.raises(CertificateRefused):
        sid_extension(sid)


def test_a_machine_and_a_person_need_a_common_name_and_a_card_is_named_by_its_uuid() -> None:
    card = subject(PROFILES.pick("card-authentication"), ADA, BASE)
    assert card.rfc4514_string().startswith("2.5.4.5=12345678-1234-5678-1234-567812345678")
    for profile in ("signature", "workstation"):
        with pytest.raises(CertificateRefused):
            subject(PROFILES.pick(profile), HolderNames(common_name=" "), BASE)
    assert len(NAMES) == 4


GOOD = """
name = "own"
version = 2
rule = "signature"
purpose = "cards"
holders = ["device-slot"]
days = 10
algorithms = ["p256"]
usage = ["digital_signature"]
"""


def test_an_installation_may_replace_and_add_profiles(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(GOOD)
    (tmp_path / "operator.toml").write_text(GOOD.replace('"own"', '"operator"'))
    found = profiles.load(tmp_path)
    assert found.pick("own").days == 10 and found.pick("operator").version == 2
    assert len(list(found)) == len(list(PROFILES)) + 1


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "surprise = 1\n",
        GOOD.replace("days = 10", "days = 0"),
        GOOD.replace('usage = ["digital_signature"]', ""),
        GOOD + 'usage_rsa = ["key_encipherment"]\n',
        GOOD + 'hardware = ["1.2.3"]\n',
        GOOD + "extended_critical = true\n",
        GOOD + 'policies = ["1..2"]\n',
        GOOD + 'names_required = ["upn"]\nnames_allowed = ["upn"]\n',
        GOOD + 'civ = "nothing"\n',
        GOOD.replace('"own"', '"other"'),
        "not toml at all [",
    ],
)
def test_malformed_documents_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ProfileMalformed):
        profiles.load(tmp_path)
