"""A SoftHSM2 token in a folder of its own, as the vault's HSM."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cardwright_cardops.secret import Secret
from cardwright_server.vault.hsm import HsmBackend, HsmToken

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
LABEL = "vault"
_SO_PIN = "13579086"


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """The token, its user PIN, and the environment under which the module finds it."""

    configuration: Path
    pin: Secret

    @classmethod
    def make(cls, folder: Path, pin: bytes = b"246801") -> SoftHsm:
        """A new token in ``folder``."""
        (folder / "tokens").mkdir()
        configuration = folder / "softhsm2.conf"
        configuration.write_text(
            f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        made = cls(configuration, Secret(pin))
        subprocess.run(
            [
                *("softhsm2-util", "--init-token", "--free", "--label", LABEL),
                *("--pin", made.pin.reveal().decode(), "--so-pin", _SO_PIN),
            ],
            env={**os.environ, **made.environment},
            check=True,
            capture_output=True,
        )
        return made

    @property
    def environment(self) -> dict[str, str]:
        """What the module reads."""
        return {"SOFTHSM2_CONF": str(self.configuration)}

    def backend(self) -> HsmBackend:
        """The vault's backend over it."""
        return HsmBackend(HsmToken(SOFTHSM, LABEL, self.environment))

    def pkcs11_tool(self, *arguments: str) -> str:
        """What pkcs11-tool prints, logged in."""
        command = ["pkcs11-tool", "--module", str(SOFTHSM), "--token-label", LABEL]
        command += ["--login", "--pin", self.pin.reveal().decode(), *arguments]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
