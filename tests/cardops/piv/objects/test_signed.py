"""SignedData made by us holds before openssl, and every tampering is found with its own reason."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.asn1 import MalformedAsn1
from cardwright_cardops.piv import signed
from cardwright_cardops.piv.signed import CHUID_CONTENT, LDS_CONTENT, SignatureRefused, Signer, SigningKey

FASCN = bytes(range(25))
CARD = UUID("12345678-1234-4234-8234-123456789abc")
CONTENT = b"what the issuer says"


def certificate(key: SigningKey, serial: int = 1000) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Content Signer")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9000))
        .sign(key, hashes.SHA256())
    )


RSA_KEY = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, tuple[SigningKey, bool, tuple[str, str]]] = {
    "rsa": (RSA_KEY, False, ("rsassa_pkcs1v15", "sha256")),
    "pss": (RSA_KEY, True, ("rsassa_pss", "sha256")),
    "p256": (ec.generate_private_key(ec.SECP256R1()), False, ("ecdsa", "sha256")),
    "p384": (ec.generate_private_key(ec.SECP384R1()), False, ("ecdsa", "sha384")),
}
SIGNERS = {name: Signer(certificate(key), key, pss) for name, (key, pss, _) in KEYS.items()}


def openssl_verify(folder: Path, message: bytes, signer: Signer, content: bytes | None) -> bytes:
    (folder / "message").write_bytes(message)
    (folder / "signer.pem").write_bytes(signer.certificate.public_bytes(Encoding.PEM))
    command = [
        "openssl", "cms", "-verify", "-inform", "DER", "-in", "message", "-binary", "-certfile", "signer.pem",
        "-CAfile", "signer.pem", "-purpose", "any", "-no_check_time", "-out", "out",
    ]  # fmt: skip
    if content is not None:
        (folder / "content").write_bytes(content)
        command += ["-content", "content"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "out").read_bytes()


@pytest.mark.parametrize("name", KEYS)
def test_openssl_accepts_detached_and_attached(name: str, tmp_path: Path) -> None:
    signer = SIGNERS[name]
    detached = signed.sign_detached(CONTENT, CHUID_CONTENT, signer, fascn=FASCN, uuid=CARD)
    assert openssl_verify(tmp_path, detached, signer, CONTENT) == CONTENT
    attached = signed.sign_attached(CONTENT, LDS_CONTENT, signer)
    assert openssl_verify(tmp_path, attached, signer, None) == CONTENT


@pytest.mark.parametrize("name", KEYS)
def test_what_was_signed_is_read_back(name: str) -> None:
    signer = SIGNERS[name]
    der = signed.sign_detached(CONTENT, CHUID_CONTENT, signer, fascn=FASCN, uuid=CARD)
    seen, found = signed.verify(der, CHUID_CONTENT, content=CONTENT, fascn=FASCN, uuid=CARD)
    assert found == signer.certificate
    assert (seen.signature_algorithm, seen.digest) == KEYS[name][2]
    assert (seen.version, seen.signers, seen.has_crls, seen.content) == (3, 1, False, None)
    assert seen.digest_algorithms == (seen.digest,)
    assert (seen.fascn, seen.uuid) == (FASCN, CARD.bytes)
    attached = signed.sign_attached(CONTENT, LDS_CONTENT, signer)
    seen, _ = signed.verify(attached, LDS_CONTENT, certificates=[signer.certificate])
    assert (seen.content, seen.certificates, len(seen.attributes)) == (CONTENT, (), 3)


def refused(der: bytes, **changes: object) -> str:
    arguments: dict[str, object] = {"content": CONTENT} | changes
    content_type = str(arguments.pop("content_type", CHUID_CONTENT))
    with pytest.raises(SignatureRefused) as caught:
        signed.verify(der, content_type, **arguments)  # type: ignore[arg-type]
    return caught.value.reason


def test_each_fault_has_its_reason() -> None:
    signer = SIGNERS["p256"]
    der = signed.sign_detached(CONTENT, CHUID_CONTENT, signer, fascn=FASCN, uuid=CARD)
    assert refused(der, content=CONTENT + b"!") == "digest"
    assert refused(der, content=None) == "content"
    assert refused(der, content_type=LDS_CONTENT) == "content-type"
    assert refused(der, fascn=bytes(25)) == "attributes"
    assert refused(der, uuid=UUID(int=1)) == "attributes"
    assert refused(signed.sign_detached(CONTENT, CHUID_CONTENT, signer), uuid=CARD) == "attributes"
    bare = signed.sign_detached(CONTENT, CHUID_CONTENT, signer, include_certificate=False)
    assert refused(bare) == "signer"
    assert refused(bare, certificates=[certificate(RSA_KEY, serial=9)]) == "signer"
    other = ec.generate_private_key(ec.SECP256R1())
    assert refused(bare, certificates=[certificate(other)]) == "signature"
    assert refused(bare, certificates=[certificate(RSA_KEY)]) == "signature"
    attached = signed.sign_attached(CONTENT, CHUID_CONTENT, signer, include_certificate=True)
    assert refused(attached) == "content"


def test_two_signers_are_one_too_many() -> None:
    info = cms.ContentInfo.load(signed.sign_detached(CONTENT, CHUID_CONTENT, SIGNERS["p256"]))
    infos = info["content"]["signer_infos"]
    second = cms.ContentInfo.load(signed.sign_detached(CONTENT, CHUID_CONTENT, SIGNERS["p384"]))
    both = sorted([infos[0], second["content"]["signer_infos"][0]], key=lambda one: one.dump())
    info["content"]["signer_infos"] = cms.SignerInfos(both)
    assert refused(info.dump()) == "signers"


UNCHANGED = signed.sign_detached(CONTENT, CHUID_CONTENT, SIGNERS["p256"], include_certificate=False)


@given(st.data())
def test_no_changed_octet_passes_as_the_same_statement(data: st.DataObject) -> None:
    signer = SIGNERS["p256"]
    der = bytearray(UNCHANGED)
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        seen, _ = signed.verify(bytes(der), CHUID_CONTENT, content=CONTENT, certificates=[signer.certificate])
    except (MalformedAsn1, SignatureRefused):
        return
    assert seen.digest_matches(CONTENT)
    assert seen.signature_verifies(signer.certificate, CONTENT)


@given(st.binary(max_size=300))
def test_noise_is_no_signed_data(raw: bytes) -> None:
    with pytest.raises(MalformedAsn1):
        signed.read(raw)
