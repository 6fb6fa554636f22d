"""ykcs11 and OpenSC's module over pcscd and the virtual card; its own log and yubico-piv-tool are the judges."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.pkcs11 import (
    Deadlines,
    KeyAlgorithm,
    LoginState,
    Module,
    PinState,
    Token,
    TokenEcKey,
    TokenRsaKey,
    User,
)
from cardwright_cardops.pkcs11.errors import (
    NotLoggedIn,
    ObjectExists,
    PinIncorrect,
    PinLastTry,
    PinLength,
    PinLocked,
    Pkcs11Error,
    TokenRemoved,
    UnsupportedByToken,
)
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import KeyUse, Verify, Write
from tests.cardops.pkcs11.support import certificate_for
from tests.support.pcscd import Pcscd
from tests.support.virtual import NEW_PIN, NEW_PUK, PIN, POOL, PUK

pytestmark = [
    pytest.mark.pcscd,
    # ykcs11 gives its placeholder certificates the serial number 0.
    pytest.mark.filterwarnings("ignore:Parsed a serial number"),
]

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
DEFAULT_SO_PIN = Secret(b"010203040506070801020304050607080102030405060708")
NEW_SO_PIN = Secret(b"a1a2a3a4a5a6a7a8b1b2b3b4b5b6b7b8c1c2c3c4c5c6c7c8")
WRONG = Secret(b"999999")
ECDSA = ec.ECDSA(hashes.SHA256())


def library(name: str) -> Path:
    found = LIBRARIES / name
    if not found.exists():
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def card() -> VirtualCard:
    return VirtualCard("yubikey-5.4", key_pool=POOL)


@pytest.fixture
def reader(pcscd: Pcscd, card: VirtualCard) -> str:
    return pcscd.insert(card)


@pytest.fixture
def ykcs11(reader: str) -> Iterator[Module]:
    with Module(library("libykcs11.so.2"), deadlines=Deadlines(generation=60)) as module:
        yield module


@pytest.fixture
def yubikey(ykcs11: Module) -> Token:
    """The card through ykcs11."""
    (token,) = ykcs11.tokens()
    return token


def verifies(card: VirtualCard) -> int:
    return sum(isinstance(record, Verify) for record in card.log)


def writes(card: VirtualCard) -> list[Write]:
    return [record for record in card.log if isinstance(record, Write)]


def piv_tool(*arguments: str) -> bytes:
    return subprocess.run(["yubico-piv-tool", *arguments], check=True, capture_output=True).stdout


def test_ykcs11_generates_and_every_key_works(yubikey: Token, card: VirtualCard) -> None:
    assert yubikey.capabilities.algorithms == (
        KeyAlgorithm.RSA_1024,
        KeyAlgorithm.RSA_2048,
        KeyAlgorithm.P256,
        KeyAlgorithm.P384,
    )
    with pytest.raises(NotLoggedIn):
        yubikey.generate(yubikey.id_of(0x9A), KeyAlgorithm.P256)
    yubikey.login(DEFAULT_SO_PIN, User.SO)
    assert yubikey.login_state() is LoginState.SO
    entry = yubikey.generate(yubikey.id_of(0x9A), KeyAlgorithm.P256)
    assert (entry.key_reference, entry.generated, entry.id) == (0x9A, True, b"\x01")
    yubikey.generate(yubikey.id_of(0x9C), KeyAlgorithm.RSA_2048)
    yubikey.logout()
    yubikey.login(PIN)
    signer = yubikey.private_key(b"\x01")
    assert isinstance(signer, TokenEcKey)
    signer.public_key().verify(signer.sign(b"x", ECDSA), b"x", ECDSA)
    other = ec.generate_private_key(ec.SECP256R1())
    assert signer.exchange(ec.ECDH(), other.public_key()) == other.exchange(ec.ECDH(), signer.public_key())
    always = yubikey.private_key(b"\x02", pin=lambda: PIN)
    assert isinstance(always, TokenRsaKey) and always.entry.always_authenticate
    before = verifies(card)
    for scheme in (padding.PKCS1v15(), padding.PSS(padding.MGF1(hashes.SHA256()), 32)):
        signature = always.sign(b"x", scheme, hashes.SHA256())
        always.public_key().verify(signature, b"x", scheme, hashes.SHA256())
    assert verifies(card) == before + 2, "one VERIFY for each use of 9C"
    assert {record.slot for record in card.log if isinstance(record, KeyUse)} >= {0x9A, 0x9C}


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_ykcs11_imports_key_and_certificate(yubikey: Token, card: VirtualCard, kind: str) -> None:
    curve = ec.SECP384R1() if kind == "p384" else ec.SECP256R1()
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(curve)
    certificate = certificate_for(key.public_key(), key)
    yubikey.login(DEFAULT_SO_PIN, User.SO)
    yubikey.import_key(yubikey.id_of(0x9D), key, certificate)
    assert Write("key imported", 0x9D) in writes(card)
    read = x509.load_pem_x509_certificate(piv_tool("-aread-certificate", "-s9d"))
    assert read == certificate
    before = len(writes(card))
    with pytest.raises(ObjectExists):
        yubikey.import_key(yubikey.id_of(0x9D), key, certificate)
    with pytest.raises(ObjectExists):
        yubikey.generate(yubikey.id_of(0x9D), KeyAlgorithm.P256)
    assert len(writes(card)) == before
    yubikey.logout()
    yubikey.login(PIN)
    used = yubikey.private_key(yubikey.id_of(0x9D))
    if isinstance(used, TokenEcKey) and isinstance(key, ec.EllipticCurvePrivateKey):
        other = ec.generate_private_key(key.curve)
        assert used.exchange(ec.ECDH(), other.public_key()) == other.exchange(ec.ECDH(), key.public_key())
    else:
        assert isinstance(used, TokenRsaKey) and isinstance(key, rsa.RSAPrivateKey)
        wrapped = key.public_key().encrypt(b"secret", padding.PKCS1v15())
        assert used.decrypt(wrapped, padding.PKCS1v15()) == b"secret"


def test_ykcs11_deletes_a_certificate_and_never_a_key(yubikey: Token, card: VirtualCard) -> None:
    yubikey.login(DEFAULT_SO_PIN, User.SO)
    yubikey.generate(b"\x01", KeyAlgorithm.P256)
    before = writes(card)
    with pytest.raises(UnsupportedByToken, match="certificate instead"):
        yubikey.delete_key(b"\x01")
    inventory = yubikey.inventory()
    attested = next(entry for entry in inventory.certificates if entry.attestation)
    with pytest.raises(UnsupportedByToken, match="Attestation"):
        yubikey.delete_certificate(attested)
    assert writes(card) == before
    certificate = inventory.certificate(b"\x01")
    assert certificate is not None and not certificate.attestation
    yubikey.delete_certificate(certificate)
    assert yubikey.inventory().certificate(b"\x01") is None
    assert not any("key deleted" in record.kind for record in writes(card))


def test_ykcs11_guards_the_last_try_and_unlocks_with_the_puk(yubikey: Token, card: VirtualCard) -> None:
    for expected in (PinState.COUNT_LOW, PinState.FINAL_TRY):
        with pytest.raises(PinIncorrect):
            yubikey.login(WRONG)
        assert yubikey.pin_state() is expected
    before = verifies(card)
    with pytest.raises(PinLastTry):
        yubikey.login(PIN)
    with pytest.raises(PinLastTry):
        yubikey.change_pin(PIN, NEW_PIN)
    assert verifies(card) == before, "nothing was sent"
    with pytest.raises(PinIncorrect):
        yubikey.login(WRONG, spend_last_try=True)
    assert yubikey.pin_state() is PinState.LOCKED
    with pytest.raises(PinLocked):
        yubikey.login(PIN, spend_last_try=True)
    assert verifies(card) == before + 1
    with pytest.raises(PinIncorrect):
        yubikey.unlock(Secret(b"00000000"), NEW_PIN)
    yubikey.unlock(PUK, NEW_PIN)
    assert yubikey.pin_state() is PinState.GOOD
    yubikey.login(NEW_PIN)


def test_ykcs11_sees_tries_that_another_program_spent(yubikey: Token) -> None:
    assert yubikey.pin_state() is PinState.GOOD
    for _ in range(2):
        subprocess.run(["yubico-piv-tool", "-averify-pin", "-P999999"], check=False, capture_output=True)
    with pytest.raises(PinLastTry):
        yubikey.login(PIN)


def test_ykcs11_changes_pin_puk_and_management_key(yubikey: Token) -> None:
    yubikey.change_pin(PIN, NEW_PIN)
    piv_tool("-averify-pin", f"-P{NEW_PIN.reveal().decode()}")
    yubikey.change_puk(PUK, NEW_PUK)
    with pytest.raises(PinIncorrect):
        yubikey.unlock(PUK, PIN)
    yubikey.unlock(NEW_PUK, PIN)
    piv_tool("-averify-pin", f"-P{PIN.reveal().decode()}")
    yubikey.change_so_pin(DEFAULT_SO_PIN, NEW_SO_PIN)
    with pytest.raises(PinIncorrect):
        yubikey.login(DEFAULT_SO_PIN, User.SO)
    piv_tool("-aset-chuid", f"-k{NEW_SO_PIN.reveal().decode()}")
    with pytest.raises(PinLength):
        yubikey.change_pin(PIN, Secret(b"12345"))


def test_ykcs11_user_login_does_not_write(yubikey: Token, card: VirtualCard) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    yubikey.login(PIN)
    before = writes(card)
    with pytest.raises(NotLoggedIn):
        yubikey.write_certificate(b"\x01", certificate_for(key.public_key(), key))
    with pytest.raises(UnsupportedByToken, match="slot"):
        yubikey.write_certificate(b"\x99", certificate_for(key.public_key(), key))
    assert writes(card) == before


def test_ykcs11_removed_and_put_back(yubikey: Token, card: VirtualCard, pcscd: Pcscd, reader: str) -> None:
    yubikey.login(PIN)
    pcscd.remove(reader)
    with pytest.raises(TokenRemoved) as caught:
        yubikey.inventory()
    assert caught.value.effect == "The token was not changed."
    pcscd.insert(card, reader)
    assert yubikey.login_state() is LoginState.NOBODY
    yubikey.login(PIN)
    assert yubikey.login_state() is LoginState.USER


def test_another_card_in_the_reader_gets_no_pin(
    ykcs11: Module, yubikey: Token, card: VirtualCard, pcscd: Pcscd, reader: str
) -> None:
    yubikey.login(PIN)
    pcscd.remove(reader)
    stranger = VirtualCard("yubikey-5.4", key_pool=POOL)
    pcscd.insert(stranger, reader)
    with pytest.raises(TokenRemoved):
        yubikey.change_pin(PIN, NEW_PIN)
    assert verifies(stranger) == 0
    (other,) = ykcs11.tokens()
    assert other.info.identity.serial != yubikey.info.identity.serial
    assert other.login_state() is LoginState.NOBODY
    other.login(PIN)
    assert other.login_state() is LoginState.USER


@pytest.fixture
def prepared(yubikey: Token) -> None:
    """Keys in 9A (P-256), 9C (RSA) and 9D (RSA) with certificates, made through ykcs11."""
    yubikey.login(DEFAULT_SO_PIN, User.SO)
    yubikey.generate(b"\x01", KeyAlgorithm.P256)
    for identifier in (b"\x02", b"\x03"):
        yubikey.generate(identifier, KeyAlgorithm.RSA_2048)
    yubikey.logout()
    piv_tool("-aset-chuid")


@pytest.fixture
def opensc(prepared: None) -> Iterator[Token]:
    """The prepared card through OpenSC's module."""
    with Module(library("opensc-pkcs11.so")) as module:
        (token,) = module.tokens()
        yield token


def test_opensc_lists_signs_and_decrypts(opensc: Token, card: VirtualCard) -> None:
    inventory = opensc.inventory()
    assert [(entry.key_reference, entry.algorithm) for entry in inventory.keys] == [
        (0x9A, KeyAlgorithm.P256),
        (0x9C, KeyAlgorithm.RSA_2048),
        (0x9D, KeyAlgorithm.RSA_2048),
    ]
    assert [entry.certificates for entry in inventory.keys] == [(0,), (1,), (2,)]
    slot = piv_tool("-aread-certificate", "-s9a")
    assert x509.load_pem_x509_certificate(slot).public_bytes(Encoding.DER) == inventory.certificates[0].der
    opensc.login(PIN)
    signer = opensc.private_key(b"\x01")
    assert isinstance(signer, TokenEcKey)
    signer.public_key().verify(signer.sign(b"x", ECDSA), b"x", ECDSA)
    always = opensc.private_key(b"\x02", pin=lambda: PIN)
    assert isinstance(always, TokenRsaKey)
    for scheme in (padding.PKCS1v15(), padding.PSS(padding.MGF1(hashes.SHA256()), 32)):
        signature = always.sign(b"x", scheme, hashes.SHA256())
        always.public_key().verify(signature, b"x", scheme, hashes.SHA256())
    opener = opensc.private_key(b"\x03")
    assert isinstance(opener, TokenRsaKey)
    wrapped = opener.public_key().encrypt(b"secret", padding.PKCS1v15())
    assert opener.decrypt(wrapped, padding.PKCS1v15()) == b"secret"
    assert {record.slot for record in card.log if isinstance(record, KeyUse)} >= {0x9A, 0x9C, 0x9D}


def test_opensc_changes_the_pin_and_guards_the_last_try(opensc: Token, card: VirtualCard) -> None:
    opensc.change_pin(PIN, NEW_PIN)
    piv_tool("-averify-pin", f"-P{NEW_PIN.reveal().decode()}")
    for _ in range(2):
        with pytest.raises(PinIncorrect):
            opensc.login(WRONG)
    before = verifies(card)
    with pytest.raises(PinLastTry):
        opensc.login(NEW_PIN)
    assert verifies(card) == before


def test_opensc_refuses_the_rest_before_any_write(opensc: Token, card: VirtualCard) -> None:
    opensc.login(PIN)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certificate_for(key.public_key(), key)
    shown = opensc.inventory().certificates[0]
    before, tried = writes(card), verifies(card)
    refused: dict[str, Callable[[], object]] = {
        "generate": lambda: opensc.generate(b"\x04", KeyAlgorithm.P256),
        "import_key": lambda: opensc.import_key(b"\x04", key, certificate),
        "write_certificate": lambda: opensc.write_certificate(b"\x04", certificate),
        "delete_key": lambda: opensc.delete_key(b"\x01"),
        "delete_certificate": lambda: opensc.delete_certificate(shown),
        "unlock": lambda: opensc.unlock(PUK, NEW_PIN),
        "so_login": lambda: opensc.login(DEFAULT_SO_PIN, User.SO),
        "change_so_pin": lambda: opensc.change_so_pin(DEFAULT_SO_PIN, NEW_SO_PIN),
        "change_puk": lambda: opensc.change_puk(PUK, NEW_PUK),
    }
    for operation, act in refused.items():
        with pytest.raises(UnsupportedByToken) as caught:
            act()
        assert (caught.value.operation, caught.value.effect) == (operation, "The token was not changed.")
    assert writes(card) == before
    assert verifies(card) == tried


def test_without_pcscd_the_modules_say_so(pcscd: Pcscd, tmp_path: Path) -> None:
    environment = {"PCSCLITE_CSOCK_NAME": str(tmp_path / "absent")}
    assert os.environ["PCSCLITE_CSOCK_NAME"] != environment["PCSCLITE_CSOCK_NAME"]
    with Module(library("libykcs11.so.2"), environment=environment) as module, pytest.raises(Pkcs11Error) as caught:
        module.tokens()
    assert caught.value.code == "PKCS11_DEVICE_ERROR"
    with Module(library("opensc-pkcs11.so"), environment=environment) as module:
        assert module.tokens() == ()
