"""OpenSC's tools over a real pcscd: first our library sets a card up, then they find, read and use what it wrote."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cardwright_cardops.piv import containers, programs
from cardwright_cardops.piv.objects import CertificateObject
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_simulators.card import Verify, VirtualCard, Write, images
from tests.support.strangers import (
    FACTORY_KEY,
    NEW_PIN,
    NEW_PUK,
    PIN,
    POOL,
    Seat,
    Seats,
    ToolFailed,
    Tools,
    initialized,
    ours,
)

pytestmark = [pytest.mark.pcscd]

PROFILES = ["yubikey-5.4", "sp800-73-5", "secure-messaging", "pivapplet"]
SLOTS = {"01": Slot.AUTHENTICATION, "02": Slot.SIGNATURE, "03": Slot.KEY_MANAGEMENT, "04": Slot.CARD_AUTHENTICATION}
LOGIN = ("--login", "--pin", NEW_PIN)


class OpenSC:
    """OpenSC's programs at one reader."""

    def __init__(self, tools: Tools, reader: str) -> None:
        self.tools = tools
        self.reader = reader

    def pkcs15(self, *arguments: str) -> str:
        """pkcs15-tool."""
        return self.tools.run("pkcs15-tool", "--reader", self.reader, *arguments)

    def pkcs11(self, *arguments: str) -> str:
        """pkcs11-tool with OpenSC's module, at the token in this reader."""
        listed = self.tools.run("pkcs11-tool", "-L")
        slot = re.search(rf"Slot \d+ \((0x[0-9a-f]+)\): {re.escape(self.reader)}", listed)
        assert slot is not None, listed
        return self.tools.run("pkcs11-tool", "--slot", slot[1], *arguments)

    def piv(self, *arguments: str, **environment: str) -> str:
        """piv-tool."""
        return self.tools.run("piv-tool", "-r", self.reader, *arguments, given=None, **environment)


@pytest.fixture(params=PROFILES)
def seat(request: pytest.FixtureRequest, seats: Seats) -> Seat:
    return seats.fresh(request.param)


@pytest.fixture
def opensc(tools: Tools, seat: Seat) -> OpenSC:
    return OpenSC(tools, seat.reader)


@pytest.fixture
def set_up(seat: Seat) -> Seat:
    """The card after ``card init``: RSA in 9A and 9D, P-256 in 9C and 9E."""
    initialized(seat, "9a=rsa2048,9c=p256,9d=rsa2048,9e=p256")
    return seat


def public_key(reader: str, slot: Slot) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    with ours(reader) as card:
        key = card.certificate(slot).public_key()
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return key


def write_public_key(tools: Tools, reader: str, slot: Slot) -> None:
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    tools.write("public.pem", public_key(reader, slot).public_bytes(*form))


def test_everything_that_ours_wrote_is_found(opensc: OpenSC, set_up: Seat) -> None:
    said = opensc.pkcs15("-D")
    for slot in SLOTS.values():
        assert f"(0x{slot.label})" in said, slot
    assert len(re.findall(r"Private RSA Key", said)) == 2 and len(re.findall(r"Private EC Key", said)) == 2
    listed = opensc.pkcs15("-c")
    assert re.findall(r"ID +: (\d\d)", listed) == list(SLOTS)
    for identifier, slot in SLOTS.items():
        opensc.pkcs15("--read-certificate", identifier, "-o", "back.pem")
        with ours(set_up.reader) as card:
            assert opensc.tools.certificate("back.pem") == card.certificate(slot)
        opensc.tools.run("openssl", "verify", "-check_ss_sig", "-CAfile", "back.pem", "-purpose", "any", "back.pem")
    with ours(set_up.reader) as card:
        guid = card.inventory().identity.guid
    assert guid is not None
    # A GUID is what OpenSC shows as the serial number when the FASC-N is none of an agency's.
    said = opensc.piv("--serial")
    assert guid.hex in re.sub(r"[^0-9a-f]", "", said.lower())


def test_pin_and_puk(opensc: OpenSC, set_up: Seat) -> None:
    opensc.pkcs15("--verify-pin", "--pin", NEW_PIN)
    with pytest.raises(ToolFailed, match="incorrect"):
        opensc.pkcs15("--verify-pin", "--pin", "999999")
    opensc.pkcs15("--change-pin", "--pin", NEW_PIN, "--new-pin", "271828")
    opensc.pkcs15("--change-pin", "--auth-id", "02", "--pin", NEW_PUK, "--new-pin", "31415926")
    with ours(set_up.reader, "271828") as card:
        marks = card.run(programs.read_marks())
        assert isinstance(marks, programs.Marks)
        card.run(programs.verify_pin(marks))
    opensc.pkcs15("--unblock-pin", "--puk", "31415926", "--new-pin", "161803")
    with ours(set_up.reader, "161803", new=PIN) as card:
        card.run(programs.change_pin(marks))
    opensc.pkcs15("--verify-pin", "--pin", PIN)
    wrong = [record.reference for record in set_up.inside.log if isinstance(record, Verify) and not record.ok]
    assert wrong == [PinReference.PIN]


def test_pkcs11_tool_tests_everything(opensc: OpenSC, set_up: Seat) -> None:
    try:
        said = opensc.pkcs11(*LOGIN, "--test")
    except ToolFailed as failed:
        # Without GET CHALLENGE on the card, which PIV does not have, the tool counts one error.
        said = failed.output
    errors = re.findall(r"ERR: .*", said)
    assert [error for error in errors if "C_GenerateRandom" not in error] == []
    assert "No errors" in said or ("1 errors" in said and len(errors) == 1), said
    assert re.search(r"testing key \d \(PIV AUTH key\) *\n +all 4 signature functions seem to work", said), said
    assert "SHA256-RSA-PKCS: OK" in said and "RSA-PKCS: OK" in said


@pytest.mark.parametrize("mechanism", ["SHA256-RSA-PKCS", "RSA-PKCS"])
def test_rsa_signature(mechanism: str, opensc: OpenSC, set_up: Seat, tools: Tools) -> None:
    write_public_key(tools, set_up.reader, Slot.AUTHENTICATION)
    tools.write("m", b"a message")
    opensc.pkcs11(*LOGIN, "--sign", "-m", mechanism, "--id", "01", "-i", "m", "-o", "signature")
    if mechanism == "RSA-PKCS":
        said = tools.run(
            "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-in", "m", "-sigfile", "signature"
        )
        assert "Verified Successfully" in said
    else:
        said = tools.run("openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "m")
        assert "Verified OK" in said


@pytest.mark.parametrize("identifier", ["02", "04"])
def test_ecdsa_signature(identifier: str, opensc: OpenSC, set_up: Seat, tools: Tools) -> None:
    write_public_key(tools, set_up.reader, SLOTS[identifier])
    tools.write("digest", bytes(range(32)))
    before = sum(isinstance(record, Verify) for record in set_up.inside.log)
    opensc.pkcs11(*LOGIN, "--sign", "-m", "ECDSA", "--signature-format", "openssl", "--id", identifier, "-i", "digest",
                  "-o", "signature")  # fmt: skip
    said = tools.run(
        "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-in", "digest", "-sigfile", "signature"
    )
    assert "Verified Successfully" in said
    verified = sum(isinstance(record, Verify) for record in set_up.inside.log) - before
    assert verified == (2 if identifier == "02" else 1), "9C wants the PIN again right before it signs"


def test_decryption(opensc: OpenSC, set_up: Seat, tools: Tools) -> None:
    key = public_key(set_up.reader, Slot.KEY_MANAGEMENT)
    assert isinstance(key, rsa.RSAPublicKey)
    tools.write("sealed", key.encrypt(b"secret", padding.PKCS1v15()))
    opensc.pkcs11(*LOGIN, "--decrypt", "-m", "RSA-PKCS", "--id", "03", "-i", "sealed", "-o", "opened")
    assert tools.path("opened").read_bytes() == b"secret"


def with_agreement_key(card: VirtualCard) -> VirtualCard:
    """A copy of the card with a P-384 key in 9D, certified by another, as an issuer would put it there."""
    key, issuer = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Alice")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    usage = x509.KeyUsage(False, False, False, False, True, False, False, False, False)
    certificate = builder.add_extension(usage, True).sign(issuer, hashes.SHA256())
    content = CertificateObject(certificate.public_bytes(serialization.Encoding.DER)).encode()
    document = images.save(card)
    tag = Slot.KEY_MANAGEMENT.certificate_tag
    document["objects"][f"{tag:X}"] = containers.wrap(tag, content).hex()
    form = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    document["keys"]["9D"] = key.private_bytes(*form).hex()
    return images.load(document, profile=card.profile)


def test_key_agreement(opensc: OpenSC, set_up: Seat, seats: Seats, tools: Tools) -> None:
    reader = seats.put(with_agreement_key(set_up.inside)).reader
    key = public_key(reader, Slot.KEY_MANAGEMENT)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    other = ec.generate_private_key(ec.SECP384R1())
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    tools.write("other.der", other.public_key().public_bytes(*form))
    opensc.pkcs11("--login", "--pin", PIN, "--derive", "-m", "ECDH1-COFACTOR-DERIVE", "--id", "03", "-i", "other.der",
                  "-o", "shared")  # fmt: skip
    assert tools.path("shared").read_bytes() == other.exchange(ec.ECDH(), key)
    with ours(reader) as card:
        mine = card.key(Slot.KEY_MANAGEMENT)
        assert isinstance(mine, ec.EllipticCurvePrivateKey)
        assert mine.exchange(ec.ECDH(), other.public_key()) == other.exchange(ec.ECDH(), key)


@pytest.mark.parametrize("seat", ["yubikey-5.4", "pivapplet", "sp800-73-5"], indirect=True)
def test_piv_tool_writes_a_certificate(opensc: OpenSC, seat: Seat, tools: Tools) -> None:
    assert "PIV" in opensc.piv("-n") or "Personal Identity Verification" in opensc.piv("-n")
    tools.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-subj", "/CN=Alice",
              "-out", "cert.pem")  # fmt: skip
    standard = seat.inside.profile.name == "sp800-73-5"
    factory = seat.inside.profile.management_key.hex()
    assert standard or factory == FACTORY_KEY
    tools.write("factory", ":".join(re.findall("..", factory)).encode())
    algorithm = f"{seat.inside.profile.management_algorithm:02X}"
    with pytest.raises(ToolFailed):
        # It ends with a code other than zero although the card has taken everything.
        opensc.piv("-A", f"M:9B:{algorithm}", "-C", "9C", "-i", "cert.pem", PIV_EXT_AUTH_KEY="factory")
    written = [record for record in seat.inside.log if isinstance(record, Write)]
    assert written == [Write("object", Slot.SIGNATURE.certificate_tag)]
    with ours(seat.reader) as card:
        assert card.certificate(Slot.SIGNATURE) == tools.certificate("cert.pem")


def test_published_card_image(opensc_image: OpenSC, shared_data: Path, tools: Tools) -> None:
    said = opensc_image.pkcs15("-c")
    assert re.findall(r"ID +: (\d\d)", said) == list(SLOTS)
    opensc_image.pkcs15("--read-certificate", "04", "-o", "back.pem")
    with ours(opensc_image.reader) as card:
        certificate = card.certificate(Slot.CARD_AUTHENTICATION)
    assert tools.certificate("back.pem") == certificate
    tools.write("m", b"a message")
    opensc_image.pkcs11("--login", "--pin", PIN, "--sign", "-m", "SHA256-RSA-PKCS", "--id", "01", "-i", "m", "-o", "s")
    tools.write("public.pem", _pem(opensc_image.reader))
    assert "Verified OK" in tools.run("openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "s", "m")


def _pem(reader: str) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public_key(reader, Slot.AUTHENTICATION).public_bytes(*form)


@pytest.fixture(params=["sp800-73-5", "secure-messaging"])
def opensc_image(request: pytest.FixtureRequest, seats: Seats, tools: Tools, shared_data: Path) -> OpenSC:
    card = images.load(shared_data / "icam-cards" / "01_Golden_PIV.json", profile=request.param, key_pool=POOL)
    return OpenSC(tools, seats.put(card).reader)
