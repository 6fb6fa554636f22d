"""yubico-piv-tool over a real pcscd at the virtual card that old tools meet, with our library at the other end.

Its actions request-certificate and selfsign-certificate fail inside the tool before anything is signed, and it knows
neither AES management keys nor T=0: none of that is asked of it.
"""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.piv import containers, programs
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.piv.vendor.attestation import verify_attestation
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.inventory import Presence, fingerprint
from cardwright_cardops.plan.observe import Look
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import KeyUse, Verify, VirtualCard, Write
from cardwright_simulators.card.attestation import root_pem
from tests.support.strangers import PIN, PUK, Seat, Seats, ToolFailed, Tools, management_key, ours

pytestmark = [pytest.mark.pcscd]

NEW_KEY = "A1A2A3A4A5A6A7A8B1B2B3B4B5B6B7B8C1C2C3C4C5C6C7C8"
ALGORITHMS = {
    Algorithm.RSA1024: "RSA1024",
    Algorithm.RSA2048: "RSA2048",
    Algorithm.P256: "ECCP256",
    Algorithm.P384: "ECCP384",
}
OPENSSL_KEYS = {
    Algorithm.RSA1024: ("rsa:1024",),
    Algorithm.RSA2048: ("rsa:2048",),
    Algorithm.P256: ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    Algorithm.P384: ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
}


class PivTool:
    """yubico-piv-tool at one reader."""

    def __init__(self, tools: Tools, reader: str) -> None:
        self._tools = tools
        self._reader = reader

    def __call__(self, *arguments: str) -> str:
        return self._tools.run("yubico-piv-tool", "-r", self._reader, *arguments)


@pytest.fixture
def seat(seats: Seats) -> Seat:
    return seats.fresh("yubikey-5.4")


@pytest.fixture
def card(seat: Seat) -> VirtualCard:
    return seat.inside


@pytest.fixture
def reader(seat: Seat) -> str:
    return seat.reader


@pytest.fixture
def piv(tools: Tools, reader: str) -> PivTool:
    return PivTool(tools, reader)


def key_and_certificate(tools: Tools, algorithm: Algorithm) -> x509.Certificate:
    """A key made outside in key.pem, its certificate in cert.pem, both in both.p12."""
    tools.run("openssl", "req", "-x509", "-newkey", *OPENSSL_KEYS[algorithm], "-nodes", "-keyout", "key.pem",
              "-subj", "/CN=Alice", "-out", "cert.pem")  # fmt: skip
    tools.run("openssl", "pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-passout", "pass:pw",
              "-out", "both.p12")  # fmt: skip
    return tools.certificate("cert.pem")


@pytest.mark.parametrize("slot", [Slot.AUTHENTICATION, Slot.RETIRED_20], ids=lambda one: one.label)
@pytest.mark.parametrize("algorithm", list(ALGORITHMS), ids=lambda one: one.label)
def test_generate_and_attest(algorithm: Algorithm, slot: Slot, piv: PivTool, reader: str, tools: Tools) -> None:
    where = ("-s", slot.label.lower())
    piv("-agenerate", *where, "-A", ALGORITHMS[algorithm], "-o", "public.pem")
    made = tools.public_key("public.pem")
    with ours(reader) as mine:
        row = mine.inventory(Look(slots=(slot,))).key(slot)
        assert row is not None
        assert (row.algorithm, row.origin, row.fingerprint) == (algorithm, KeyOrigin.GENERATED, fingerprint(made))
        key = mine.key(slot)
        match key:
            case rsa.RSAPrivateKey():
                signature = key.sign(b"m", padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey():
                signature = key.sign(b"m", ec.ECDSA(hashes.SHA256()))
            case _:
                raise AssertionError(key)
    tools.write("m", b"m")
    tools.write("signature", signature)
    said = tools.run("openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "m")
    assert "Verified OK" in said
    piv("-aattest", *where, "-o", "statement.pem")
    piv("-aread-certificate", "-sf9", "-o", "f9.pem")
    tools.write("root.pem", root_pem())
    said = tools.run("openssl", "verify", "-CAfile", "root.pem", "-untrusted", "f9.pem", "statement.pem")
    assert "statement.pem: OK" in said
    root = x509.load_pem_x509_certificate(root_pem())
    statement = verify_attestation(tools.certificate("statement.pem"), tools.certificate("f9.pem"), [root])
    assert (statement.public_key, statement.slot, statement.trusted) == (made, slot, True)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS), ids=lambda one: one.label)
def test_import_use_and_delete(
    algorithm: Algorithm, piv: PivTool, reader: str, tools: Tools, card: VirtualCard
) -> None:
    certificate = key_and_certificate(tools, algorithm)
    piv("-aimport-key", "-aimport-certificate", "-s9d", "-KPKCS12", "-ppw", "-iboth.p12")
    with ours(reader) as mine:
        row = mine.inventory().key(Slot.KEY_MANAGEMENT)
        assert row is not None and row.origin is KeyOrigin.IMPORTED
        assert mine.certificate(Slot.KEY_MANAGEMENT) == certificate
    piv("-aread-certificate", "-s9d", "-oback.pem")
    assert tools.certificate("back.pem") == certificate
    verify = ("-averify-pin", f"-P{PIN}")
    kind = "RSA" if algorithm.label.startswith("rsa") else "ECDSA"
    assert f"Successful {kind} verification" in piv(*verify, "-atest-signature", "-s9d", "-icert.pem")
    assert "Successfully performed" in piv(*verify, "-atest-decipher", "-s9d", "-icert.pem")
    large = algorithm is Algorithm.P384
    hashed = ("SHA384", "-sha384") if large else ("SHA256", "-sha256")
    tools.write("m", b"a message")
    piv(*verify, "--sign", "-s9d", "-H", hashed[0], "-A", ALGORITHMS[algorithm], "-im", "-osignature")
    tools.run("openssl", "x509", "-in", "cert.pem", "-noout", "-pubkey", "-out", "public.pem")
    assert "Verified OK" in tools.run(
        "openssl", "dgst", hashed[1], "-verify", "public.pem", "-signature", "signature", "m"
    )
    assert sum(isinstance(record, KeyUse) and record.slot == 0x9D for record in card.log) == 3
    piv("-adelete-certificate", "-s9d")
    with ours(reader) as mine:
        found = mine.inventory()
        assert found.certificate(Slot.KEY_MANAGEMENT) is None and found.key(Slot.KEY_MANAGEMENT) is not None
    with pytest.raises(ToolFailed):
        piv("-aread-certificate", "-s9d")


@pytest.mark.parametrize("form", ["GZIP", "DER"])
def test_forms_of_certificates(form: str, piv: PivTool, reader: str, tools: Tools) -> None:
    certificate = key_and_certificate(tools, Algorithm.P256)
    der = tools.write("cert.der", certificate.public_bytes(Encoding.DER))
    if form == "GZIP":
        tools.run("gzip", "-n", str(der))
    piv("-aimport-certificate", "-s9e", f"-K{form}", "-icert.der.gz" if form == "GZIP" else "-icert.der")
    with ours(reader) as mine:
        assert mine.certificate(Slot.CARD_AUTHENTICATION) == certificate
    if form == "GZIP":  # the tool writes such certificates and cannot read them
        piv("-aread-object", "--id=0x5fc101", "-fbinary", "-oback")
        assert tools.path("cert.der.gz").read_bytes() in tools.path("back").read_bytes()
    else:
        piv("-aread-certificate", "-s9e", "-oback.pem")
        assert tools.certificate("back.pem") == certificate


def test_chuid_ccc_and_objects(piv: PivTool, reader: str, tools: Tools) -> None:
    said = piv("-astatus")
    assert "Version:\t5.4.3" in said and "Serial Number:\t12345678" in said
    assert said.count("No data available") == 2 and "PIN tries left:\t3" in said
    piv("-aset-chuid", "-aset-ccc")
    with ours(reader) as mine:
        found = mine.inventory()
    assert found.identity.guid is not None and found.defects == ()
    assert found.object(containers.CCC.tag).presence is Presence.PRESENT
    said = piv("-astatus")
    assert found.identity.guid.hex in said and "No data available" not in said
    tools.write("object", bytes(range(200)) * 12)
    piv("-awrite-object", "--id=0x5fc10f", "-fbinary", "-iobject")
    piv("-aread-object", "--id=0x5fc10f", "-fbinary", "-oback")
    assert tools.path("back").read_bytes() == tools.path("object").read_bytes()


def test_pin_and_puk(piv: PivTool, reader: str, card: VirtualCard) -> None:
    piv("-averify-pin", f"-P{PIN}")
    piv("-achange-pin", f"-P{PIN}", "-N271828")
    piv("-achange-puk", f"-P{PUK}", "-N31415926")
    for words in ("2 tries left", "1 tries left", "blocked"):
        with pytest.raises(ToolFailed, match=words):
            piv("-averify-pin", f"-P{PIN}")
    with ours(reader, new="161803") as mine:
        found = mine.inventory()
        assert (found.pin.tries_left, found.pin.is_default, found.puk.is_default) == (0, False, False)
        marks = mine.run(programs.read_marks())
        assert isinstance(marks, programs.Marks)
        mine.run(programs.unblock_pin(marks, Secret(b"31415926")))
    piv("-averify-pin", "-P161803")
    piv("-aunblock-pin", "-P31415926", "-N271828")
    with ours(reader, "271828", new="141421") as mine:
        mine.run(programs.change_pin(marks))
        mine.run(programs.change_puk(marks, Secret(b"31415926"), Secret(b"87654321")))
    piv("-averify-pin", "-P141421")
    with pytest.raises(ToolFailed, match="2 tries left"):
        piv("-aunblock-pin", "-P31415926", "-N271828")
    wrong = [record.reference for record in card.log if isinstance(record, Verify) and not record.ok]
    assert wrong == [PinReference.PIN] * 3 + [PinReference.PUK]


def test_management_key_and_retries(piv: PivTool, reader: str) -> None:
    piv("-aset-mgm-key", f"-n{NEW_KEY}")
    with pytest.raises(ToolFailed):
        piv("-aset-chuid")
    piv(f"-k{NEW_KEY}", f"-P{PIN}", "-averify-pin", "-apin-retries", "--pin-retries=5", "--puk-retries=9")
    with ours(reader) as mine:
        found = mine.inventory()
        assert (found.pin.tries_total, found.puk.tries_total, found.management_key.is_default) == (5, 9, False)
        content = bytes.fromhex("f000")
        mine.managed(
            lambda stage: programs.write_object(containers.CCC.tag, content, "writing", stage),
            management_key(NEW_KEY, ManagementAlgorithm.TDES),
        )
    assert "PIN tries left:\t5" in piv("-astatus")


def test_reset_only_when_both_are_blocked(piv: PivTool, card: VirtualCard, reader: str) -> None:
    piv("-agenerate", "-s9a", "-AECCP256", "-opublic.pem")
    with pytest.raises(ToolFailed, match="are pincodes blocked"):
        piv("-areset")
    for _ in range(3):
        with pytest.raises(ToolFailed):
            piv("-averify-pin", "-P999999")
        with pytest.raises(ToolFailed):
            piv("-achange-puk", "-P99999999", "-N87654321")
    piv("-areset")
    assert sum(isinstance(record, Write) and record.kind == "factory reset" for record in card.log) == 1
    with ours(reader) as mine:
        found = mine.inventory()
    assert found.keys == () and found.pin.is_default and found.management_key.algorithm == ManagementAlgorithm.TDES
    piv("-averify-pin", f"-P{PIN}")


def test_wrong_management_key_changes_nothing(piv: PivTool, card: VirtualCard) -> None:
    before = card.state_hash()
    with pytest.raises(ToolFailed, match=r"(?i)authenticat"):
        piv(f"-k{NEW_KEY}", "-agenerate", "-s9a", "-AECCP256")
    assert card.state_hash() == before
