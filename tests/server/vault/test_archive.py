"""Escrowed keys and sealed values: bound to what they belong to, released within quotas."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from msgspec.structs import replace

from cardwright_cardops.secret import Secret
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.errors import VaultQuota, VaultRefused
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import (
    ArchiveContext,
    Authorization,
    CommitPurpose,
    DataClass,
    DataContext,
    EscrowAlgorithm,
    EscrowedKey,
    MasterPurpose,
    Wrapped,
)
from tests.support.vault import PASSPHRASE, openssl, run, spki, subject

ACTOR = Authorization("operator-1", "request-1")
PASSWORD = Secret(b"one-time pass")


def pkcs8(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def certificate_for(public: bytes) -> bytes:
    key = load_der_public_key(public)
    issuer = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject("Ada")).issuer_name(subject("cards")).serial_number(5)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=9))
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return builder.public_key(key).sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


def context_of(made: EscrowedKey) -> ArchiveContext:
    return ArchiveContext("org", "ada", made.public_key)


def reason(act: Any) -> str:
    with pytest.raises(VaultRefused) as caught:
        run(act)
    return caught.value.reason


@pytest.mark.parametrize("algorithm", EscrowAlgorithm)
def test_made_archived_and_recovered_to_a_card(core: VaultCore, algorithm: EscrowAlgorithm) -> None:
    vault = LocalVault(core)
    made = run(vault.generate_keypair_for_escrow(algorithm, "org", "ada"))
    key = load_der_private_key(run(vault.unwrap_for_card(made.wrapped, context_of(made), ACTOR)).reveal(), None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    assert spki(key.public_key()) == made.public_key
    assert f"{'rsa' if isinstance(key, rsa.RSAPrivateKey) else 'p'}{key.key_size}" == algorithm.value
    assert (made.wrapped.key, made.wrapped.version) == (MasterPurpose.ARCHIVE, 1)


def test_openssl_opens_the_pfx_and_decrypts_with_it(either: VaultCore, tmp_path: Path) -> None:
    vault = LocalVault(either)
    made = run(vault.generate_keypair_for_escrow(EscrowAlgorithm.RSA2048, "org", "ada"))
    certificate = certificate_for(made.public_key)
    bound = run(vault.bind_certificate(made.wrapped, context_of(made), certificate))
    context = replace(context_of(made), certificate=certificate)
    (tmp_path / "certificate.pem").write_bytes(x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM))
    message = openssl(
        *("cms", "-encrypt", "-aes256", "-outform", "DER", str(tmp_path / "certificate.pem")), data=b"to the old key"
    )
    pfx = run(vault.unwrap_for_pfx(bound, context, PASSWORD, ACTOR))
    (tmp_path / "file.pfx").write_bytes(pfx)
    information = openssl(
        *("pkcs12", "-in", str(tmp_path / "file.pfx"), "-info", "-nodes", "-passin", "stdin"),
        data=PASSWORD.reveal() + b"\n",
    )
    assert b"PBES2, PBKDF2, AES-256-CBC" in information and b"MAC: sha256" in information
    (tmp_path / "key.pem").write_bytes(information)
    opened = openssl(*("cms", "-decrypt", "-inform", "DER", "-inkey", str(tmp_path / "key.pem")), data=message)
    assert b"to the old key" in opened
    openssl("pkcs12", "-in", str(tmp_path / "file.pfx"), "-noout", "-passin", "stdin", data=b"wrong\n", ok=False)


def test_every_part_of_the_context_counts(core: VaultCore) -> None:
    vault = LocalVault(core)
    made = run(vault.generate_keypair_for_escrow(EscrowAlgorithm.P256, "org", "ada"))
    other = run(vault.generate_keypair_for_escrow(EscrowAlgorithm.P256, "org", "ada"))
    good = context_of(made)
    certificate = certificate_for(made.public_key)
    for context in (
        replace(good, organization="org2"),
        replace(good, owner="bob"),
        replace(good, organization="orga", owner="da"),
        replace(good, public_key=other.public_key),
        replace(good, certificate=certificate),
    ):
        assert reason(vault.unwrap_for_card(made.wrapped, context, ACTOR)) == "sealed"
    bound = run(vault.bind_certificate(made.wrapped, good, certificate))
    assert reason(vault.unwrap_for_card(bound, good, ACTOR)) == "sealed"
    assert run(vault.unwrap_for_card(bound, replace(good, certificate=certificate), ACTOR))


def test_every_flipped_bit_of_a_record_counts(core: VaultCore) -> None:
    vault = LocalVault(core)
    run(vault.admin(PASSPHRASE).set_limit("refused", Limit()))
    made = run(vault.generate_keypair_for_escrow(EscrowAlgorithm.P256, "org", "ada"))
    data = made.wrapped.data

    async def all_refused() -> int:
        refused = 0
        for position in range(0, len(data) * 8, 7):
            changed = bytearray(data)
            changed[position // 8] ^= 1 << position % 8
            try:
                await vault.bind_certificate(replace(made.wrapped, data=bytes(changed)), context_of(made), certificate)
            except VaultRefused as error:
                assert error.reason == "sealed"
                refused += 1
        return refused

    certificate = certificate_for(made.public_key)
    assert run(all_refused()) == len(range(0, len(data) * 8, 7))
    for wrapped in (
        Wrapped(MasterPurpose.ARCHIVE, 1, b""),
        Wrapped(MasterPurpose.ARCHIVE, 1, data[:40]),
        Wrapped(MasterPurpose.BIOMETRIC, 1, data),
    ):
        assert reason(vault.unwrap_for_card(wrapped, context_of(made), ACTOR)) == "sealed"
    assert reason(vault.unwrap_for_card(replace(made.wrapped, version=2), context_of(made), ACTOR)) == "master"


def test_old_records_open_after_rotation_until_their_master_is_destroyed(either: VaultCore, request: Any) -> None:
    vault = LocalVault(either)
    pin = PASSPHRASE if either.backend.name == "software" else request.getfixturevalue("softhsm").pin
    admin = vault.admin(pin)
    made = run(vault.generate_keypair_for_escrow(EscrowAlgorithm.P256, "org", "ada"))
    certificate = certificate_for(made.public_key)
    assert run(admin.rotate_master(MasterPurpose.ARCHIVE)) == 2
    bound = run(vault.bind_certificate(made.wrapped, context_of(made), certificate))
    assert bound.version == 2
    first = run(vault.unwrap_for_card(made.wrapped, context_of(made), ACTOR))
    run(admin.destroy_master(MasterPurpose.ARCHIVE, 1))
    assert reason(vault.unwrap_for_card(made.wrapped, context_of(made), ACTOR)) == "master"
    assert run(vault.unwrap_for_card(bound, replace(context_of(made), certificate=certificate), ACTOR)) == first
    assert reason(admin.destroy_master(MasterPurpose.ARCHIVE, 2)) == "master"


def test_imported_keys_are_archived_only_as_what_they_are(core: VaultCore) -> None:
    vault = LocalVault(core)
    key, other = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    context = ArchiveContext("org", "ada", spki(key.public_key()), certificate_for(spki(key.public_key())))
    wrapped = run(vault.wrap_for_archive(Secret(pkcs8(key)), context))
    assert run(vault.unwrap_for_card(wrapped, context, ACTOR)).reveal() == pkcs8(key)
    assert reason(vault.wrap_for_archive(Secret(pkcs8(other)), context)) == "public-key"
    elsewhere = replace(context, certificate=certificate_for(spki(other.public_key())))
    assert reason(vault.wrap_for_archive(Secret(pkcs8(key)), elsewhere)) == "certificate"
    ed = ed25519.Ed25519PrivateKey.generate()
    encrypted = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    small = rsa.generate_private_key(65537, 1024)
    odd = ec.generate_private_key(ec.SECP521R1())
    for content in (pkcs8(ed), encrypted, pkcs8(small), pkcs8(odd), b"", b"rubbish"):
        public = ed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert reason(vault.wrap_for_archive(Secret(content), ArchiveContext("org", "ada", public))) == "private-key"


def test_a_pfx_needs_a_certificate_and_releases_are_counted(core: VaultCore) -> None:
    vault = LocalVault(core)
    admin = vault.admin(PASSPHRASE)
    run(admin.set_limit("archive.pfx.owner", Limit(2, None)))
    run(admin.set_limit("archive.card.actor", Limit(1, None)))
    made = run(vault.generate_keypair_for_escrow(EscrowAlgorithm.P256, "org", "ada"))
    assert reason(vault.unwrap_for_pfx(made.wrapped, context_of(made), PASSWORD, ACTOR)) == "certificate"
    certificate = certificate_for(made.public_key)
    bound = run(vault.bind_certificate(made.wrapped, context_of(made), certificate))
    context = replace(context_of(made), certificate=certificate)
    for _ in range(2):
        run(vault.unwrap_for_pfx(bound, context, PASSWORD, ACTOR))
    with pytest.raises(VaultQuota) as caught:
        run(vault.unwrap_for_pfx(bound, context, PASSWORD, ACTOR))
    assert caught.value.limit == "archive.pfx.owner"
    run(vault.unwrap_for_card(bound, context, ACTOR))
    with pytest.raises(VaultQuota) as caught:
        run(vault.unwrap_for_card(bound, context, ACTOR))
    assert caught.value.limit == "archive.card.actor"


@pytest.mark.parametrize("kind", DataClass)
def test_sealed_data(either: VaultCore, kind: DataClass) -> None:
    vault = LocalVault(either)
    context = DataContext("org", "ada", "face")
    wrapped = run(vault.seal_data(kind, Secret(b"a face"), context))
    assert wrapped.key.value == kind.value
    assert run(vault.open_data(wrapped, context, ACTOR)) == Secret(b"a face")
    for other in (replace(context, owner="bob"), replace(context, name="finger"), replace(context, organization="x")):
        assert reason(vault.open_data(wrapped, other, ACTOR)) == "sealed"
    for key in MasterPurpose:
        if key is not wrapped.key:
            assert reason(vault.open_data(replace(wrapped, key=key), context, ACTOR)) == "sealed"
    again = run(vault.seal_data(kind, Secret(b"a face"), context))
    assert again.data != wrapped.data


def test_commitments(core: VaultCore) -> None:
    vault = LocalVault(core)
    values = [b"ada", b"bob", b"ada", b""]
    made = run(vault.hmac_commit(CommitPurpose.LOOKUP, values))
    assert [len(one) for one in made] == [32] * 4
    assert made[0] == made[2] and len(set(made)) == 3
    assert run(vault.hmac_commit(CommitPurpose.TOKEN, values))[0] != made[0]
    assert reason(vault.admin(PASSPHRASE).rotate_master(MasterPurpose.COMMIT)) == "purpose"
