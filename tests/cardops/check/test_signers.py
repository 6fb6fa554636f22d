"""Signatures that hold but should not have been made that way, and certificates signed too weakly or by nobody."""

from __future__ import annotations

from dataclasses import replace

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check import Level, check
from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.piv import containers, signed
from cardwright_cardops.piv.content_signing import sign_biometric
from cardwright_cardops.piv.objects import BiometricObject, CertificateObject, SecurityObject
from tests.support.card_changes import CHUID, FINGER, SECURITY
from tests.support.piv_card import AT, FASCN, GUID, PivCard, crl, key


class WeakSigner(signed.Signer):
    """Signs with SHA-1."""

    @property
    def digest(self) -> str:
        return "sha1"


def codes(card: PivCard, *more: x509.Certificate) -> set[tuple[str, str]]:
    data = card.data()
    trust = [*card.trust, *more]
    report = check(data, level=Level.PIV, at=AT, trust=trust, crls=[crl("CA"), crl("Root")])
    return {(finding.code, finding.object) for finding in report.findings}


def test_sha1_is_said_of_the_object_it_signs() -> None:
    card = PivCard()

    def edit(built: dict[int, bytes]) -> None:
        items = {item.tag: item.value for item in tlv.parse_all(built[CHUID])}
        content = b"".join(tlv.encode(tag, value) for tag, value in items.items() if tag != 0x3E)
        weak = WeakSigner(card.issued["signer"], key("Content Signer"))
        items[0x3E] = signed.sign_detached(content, signed.CHUID_CONTENT, weak)
        built[CHUID] = b"".join(tlv.encode(tag, value) for tag, value in items.items())

    card.before_hashing = edit
    assert codes(card) == {("SIGNATURE_ALGORITHM_WEAK", "5FC102")}


def test_a_signed_name_that_is_not_the_signers() -> None:
    card = PivCard()
    card.profiles["signer"] = replace(card.profiles["signer"], serial=4711)

    def edit(built: dict[int, bytes]) -> None:
        alias = replace(card.profiles["signer"], subject="Somebody Else").make()
        record = BiometricObject.decode(built[FINGER])
        signer = signed.Signer(alias, key("Content Signer"))
        built[FINGER] = sign_biometric(record.header, record.data, signer, fascn=FASCN, uuid=GUID).encode()

    card.before_hashing = edit
    assert codes(card) == {("SIGNER_DN_MISMATCH", "5FC103")}


def test_a_signer_on_p521() -> None:
    card = PivCard()
    card.profiles["signer"] = replace(card.profiles["signer"], subject="P-521", public="P-521")
    assert codes(card) == {("CONTENT_SIGNER_KEY", "5FC102")}


def test_a_security_object_of_another_signer() -> None:
    card = PivCard()
    second = replace(card.profiles["signer"], subject="Second", public="Second").make()

    def edit(built: dict[int, bytes | None]) -> None:
        seen = SecurityObject.decode(containers.unwrap(SECURITY, built[SECURITY] or b""))
        content = signed.read(seen.signed).content or b""
        der = signed.sign_attached(content, signed.LDS_CONTENT, signed.Signer(second, key("Second")))
        built[SECURITY] = containers.wrap(SECURITY, SecurityObject(seen.groups, der).encode())

    card.late = edit
    assert codes(card) == {("SIGNATURE_INVALID", "5FC106")}
    assert codes(card, second) == {("CONTENT_SIGNER_DIFFERS", "5FC106")}


def resign(certificate: x509.Certificate, algorithm: str, digest: hashes.HashAlgorithm, by: str) -> bytes:
    """The certificate signed again by another key or with another hash."""
    seen = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    tbs = seen["tbs_certificate"]
    tbs["signature"] = {"algorithm": algorithm}
    signature = key(by).sign(tbs.dump(force=True), ec.ECDSA(digest))
    made = asn1_x509.Certificate(
        {"tbs_certificate": tbs, "signature_algorithm": {"algorithm": algorithm}, "signature_value": signature}
    )
    return bytes(made.dump())


def test_certificates_signed_with_sha1_or_by_another() -> None:
    weak, forged = PivCard(), PivCard()
    weak.before_hashing = lambda built: built.update(
        {0x5FC10A: CertificateObject(resign(weak.issued["9C"], "sha1_ecdsa", hashes.SHA1(), "CA")).encode()}
    )
    assert codes(weak) == {("CERT_SIGNATURE_WEAK", "5FC10A"), ("CERT_PATH_INVALID", "5FC10A")}
    forged.before_hashing = lambda built: built.update(
        {0x5FC10A: CertificateObject(resign(forged.issued["9C"], "sha256_ecdsa", hashes.SHA256(), "Mallory")).encode()}
    )
    assert codes(forged) == {("CERT_PATH_INVALID", "5FC10A")}
