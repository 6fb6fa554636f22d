"""Strange surroundings and hostile files: every one ends with a code and words, none with a traceback."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_clients.cli import card_check, daemon, pin, server_status
from cardwright_simulators.card import VirtualCard
from tests.support.command_line import Desk
from tests.support.virtual import POOL

COMMAND = str(Path(sys.executable).with_name("cardwright"))


def desk() -> Desk:
    return Desk(only=VirtualCard("yubikey-5.7", serial=11, key_pool=POOL))


def shell(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """``$0`` in ``line`` is the command; the reader is never reached."""
    return subprocess.run(
        ["sh", "-c", line, COMMAND], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **more}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"$0" --help >/dev/full', "Error FILE"),
        ('"$0" sim profiles >/dev/full', "Error FILE"),
        ('"$0" sim profiles --help >/dev/full', "Error FILE"),
        ('"$0" cert import 9a - <&-', "Error FILE"),
        ('"$0" sim card --state /absent/card.json --vpcd 127.0.0.1:1', "Error "),
        ('"$0" sim card --vpcd "127.0.0.1:²"', "Error VPCD_ADDRESS"),
        ('"$0" sim card --vpcd " ../x:80"', "Error VPCD_ADDRESS"),
        ('"$0" sim card --vpcd "..:80"', "Error VPCD_ADDRESS"),
    ],
)
def test_strange_surroundings_end_with_words(line: str, said: str) -> None:
    ran = shell(line)
    assert ran.returncode == 1 and said in ran.stderr
    assert "Traceback" not in ran.stderr and "Exception ignored" not in ran.stderr and "INTERNAL" not in ran.stderr


def test_a_descriptor_that_nobody_opened_is_refused_before_a_card_connection_takes_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = desk()
    opened: list[str] = []
    monkeypatch.setattr(here.direct, "_connect", opened.append)
    free = os.dup(0)
    os.close(free)
    for command in ("pin change", "card init", "card check --with-pin", "key generate 9a"):
        ran = here.run(*command.split(), "--secrets-fd", str(free))
        assert ran.code == (2 if "check" in command else 1) and "PIN_NOT_GIVEN" in ran.err
    assert opened == []


def test_arguments_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """The shell passes any octets on. Names of files may be any; a login may not."""
    key, issuer = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = (
        x509.CertificateBuilder().subject_name(issuer).issuer_name(issuer).public_key(key.public_key())
        .serial_number(1).not_valid_before(datetime(2026, 1, 1)).not_valid_after(datetime(2036, 1, 1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    operator = tmp_path / "operator.pem"
    operator.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM) * 2
    )
    operator.chmod(0o600)
    ran = shell(f'"$0" server user add "$(printf \'a\\377\')" --name Ada --as {operator} --json')
    assert (ran.returncode, json.loads(ran.stdout)["error"]["code"]) == (2, "USAGE")
    assert "UTF-8" in ran.stderr and "INTERNAL" not in ran.stderr


def test_the_process_leaves_no_core_file(tmp_path: Path) -> None:
    pipe = tmp_path / "certificate"
    os.mkfifo(pipe)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    line = 'ulimit -S -c "$(ulimit -H -c)"; exec "$0" cert import 9a "$1"'
    ran = subprocess.Popen(["sh", "-c", line, COMMAND, str(pipe)], stderr=subprocess.PIPE)
    with pipe.open("wb"):  # opens once the command reads it
        assert resource.prlimit(ran.pid, resource.RLIMIT_CORE) == (0, hard)
    assert ran.communicate(timeout=60)[1].startswith(b"Error") and ran.returncode == 1


def test_standard_input_that_is_closed_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    here = desk()
    monkeypatch.setattr(sys, "stdin", None)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "PIN_NOT_GIVEN" in here.run("pin", "change").err
    assert here.run("card", "init").code == 2


@pytest.mark.parametrize("value", ["123456789", "1" * 100])
def test_values_that_no_card_holds_are_not_sent(value: str) -> None:
    here = desk()
    for line in ("pin change", "pin change --puk", "pin unblock"):
        assert "PIN_FORMAT" in here.run(*line.split(), secrets=f"{value}\n654321\n").err, line
    state = here.run("pin", "status", "--json").json
    assert (state["pin"]["tries_left"], state["puk"]["tries_left"]) == (3, 3)


def test_descriptors_that_cannot_be_read() -> None:
    here = desk()
    reading, writing = os.pipe()
    try:
        for number in (str(writing), "999999"):
            assert "PIN_NOT_GIVEN" in here.run("pin", "change", "--secrets-fd", number).err
        assert here.run("pin", "change", "--secrets-fd", "99999999999").code == 2
    finally:
        os.close(reading)
        os.close(writing)


def test_keys_and_certificates_that_no_slot_holds(tmp_path: Path) -> None:
    here = desk()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for name, curve in (("koblitz", ec.SECP256K1()), ("large", ec.SECP521R1())):
        key = ec.generate_private_key(curve)
        who = x509.Name.from_rfc4514_string("CN=somebody")
        builder = x509.CertificateBuilder(who, who, key.public_key(), 1, now, now + timedelta(days=9))
        key_der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        (tmp_path / "key").write_bytes(key_der)
        (tmp_path / "certificate").write_bytes(certificate)
        assert "KEY_FILE" in here.run("key", "import", "9a", str(tmp_path / "key")).err, name
        assert "ALGORITHM_UNSUPPORTED" in here.run("cert", "import", "9a", str(tmp_path / "certificate")).err, name
    p256, odd = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(who, who, key.public_key(), 1, now, now + timedelta(days=9))
    key_der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(key_der.replace(p256, odd))
    (tmp_path / "certificate").write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER).replace(p256, odd)
    )
    assert "KEY_FILE" in here.run("key", "import", "9a", str(tmp_path / "key")).err
    assert "CERTIFICATE_MALFORMED" in here.run("cert", "import", "9a", str(tmp_path / "certificate")).err


def test_a_certificate_that_is_too_large_may_fit_compressed(tmp_path: Path) -> None:
    here, who, now = desk(), x509.Name.from_rfc4514_string("CN=somebody"), datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(who, who, key.public_key(), 1, now, now + timedelta(days=9)).add_extension(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.13"), bytes(4000)), critical=False
    )
    file = tmp_path / "certificate"
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    ran = here.run("cert", "import", "82", str(file))
    assert ran.code == 1 and "CARD_FULL" in ran.err and "--compress" in ran.err
    assert here.run("cert", "import", "82", str(file), "--compress").code == 0


@pytest.mark.parametrize("slot", ["0x9a", "9_a", "\uff19a", "9a ", "+9a", "09a", ""])
def test_slots_are_two_hex_digits(slot: str) -> None:
    assert "SLOT_UNKNOWN" in desk().run("cert", "export", slot).err


def test_the_makers_certificate_is_deleted_only_expressly() -> None:
    here = desk()
    before = here.cards["only"].state_hash()
    ran = here.run("cert", "delete", "f9")
    assert ran.code == 2 and "--attestation" in ran.err
    assert here.cards["only"].state_hash() == before
    assert here.run("cert", "delete", "f9", "--attestation").code == 0
    assert "NO_CERTIFICATE" in here.run("cert", "export", "f9").err


def test_a_card_is_not_kept_in_a_folder(tmp_path: Path) -> None:
    assert Desk().run("sim", "card", "--state", str(tmp_path)).code == 2


def test_a_folder_of_images_must_be_there(tmp_path: Path) -> None:
    assert Desk().run("sim", "images", str(tmp_path / "absent")).code == 2


@pytest.mark.parametrize(("line", "exit_code"), [("pin status", 1), ("card check", 2)])
def test_the_unforeseen_is_told_without_what_it_carries(
    line: str, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("value 271828")

    monkeypatch.setattr(pin, "the_cards", broken)
    monkeypatch.setattr(card_check, "the_cards", broken)
    monkeypatch.delenv("CARDWRIGHT_TRACEBACK", raising=False)
    ran = desk().run(*line.split(), "--json")
    assert ran.code == exit_code
    assert ran.json["error"]["code"] == "INTERNAL" and "report" in ran.json["error"]["advice"]
    assert "Error INTERNAL" in ran.err and "271828" not in ran.err + ran.out and "Traceback" not in ran.err
    monkeypatch.setenv("CARDWRIGHT_TRACEBACK", "1")
    assert "Traceback" in desk().run(*line.split()).err


@pytest.mark.parametrize(
    ("line", "told"), [("server status", "recorded"), ("daemon enrol --server a:1 --entry b:2", "enrolled")]
)
def test_the_unforeseen_of_what_has_no_card_speaks_of_none(
    line: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server_status, "_addresses", broken)
    monkeypatch.setattr(daemon, "_token_text", broken)
    ran = desk().run(*line.split(), "--json")
    assert ran.json["error"]["code"] == "INTERNAL"
    assert told in ran.json["error"]["effect"] and "card" not in ran.json["error"]["effect"].replace("cardwright", "")


POLICIES = [
    "a." * 20000 + "b=1",
    "a." * 33 + "b=1",
    "x" * 9000 + "=1",
    "#" * (65 << 10),
    '{"name": "a", "name": "b"}',
    '{"slots": [{"slot": "9a", "slot": "9c", "algorithm": "p256"}]}',
    '{"secrets": {"retries": "ab"}}',
    '{"secrets": {"management_algorithm": 3}}',
    "\udcff",
]


@pytest.mark.parametrize("policy", POLICIES, ids=range(len(POLICIES)))
def test_hostile_policies_are_refused_at_once(policy: str, tmp_path: Path) -> None:
    here = desk()
    file = tmp_path / "policy"
    file.write_text(policy, errors="surrogateescape")
    count = here.cards["only"].apdu_count
    ran = here.run("card", "init", "--policy", str(file), secrets="271828\n31415926\n")
    assert ran.code == 1 and ("POLICY_MALFORMED" in ran.err or "Error FILE" in ran.err)
    assert here.cards["only"].apdu_count == count


def test_a_policy_whose_tries_are_no_list_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "policy"
    file.write_text('{"secrets": {"retries": "ab"}}')
    ran = desk().run("card", "init", "--policy", str(file), "--yes")
    assert "'retries' is not a list or null" in ran.err


@pytest.mark.parametrize(
    ("line", "secrets", "code"),
    [
        ("", None, 2),
        ("--replace", "271828\n31415926\n", 2),
        ("--replace --yes", "271828\n31415926\n", 0),
        ("", "271828\n31415926\n", 0),
    ],
)
def test_a_set_up_begins_only_where_somebody_agreed(line: str, secrets: str | None, code: int, tmp_path: Path) -> None:
    here = desk()
    before = here.cards["only"].state_hash()
    given = ["--keys", "9a=p256", "--secrets-out", str(tmp_path / "s"), *line.split()]
    ran = here.run("card", "init", *given, secrets=secrets)
    assert ran.code == code, ran.err
    assert (here.cards["only"].state_hash() == before) == (code != 0)


def test_no_keys_are_no_default_keys() -> None:
    assert "POLICY_MALFORMED" in desk().run("card", "init", "--keys", "", secrets="271828\n31415926\n").err
