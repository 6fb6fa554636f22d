"""Vendors' master keys: the named KDFs as openssl carries them out, and what of a master ever comes out again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.secret import Secret
from cardwright_server.vault import __main__
from cardwright_server.vault import messages as m
from cardwright_server.vault.__main__ import main
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.errors import VaultRefused
from cardwright_server.vault.launch import VaultProcess
from cardwright_server.vault.model import Authorization, DataContext, MasterPurpose, VendorCard, VendorKdf, Wrapped
from cardwright_server.vault.vendor import check_value, vendor_key
from tests.support.vault import PASSPHRASE, run
from tests.support.vendor_keys import derived, openssl

AES, TDEA = bytes(range(32)), bytes.fromhex("404142434445464748494a4b4c4d4e4f")
CUID = bytes.fromhex("00112233445566778899")
LOT = "0190a0b0-0000-7000-8000-000000000001"


@pytest.fixture
def vault(core: VaultCore) -> LocalVault:
    """The vault in this process."""
    return LocalVault(core)


@pytest.mark.parametrize(
    ("kdf", "master", "data", "size"),
    [
        *((VendorKdf.SP800_108_CMAC, AES[:octets], b"12345678", size) for octets in (16, 24, 32)
          for size in (16, 24, 32)),
        (VendorKdf.VISA2, TDEA, CUID, 24),
        (VendorKdf.VISA2, AES[:24], CUID, 24),
        (VendorKdf.EMV_CPS, TDEA, CUID, 24),
    ],
)  # fmt: skip
def test_kdfs_are_those_of_openssl(kdf: VendorKdf, master: bytes, data: bytes, size: int) -> None:
    assert vendor_key(kdf, master, data, size) == derived(kdf.value, master, data, size)


def test_kdfs_take_their_own_octets_of_the_card() -> None:
    changed = [bytes(one ^ (place == at) for place, one in enumerate(CUID)) for at in range(10)]
    for kdf, counted in ((VendorKdf.VISA2, {0, 1, 4, 5, 6, 7}), (VendorKdf.EMV_CPS, {4, 5, 6, 7, 8, 9})):
        made = vendor_key(kdf, TDEA, CUID, 24)
        other = {at for at, data in enumerate(changed) if vendor_key(kdf, TDEA, data, 24) != made}
        assert other == counted
        for size, data in ((16, CUID), (32, CUID), (24, CUID[:9]), (24, CUID + b"\0")):
            with pytest.raises(VaultRefused):
                vendor_key(kdf, TDEA, data, size)


def test_check_values_are_those_of_openssl() -> None:
    assert check_value(VendorKdf.SP800_108_CMAC, AES) == openssl(
        "enc", "-aes-256-ecb", "-nopad", "-K", AES.hex(), data=b"\x01" * 16
    )[:3]
    assert check_value(VendorKdf.VISA2, TDEA) == openssl(
        "enc", "-des-ede3-ecb", "-nopad", "-K", (TDEA + TDEA[:8]).hex(), data=bytes(8)
    )[:3]


def test_a_master_is_taken_in_once_and_used_for_its_cards_only(vault: LocalVault, core: VaultCore) -> None:
    admin, card = vault.admin(PASSPHRASE), VendorCard(LOT, "device-1", CUID)
    with pytest.raises(VaultRefused, match="imported first"):
        run(vault.answer_vendor_key(card, ManagementAlgorithm.TDES, bytes(8)))
    wanted = check_value(VendorKdf.VISA2, TDEA)
    with pytest.raises(VaultRefused, match="another check value"):
        run(admin.import_vendor_master(LOT, VendorKdf.VISA2, Secret(AES[:16]), wanted))
    with pytest.raises(VaultRefused, match="16 or 24"):
        run(admin.import_vendor_master(LOT, VendorKdf.VISA2, Secret(AES)))
    assert run(admin.import_vendor_master(LOT, VendorKdf.VISA2, Secret(TDEA), wanted)) == wanted
    with pytest.raises(VaultRefused, match="not replaced"):
        run(admin.import_vendor_master(LOT, VendorKdf.VISA2, Secret(TDEA)))
    assert run(vault.status()).vendors == (LOT,)

    key = ManagementKey(ManagementAlgorithm.TDES, Secret(derived("visa2", TDEA, CUID, 24)))
    made = run(vault.answer_vendor_key(card, ManagementAlgorithm.TDES, key.encrypt(b"a secret")))
    assert made.response == b"a secret"
    answer = key.encrypt(made.challenge)
    assert run(vault.check_vendor_key(card, ManagementAlgorithm.TDES, made.challenge, answer)) is True
    with pytest.raises(VaultRefused, match="challenge"):
        run(vault.check_vendor_key(card, ManagementAlgorithm.TDES, made.challenge, answer))
    again = run(vault.answer_vendor_key(card, ManagementAlgorithm.TDES, bytes(8)))
    assert run(vault.check_vendor_key(card, ManagementAlgorithm.TDES, again.challenge, answer)) is False
    with pytest.raises(VaultRefused):
        run(vault.answer_vendor_key(card, ManagementAlgorithm.AES128, bytes(16)))


def test_a_master_is_there_again_after_lock_and_restart_and_in_nothing_readable(
    vault: LocalVault, core: VaultCore
) -> None:
    admin = vault.admin(PASSPHRASE)
    run(admin.import_vendor_master(LOT, VendorKdf.EMV_CPS, Secret(TDEA)))
    run(admin.lock())
    run(admin.unlock())
    card = VendorCard(LOT, "device-1", CUID)
    before = run(vault.answer_vendor_key(card, ManagementAlgorithm.TDES, bytes(8))).response
    key = ManagementKey(ManagementAlgorithm.TDES, Secret(derived("emv-cps", TDEA, CUID, 24)))
    assert before == key.decrypt(bytes(8))
    assert core.document is not None and TDEA.hex() not in repr(core.document)
    stored = b"".join(path.read_bytes() for path in core.directory.rglob("*") if path.is_file())
    for value in (TDEA, key.value.reveal()):
        assert value not in stored and value.hex().encode() not in stored.lower()


def test_no_request_of_the_server_reads_or_brings_a_master(vault: LocalVault) -> None:
    run(vault.admin(PASSPHRASE).import_vendor_master(LOT, VendorKdf.SP800_108_CMAC, Secret(AES)))
    context = DataContext("org", LOT, "initial-master")
    for purpose in MasterPurpose:
        with pytest.raises(VaultRefused):
            run(vault.open_data(Wrapped(purpose, 1, os.urandom(64)), context, Authorization("a", "r")))
    server = {one.__name__ for one in m.AnyRequest.__args__}
    assert {name for name in server if "Vendor" in name} == {"AnswerVendorKey", "CheckVendorKey"}
    assert m.AnswerVendorKey.answer is not bytes and m.CheckVendorKey.answer is bool


def test_the_ceremony_takes_components_that_nobody_sees_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through descriptors, as the passphrase; the octets of no component are arguments."""
    monkeypatch.setattr(__main__, "harden", lambda: None)
    one, two = os.urandom(16), os.urandom(16)
    master = bytes(a ^ b for a, b in zip(one, two, strict=True))
    directory, sockets = tmp_path / "vault", tmp_path / "run"

    def command(*arguments: str, **secrets: Sequence[bytes]) -> Result:
        words = list(arguments)
        for option, values in secrets.items():
            for value in values:
                reading, writing = os.pipe()
                os.write(writing, value + b"\n")
                os.close(writing)
                words += [f"--{option.replace('_', '-')}", str(reading)]
        return CliRunner().invoke(main, words)

    assert command("init", "--directory", str(directory), "--memory", "64",
                   credential_fd=[PASSPHRASE.reveal()]).exit_code == 0  # fmt: skip

    def ceremony(kdf: str, *parts: bytes, check: str = "") -> Result:
        words = ("admin", "import-vendor-master", LOT, "--kdf", kdf, "--sockets", str(sockets), "--check", check)
        given = [part.hex().encode() for part in parts]
        return command(*words, credential_fd=[PASSPHRASE.reveal()], component_fd=given)

    def work() -> None:
        assert "not hexadecimal" in command(
            "admin", "import-vendor-master", LOT, "--kdf", "visa2", "--sockets", str(sockets),
            credential_fd=[PASSPHRASE.reveal()], component_fd=[b"nonsense"],
        ).output  # fmt: skip
        assert "different lengths" in ceremony("visa2", one, two[:8]).output
        wanted = check_value(VendorKdf.VISA2, master).hex()
        refused = ceremony("visa2", one, one, check=wanted)
        assert isinstance(refused.exception, VaultRefused)
        done = ceremony("visa2", one, two, check=wanted)
        assert done.exit_code == 0 and f"check value is {wanted.upper()}" in done.output
        assert master.hex() not in done.output.lower()

    async def whole() -> None:
        process = await VaultProcess.start(directory, sockets, PASSPHRASE)
        try:
            await asyncio.to_thread(work)
        finally:
            await process.stop()

    run(whole())
