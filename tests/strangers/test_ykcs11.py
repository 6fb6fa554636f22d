"""pkcs11-tool with Yubico's module over a real pcscd. Its security officer is the management key.

pkcs11-tool cannot import a key this way: the module refuses its template before it asks the card anything.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from cardwright_cardops.piv import programs
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.inventory import fingerprint
from cardwright_simulators.card import Verify
from tests.support.strangers import (
    FACTORY_KEY,
    NEW_PIN,
    PIN,
    Seat,
    Seats,
    ToolFailed,
    Tools,
    initialized,
    ours,
)

pytestmark = [
    pytest.mark.pcscd,
    # The module gives its placeholder certificates the serial number 0.
    pytest.mark.filterwarnings("ignore:Parsed a serial number"),
]

MODULE = Path("/usr/lib/x86_64-linux-gnu/libykcs11.so.2")
LOGIN = ("--login", "--pin", PIN)
OFFICER = ("--login", "--login-type", "so", "--so-pin", FACTORY_KEY)
KINDS = {"EC:prime256v1": Algorithm.P256, "EC:secp384r1": Algorithm.P384, "rsa:2048": Algorithm.RSA2048}


class Ykcs11:
    """pkcs11-tool with the module."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def __call__(self, *arguments: str) -> str:
        return self.tools.run("pkcs11-tool", "--module", MODULE, *arguments)


@pytest.fixture
def seat(seats: Seats) -> Seat:
    return seats.fresh("yubikey-5.4")


@pytest.fixture
def token(tools: Tools, seat: Seat) -> Ykcs11:
    if not MODULE.exists():
        pytest.skip(f"the module of yubico-piv-tool is not installed (package ykcs11): no {MODULE}")
    return Ykcs11(tools)


def test_token_is_listed(token: Ykcs11) -> None:
    said = token("-L")
    assert "YubiKey PIV #12345678" in said and "serial num         : 12345678" in said
    assert "token initialized, PIN initialized" in said


@pytest.mark.parametrize("kind", list(KINDS))
def test_generated_key_signs_and_decrypts(kind: str, token: Ykcs11, seat: Seat, tools: Tools) -> None:
    token(*OFFICER, "--keypairgen", "--key-type", kind, "--id", "3")
    with ours(seat.reader) as card:
        key = card.key(Slot.KEY_MANAGEMENT).public_key()
        row = card.inventory().key(Slot.KEY_MANAGEMENT)
        assert row is not None
        assert (row.algorithm, row.origin, row.fingerprint) == (KINDS[kind], KeyOrigin.GENERATED, fingerprint(key))
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    tools.write("public.pem", key.public_bytes(*form))
    if KINDS[kind] is not Algorithm.P384:  # the tool cannot write out such a key
        token("--read-object", "--type", "pubkey", "--id", "3", "-o", "public.der")
        assert load_der_public_key(tools.path("public.der").read_bytes()) == key
    tools.write("m", b"a message")
    rsa_key = isinstance(key, rsa.RSAPublicKey)
    mechanism = "SHA256-RSA-PKCS" if rsa_key else "ECDSA-SHA256"
    token(*LOGIN, "--sign", "-m", mechanism, "--signature-format", "openssl", "--id", "3", "-i", "m", "-o", "signature")
    said = tools.run("openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "m")
    assert "Verified OK" in said
    match key:
        case rsa.RSAPublicKey():
            tools.write("sealed", key.encrypt(b"secret", padding.PKCS1v15()))
            token(*LOGIN, "--decrypt", "-m", "RSA-PKCS", "--id", "3", "-i", "sealed", "-o", "opened")
            assert tools.path("opened").read_bytes() == b"secret"
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            token(*LOGIN, "--sign", "-m", "SHA256-RSA-PKCS-PSS", "--id", "3", "-i", "m", "-o", "pss")
            key.verify(tools.path("pss").read_bytes(), b"a message", pss, hashes.SHA256())


def test_certificate_written_and_read(token: Ykcs11, seat: Seat, tools: Tools) -> None:
    tools.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-subj", "/CN=Alice",
              "-out", "cert.pem")  # fmt: skip
    certificate = tools.certificate("cert.pem")
    tools.write("cert.der", certificate.public_bytes(Encoding.DER))
    token(*OFFICER, "--write-object", "cert.der", "--type", "cert", "--id", "4")
    with ours(seat.reader) as card:
        assert card.certificate(Slot.CARD_AUTHENTICATION) == certificate
    token("--read-object", "--type", "cert", "--id", "4", "-o", "back.der")
    assert tools.path("back.der").read_bytes() == certificate.public_bytes(Encoding.DER)
    token(*OFFICER, "--delete-object", "--type", "cert", "--id", "4")
    with ours(seat.reader) as card:
        assert card.inventory().certificate(Slot.CARD_AUTHENTICATION) is None


def test_pins(token: Ykcs11, seat: Seat) -> None:
    token(*LOGIN, "--change-pin", "--new-pin", "271828")
    with pytest.raises(ToolFailed, match="CKR_PIN_INCORRECT"):
        token(*LOGIN, "-O")
    with ours(seat.reader, "271828", new=PIN) as card:
        marks = card.run(programs.read_marks())
        assert isinstance(marks, programs.Marks)
        card.run(programs.change_pin(marks))
    token(*LOGIN, "-O")
    assert [record.ok for record in seat.inside.log if isinstance(record, Verify)].count(False) == 1


def test_tool_tests_what_ours_set_up(token: Ykcs11, seat: Seat) -> None:
    initialized(seat, "9a=rsa2048,9c=p256,9d=rsa2048:import,9e=p256")
    said = token("--login", "--pin", NEW_PIN, "--test")
    assert "No errors" in said
    assert said.count("all 4 signature functions seem to work") == 1
    assert "RSA-PKCS-OAEP" in said and "PIV Attestation" in said
    listed = token("-O")
    for name in ("PIV Authentication", "Digital Signature", "Key Management", "Card Authentication"):
        assert f"X.509 Certificate for {name}" in listed
    with pytest.raises(ToolFailed, match="CKR_PIN_INCORRECT"):
        token(*OFFICER, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "5")
