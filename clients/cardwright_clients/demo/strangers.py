"""Other people's programs read the finished cards through pcscd: yubico-piv-tool, OpenSC, and openssl as the judge."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.references import Slot

from .story import DemoFailed

PACKAGES: Final = {
    "yubico-piv-tool": "yubico-piv-tool",
    "pkcs15-tool": "opensc",
    "pkcs11-tool": "opensc",
    "openssl": "openssl",
}
"""Programs, and the packages that bring them."""
MODULE: Final = "opensc-pkcs11.so"
_MESSAGE: Final = b"I owe you a pint.\n"
_PATIENCE: Final = 60
_FIRST_RETIRED: Final = 5


class Strangers:
    """They work in ``folder``, with nothing of the user's own configuration."""

    def __init__(self, folder: Path) -> None:
        """Raises DemoFailed if one of them is not there."""
        for program, package in PACKAGES.items():
            if shutil.which(program) is None:
                raise DemoFailed(f"{program} is not installed (package {package}).")
        modules = sorted(Path("/usr/lib").glob(f"*/{MODULE}"))
        if not modules:
            raise DemoFailed(f"{MODULE} is not installed (package opensc-pkcs11).")
        self._module = str(modules[0])
        self._folder = folder

    async def certificate_by_yubico(self, reader: str, slot: Slot) -> x509.Certificate:
        """What yubico-piv-tool reads from a slot. Raises DemoFailed, as all of these."""
        done = await self._run("yubico-piv-tool", "-r", reader, "-a", "read-certificate", "-s", slot.label.lower())
        return x509.load_pem_x509_certificate(done)

    async def certificate_by_opensc(self, reader: str, slot: Slot) -> x509.Certificate:
        """What pkcs15-tool reads from a slot."""
        done = await self._run("pkcs15-tool", "--reader", reader, "--read-certificate", _identifier(slot))
        return x509.load_pem_x509_certificate(done)

    async def signed_by_opensc(self, reader: str, slot: Slot, pin: bytes, certificate: x509.Certificate) -> None:
        """pkcs11-tool signs with the EC key of a slot, and openssl verifies it with the key of ``certificate``."""
        key = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        files = {"signed": _MESSAGE, "signed.sha256": hashlib.sha256(_MESSAGE).digest(), "signer.pub": key}
        for name, content in files.items():
            (self._folder / name).write_bytes(content)
        await self._run(
            *("pkcs11-tool", "--module", self._module, "--slot-description", reader),
            *("--login", "--pin", "env:DEMO_SECRET", "--sign", "--id", _identifier(slot)),
            *("--mechanism", "ECDSA", "--signature-format", "openssl"),
            *("--input-file", "signed.sha256", "--output-file", "signature"),
            secret=pin,
        )
        await self._run("openssl", "dgst", "-sha256", "-verify", "signer.pub", "-signature", "signature", "signed")

    async def _run(self, *command: str, secret: bytes = b"") -> bytes:
        environment = os.environ | {
            "DEMO_SECRET": secret.decode(),
            "HOME": str(self._folder),
            "OPENSC_CONF": str(self._folder / "no-opensc.conf"),
        }

        def work() -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                check=False, timeout=_PATIENCE,
            )  # fmt: skip

        done = await asyncio.to_thread(work)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise DemoFailed(f"{command[0]} ended with {done.returncode}: {said}")
        return done.stdout


def _identifier(slot: Slot) -> str:
    """OpenSC's name of a slot: 01 to 04 for 9A, 9C, 9D and 9E, then the retired ones."""
    now = (Slot.AUTHENTICATION, Slot.SIGNATURE, Slot.KEY_MANAGEMENT, Slot.CARD_AUTHENTICATION)
    if slot in now:
        return f"{now.index(slot) + 1:02X}"
    return f"{_FIRST_RETIRED + [one for one in Slot if one.is_retired].index(slot):02X}"
