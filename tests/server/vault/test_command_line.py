"""``python -m cardwright_server.vault`` as a stranger uses it: passphrases only through descriptors and prompts."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret
from cardwright_server.vault import __main__
from cardwright_server.vault.__main__ import main
from cardwright_server.vault.launch import VaultProcess
from cardwright_server.vault.model import Authorization, PukPurpose
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm
from tests.support.vault import CARD, PASSPHRASE, WRONG, run

COMMAND = (sys.executable, "-m", "cardwright_server.vault")
NEW = Secret(b"another long passphrase")
ACTOR = Authorization("operator-1", "request-1")


def vault(*arguments: str, secrets: dict[str, Secret] | None = None, ok: bool = True) -> str:
    """What the command prints, or how it fails; each secret goes through a pipe that is the option's value."""
    command = list(arguments)
    for option, secret in (secrets or {}).items():
        reading, writing = os.pipe()
        os.write(writing, secret.reveal() + b"\n")
        os.close(writing)
        command += [option, str(reading)]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code == 0) is ok, (result.output, result.exception)
    failure = result.exception
    return result.output + (failure.code if isinstance(failure, CardwrightError) else "")


@pytest.fixture(autouse=True)
def _soft(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in this process, which stays as it is. What hardening does is tested as a process."""
    monkeypatch.setattr(__main__, "harden", lambda: None)


def with_vault(directory: Path, sockets: Path, work: Callable[[], None], *arguments: str, pin: Secret | None) -> None:
    async def whole() -> None:
        process = await VaultProcess.start(directory, sockets, pin, arguments)
        try:
            await asyncio.to_thread(work)
        finally:
            await process.stop()

    run(whole())


def test_the_life_of_a_software_vault(tmp_path: Path) -> None:
    directory, sockets, backup = str(tmp_path / "vault"), str(tmp_path / "s"), str(tmp_path / "backup")
    credential = {"--credential-fd": PASSPHRASE}
    vault("init", "--directory", directory, "--memory", "64", secrets=credential)
    assert "VAULT_EXISTS" in vault("init", "--directory", directory, secrets=credential, ok=False)
    rule = tmp_path / "rule.toml"
    rule.write_text('max_days = 10\npublic_keys = ["p256"]\nkey_usage = [["digital_signature"]]\n')

    def admin(*arguments: str, ok: bool = True, secrets: dict[str, Secret] | None = None) -> str:
        return vault("admin", arguments[0], "--sockets", sockets, *arguments[1:], secrets=secrets or credential, ok=ok)

    def work() -> None:
        status = json.loads(vault("admin", "status", "--sockets", sockets))
        assert (status["state"], status["backend"]) == ("locked", "software")
        assert "VAULT_UNLOCK_REFUSED" in admin("unlock", secrets={"--credential-fd": WRONG}, ok=False)
        assert "VAULT_LOCKED" in admin("new-epoch", ok=False)
        admin("unlock")
        key = ("create-key", "root", "--role", "root", "--algorithm", "p384", "--subject", "CN=Root,O=Example")
        admin(*key, "--profile", "root", "--profile", "ca")
        assert "VAULT_REFUSED" in admin(
            "create-key", "x", "--role", "root", "--algorithm", "p384", "--subject", "no name", ok=False
        )
        assert admin("rotate-master", "puk").strip() == "puk has version 2 now."
        admin("destroy-master", "puk", "1", "--yes")
        admin("set-rule", "short", str(rule))
        admin("set-limit", "puk.set", "--per-hour", "5")
        admin("backup", backup, secrets={**credential, "--backup-fd": NEW})
        admin("change-passphrase", secrets={**credential, "--new-fd": NEW})
        assert admin("new-epoch", secrets={"--credential-fd": NEW}).strip() == "2"
        status = json.loads(vault("admin", "status", "--sockets", sockets))
        assert (status["keys"], status["masters"]["puk"], status["epoch"]) == (["root"], 2, 2)
        admin("lock", secrets={"--credential-fd": NEW})

    with_vault(Path(directory), Path(sockets), work, pin=None)
    said = vault("admin", "verify-audit", "--directory", directory)
    assert int(said.split()[0]) > 10
    elsewhere = str(tmp_path / "elsewhere")
    said = vault("admin", "restore", "--directory", elsewhere, backup, secrets={"--credential-fd": NEW})
    assert "epoch 2" in said
    assert Path(backup).stat().st_mode & 0o077 == 0


def test_a_refusal_is_a_sentence_with_its_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "admin", "status", "--sockets", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("VAULT_UNAVAILABLE: The vault's process is not there.")
    assert "Traceback" not in done.stderr


def test_the_prompt_does_not_show_what_is_typed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "init", "--directory", str(tmp_path / "vault"), "--memory", "64"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    said = b""
    for question in (b"New passphrase: ", b"New passphrase, again: "):
        while question not in said:
            said += os.read(ours, 4096)
        os.write(ours, PASSPHRASE.reveal() + b"\n")
    while process.poll() is None or b"is in" not in said:
        try:
            said += os.read(ours, 4096)
        except OSError:
            break
    assert process.wait() == 0
    os.close(ours)
    assert PASSPHRASE.reveal() not in said
    assert (tmp_path / "vault" / "vault.keys").exists()


def test_a_vault_over_an_hsm(tmp_path: Path, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", str(softhsm.configuration))
    hsm = ("--hsm-module", str(SOFTHSM), "--hsm-token", LABEL)
    directory = tmp_path / "vault"
    said = vault("init", "--directory", str(directory), *hsm[:2], secrets={"--credential-fd": softhsm.pin}, ok=False)
    assert "go together" in said
    vault("init", "--directory", str(directory), *hsm, secrets={"--credential-fd": softhsm.pin})

    async def work() -> bytes:
        process = await VaultProcess.start(directory, tmp_path / "s", softhsm.pin, hsm)
        client = process.client()
        try:
            return (await client.puk(CARD, PukPurpose.SET, ACTOR)).reveal()
        finally:
            await client.close()
            await process.stop()

    assert run(work()) == run(work())
    for path in directory.rglob("*"):
        assert not path.is_file() or softhsm.pin.reveal() not in path.read_bytes()
