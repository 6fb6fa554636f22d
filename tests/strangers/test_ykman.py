"""ykman over a real pcscd at the virtual card: every command, with our library reading what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_cardops.iso7816.status import SecurityStatusNotSatisfied
from cardwright_cardops.piv import containers, programs
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, PrivateKey, TouchPolicy
from cardwright_cardops.piv.management_key import ManagementKeyRefused
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.piv.vendor.attestation import verify_attestation
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.inventory import Inventory, Presence, fingerprint
from cardwright_cardops.plan.observe import Look
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import KeyUse, ManagementAuthentication, Verify, VirtualCard, Write
from cardwright_simulators.card.attestation import root_pem
from tests.support.strangers import (
    FACTORY_KEY,
    PIN,
    POOL,
    PUK,
    Seat,
    Seats,
    ToolFailed,
    Tools,
    Ykman,
    management_key,
    ours,
)

pytestmark = [
    pytest.mark.pcscd,
    pytest.mark.filterwarnings("ignore:Deprecated. use x509.Name:DeprecationWarning"),
]

KEY = ("-m", FACTORY_KEY)
BY_PIN = ("-P", PIN)
ALGORITHMS = {
    Algorithm.RSA1024: "rsa1024",
    Algorithm.RSA2048: "rsa2048",
    Algorithm.RSA3072: "rsa3072",
    Algorithm.RSA4096: "rsa4096",
    Algorithm.P256: "eccp256",
    Algorithm.P384: "eccp384",
    Algorithm.ED25519: "ed25519",
    Algorithm.X25519: "x25519",
}
SHA256 = hashes.SHA256()


@pytest.fixture(params=["yubikey-5.7", "t0-short"])
def seat(request: pytest.FixtureRequest, seats: Seats) -> Seat:
    return seats.fresh(request.param)


@pytest.fixture
def card(seat: Seat) -> VirtualCard:
    return seat.inside


@pytest.fixture
def reader(seat: Seat) -> str:
    return seat.reader


@pytest.fixture
def piv(ykman: Callable[[str], Ykman], reader: str) -> Ykman:
    return ykman(reader)


def inventory(reader: str) -> Inventory:
    with ours(reader) as card:
        return card.inventory()


def writes(card: VirtualCard, kind: str) -> list[int]:
    return [record.number for record in card.log if isinstance(record, Write) and record.kind == kind]


def private_key(algorithm: Algorithm) -> PrivateKey:
    match algorithm:
        case Algorithm.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case Algorithm.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case Algorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case Algorithm.X25519:
            return x25519.X25519PrivateKey.generate()
    p, q, _ = (int.from_bytes(part, "big") for part in POOL.take(algorithm.octets * 8))
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    crt = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(65537, p * q)).private_key()


def test_process_personalizes_and_ours_reads_it(tools: Tools, seats: Seats) -> None:
    reader = seats.fresh("yubikey-5.7").reader
    start = ("ykman", "-r", reader, "piv")
    said = tools.run(*start, "info")
    for expected in (
        "PIV version:              5.7.4",
        "default PIN",
        "default PUK",
        "default Management key",
        "CHUID: No data",
    ):
        assert expected in said
    tools.run(*start, "keys", "generate", *KEY, "-a", "eccp256", "9a", "9a.pem")
    tools.run(*start, "certificates", "generate", *KEY, *BY_PIN, "-s", "CN=Alice", "9a", "9a.pem")
    tools.run(*start, "objects", "generate", *KEY, "ccc")
    tools.run(*start, "access", "change-pin", "-P", PIN, "-n", "271828")
    found = inventory(reader)
    key = found.key(Slot.AUTHENTICATION)
    assert key is not None and key.fingerprint == fingerprint(tools.public_key("9a.pem"))
    certificate = found.certificate(Slot.AUTHENTICATION)
    assert certificate is not None and certificate.subject == "CN=Alice" and certificate.key == key.fingerprint
    assert found.identity.guid is not None and found.identity.serial == "12345678"
    assert found.object(containers.CCC.tag).presence is Presence.PRESENT
    assert (found.pin.is_default, found.puk.is_default, found.management_key.is_default) == (False, True, True)
    assert found.defects == ()
    said = tools.run(*start, "info")
    assert "default PIN" not in said and "CN=Alice" in said and "Private key type: ECCP256" in said


@pytest.mark.parametrize("algorithm", list(ALGORITHMS), ids=lambda one: one.label)
def test_keys_generated_by_ykman(
    algorithm: Algorithm, piv: Ykman, reader: str, tools: Tools, card: VirtualCard
) -> None:
    public, statement, signer = (tools.path(name) for name in ("public.pem", "statement.pem", "f9.pem"))
    policies = ("--pin-policy", "once", "--touch-policy", "never")
    piv("keys", "generate", *KEY, "-a", ALGORITHMS[algorithm], *policies, "9d", public)
    made = tools.public_key("public.pem")
    key = inventory(reader).key(Slot.KEY_MANAGEMENT)
    assert key is not None
    assert (key.algorithm, key.origin, key.fingerprint) == (algorithm, KeyOrigin.GENERATED, fingerprint(made))
    assert (key.pin_policy, key.touch_policy) == (PinPolicy.ONCE, TouchPolicy.NEVER)
    said = piv("keys", "info", "9d")
    assert ALGORITHMS[algorithm].upper() in said and "GENERATED" in said
    piv("keys", "attest", "9d", statement)
    piv("certificates", "export", "f9", signer)
    tools.write("root.pem", root_pem())
    assert "statement.pem: OK" in tools.run(
        "openssl", "verify", "-CAfile", "root.pem", "-untrusted", signer, "statement.pem"
    )
    root = x509.load_pem_x509_certificate(root_pem())
    said_by_card = verify_attestation(tools.certificate("statement.pem"), tools.certificate("f9.pem"), [root])
    assert said_by_card.trusted and said_by_card.public_key == made
    assert (said_by_card.slot, said_by_card.serial) == (Slot.KEY_MANAGEMENT, "12345678")
    if algorithm is Algorithm.X25519:
        return
    piv("keys", "export", "--verify", *BY_PIN, "9d", tools.path("again.pem"))
    assert tools.public_key("again.pem") == made
    piv("certificates", "request", *BY_PIN, "-s", "CN=Alice", "9d", public, tools.path("request.pem"))
    assert "verify OK" in tools.run("openssl", "req", "-verify", "-noout", "-in", "request.pem")
    piv("certificates", "generate", *KEY, *BY_PIN, "-s", "CN=Alice", "-d", "30", "9d", public)
    with ours(reader) as mine:
        certificate = mine.certificate(Slot.KEY_MANAGEMENT)
    tools.write("own.pem", certificate.public_bytes(Encoding.PEM))
    assert "own.pem: OK" in tools.run("openssl", "verify", "-check_ss_sig", "-CAfile", "own.pem", "own.pem")
    assert certificate.public_key() == made
    assert sum(isinstance(record, KeyUse) and record.slot == 0x9D for record in card.log) == 2


@pytest.mark.parametrize("algorithm", list(ALGORITHMS), ids=lambda one: one.label)
def test_keys_imported_by_ykman_work_for_ours(algorithm: Algorithm, piv: Ykman, reader: str, tools: Tools) -> None:
    key = private_key(algorithm)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    piv("keys", "import", *KEY, "9d", tools.write("key.pem", pem))
    with ours(reader) as mine:
        on_card = mine.key(Slot.KEY_MANAGEMENT)
        row = mine.inventory().key(Slot.KEY_MANAGEMENT)
        assert row is not None and row.origin is KeyOrigin.IMPORTED
        assert on_card.public_key() == key.public_key()
        match key, on_card:
            case rsa.RSAPrivateKey(), rsa.RSAPrivateKey():
                sealed = key.public_key().encrypt(b"secret", padding.PKCS1v15())
                assert on_card.decrypt(sealed, padding.PKCS1v15()) == b"secret"
            case ec.EllipticCurvePrivateKey(), ec.EllipticCurvePrivateKey():
                other = ec.generate_private_key(key.curve)
                shared = on_card.exchange(ec.ECDH(), other.public_key())
                assert shared == other.exchange(ec.ECDH(), key.public_key())
            case ed25519.Ed25519PrivateKey(), ed25519.Ed25519PrivateKey():
                key.public_key().verify(on_card.sign(b"m"), b"m")
            case x25519.X25519PrivateKey(), x25519.X25519PrivateKey():
                party = x25519.X25519PrivateKey.generate()
                assert on_card.exchange(party.public_key()) == party.exchange(key.public_key())
    with pytest.raises(ToolFailed):
        piv("keys", "attest", "9d", tools.path("statement.pem"))


def test_certificates(piv: Ykman, reader: str, tools: Tools, card: VirtualCard) -> None:
    key = private_key(Algorithm.RSA2048)
    tools.write("key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tools.run("openssl", "req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=Alice", "-out", "cert.pem")
    tools.run("openssl", "req", "-x509", "-new", "-newkey", "rsa:1024", "-nodes", "-keyout", "other.pem", "-subj",
              "/CN=Bob", "-out", "bob.pem")  # fmt: skip
    tools.run(
        "openssl",
        "pkcs12",
        "-export",
        "-inkey",
        "key.pem",
        "-in",
        "cert.pem",
        "-passout",
        "pass:pw",
        "-out",
        "both.p12",
    )
    piv("keys", "import", *KEY, "-p", "pw", "82", tools.path("both.p12"))
    with pytest.raises(ToolFailed, match="not match"):
        piv("certificates", "import", *KEY, *BY_PIN, "--verify", "82", tools.path("bob.pem"))
    piv("certificates", "import", *KEY, *BY_PIN, "--verify", "--compress", "82", tools.path("cert.pem"))
    with ours(reader) as mine:
        assert mine.certificate(Slot.RETIRED_1) == tools.certificate("cert.pem")
    piv("certificates", "export", "82", tools.path("back.pem"))
    assert tools.certificate("back.pem") == tools.certificate("cert.pem")
    piv("certificates", "delete", *KEY, "82")
    assert inventory(reader).certificate(Slot.RETIRED_1) is None
    with pytest.raises(ToolFailed, match="No certificate"):
        piv("certificates", "export", "82", tools.path("none.pem"))
    assert writes(card, "object deleted") == [Slot.RETIRED_1.certificate_tag]


@pytest.mark.parametrize("algorithm", list(ManagementAlgorithm), ids=lambda one: one.name.lower())
def test_management_keys_set_by_ykman_open_for_ours(algorithm: ManagementAlgorithm, piv: Ykman, reader: str) -> None:
    new = bytes(range(0x10, 0x10 + algorithm.key_octets)).hex()
    piv("access", "change-management-key", *KEY, "-n", new, "-a", algorithm.name.lower(), "-f")
    state = inventory(reader).management_key
    assert (state.algorithm, state.is_default) == (algorithm, False)
    ccc = bytes.fromhex("f000")
    with ours(reader) as mine:
        mine.managed(
            lambda stage: programs.write_object(containers.CCC.tag, ccc, "writing", stage),
            management_key(new, algorithm),
        )
        with pytest.raises(ManagementKeyRefused):
            mine.managed(
                lambda stage: programs.write_object(containers.CCC.tag, ccc, "writing", stage),
                management_key(FACTORY_KEY, ManagementAlgorithm.AES192),
            )
    piv("objects", "generate", "-m", new, "chuid")
    with pytest.raises(ToolFailed, match="management key failed"):
        piv("objects", "generate", *KEY, "chuid")


def test_management_key_kept_on_the_card_under_the_pin(piv: Ykman, reader: str, card: VirtualCard) -> None:
    piv("access", "change-management-key", *KEY, *BY_PIN, "--protect", "-f")
    before = len(writes(card, "key generated"))
    piv("keys", "generate", *BY_PIN, "-a", "eccp256", "9c", "-")
    assert len(writes(card, "key generated")) == before + 1
    found = inventory(reader)
    assert found.management_key.is_default is False
    assert found.object(containers.PRINTED.tag).presence in (Presence.PROTECTED, Presence.UNREAD)
    assert "protected" in piv("info").lower()
    with pytest.raises(ToolFailed):
        piv("keys", "generate", "-P", "999999", "-a", "eccp256", "9c", "-")


def test_pin_and_puk(piv: Ykman, reader: str, card: VirtualCard) -> None:
    piv("access", "change-pin", "-P", PIN, "-n", "271828")
    piv("access", "change-puk", "-p", PUK, "-n", "31415926")
    found = inventory(reader)
    assert (found.pin.is_default, found.puk.is_default) == (False, False)
    for left in (2, 1, 0):
        with pytest.raises(ToolFailed, match=rf"{left} tries left|blocked"):
            piv("access", "change-pin", "-P", PIN, "-n", "111222")
        assert inventory(reader).pin.tries_left == left
    with pytest.raises(ToolFailed, match="2 tries left"):
        piv("access", "unblock-pin", "-p", PUK, "-n", "161803")
    with ours(reader, "31415926", new="161803") as mine:
        marks = mine.run(programs.read_marks())
        assert isinstance(marks, programs.Marks)
        mine.run(programs.unblock_pin(marks, Secret(b"31415926")))
    piv("access", "change-pin", "-P", "161803", "-n", "271828")
    piv("access", "unblock-pin", "-p", "31415926", "-n", PIN)
    with ours(reader) as mine:
        mine.run(programs.verify_pin(programs.Marks(serial=(12345678).to_bytes(4, "big"))))
    good = [record.ok for record in card.log if isinstance(record, Verify) and record.reference == PinReference.PUK]
    assert good == [True, False, True, True]


def test_set_retries_resets_both_to_factory_values(piv: Ykman, reader: str) -> None:
    piv("access", "change-pin", "-P", PIN, "-n", "271828")
    piv("access", "set-retries", *KEY, "-P", "271828", "-f", "7", "9")
    found = inventory(reader)
    assert (found.pin.tries_total, found.pin.tries_left, found.puk.tries_total) == (7, 7, 9)
    assert (found.pin.is_default, found.puk.is_default) == (True, True)
    assert "7/7" in piv("info")


def test_keys_move_and_delete(piv: Ykman, reader: str, card: VirtualCard) -> None:
    piv("keys", "generate", *KEY, "-a", "eccp384", "9a", "-")
    before = inventory(reader).key(Slot.AUTHENTICATION)
    piv("keys", "move", *KEY, "9a", "95")
    after = inventory_of(reader, Slot.AUTHENTICATION, Slot.RETIRED_20)
    moved = after.key(Slot.RETIRED_20)
    assert before is not None and moved is not None
    assert (after.key(Slot.AUTHENTICATION), moved.fingerprint) == (None, before.fingerprint)
    piv("keys", "delete", *KEY, "95")
    assert inventory_of(reader, Slot.RETIRED_20).keys == ()
    with pytest.raises(ToolFailed, match="No key"):
        piv("keys", "info", "95")
    assert writes(card, "key deleted") == [0x95]


def inventory_of(reader: str, *slots: Slot) -> Inventory:
    with ours(reader) as mine:
        return mine.inventory(Look(slots=slots))


def test_objects(piv: Ykman, reader: str, tools: Tools) -> None:
    piv("objects", "generate", *KEY, "chuid")
    piv("objects", "generate", *KEY, "ccc")
    found = inventory(reader)
    guid, chuid = found.identity.guid, found.object(containers.CHUID.tag)
    assert guid is not None and chuid.presence is Presence.PRESENT
    assert found.object(containers.CCC.tag).presence is Presence.PRESENT
    piv("objects", "export", "chuid", tools.path("chuid.bin"))
    assert guid.bytes in tools.path("chuid.bin").read_bytes()
    large = tools.write("large.bin", bytes(range(256)) * 10)
    piv("objects", "import", *KEY, "0x5fc10f", large)
    piv("objects", "export", "0x5fc10f", tools.path("back.bin"))
    assert tools.path("back.bin").read_bytes() == large.read_bytes()
    piv("objects", "import", *KEY, "printed", tools.write("printed.bin", b"\x01\x05Alice"))
    piv("objects", "export", *BY_PIN, "printed", tools.path("p.bin"))
    assert tools.path("p.bin").read_bytes() == b"\x01\x05Alice"
    with pytest.raises(ToolFailed):
        piv("objects", "export", "-P", "999999", "printed", tools.path("q.bin"))


def test_reset_clears_all(piv: Ykman, reader: str, card: VirtualCard) -> None:
    piv("access", "change-management-key", *KEY, "-n", "00112233445566778899aabbccddeeff", "-a", "aes128", "-f")
    piv("keys", "generate", "-m", "00112233445566778899aabbccddeeff", "-a", "eccp256", "9a", "-")
    piv("reset", "-f")
    found = inventory(reader)
    assert (found.keys, found.certificates, found.identity.guid) == ((), (), None)
    assert (found.pin.is_default, found.puk.is_default, found.management_key.is_default) == (True, True, True)
    assert found.management_key.algorithm == ManagementAlgorithm.AES192
    assert len(writes(card, "factory reset")) == 1


def test_wrong_management_key_changes_nothing(piv: Ykman, card: VirtualCard) -> None:
    before = card.state_hash()
    with pytest.raises(ToolFailed, match="management key failed"):
        piv("keys", "generate", "-m", "00" * 24, "-a", "eccp256", "9a", "-")
    assert card.state_hash() == before
    assert [record.ok for record in card.log if isinstance(record, ManagementAuthentication)] == [False]


def test_keys_by_pin_policy(piv: Ykman, reader: str, tools: Tools) -> None:
    """A key that never wants the PIN signs without it; one that always does is refused without it."""
    piv("keys", "generate", *KEY, "-a", "eccp256", "--pin-policy", "never", "9a", tools.path("9a.pem"))
    piv("keys", "generate", *KEY, "-a", "eccp256", "--pin-policy", "always", "9c", tools.path("9c.pem"))
    with ours(reader, pin=None) as mine:
        free = mine.key(Slot.AUTHENTICATION, pin=None)
        assert isinstance(free, ec.EllipticCurvePrivateKey)
        free.public_key().verify(free.sign(b"m", ec.ECDSA(SHA256)), b"m", ec.ECDSA(SHA256))
        guarded = mine.key(Slot.SIGNATURE, pin=None)
        assert isinstance(guarded, ec.EllipticCurvePrivateKey)
        with pytest.raises(SecurityStatusNotSatisfied):
            guarded.sign(b"m", ec.ECDSA(SHA256))
    for name in ("9a", "9c"):
        Path(tools.path("r.pem")).unlink(missing_ok=True)
        piv("certificates", "request", *BY_PIN, "-s", "CN=Alice", name, tools.path(f"{name}.pem"), tools.path("r.pem"))
        assert "verify OK" in tools.run("openssl", "req", "-verify", "-noout", "-in", "r.pem")
