"""``card check`` and ``card init`` from the command line: exit codes, JSON, and what they leave behind."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_simulators.card import VirtualCard, images
from tests.support.command_line import Desk
from tests.support.virtual import POOL

SECRETS = "271828\n31415926\n"
PROFILES = ["yubikey-5.7", "yubikey-5.4", "pivapplet", "tdes-only", "t0-short"]


def fresh(profile: str = "yubikey-5.7") -> Desk:
    return Desk(only=VirtualCard(profile, serial=4711, key_pool=POOL))


def bundle(path: Path, shared_data: Path, kind: str) -> Path:
    """The published test PKI as a PEM bundle."""
    pki = json.loads((shared_data / "icam-pki.json").read_text())
    if kind == "certs":
        rows = [x509.load_der_x509_certificate(bytes.fromhex(row["der"])).public_bytes(Encoding.PEM)
                for row in pki["certs"]]  # fmt: skip
    else:
        rows = [x509.load_der_x509_crl(bytes.fromhex(row["der"])).public_bytes(Encoding.PEM) for row in pki["crls"]]
    path.write_bytes(b"".join(rows))
    return path


def test_a_good_image_passes_and_a_tampered_one_does_not(tmp_path: Path, shared_data: Path) -> None:
    desk = Desk()
    trust = bundle(tmp_path / "trust.pem", shared_data, "certs")
    crls = bundle(tmp_path / "crls.pem", shared_data, "crls")
    options = ["--level", "piv", "--at", "2026-11-22", "--trust", str(trust), "--crl", str(crls)]
    folder = shared_data / "icam-cards"
    good = desk.run("card", "check", "--image", str(folder / "46_Golden_FIPS_201-2_PIV.json"), *options)
    assert good.code == 0 and "good at level piv" in good.out
    tampered = desk.run("card", "check", "--image", str(folder / "06_Tampered_PHOTO.json"), *options, "--json")
    assert tampered.code == 1
    findings = tampered.json["findings"]
    assert all(set(row) == {"code", "severity", "object", "message", "reference"} for row in findings)
    assert "5FC108" in {row["object"] for row in findings if row["severity"] == "error"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--image", "absent.json"),
        ("--image", "{self}"),
        ("--image", "{image}", "--at", "yesterday"),
        ("--image", "{image}", "--trust", "absent.pem"),
        ("--image", "{image}", "--crl", "{self}"),
        (),
    ],
)
def test_a_check_that_cannot_run_has_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    image = tmp_path / "image.json"
    image.write_text(json.dumps({"objects": {}}))
    given = [one.replace("{self}", __file__).replace("{image}", str(image)) for one in arguments]
    ran = Desk().run("card", "check", *given)
    assert ran.code == 2 and ran.err.startswith("Error ")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_fresh_card_is_set_up_and_is_good(profile: str, tmp_path: Path) -> None:
    desk = fresh(profile)
    out = tmp_path / "card.secrets"
    algorithms = "9a=rsa2048,9c=p256,9d=rsa2048:import,9e=p256"
    ran = desk.run("card", "init", "--keys", algorithms, "--secrets-out", str(out), secrets=SECRETS)
    assert ran.code == 0, ran.err
    assert "is set up" in ran.out and str(out) in ran.out
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "271828" not in out.read_text(), "the PIN is the person's"
    checked = desk.run("card", "check", "--json")
    assert checked.code == 0, checked.out
    full = desk.run("card", "check", "--with-pin", "--json", secrets="271828\n")
    assert full.code == 0, full.out
    assert desk.run("pin", "change", secrets="271828\n161803\n").code == 0
    again = desk.run("card", "init", "--keys", algorithms, "--secrets-out", str(out), secrets="161803\n31415926\n")
    assert again.code == 0, again.err


def test_the_secrets_file_opens_the_card_for_later_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    desk = fresh()
    assert desk.run("card", "init", secrets=SECRETS).code == 0
    kept = tmp_path / "cardwright" / "cards" / "4711.secrets"
    assert kept.exists()
    assert desk.run("key", "generate", "82").code == 0
    kept.chmod(0o644)
    assert "SECRETS_FILE_EXPOSED" in desk.run("key", "generate", "83").err
    kept.chmod(0o600)
    other = fresh()
    other.cards["only"] = VirtualCard("yubikey-5.7", serial=99, key_pool=POOL)
    wrong = other.run("key", "generate", "83", "--management-key-file", str(kept))
    assert "JOURNAL_OTHER_CARD" in wrong.err


def test_a_card_by_the_letter_of_the_standard_is_set_up_with_a_given_key(tmp_path: Path) -> None:
    desk = Desk(only=VirtualCard("sp800-73-5", key_pool=POOL))
    key = desk.cards["only"].profile.management_key.hex()
    keys = "9a=p256,9c=p256,9e=p256"
    arguments = ["card", "init", "--keys", keys, "--management-key", "--secrets-out", str(tmp_path / "s")]
    assert "CAPABILITY_MISSING" in desk.run(*arguments, secrets=f"{SECRETS}{key}\n").err
    ran = desk.run(*arguments, "--keep-management-key", secrets=f"{SECRETS}{key}\n")
    assert ran.code == 0, ran.err
    assert desk.run("card", "check", "--with-pin", secrets="271828\n").code == 0


def unnumbered(keys: str = "9a=p256") -> tuple[Desk, list[str], str]:
    """A card without a serial number, the arguments that set it up, and what it is told on --secrets-fd."""
    desk = Desk(only=VirtualCard("sp800-73-5", key_pool=POOL))
    arguments = ["card", "init", "--keys", keys, "--management-key", "--keep-management-key", "--json"]
    return desk, arguments, f"{SECRETS}{desk.cards['only'].profile.management_key.hex()}\n"


def test_cards_without_a_number_never_share_a_secrets_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    kept = []
    for _ in range(2):
        desk, arguments, secrets = unnumbered()
        ran = desk.run(*arguments, secrets=secrets)
        assert ran.code == 0, ran.err
        kept.append(Path(ran.json["secrets"]).name)
        assert kept[-1] == f"{desk.run('card', 'show', '--json').json['identity']['guid']}.secrets"
    assert len(set(kept)) == 2


def test_an_interrupted_card_without_a_number_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    desk, arguments, secrets = unnumbered()
    numbered = Path(desk.run(*arguments, secrets=secrets).json["secrets"])
    numbered.rename(numbered.with_name("unnumbered.secrets"))
    arguments[3] = "9a=p256,9e=p256"
    ran = desk.run(*arguments, secrets=secrets)
    assert ran.code == 0, ran.err
    assert Path(ran.json["secrets"]) == numbered and numbered.exists()


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ("9a=p256,9a=p384", "POLICY_MALFORMED"),
        ("9a", "POLICY_MALFORMED"),
        ("9b=p256", "SLOT_UNKNOWN"),
        ("9a=rsa512", "ALGORITHM_UNSUPPORTED"),
        ("9d=x25519", "SELF_SIGNING_IMPOSSIBLE"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(keys: str, code: str, tmp_path: Path) -> None:
    desk = fresh()
    before = desk.cards["only"].state_hash()
    ran = desk.run("card", "init", "--keys", keys, "--secrets-out", str(tmp_path / "s"), secrets=SECRETS)
    assert ran.code == 1 and code in ran.err
    assert desk.cards["only"].state_hash() == before and not (tmp_path / "s").exists()


def test_a_policy_file_is_read_strictly(tmp_path: Path) -> None:
    desk = fresh()
    policy = tmp_path / "policy.toml"
    policy.write_text('name = "test"\nslots = [{ slot = "9a", algorithm = "p256" }]\nobjects = ["chuid", "ccc"]\n')
    ran = desk.run("card", "init", "--policy", str(policy), "--secrets-out", str(tmp_path / "s"), secrets=SECRETS)
    assert ran.code == 0, ran.err
    policy.write_text('name = "test"\nslotz = []\n')
    assert "POLICY_MALFORMED" in desk.run("card", "init", "--policy", str(policy), secrets=SECRETS).err
    policy.write_text("= not toml")
    assert "POLICY_MALFORMED" in desk.run("card", "init", "--policy", str(policy), secrets=SECRETS).err
    assert desk.run("card", "init", "--policy", str(policy), "--keys", "9a=p256", secrets=SECRETS).code == 2


def test_every_published_image_can_be_put_on_a_card_and_checked(shared_data: Path) -> None:
    path = shared_data / "icam-cards" / "46_Golden_FIPS_201-2_PIV.json"
    desk = Desk(only=images.load(path, key_pool=POOL))
    ran = desk.run("card", "check", "--level", "basic", "--at", "2026-11-22", "--with-pin", secrets="123456\n")
    assert ran.code == 0, ran.out + ran.err


def test_the_help_starts_without_what_only_cards_need() -> None:
    script = (
        "import sys; sys.argv = ['cardwright', '--help']\n"
        "from cardwright_clients.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'cryptography', 'smartcard', 'asn1crypto', 'cardwright_cardops', 'google'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    import sys

    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
