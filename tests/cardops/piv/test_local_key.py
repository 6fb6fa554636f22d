"""A slot's key as a cryptography key: requests, certificates, CMS, TLS and decryption, judged by OpenSSL."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm as UnsupportedByCryptography
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7

from cardwright_cardops.iso7816.status import StatusError
from cardwright_cardops.piv import programs
from cardwright_cardops.piv.algorithms import Algorithm, PinPolicy, PublicKey, TouchPolicy, UnsupportedAlgorithm
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.local_key import NoKeyInSlot, open_key
from cardwright_cardops.piv.pins import FixedPins, LastTry, NoPin
from cardwright_cardops.piv.private_key import CardECKey, CardPrivateKey, CardRSAKey
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.signing import BlockTooLarge, DecryptionFailed, default_hash
from cardwright_cardops.program.items import ItemRefused, Program
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import Verify, VirtualCard
from tests.support.tls import say_over_tls
from tests.support.virtual import POOL, Bench, bench, default_management_key

SIGNING = [Algorithm.RSA2048, Algorithm.RSA3072, Algorithm.P256, Algorithm.P384, Algorithm.ED25519]
SHA256 = hashes.SHA256()
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Alice")])
ISSUER = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Issuer")])
NOW = datetime.now(UTC).replace(microsecond=0)


def made(on: Bench, slot: Slot, algorithm: Algorithm) -> PublicKey:
    """Have the card make a key."""

    def program() -> Program[PublicKey]:
        marks = yield from programs.read_marks("make")
        yield from programs.open_management([default_management_key(on.card.profile.name)], marks, "make")
        return (yield from programs.generate_key(slot, algorithm, PinPolicy.DEFAULT, TouchPolicy.DEFAULT, "make"))

    return run(program(), on.executor)


def stored(on: Bench, slot: Slot, certificate: x509.Certificate) -> None:
    """Write a certificate to the card."""

    def program() -> Program[None]:
        marks = yield from programs.read_marks("write")
        yield from programs.open_management([default_management_key(on.card.profile.name)], marks, "write")
        content = programs.certificate_content(certificate)
        yield from programs.write_object(slot.certificate_tag, content, "writing the certificate", "write")

    run(program(), on.executor)


def hash_for(algorithm: Algorithm) -> hashes.SHA256 | hashes.SHA384 | None:
    return None if algorithm is Algorithm.ED25519 else default_hash(algorithm)


def certificate_of(
    key: CardPrivateKey, signer: object, hashed: hashes.HashAlgorithm | None, issuer: x509.Name = NAME
) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, NAME, key.public_key(), 4711, NOW, NOW + timedelta(days=1))
    return builder.sign(signer, hashed)  # type: ignore[arg-type]


def openssl(*arguments: str | Path, given: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("algorithm", SIGNING, ids=lambda one: one.label)
def test_key_signs_requests_and_certificates(algorithm: Algorithm, tmp_path: Path) -> None:
    on = bench()
    public = made(on, Slot.SIGNATURE, algorithm)
    key = open_key(on.executor, Slot.SIGNATURE)
    assert key.public_key() == public
    request = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, hash_for(algorithm))  # type: ignore[arg-type]
    (tmp_path / "r.pem").write_bytes(request.public_bytes(Encoding.PEM))
    openssl("req", "-verify", "-noout", "-in", tmp_path / "r.pem")
    certificate = certificate_of(key, key, hash_for(algorithm))
    (tmp_path / "c.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    openssl("verify", "-check_ss_sig", "-CAfile", tmp_path / "c.pem", tmp_path / "c.pem")
    verified = [record for record in on.card.log if isinstance(record, Verify)]
    assert len(verified) == 2, "9C wants the PIN before each signature"


@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.P256, Algorithm.P384], ids=lambda one: one.label)
def test_key_signs_cms(algorithm: Algorithm, tmp_path: Path) -> None:
    on = bench()
    made(on, Slot.SIGNATURE, algorithm)
    key = open_key(on.executor, Slot.SIGNATURE)
    assert isinstance(key, CardRSAKey | CardECKey)
    certificate = certificate_of(key, key, hash_for(algorithm))
    (tmp_path / "c.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"the words").add_signer(certificate, key, default_hash(algorithm))
    for options in ([pkcs7.PKCS7Options.Binary], [pkcs7.PKCS7Options.NoAttributes, pkcs7.PKCS7Options.Binary]):
        message = builder.sign(Encoding.DER, options)
        arguments = ("cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-CAfile", tmp_path / "c.pem")
        assert openssl(*arguments, given=message) == b"the words"


@pytest.mark.parametrize("algorithm", SIGNING, ids=lambda one: one.label)
def test_key_authenticates_a_tls_client(algorithm: Algorithm, tmp_path: Path) -> None:
    on = bench()
    made(on, Slot.AUTHENTICATION, algorithm)
    key = open_key(on.executor, Slot.AUTHENTICATION)
    assert not isinstance(key, x25519.X25519PrivateKey)
    authority = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(ISSUER, ISSUER, authority.public_key(), 1, NOW, NOW + timedelta(days=1))
    root = builder.add_extension(x509.BasicConstraints(True, None), True).sign(authority, SHA256)
    certificate = certificate_of(key, authority, SHA256, ISSUER)
    (tmp_path / "server.pem").write_bytes(
        root.public_bytes(Encoding.PEM) + authority.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(cadata=root.public_bytes(Encoding.DER))
    context.verify_mode = ssl.CERT_REQUIRED
    seen, words = say_over_tls(context, certificate, key, b"it is me")
    assert (seen, words) == (certificate.public_bytes(Encoding.DER), b"it is me")
    made(on, Slot.AUTHENTICATION, algorithm)
    another = open_key(on.executor, Slot.AUTHENTICATION)
    assert not isinstance(another, x25519.X25519PrivateKey)
    with pytest.raises(ssl.SSLError, match=r"(?i)signature"):
        say_over_tls(context, certificate, another, b"it is not me")


@pytest.mark.parametrize("slot", [Slot.KEY_MANAGEMENT, Slot.RETIRED_20])
def test_rsa_key_decrypts(slot: Slot, tmp_path: Path) -> None:
    on = bench()
    made(on, slot, Algorithm.RSA2048)
    key = open_key(on.executor, slot)
    assert isinstance(key, CardRSAKey)
    for how in (
        padding.PKCS1v15(),
        padding.OAEP(padding.MGF1(SHA256), SHA256, None),
        padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA384(), b"label"),
    ):
        assert key.decrypt(key.public_key().encrypt(b"secret", how), how) == b"secret"
    with pytest.raises(DecryptionFailed):
        key.decrypt(
            key.public_key().encrypt(b"secret", padding.PKCS1v15()), padding.OAEP(padding.MGF1(SHA256), SHA256, None)
        )
    certificate = certificate_of(key, key, SHA256)
    (tmp_path / "c.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    sealed = openssl("cms", "-encrypt", "-binary", "-aes128", "-outform", "DER", tmp_path / "c.pem", given=b"the words")
    assert pkcs7.pkcs7_decrypt_der(sealed, certificate, key, []) == b"the words"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda one: one.name)
def test_ec_key_agrees(curve: ec.EllipticCurve) -> None:
    on = bench()
    made(on, Slot.KEY_MANAGEMENT, Algorithm.P256 if curve.key_size == 256 else Algorithm.P384)
    key = open_key(on.executor, Slot.KEY_MANAGEMENT)
    assert isinstance(key, CardECKey)
    other = ec.generate_private_key(curve)
    assert key.exchange(ec.ECDH(), other.public_key()) == other.exchange(ec.ECDH(), key.public_key())
    with pytest.raises(UnsupportedAlgorithm):
        key.exchange(ec.ECDH(), ec.generate_private_key(ec.SECP521R1()).public_key())


def test_x25519_key_agrees() -> None:
    on = bench()
    made(on, Slot.KEY_MANAGEMENT, Algorithm.X25519)
    key = open_key(on.executor, Slot.KEY_MANAGEMENT)
    assert isinstance(key, x25519.X25519PrivateKey)
    other = x25519.X25519PrivateKey.generate()
    assert key.exchange(other.public_key()) == other.exchange(key.public_key())


def test_signature_options_are_cryptographys() -> None:
    on = bench()
    made(on, Slot.AUTHENTICATION, Algorithm.RSA2048)
    key = open_key(on.executor, Slot.AUTHENTICATION)
    assert isinstance(key, CardRSAKey) and key.key_size == 2048
    for salt in (padding.PSS.DIGEST_LENGTH, padding.PSS.MAX_LENGTH, 20):
        how = padding.PSS(padding.MGF1(SHA256), salt)
        key.public_key().verify(key.sign(b"m", how, SHA256), b"m", how, SHA256)
    digest = hashes.Hash(SHA256)
    digest.update(b"m")
    signature = key.sign(digest.finalize(), padding.PKCS1v15(), Prehashed(SHA256))
    key.public_key().verify(signature, b"m", padding.PKCS1v15(), SHA256)
    used = len(on.card.log)
    with pytest.raises(BlockTooLarge):
        key.sign(b"m", padding.PKCS1v15(), hashes.BLAKE2s(32))
    with pytest.raises(UnsupportedAlgorithm):
        key.sign(b"m", padding.OAEP(padding.MGF1(SHA256), SHA256, None), SHA256)
    assert len(on.card.log) == used, "nothing reached the card"


@pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda one: one.label)
def test_key_is_never_exported(algorithm: Algorithm) -> None:
    on = bench()
    made(on, Slot.AUTHENTICATION, algorithm)
    key = open_key(on.executor, Slot.AUTHENTICATION)
    with pytest.raises(UnsupportedByCryptography):
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for way in {"private_numbers", "private_bytes_raw"} & set(dir(key)):
        with pytest.raises(UnsupportedByCryptography):
            getattr(key, way)()


def test_card_without_metadata_shows_the_key_by_its_certificate() -> None:
    on = bench("tdes-only")
    with pytest.raises(NoKeyInSlot):
        open_key(on.executor, Slot.AUTHENTICATION)
    public = made(on, Slot.AUTHENTICATION, Algorithm.P256)
    with pytest.raises(NoKeyInSlot):
        open_key(on.executor, Slot.AUTHENTICATION)
    given = open_key(on.executor, Slot.AUTHENTICATION, public)
    stored(on, Slot.AUTHENTICATION, certificate_of(given, given, SHA256))
    key = open_key(on.executor, Slot.AUTHENTICATION)
    assert isinstance(key, CardECKey) and key.public_key() == public
    key.public_key().verify(key.sign(b"m", ec.ECDSA(SHA256)), b"m", ec.ECDSA(SHA256))


def test_certificate_of_a_foreign_kind_of_key_is_refused() -> None:
    on = bench("tdes-only")
    foreign = ec.generate_private_key(ec.SECP521R1())
    builder = x509.CertificateBuilder(NAME, NAME, foreign.public_key(), 1, NOW, NOW + timedelta(days=1))
    stored(on, Slot.AUTHENTICATION, builder.sign(foreign, SHA256))
    with pytest.raises(UnsupportedAlgorithm):
        open_key(on.executor, Slot.AUTHENTICATION)


def test_card_authentication_key_needs_no_pin() -> None:
    on = bench(current=None)
    made(on, Slot.CARD_AUTHENTICATION, Algorithm.ED25519)
    key = open_key(on.executor, Slot.CARD_AUTHENTICATION, pin=None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    key.public_key().verify(key.sign(b"m"), b"m")
    with pytest.raises(NoPin):
        signing = open_key(on.executor, Slot.CARD_AUTHENTICATION)
        assert isinstance(signing, ed25519.Ed25519PrivateKey)
        signing.sign(b"m")


def test_wrong_pin_is_told_and_the_last_try_is_kept() -> None:
    on = bench(current=Secret(b"999999"))
    made(on, Slot.AUTHENTICATION, Algorithm.P256)
    key = open_key(on.executor, Slot.AUTHENTICATION)
    assert isinstance(key, CardECKey)
    for _ in range(2):
        with pytest.raises(StatusError, match="PIN"):
            key.sign(b"m", ec.ECDSA(SHA256))
    with pytest.raises(LastTry):
        key.sign(b"m", ec.ECDSA(SHA256))
    assert sum(isinstance(record, Verify) for record in on.card.log) == 2


def test_another_card_in_the_reader_gets_no_pin() -> None:
    class Reader:
        """Holds whichever card was put in last."""

        card = VirtualCard("yubikey-5.7", key_pool=POOL, serial=1)

        def __getattr__(self, name: str) -> object:
            return getattr(self.card, name)

    reader = Reader()
    keys = KeyItems(FixedPins(Secret(b"123456")), local=True)
    executor = LocalExecutor(DirectConnection(reader), keys)  # type: ignore[arg-type]
    on = Bench(reader.card, DirectConnection(reader), executor, keys)  # type: ignore[arg-type]
    made(on, Slot.AUTHENTICATION, Algorithm.P256)
    key = open_key(executor, Slot.AUTHENTICATION)
    assert isinstance(key, CardECKey)
    key.sign(b"m", ec.ECDSA(SHA256))
    reader.card = VirtualCard("yubikey-5.7", key_pool=POOL, serial=2)
    with pytest.raises(programs.AnotherCard):
        key.sign(b"m", ec.ECDSA(SHA256))
    assert not any(isinstance(record, Verify) for record in reader.card.log)


def test_not_every_executor_lends_its_keys() -> None:
    on = bench()
    made(on, Slot.AUTHENTICATION, Algorithm.RSA1024)
    on.keys._local = False
    key = open_key(on.executor, Slot.AUTHENTICATION)
    assert isinstance(key, rsa.RSAPrivateKey)
    with pytest.raises(ItemRefused):
        key.sign(b"m", padding.PKCS1v15(), SHA256)
