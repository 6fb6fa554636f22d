"""Trust data from files as openssl writes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check import Level, TrustUnreadable, check, load_certificates, load_crls, load_ocsp
from tests.support.piv_card import AT, PivCard, crl

CARD = PivCard()
DATA = CARD.data()


def as_pem(der: bytes, kind: str) -> bytes:
    return subprocess.run(["openssl", kind, "-inform", "DER"], input=der, check=True, capture_output=True).stdout


def test_bundles_of_pem(tmp_path: Path) -> None:
    trust, crls = tmp_path / "trust.pem", tmp_path / "crls.pem"
    certificates = [each.public_bytes(Encoding.DER) for each in CARD.trust]
    trust.write_bytes(b"Root and CA\n" + b"\n".join(as_pem(each, "x509") for each in certificates))
    made = [crl("CA"), crl("Root")]
    crls.write_bytes(b"".join(as_pem(each, "crl") for each in made))
    assert load_certificates(trust) == CARD.trust
    assert load_crls(crls) == made
    report = check(DATA, level=Level.PIV, at=AT, trust=load_certificates(trust), crls=load_crls(crls))
    assert report.findings == ()


def test_der_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CARD.trust[0].public_bytes(Encoding.DER))
    assert load_certificates(path) == CARD.trust[:1]
    path.write_bytes(crl("CA"))
    assert load_ocsp(path) == [path.read_bytes()]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"],
)
def test_what_holds_no_certificate(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(TrustUnreadable):
        load_certificates(path)


def test_files_that_are_missing_or_endless(tmp_path: Path) -> None:
    with pytest.raises(TrustUnreadable, match="cannot be read"):
        load_crls(tmp_path / "none")
    with pytest.raises(TrustUnreadable, match="larger"):
        load_crls("/dev/zero")
