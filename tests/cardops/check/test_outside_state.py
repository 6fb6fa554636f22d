"""Cards 42 to 45 and 58: good by themselves, bad by what the world says of them, said here with the test PKI's keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509 import ocsp

from cardwright_cardops.check import Level, check, load_image

AT = datetime(2026, 11, 22, tzinfo=UTC)
CA = "ICAM_Test_Card_PIV_Signing_CA_-_gold_gen3"
REVOKED_9E = 0x60000000000000000137


class Pki:
    """The parts of icam-pki.json that these tests use, by name."""

    def __init__(self, folder: Path) -> None:
        rows = json.loads((folder / "icam-pki.json").read_text())["certs"]
        self._rows: dict[str, dict[str, Any]] = {row["name"]: row for row in rows if row["group"] == "main"}
        self.trust = [self.certificate(name) for name in self._rows]

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_der_x509_certificate(bytes.fromhex(self._rows[name]["der"]))

    def key(self, name: str) -> rsa.RSAPrivateKey:
        found = load_der_private_key(bytes.fromhex(self._rows[name]["pkcs8"]), None)
        assert isinstance(found, rsa.RSAPrivateKey)
        return found

    def crl(self, *serials: int) -> bytes:
        """A CRL of the signing CA."""
        ca = self.certificate(CA)
        identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            x509.CertificateRevocationListBuilder(ca.subject, AT - timedelta(days=1), AT + timedelta(days=1))
            .add_extension(x509.CRLNumber(7), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder(serial, AT - timedelta(days=2)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key(CA), hashes.SHA256()).public_bytes(Encoding.DER)

    def status(self, certificate: x509.Certificate, responder: str, *, revoked: bool) -> bytes:
        """The OCSP response of ``responder``."""
        signer = self.certificate(responder)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=self.certificate(CA),
            algorithm=hashes.SHA1(),
            cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            this_update=AT - timedelta(hours=1),
            next_update=AT + timedelta(hours=1),
            revocation_time=AT - timedelta(days=2) if revoked else None,
            revocation_reason=None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer).certificates([signer])
        return builder.sign(self.key(responder), hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def pki(shared_data: Path) -> Pki:
    return Pki(shared_data)


def said_of_9e(folder: Path, pki: Pki, card: str, crls: list[bytes], responses: list[bytes]) -> set[str]:
    data = load_image(folder / "icam-cards" / f"{card}.json")
    report = check(data, level=Level.PIV, at=AT, trust=pki.trust, crls=crls, ocsp=responses)
    words = ("REVOKED", "REVOCATION")
    return {each.code for each in report.findings if each.object == "5FC101" and any(w in each.code for w in words)}


def certificate_9e(folder: Path, card: str) -> x509.Certificate:
    image = json.loads((folder / "icam-cards" / f"{card}.json").read_text())
    return x509.load_der_x509_certificate(bytes.fromhex(image["certs"]["9E"]["der"]))


RESPONDERS = [
    ("42_OCSP_Expired", "Expired_Signer_gen3", False),
    ("43_OCSP_revoked_w_nocheck", "Revoked_Signer_No_Check_Present_gen3", True),
    ("44_OCSP_revoked_wo_nocheck", "Revoked_Signer_No_Check_Not_Present_gen3", False),
    ("45_OCSP_Invalid_Signature", "Invalid_Sig_Signer_gen3", False),
    ("46_Golden_FIPS_201-2_PIV", "Valid_Signer_gen3", True),
]


@pytest.mark.parametrize(("card", "name", "believed"), RESPONDERS, ids=[row[0] for row in RESPONDERS])
def test_which_responder_is_believed(shared_data: Path, pki: Pki, card: str, name: str, believed: bool) -> None:
    responder = f"ICAM_Test_Card_PIV_OCSP_{name}"
    answer = pki.status(certificate_9e(shared_data, card), responder, revoked=True)
    crl = pki.crl(*([pki.certificate(responder).serial_number] if "Revoked" in name else []))
    assert ("CERT_REVOKED" in said_of_9e(shared_data, pki, card, [crl], [answer])) is believed


def test_card_58_is_revoked(shared_data: Path, pki: Pki) -> None:
    card = "58_Revoked_Card_Auth_Cert"
    certificate = certificate_9e(shared_data, card)
    assert certificate.serial_number == REVOKED_9E
    answer = pki.status(certificate, "ICAM_Test_Card_PIV_OCSP_Valid_Signer_gen3", revoked=True)
    assert "CERT_REVOKED" in said_of_9e(shared_data, pki, card, [pki.crl(REVOKED_9E)], [])
    assert "CERT_REVOKED" in said_of_9e(shared_data, pki, card, [pki.crl(1)], [answer])
    assert "CERT_REVOKED" not in said_of_9e(shared_data, pki, card, [pki.crl(1)], [])
