"""What the command line prints, whatever is on the card: nothing moves a cursor, and JSON is always JSON."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from cardwright_clients.cli.output import json_text, visible
from cardwright_simulators.card import VirtualCard
from tests.support.command_line import Desk
from tests.support.virtual import POOL

NASTY = "eve\x1b[2J\x07\r\nverdict: good\x9b31m\u202egpj\u2028\x7f"


def hidden(text: str) -> set[str]:
    """Characters of ``text`` that are not seen; the line ends that the command itself writes are passed over."""
    return {one for one in text if one != "\n" and unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}


def nasty_card(folder: Path) -> Desk:
    """A card with a certificate whose subject is meant for the terminal."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NASTY)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=3650)).sign(
        key, hashes.SHA256()
    )
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    desk = Desk(**{f"reader{NASTY}": VirtualCard("yubikey-5.7", serial=11, key_pool=POOL)})
    assert desk.run("key", "import", "9a", str(folder / "key.pem")).code == 0
    assert desk.run("cert", "import", "9a", str(folder / "cert.pem")).code == 0
    return desk


def test_nothing_of_a_card_or_reader_reaches_the_terminal_raw(tmp_path: Path) -> None:
    desk = nasty_card(tmp_path)
    for line in ("card show", "card list", "card check", "readers", "card show --serial 99", "key generate 9a",
                 "pin change", "pin status", "cert export 9c"):  # fmt: skip
        ran = desk.run(*line.split())
        assert not hidden(ran.out) and not hidden(ran.err), line
        assert not any(row.startswith("verdict") for row in (ran.out + ran.err).splitlines()), line
    shown = desk.run("card", "show").out
    assert "\\x1B[2J\\x07" in shown and "\\u{202E}" in shown


def test_json_says_the_same_octets_and_shows_none(tmp_path: Path) -> None:
    ran = nasty_card(tmp_path).run("card", "show", "--json")
    assert not hidden(ran.out)
    assert ran.json["reader"] == f"reader{NASTY}"


def test_questions_show_what_is_hidden() -> None:
    from cardwright_clients.cli.secrets import Asked

    assert Asked("current PIN", f"change the PIN of the card in {NASTY}").sentence.isprintable()


@given(st.text(st.characters()))
def test_visible_text_has_nothing_hidden_and_plain_text_is_left(text: str) -> None:
    shown = visible(text)
    assert not hidden(shown) and "\n" not in shown
    shown.encode()
    assert hidden(text) or "\n" in text or shown == text


@given(st.recursive(st.text(st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_read_back_as_it_was_and_can_always_be_written(value: object) -> None:
    text = json_text(value)
    text.encode()
    assert not hidden(text)
    assert json.loads(text) == value


def test_usage_errors_are_json_where_json_was_asked_for() -> None:
    for line in ("card nonsense --json", "card check --level gold --json", "cert --json", "pin status --json extra"):
        ran = Desk().run(*line.split())
        assert ran.code == 2, line
        assert ran.json["error"]["code"] == "USAGE" and ran.json["error"]["message"], line
        assert "Usage:" in ran.err


def test_an_image_with_a_lone_surrogate_for_a_name_is_listed(tmp_path: Path) -> None:
    (tmp_path / "image.json").write_text('{"card": "\\ud800", "objects": {}}')
    plain = Desk().run("sim", "images", str(tmp_path))
    assert plain.code == 0 and "\\u{D800}" in plain.out
    assert Desk().run("sim", "images", str(tmp_path), "--json").json["images"][0]["card"] == "\ud800"


def test_names_keep_their_capitals() -> None:
    desk = Desk(Upper=VirtualCard("yubikey-5.7", serial=11, key_pool=POOL))
    ran = desk.run("pin", "unblock", secrets="12345678\n654321\n")
    assert ran.out == "The card in Upper has a new PIN.\n"
