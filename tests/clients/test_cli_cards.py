"""The command line on virtual cards: listing, choosing, PINs, keys, certificates; errors in words and codes."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from cardwright_cardops.transport.connection import Connection
from cardwright_simulators.card import VirtualCard
from tests.support.command_line import Desk
from tests.support.virtual import POOL


def card(serial: int, profile: str = "yubikey-5.7") -> VirtualCard:
    return VirtualCard(profile, serial=serial, key_pool=POOL)


def two() -> Desk:
    return Desk(left=card(11), right=card(22))


def certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name.from_rfc4514_string("CN=somebody")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )  # fmt: skip


def test_help_is_there_for_every_command() -> None:
    desk = Desk()
    for line in ("", "card", "card init", "card check", "card list", "card show", "card trace", "pin", "pin change",
                 "pin unblock", "pin status", "key", "key generate", "key import", "key attest", "cert",
                 "cert import", "cert export", "cert delete", "readers", "sim", "sim card", "sim profiles",
                 "sim images"):  # fmt: skip
        ran = desk.run(*line.split(), "--help")
        assert ran.code == 0 and ran.out.startswith("Usage: cardwright"), line


def test_readers_are_listed() -> None:
    desk = two()
    assert desk.run("readers").out.splitlines()[0].split() == ["READER", "CARD"]
    readers = desk.run("readers", "--json").json["readers"]
    assert [row["name"] for row in readers] == ["left", "right"]
    assert bytes.fromhex(readers[0]["atr"]) == desk.cards["left"].atr


def test_cards_are_listed_and_a_mute_one_hides_no_other() -> None:
    desk = two()
    desk.mute.add("left")
    cards = desk.run("card", "list", "--json").json["cards"]
    assert [row["serial"] for row in cards] == [None, "22"]
    assert cards[0]["problem"]["code"] == "CARD_UNRESPONSIVE"
    assert "CARD_UNRESPONSIVE" in desk.run("card", "list").out


def test_without_a_choice_several_cards_are_listed_and_nothing_is_done() -> None:
    desk = two()
    ran = desk.run("pin", "change", secrets="123456\n654321\n")
    assert ran.code == 1 and "CARD_AMBIGUOUS" in ran.err and "serial 11" in ran.err and "serial 22" in ran.err
    assert desk.run("pin", "status", "--json").json["error"]["code"] == "CARD_AMBIGUOUS"


@pytest.mark.parametrize("option", [("--serial", "22"), ("--reader", "RIGHT")])
def test_a_card_is_chosen(option: tuple[str, str]) -> None:
    desk = two()
    assert desk.run("pin", "change", *option, secrets="123456\n654321\n").code == 0
    assert desk.run("pin", "status", *option, "--json").json["pin"]["default"] is False
    assert desk.run("pin", "status", "--serial", "11", "--json").json["pin"]["default"] is True


def test_a_card_that_is_swapped_after_it_was_chosen_gets_nothing() -> None:
    """Every connection belongs to one card; one made later would reach the card that is in by then."""
    desk = two()
    stranger = card(11)
    taken: list[str] = []
    connect = desk.direct._connect

    def once(reader: str) -> Connection:
        taken.append(reader)
        if taken.count(reader) > 1:
            desk.cards[reader] = stranger
        return connect(reader)

    desk.direct._connect = once
    assert desk.run("pin", "change", "--serial", "22", secrets="123456\n654321\n").code == 0
    assert taken == ["left", "right"], "no second connection was made"


def test_a_choice_that_fits_nothing_says_what_is_there() -> None:
    ran = two().run("card", "show", "--serial", "33")
    assert ran.code == 1 and "CARD_NOT_FOUND" in ran.err and "serial 11" in ran.err
    assert "CARD_NOT_FOUND" in Desk().run("card", "show").err


def test_show_tells_what_is_on_the_card() -> None:
    desk = Desk(only=card(11))
    shown = desk.run("card", "show", "--json").json
    assert shown["identity"]["serial"] == "11" and shown["pin"]["tries_left"] == 3
    text = desk.run("card", "show").out
    assert "Serial:" in text and "factory value: change it" in text


def test_trace_shows_commands_and_no_secrets() -> None:
    ran = Desk(only=card(11)).run("card", "trace")
    assert ran.code == 0
    entries = ran.json["trace"]
    assert len(entries) > 10 and any("SELECT" in str(entry) for entry in entries)


def test_pin_status_change_and_unblock() -> None:
    desk = Desk(only=card(11))
    assert desk.run("pin", "change", secrets="111111\n654321\n").code == 1
    assert desk.run("pin", "status", "--json").json["pin"]["tries_left"] == 2
    ran = desk.run("pin", "change", secrets="123456\n654321\n")
    assert ran.code == 0 and "changed" in ran.out
    assert desk.run("pin", "change", "--puk", secrets="12345678\n87654321\n").code == 0
    assert desk.run("pin", "unblock", secrets="87654321\n123123\n").code == 0
    assert desk.run("pin", "change", secrets="123123\n654321\n").code == 0


def test_the_last_try_is_kept_unless_allowed() -> None:
    desk = Desk(only=card(11))
    for _ in range(2):
        assert "VERIFICATION_FAILED" in desk.run("pin", "change", secrets="111111\n654321\n").err
    assert "LAST_TRY" in desk.run("pin", "change", secrets="111111\n654321\n").err
    assert desk.run("pin", "status", "--json").json["pin"]["tries_left"] == 1
    blocked = desk.run("pin", "change", "--allow-last-try", secrets="111111\n654321\n")
    assert "REFERENCE_BLOCKED" in blocked.err
    assert "ALREADY_BLOCKED" in desk.run("pin", "change", secrets="123456\n654321\n").err
    for _ in range(2):
        assert "VERIFICATION_FAILED" in desk.run("pin", "unblock", secrets="11111111\n654321\n").err
    assert "LAST_TRY" in desk.run("pin", "unblock", secrets="11111111\n654321\n").err


@pytest.mark.parametrize(
    ("secrets", "code"),
    [("123456\n12345\n", "PIN_FORMAT"), ("123456\nabcdef\n", "PIN_FORMAT"), ("123456\n", "PIN_NOT_GIVEN"),
     ("", "PIN_NOT_GIVEN"), ("123456\n" + "1" * 500 + "\n", "PIN_NOT_GIVEN")],
)  # fmt: skip
def test_pins_that_no_card_takes_are_refused_before_anything_is_sent(secrets: str, code: str) -> None:
    desk = Desk(only=card(11))
    ran = desk.run("pin", "change", secrets=secrets)
    assert ran.code == 1 and code in ran.err
    assert desk.run("pin", "status", "--json").json["pin"]["tries_left"] == 3


def test_without_a_terminal_and_a_descriptor_the_command_says_what_to_do() -> None:
    ran = Desk(only=card(11)).run("pin", "change")
    assert ran.code == 1 and "--secrets-fd" in ran.err


def test_keys_are_generated_and_never_silently_replaced(tmp_path: Path) -> None:
    desk = Desk(only=card(11))
    made = desk.run("key", "generate", "9a", "--algorithm", "p384", "--pin-policy", "always")
    assert made.code == 0
    public = load_pem_public_key(made.out.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey) and public.key_size == 384
    assert "SLOT_OCCUPIED" in desk.run("key", "generate", "9a").err
    again = desk.run("key", "generate", "9a", "--overwrite", "--out", str(tmp_path / "key.pem"))
    assert again.code == 0 and again.out == "" and (tmp_path / "key.pem").read_text() != made.out


def test_attestation_is_read_and_its_trust_is_told(tmp_path: Path) -> None:
    from cardwright_simulators.card.attestation import root_pem

    desk = Desk(only=card(11))
    desk.run("key", "generate", "9c", "--touch-policy", "cached")
    root = tmp_path / "root.pem"
    root.write_bytes(root_pem())
    plain = desk.run("key", "attest", "9c", "--json").json
    assert (plain["slot"], plain["serial"], plain["touch_policy"], plain["trusted"]) == ("9C", "11", "cached", False)
    chain = tmp_path / "chain.pem"
    trusted = desk.run("key", "attest", "9c", "--root", str(root), "--out", str(chain), "--json").json
    assert trusted["trusted"] is True
    statement, signer = x509.load_pem_x509_certificates(chain.read_bytes())
    (tmp_path / "statement.pem").write_bytes(statement.public_bytes(Encoding.PEM))
    (tmp_path / "signer.pem").write_bytes(signer.public_bytes(Encoding.PEM))
    verdict = subprocess.run(
        ["openssl", "verify", "-CAfile", root, "-untrusted", tmp_path / "signer.pem", tmp_path / "statement.pem"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verdict.stdout.strip().endswith("OK"), verdict.stderr


def test_imported_keys_cannot_be_attested(tmp_path: Path) -> None:
    desk = Desk(only=card(11))
    file = tmp_path / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert desk.run("key", "import", "9d", str(file)).code == 0
    ran = desk.run("key", "attest", "9d")
    assert ran.code == 1 and "imported" in ran.err


def test_protected_key_files_ask_for_their_password(tmp_path: Path) -> None:
    desk = Desk(only=card(11))
    file = tmp_path / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")))
    assert "KEY_FILE" in desk.run("key", "import", "9d", str(file), secrets="wrong\n").err
    assert desk.run("key", "import", "9d", str(file), secrets="pass\n").code == 0
    file.write_text("nothing")
    assert "KEY_FILE" in desk.run("key", "import", "9d", str(file)).err
    assert "FILE" in desk.run("key", "import", "9d", str(tmp_path / "absent")).err


def test_certificates_are_written_read_and_deleted(tmp_path: Path) -> None:
    desk = Desk(only=card(11))
    key, file, pem = ec.generate_private_key(ec.SECP256R1()), tmp_path / "key.pem", tmp_path / "cert.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pem.write_bytes(certificate(key).public_bytes(Encoding.PEM))
    assert "NO_CERTIFICATE" in desk.run("cert", "export", "9d").err
    desk.run("key", "import", "9d", str(file))
    assert desk.run("cert", "import", "9d", str(pem), "--compress").code == 0
    assert desk.run("cert", "export", "9d").out == pem.read_text()
    assert "SLOT_OCCUPIED" in desk.run("cert", "import", "9d", str(pem)).err
    other = tmp_path / "other.der"
    other.write_bytes(certificate(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.DER))
    assert "KEY_MISMATCH" in desk.run("cert", "import", "9d", str(other), "--overwrite").err
    assert desk.run("cert", "delete", "9d").code == 0
    assert "NO_CERTIFICATE" in desk.run("cert", "delete", "9d").err
    other.write_bytes(b"nothing")
    assert "CERTIFICATE_MALFORMED" in desk.run("cert", "import", "9d", str(other)).err


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("key generate 9b", "SLOT_UNKNOWN"),
        ("key generate 9a --algorithm rsa512", "ALGORITHM_UNSUPPORTED"),
        ("cert export zz", "SLOT_UNKNOWN"),
    ],
)
def test_names_nobody_has(line: str, code: str) -> None:
    ran = Desk(only=card(11)).run(*line.split())
    assert ran.code == 1 and code in ran.err


def test_usage_errors_have_exit_code_2() -> None:
    desk = Desk(only=card(11))
    for line in ("nonsense", "card nonsense", "key generate", "pin change --pin 123456", "card check --level gold"):
        assert desk.run(*line.split()).code == 2, line


def test_a_card_without_piv_and_one_with_a_wrong_management_key(tmp_path: Path) -> None:
    desk = Desk(only=card(11))
    wrong = "00" * 24
    assert desk.run("pin", "status").code == 0
    other = Desk(only=VirtualCard("sp800-73-5", key_pool=POOL))
    ran = other.run("key", "generate", "9a", secrets=f"{wrong[:32]}\n")
    assert "MANAGEMENT_KEY_WRONG" in ran.err
    assert "PIN_FORMAT" in other.run("key", "generate", "9a", secrets="zz\n").err


def test_profiles_and_images_are_listed(tmp_path: Path, shared_data: Path) -> None:
    desk = Desk()
    names = {row["name"] for row in desk.run("sim", "profiles", "--json").json["profiles"]}
    assert {"yubikey-5.7", "yubikey-5.4", "sp800-73-5", "secure-messaging", "pivapplet", "tdes-only", "t0-short",
            "globalplatform"} <= names  # fmt: skip
    images = desk.run("sim", "images", str(shared_data / "icam-cards"), "--json").json["images"]
    assert len(images) >= 40
    assert desk.run("sim", "images", str(tmp_path)).code == 0
