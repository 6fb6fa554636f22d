"""CRLs and OCSP responses: only for the vault's CAs, only about now, numbers only rise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from cardwright_server.vault.errors import VaultRefused
from cardwright_server.vault.model import KeyRole
from cardwright_server.vault.revocation import check_crl, check_response
from cardwright_server.vault.signing import VaultKey, build_crl, build_ocsp
from tests.support.vault import Pki, leaf, openssl, public_of, run, subject, tbs_of

KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
HOUR = timedelta(hours=1)
Builder = x509.CertificateRevocationListBuilder


def crl_builder(pki: Pki, number: int | None = 1, ca: str = "cards", **changes: Any) -> Builder:
    key = pki.certificates["cards"].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    begin = changes.get("begin", pki.clock.moment)
    builder = (
        Builder()
        .issuer_name(subject(ca))
        .last_update(begin)
        .next_update(begin + timedelta(hours=changes.get("hours", 48)))
        .add_extension(
            changes.get("authority", x509.AuthorityKeyIdentifier.from_issuer_public_key(key)), critical=False
        )
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for extension, critical in changes.get("extensions", ()):
        builder = builder.add_extension(extension, critical=critical)
    for entry in changes.get("entries", (revoked(pki),)):
        builder = builder.add_revoked_certificate(entry)
    return builder


def revoked(pki: Pki, *extensions: x509.ExtensionType) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(77).revocation_date(pki.clock.moment)
    for one in extensions or (x509.CRLReason(x509.ReasonFlags.certificate_hold),):
        builder = builder.add_extension(one, critical=False)
    return builder.build()


def crl_tbs(pki: Pki, *arguments: Any, **changes: Any) -> bytes:
    return tbs_of(crl_builder(pki, *arguments, **changes), run(pki.vault.public_key("cards")))


def test_openssl_verifies_a_crl(pki: Pki, tmp_path: Path) -> None:
    def build(key: VaultKey) -> x509.CertificateRevocationList:
        return crl_builder(pki).sign(key, hashes.SHA256())

    crl = run(build_crl(pki.vault, "cards", build))
    (tmp_path / "crl.der").write_bytes(crl.public_bytes(Encoding.DER))
    (tmp_path / "ca.pem").write_bytes(pki.certificates["cards"].public_bytes(Encoding.PEM))
    said = openssl(
        *("crl", "-in", str(tmp_path / "crl.der"), "-inform", "DER"),
        *("-CAfile", str(tmp_path / "ca.pem"), "-noout", "-crlnumber"),
    )
    assert b"verify OK" in said and b"crlNumber=0x01" in said.replace(b"=1\n", b"=0x01\n")


def test_numbers_only_rise(pki: Pki) -> None:
    first, second, other = crl_tbs(pki, 5), crl_tbs(pki, 6), crl_tbs(pki, 6, hours=47)
    for good in (first, first, second, second):
        run(pki.vault.sign_crl("cards", good))
    for bad in (first, other, crl_tbs(pki, 1)):
        with pytest.raises(VaultRefused) as caught:
            run(pki.vault.sign_crl("cards", bad))
        assert caught.value.reason == "crl-number"
    assert run(pki.vault.status()).crl_numbers == {"cards": 6}


BAD_CRLS: dict[str, tuple[str, Callable[[Pki], dict[str, Any]]]] = {
    "issuer": ("issuer", lambda pki: {"ca": "root"}),
    "long ago": ("time", lambda pki: {"begin": pki.clock.moment - 2 * HOUR}),
    "later": ("time", lambda pki: {"begin": pki.clock.moment + HOUR}),
    "too long": ("validity", lambda pki: {"hours": 41 * 24}),
    "another key": ("key-id", lambda pki: {"authority": x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY)}),
    "no number": ("extension", lambda pki: {"number": None}),
    "delta": ("extension", lambda pki: {"extensions": ((x509.DeltaCRLIndicator(1), True),)}),
    "freshest": (
        "extension",
        lambda pki: {
            "extensions": (
                (
                    x509.FreshestCRL(
                        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://x.test")], None, None, None)]
                    ),
                    False,
                ),
            )
        },
    ),
    "indirect": (
        "extension",
        lambda pki: {
            "extensions": ((x509.IssuingDistributionPoint(None, None, False, False, None, True, False), True),)
        },
    ),
    "entry of another issuer": (
        "extension",
        lambda pki: {"entries": (revoked(pki, x509.CertificateIssuer([x509.DirectoryName(subject("root"))])),)},
    ),
}


@pytest.mark.parametrize("name", BAD_CRLS)
def test_one_wrong_field_of_a_crl(pki: Pki, name: str) -> None:
    expected, changes = BAD_CRLS[name]
    with pytest.raises(VaultRefused) as caught:
        run(pki.vault.sign_crl("cards", crl_tbs(pki, **{"number": 1, **changes(pki)})))
    assert caught.value.reason == expected
    assert run(pki.vault.status()).crl_numbers == {}


def test_only_a_ca_signs_crls(pki: Pki) -> None:
    for name in ("ocsp", "content", "audit", "nobody"):
        with pytest.raises(VaultRefused) as caught:
            run(pki.vault.sign_crl(name, crl_tbs(pki)))
        assert caught.value.reason == "key"
    with pytest.raises(VaultRefused):
        run(pki.vault.sign_crl("root", crl_tbs(pki)))


def fixed_part(content: bytes) -> bytes:
    value = asn1_crl.TbsCertList.load(content, strict=True)
    extensions = [one.dump() for one in value["crl_extensions"] if one["extn_id"].native != "crl_number"]
    kinds = [one["extn_id"].dump() for entry in value["revoked_certificates"] for one in entry["crl_entry_extensions"]]
    return b"|".join((value["signature"].dump(), value["issuer"].dump(), *extensions, *kinds))


def test_every_flipped_bit_of_a_crl_is_refused_or_leaves_what_counts(pki: Pki) -> None:
    good, info = crl_tbs(pki), run(pki.vault.public_key("cards"))
    kept = 0
    for position in range(len(good) * 8):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        try:
            check_crl(bytes(changed), info, pki.clock.moment)
        except VaultRefused:
            continue
        kept += 1
        # Free: times within bounds, the number, and the list of revoked certificates.
        assert fixed_part(bytes(changed)) == fixed_part(good)
    assert 0 < kept < len(good) * 4


# ------------------------------------------------------------------------------------------------------ OCSP


def issued(pki: Pki) -> x509.Certificate:
    return run(
        pki.certify("cards", "piv-authentication", tbs_of(leaf(pki, KEY).builder(), run(pki.vault.public_key("cards"))))
    )


def response_builder(pki: Pki, certificate: x509.Certificate, **changes: Any) -> ocsp.OCSPResponseBuilder:
    begin = changes.get("begin", pki.clock.moment)
    builder = ocsp.OCSPResponseBuilder().add_response(
        certificate,
        changes.get("issuer", pki.certificates["cards"]),
        changes.get("algorithm", hashes.SHA1()),
        ocsp.OCSPCertStatus.GOOD,
        begin,
        begin + timedelta(hours=changes["hours"]) if changes.get("hours", 24) else None,
        None,
        None,
    )
    for extension, critical in changes.get("extensions", ()):
        builder = builder.add_extension(extension, critical)
    return builder


def responder(pki: Pki) -> x509.Certificate:
    key = public_of(run(pki.vault.public_key("ocsp")))
    extensions = ((x509.ExtendedKeyUsage([x509.OID_OCSP_SIGNING]), False), (x509.OCSPNoCheck(), False))
    content = leaf(pki, key, subject=subject("ocsp"), days=30, extensions=extensions)
    return run(pki.certify("cards", "ocsp", tbs_of(content.builder(), run(pki.vault.public_key("cards")))))


def response_tbs(pki: Pki, certificate: x509.Certificate, **changes: Any) -> bytes:
    encoding = changes.pop("encoding", ocsp.OCSPResponderEncoding.HASH)
    builder = response_builder(pki, certificate, **{"hours": 24, **changes})
    return tbs_of(builder.responder_id(encoding, responder(pki)), run(pki.vault.public_key("ocsp")))


@pytest.mark.parametrize("encoding", ocsp.OCSPResponderEncoding)
def test_openssl_verifies_a_response(pki: Pki, tmp_path: Path, encoding: ocsp.OCSPResponderEncoding) -> None:
    certificate, signer = issued(pki), responder(pki)

    def build(key: VaultKey) -> ocsp.OCSPResponse:
        builder = response_builder(pki, certificate, hours=24, extensions=((x509.OCSPNonce(bytes(32)), False),))
        return builder.responder_id(encoding, signer).certificates([signer]).sign(key, hashes.SHA256())

    response = run(build_ocsp(pki.vault, "ocsp", build))
    (tmp_path / "response.der").write_bytes(response.public_bytes(Encoding.DER))
    for name, one in (*pki.certificates.items(), ("leaf", certificate)):
        (tmp_path / f"{name}.pem").write_bytes(one.public_bytes(Encoding.PEM))
    said = openssl(
        *("ocsp", "-respin", str(tmp_path / "response.der"), "-no_nonce", "-attime", str(int(pki.clock.now) + 5)),
        *("-issuer", str(tmp_path / "cards.pem"), "-cert", str(tmp_path / "leaf.pem")),
        *("-CAfile", str(tmp_path / "root.pem"), "-verify_other", str(tmp_path / "cards.pem")),
        *("-validity_period", str(10**9)),
    )
    assert b"Response verify OK" in said and b"leaf.pem: good" in said


def test_many_responses_at_once_all_or_none(pki: Pki) -> None:
    certificate = issued(pki)
    good = response_tbs(pki, certificate)
    signatures = run(pki.vault.sign_ocsp("ocsp", [good] * 100))
    assert len(signatures) == 100
    key = public_of(run(pki.vault.public_key("ocsp")))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for signature in signatures:
        key.verify(signature, good, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(VaultRefused):
        run(pki.vault.sign_ocsp("ocsp", [good, response_tbs(pki, certificate, hours=24 * 11)]))


BAD_RESPONSES: dict[str, tuple[str, Callable[[Pki], dict[str, Any]]]] = {
    "foreign issuer": ("issuer", lambda pki: {"issuer": issued(pki)}),
    "hash that nobody asks for": ("issuer", lambda pki: {"algorithm": hashes.SHA512()}),
    "long ago": ("time", lambda pki: {"begin": pki.clock.moment - 2 * HOUR}),
    "later": ("time", lambda pki: {"begin": pki.clock.moment + HOUR}),
    "too long": ("validity", lambda pki: {"hours": 24 * 11}),
    "without an end": ("validity", lambda pki: {"hours": 0}),
    "long nonce": ("extension", lambda pki: {"extensions": ((x509.OCSPNonce(bytes(129)), False),)}),
    "critical nonce": ("extension", lambda pki: {"extensions": ((x509.OCSPNonce(bytes(16)), True),)}),
    "another extension": (
        "extension",
        lambda pki: {"extensions": ((x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), b"\5\0"), False),)},
    ),
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_one_wrong_field_of_a_response(pki: Pki, name: str) -> None:
    expected, changes = BAD_RESPONSES[name]
    with pytest.raises(VaultRefused) as caught:
        run(pki.vault.sign_ocsp("ocsp", [response_tbs(pki, issued(pki), **changes(pki))]))
    assert caught.value.reason == expected


def test_only_the_responder_signs_and_only_as_itself(pki: Pki) -> None:
    run(pki.key("ocsp2", KeyRole.OCSP))
    good = response_tbs(pki, issued(pki))
    by_name = response_tbs(pki, issued(pki), encoding=ocsp.OCSPResponderEncoding.NAME)
    for name, expected in (("cards", "key"), ("content", "key"), ("ocsp2", "responder")):
        for content in (good, by_name):
            with pytest.raises(VaultRefused) as caught:
                run(pki.vault.sign_ocsp(name, [content]))
            assert caught.value.reason == expected


def test_every_flipped_bit_of_a_response_is_refused_or_leaves_what_counts(pki: Pki) -> None:
    good, info = response_tbs(pki, issued(pki)), run(pki.vault.public_key("ocsp"))
    document = pki.core.document
    assert document is not None
    cas = document.with_role(KeyRole.ROOT, KeyRole.ISSUING)
    original = asn1_ocsp.ResponseData.load(good)
    kept = 0
    for position in range(len(good) * 8):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        try:
            check_response(bytes(changed), info, cas, pki.clock.moment)
        except VaultRefused:
            continue
        kept += 1
        # Free: times within bounds, serial number and status.
        parsed = asn1_ocsp.ResponseData.load(bytes(changed), strict=True)
        assert parsed["responder_id"].dump() == original["responder_id"].dump()
        [one], [before] = parsed["responses"], original["responses"]
        for field in ("hash_algorithm", "issuer_name_hash", "issuer_key_hash"):
            assert one["cert_id"][field].dump() == before["cert_id"][field].dump()
    assert 0 < kept < len(good) * 4
