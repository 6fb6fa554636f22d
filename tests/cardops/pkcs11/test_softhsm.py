"""A whole life on SoftHSM2, judged by pkcs11-tool and openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

from cardwright_cardops.pkcs11 import KeyAlgorithm, LoginState, PinState, Token, TokenEcKey, TokenRsaKey, User
from cardwright_cardops.pkcs11.errors import (
    AlreadyLoggedIn,
    DataRejected,
    KeyRefused,
    NotLoggedIn,
    ObjectExists,
    ObjectNotFound,
    ObjectRejected,
    PinIncorrect,
    PinLength,
    PinNeeded,
    TokenNotFound,
    UnsupportedByToken,
)
from cardwright_cardops.secret import Secret
from tests.cardops.pkcs11.support import NEW_PIN, SO_PIN, USER_PIN, WRONG_PIN, SoftHsm, certificate_for

CURVES = {KeyAlgorithm.P256: ec.SECP256R1(), KeyAlgorithm.P384: ec.SECP384R1()}


@pytest.fixture
def open_token(token: Token) -> Token:
    token.login(USER_PIN)
    return token


def ec_key(token: Token, algorithm: KeyAlgorithm = KeyAlgorithm.P256, identifier: bytes = b"\x9a") -> TokenEcKey:
    token.generate(identifier, algorithm, label="made here")
    key = token.private_key(identifier)
    assert isinstance(key, TokenEcKey)
    return key


def rsa_key(token: Token, identifier: bytes = b"\x9d") -> TokenRsaKey:
    token.generate(identifier, KeyAlgorithm.RSA_2048, label="made here")
    key = token.private_key(identifier)
    assert isinstance(key, TokenRsaKey)
    return key


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


def test_token_tells_who_it_is(softhsm: SoftHsm, token: Token) -> None:
    assert softhsm.module.info.manufacturer == "SoftHSM"
    assert token.info.identity.label == "first"
    assert token.info.identity.serial in softhsm.pkcs11_tool("-L").decode()
    assert (token.info.min_pin_length, token.info.max_pin_length) == (4, 255)
    described = token.describe()
    assert (described["label"], described["pin"], described["so_pin"]) == ("first", "good", "good")


def test_tokens_are_found_by_label_and_serial(softhsm: SoftHsm) -> None:
    first, second = (softhsm.module.token(label=label) for label in ("first", "second"))
    assert softhsm.module.token(serial=second.info.identity.serial).info == second.info
    assert len(softhsm.module.tokens()) == 2, "the empty slot of SoftHSM is no token"
    with pytest.raises(TokenNotFound, match=first.info.identity.serial):
        softhsm.module.token()
    with pytest.raises(TokenNotFound, match="No token"):
        softhsm.module.token(serial=first.info.identity.serial, label="second")


def test_login_lasts_until_logout(token: Token) -> None:
    assert token.login_state() is LoginState.NOBODY
    token.login(USER_PIN)
    assert token.login_state() is LoginState.USER
    with pytest.raises(AlreadyLoggedIn):
        token.login(USER_PIN)
    token.logout()
    token.logout()
    assert token.login_state() is LoginState.NOBODY
    token.login(SO_PIN, User.SO)
    assert token.login_state() is LoginState.SO


def test_two_tokens_keep_their_logins_apart(softhsm: SoftHsm) -> None:
    first, second = (softhsm.module.token(label=label) for label in ("first", "second"))
    first.login(USER_PIN)
    assert second.login_state() is LoginState.NOBODY
    with pytest.raises(NotLoggedIn):
        second.generate(b"\x01", KeyAlgorithm.P256)
    second.login(USER_PIN)
    first.generate(b"\x01", KeyAlgorithm.P256)
    assert (len(first.inventory().keys), len(second.inventory().keys)) == (1, 0)
    first.logout()
    assert second.login_state() is LoginState.USER


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.P384])
def test_generated_ec_key_signs_and_agrees(open_token: Token, algorithm: KeyAlgorithm) -> None:
    key = ec_key(open_token, algorithm)
    assert (key.curve.name, key.key_size, key.entry.algorithm) == (CURVES[algorithm].name, algorithm.bits, algorithm)
    assert (key.entry.generated, key.entry.extractable) == (True, False)
    for kind in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        key.public_key().verify(key.sign(b"data", ec.ECDSA(kind)), b"data", ec.ECDSA(kind))
    digest = bytes(range(32))
    prehashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    key.public_key().verify(key.sign(digest, prehashed), digest, prehashed)
    with pytest.raises(DataRejected):
        key.sign(digest[1:], prehashed)
    with pytest.raises(InvalidSignature):
        key.public_key().verify(key.sign(b"data", ec.ECDSA(hashes.SHA256())), b"other", ec.ECDSA(hashes.SHA256()))
    other = ec.generate_private_key(CURVES[algorithm])
    assert key.exchange(ec.ECDH(), other.public_key()) == other.exchange(ec.ECDH(), key.public_key())
    with pytest.raises(DataRejected):
        key.exchange(ec.ECDH(), ec.generate_private_key(ec.SECP521R1()).public_key())


def test_generated_rsa_key_signs_and_decrypts(open_token: Token) -> None:
    key = rsa_key(open_token)
    assert key.key_size == 2048
    digest = padding.PSS.DIGEST_LENGTH
    schemes = (
        padding.PKCS1v15(),
        padding.PSS(padding.MGF1(hashes.SHA256()), 32),
        padding.PSS(padding.MGF1(hashes.SHA256()), digest),
        padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH),
    )
    for scheme in schemes:
        key.public_key().verify(key.sign(b"data", scheme, hashes.SHA256()), b"data", scheme, hashes.SHA256())
    for wrapping in (padding.PKCS1v15(), padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)):
        assert key.decrypt(key.public_key().encrypt(b"secret", wrapping), wrapping) == b"secret"
    with pytest.raises(UnsupportedByToken, match="salt"):
        key.sign(b"data", padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), hashes.SHA256())
    with pytest.raises(DataRejected):
        key.decrypt(bytes(17), padding.PKCS1v15())


def test_keys_never_leave_the_token(open_token: Token) -> None:
    for key in (ec_key(open_token), rsa_key(open_token)):
        with pytest.raises(UnsupportedByToken, match="never leaves"):
            key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        with pytest.raises(UnsupportedByToken, match="never leaves"):
            key.private_numbers()


def test_token_keys_sign_requests_and_certificates_openssl_accepts(open_token: Token, tmp_path: Path) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holder")])
    keys: tuple[TokenEcKey | TokenRsaKey, ...] = (ec_key(open_token), rsa_key(open_token))
    for number, key in enumerate(keys):
        request = tmp_path / f"{number}.csr"
        made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        request.write_bytes(made.public_bytes(Encoding.PEM))
        openssl("req", "-verify", "-noout", "-in", str(request))
        root = tmp_path / f"{number}.pem"
        certificate = certificate_for(key.public_key(), key)
        root.write_bytes(certificate.public_bytes(Encoding.PEM))
        assert "OK" in openssl("verify", "-no-CApath", "-CAfile", str(root), "-check_ss_sig", str(root))


def test_openssl_verifies_a_raw_signature(open_token: Token, tmp_path: Path) -> None:
    data, public, signature = (tmp_path / name for name in ("data", "public.pem", "signature"))
    data.write_bytes(b"signed on a token")
    for key in (ec_key(open_token), rsa_key(open_token)):
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        if isinstance(key, TokenEcKey):
            signature.write_bytes(key.sign(data.read_bytes(), ec.ECDSA(hashes.SHA256())))
        else:
            signature.write_bytes(key.sign(data.read_bytes(), padding.PKCS1v15(), hashes.SHA256()))
        assert "Verified OK" in openssl(
            "dgst", "-sha256", "-verify", str(public), "-signature", str(signature), str(data)
        )


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_imported_key_is_what_pkcs11_tool_reads(softhsm: SoftHsm, open_token: Token, kind: str) -> None:
    key = (
        rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(CURVES[KeyAlgorithm(kind)])
    )
    certificate = certificate_for(key.public_key(), key)
    open_token.import_key(b"\x82", key, certificate, label="brought here")
    written = certificate.public_bytes(Encoding.DER)
    assert softhsm.pkcs11_tool("--read-object", "--type", "cert", "--id", "82") == written
    pin = USER_PIN.reveal().decode()
    listed = softhsm.pkcs11_tool("-O", "--login", "--pin", pin).decode()
    assert listed.count("ID:         82") == 3
    assert listed.count("label:      brought here") == 3
    entry = open_token.inventory().key(b"\x82")
    assert entry is not None and entry.public_key is not None
    assert load_der_public_key(entry.public_key) == key.public_key()
    assert (entry.certificates, entry.generated, entry.extractable) == ((0,), False, False)
    used = open_token.private_key(b"\x82")
    if isinstance(used, TokenEcKey) and isinstance(key, ec.EllipticCurvePrivateKey):
        key.public_key().verify(used.sign(b"x", ec.ECDSA(hashes.SHA256())), b"x", ec.ECDSA(hashes.SHA256()))
    else:
        assert isinstance(used, TokenRsaKey) and isinstance(key, rsa.RSAPrivateKey)
        assert used.decrypt(key.public_key().encrypt(b"x", padding.PKCS1v15()), padding.PKCS1v15()) == b"x"


def test_we_read_what_pkcs11_tool_writes(softhsm: SoftHsm, token: Token, tmp_path: Path) -> None:
    pin = USER_PIN.reveal().decode()
    softhsm.pkcs11_tool(
        *("--login", "--pin", pin, "--keypairgen", "--key-type", "EC:secp384r1", "--id", "45", "--label", "strange")
    )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certificate_for(key.public_key(), key, "stranger")
    path = tmp_path / "certificate.der"
    path.write_bytes(certificate.public_bytes(Encoding.DER))
    softhsm.pkcs11_tool("--login", "--pin", pin, "--write-object", str(path), "--type", "cert", "--id", "45")
    token.login(USER_PIN)
    inventory = token.inventory()
    (entry,) = inventory.keys
    assert (entry.id, entry.label, entry.algorithm, entry.private) == (b"\x45", "strange", KeyAlgorithm.P384, True)
    assert [shown.subject for shown in inventory.certificates] == ["CN=stranger"]
    assert entry.certificates == (), "matched by public key, not by id alone"
    assert inventory.problems == ("key 45: a certificate with its id is for another key",)


def test_private_keys_are_hidden_before_login(open_token: Token) -> None:
    ec_key(open_token)
    open_token.logout()
    entry = open_token.inventory().key(b"\x9a")
    assert entry is not None and not entry.private and entry.public_key is not None
    with pytest.raises(ObjectNotFound, match="can be seen"):
        open_token.private_key(b"\x9a")


def test_key_object_needs_the_login_it_was_made_under(open_token: Token) -> None:
    key = ec_key(open_token)
    open_token.logout()
    with pytest.raises(NotLoggedIn):
        key.sign(b"x", ec.ECDSA(hashes.SHA256()))


def test_id_in_use_is_refused_unless_overwriting(open_token: Token) -> None:
    before = ec_key(open_token).entry.public_key
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ObjectExists):
        open_token.generate(b"\x9a", KeyAlgorithm.P256)
    with pytest.raises(ObjectExists):
        open_token.import_key(b"\x9a", other)
    kept = open_token.inventory().key(b"\x9a")
    assert kept is not None and kept.public_key == before
    after = open_token.generate(b"\x9a", KeyAlgorithm.P384, overwrite=True)
    assert after.algorithm is KeyAlgorithm.P384
    assert len(open_token.inventory().keys) == 1


def test_certificate_of_another_key_is_refused_before_the_import(open_token: Token) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    with pytest.raises(ObjectRejected, match="another key") as caught:
        open_token.import_key(b"\x01", key, certificate_for(other.public_key(), other))
    assert caught.value.effect == "The token was not changed."
    assert open_token.inventory().keys == ()


def test_deletes_are_exact(open_token: Token) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    first, second = (certificate_for(key.public_key(), key, name) for name in ("first", "second"))
    open_token.import_key(b"\x01", key, first)
    ec_key(open_token)
    old = open_token.inventory().certificate(b"\x01")
    open_token.write_certificate(b"\x01", second, overwrite=True)
    assert old is not None
    with pytest.raises(ObjectNotFound):
        open_token.delete_certificate(old)
    new = open_token.inventory().certificate(b"\x01")
    assert new is not None and new.subject == "CN=second"
    open_token.delete_key(b"\x01")
    assert [entry.id for entry in open_token.inventory().keys] == [b"\x9a"]
    open_token.delete_certificate(new)
    assert open_token.inventory().certificates == ()
    with pytest.raises(ObjectNotFound):
        open_token.delete_key(b"\x01")


def test_key_that_wants_the_pin_every_time(open_token: Token) -> None:
    open_token.generate(b"\x9c", KeyAlgorithm.P256, always_authenticate=True)
    scheme = ec.ECDSA(hashes.SHA256())
    silent = open_token.private_key(b"\x9c")
    assert isinstance(silent, TokenEcKey) and silent.entry.always_authenticate
    with pytest.raises(PinNeeded):
        silent.sign(b"x", scheme)
    asked: list[Secret] = []

    def ask() -> Secret:
        asked.append(USER_PIN)
        return USER_PIN

    key = open_token.private_key(b"\x9c", pin=ask)
    assert isinstance(key, TokenEcKey)
    for _ in range(2):
        key.public_key().verify(key.sign(b"x", scheme), b"x", scheme)
    assert len(asked) == 2
    wrong = open_token.private_key(b"\x9c", pin=lambda: WRONG_PIN)
    assert isinstance(wrong, TokenEcKey)
    with pytest.raises(PinIncorrect):
        wrong.sign(b"x", scheme)
    key.public_key().verify(key.sign(b"x", scheme), b"x", scheme)


def test_pin_is_not_asked_for_other_keys(open_token: Token) -> None:
    def never() -> Secret:
        raise AssertionError("asked for a PIN that is not needed")

    ec_key(open_token)
    key = open_token.private_key(b"\x9a", pin=never)
    assert isinstance(key, TokenEcKey)
    assert key.sign(b"x", ec.ECDSA(hashes.SHA256()))


def test_uses_the_key_is_not_made_for_are_refused(softhsm: SoftHsm, token: Token) -> None:
    softhsm.pkcs11_tool(
        *("--login", "--pin", USER_PIN.reveal().decode(), "--keypairgen", "--key-type", "rsa:2048"),
        *("--id", "01", "--usage-sign"),
    )
    token.login(USER_PIN)
    key = token.private_key(b"\x01")
    assert isinstance(key, TokenRsaKey)
    assert key.sign(b"x", padding.PKCS1v15(), hashes.SHA256())
    if not key.entry.decrypt:
        with pytest.raises(KeyRefused):
            key.decrypt(bytes(256), padding.PKCS1v15())


def test_wrong_pin_is_counted_and_said(token: Token) -> None:
    with pytest.raises(PinIncorrect) as caught:
        token.login(WRONG_PIN)
    assert caught.value.ckr == "CKR_PIN_INCORRECT"
    assert token.pin_state() is PinState.COUNT_LOW
    assert token.login_state() is LoginState.NOBODY
    token.login(USER_PIN)
    assert token.pin_state() is PinState.GOOD


def test_many_wrong_pins_leak_no_session(softhsm: SoftHsm, token: Token) -> None:
    for _ in range(30):
        with pytest.raises(PinIncorrect):
            token.login(WRONG_PIN)
    token.login(USER_PIN)
    assert token.login_state() is LoginState.USER


def test_pin_change_is_seen_by_pkcs11_tool(softhsm: SoftHsm, token: Token) -> None:
    with pytest.raises(PinIncorrect):
        token.change_pin(WRONG_PIN, NEW_PIN)
    with pytest.raises(PinLength):
        token.change_pin(USER_PIN, Secret(b"12"))
    token.change_pin(USER_PIN, NEW_PIN)
    assert softhsm.pkcs11_tool("-O", "--login", "--pin", NEW_PIN.reveal().decode()) is not None
    with pytest.raises(PinIncorrect):
        token.login(USER_PIN)
    token.login(NEW_PIN)


def test_so_pin_unlocks(softhsm: SoftHsm, token: Token) -> None:
    with pytest.raises(PinIncorrect):
        token.unlock(WRONG_PIN, NEW_PIN)
    token.unlock(SO_PIN, NEW_PIN)
    assert token.login_state() is LoginState.NOBODY
    token.login(NEW_PIN)
    with pytest.raises(AlreadyLoggedIn):
        token.unlock(SO_PIN, USER_PIN)
    token.logout()
    token.login(NEW_PIN)


def test_so_pin_changes(token: Token) -> None:
    new = Secret(b"24680975")
    token.change_so_pin(SO_PIN, new)
    assert token.login_state() is LoginState.NOBODY
    with pytest.raises(PinIncorrect):
        token.login(SO_PIN, User.SO)
    token.login(new, User.SO)


def test_user_pin_is_not_changed_while_the_so_is_logged_in(token: Token) -> None:
    # C_SetPIN would change the security officer's PIN then.
    token.login(SO_PIN, User.SO)
    with pytest.raises(AlreadyLoggedIn):
        token.change_pin(SO_PIN, NEW_PIN)
    token.logout()
    token.login(SO_PIN, User.SO)


def test_what_softhsm_cannot_is_refused_before_anything(open_token: Token) -> None:
    with pytest.raises(UnsupportedByToken, match="PUK") as caught:
        open_token.change_puk(USER_PIN, NEW_PIN)
    assert (caught.value.code, caught.value.operation) == ("UNSUPPORTED_BY_TOKEN", "change_puk")
    with pytest.raises(UnsupportedByToken, match="Keys of this kind"):
        open_token.import_key(b"\x01", ec.generate_private_key(ec.SECP521R1()))
    with pytest.raises(ObjectRejected, match="255"):
        open_token.generate(b"", KeyAlgorithm.P256)


def test_ids_of_key_references(token: Token) -> None:
    assert token.id_of(0x9A) == b"\x9a"
