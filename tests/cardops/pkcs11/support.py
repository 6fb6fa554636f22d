"""Values and small builders that the PKCS#11 tests share."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cardwright_cardops.pkcs11 import Module
from cardwright_cardops.secret import Secret

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
USER_PIN = Secret(b"246801")
SO_PIN = Secret(b"13579086")
WRONG_PIN = Secret(b"999999")
NEW_PIN = Secret(b"864209")


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """The module and what strangers need to see the same tokens."""

    module: Module
    environment: Mapping[str, str]

    def pkcs11_tool(self, *arguments: str, label: str = "first") -> bytes:
        """What pkcs11-tool prints."""
        command = ["pkcs11-tool", "--module", str(SOFTHSM), "--token-label", label, *arguments]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


def certificate_for(
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    signer: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    name: str = "token test",
    *,
    padding: int = 0,
) -> x509.Certificate:
    """A certificate for ``public``, signed by ``signer``, with an extension of ``padding`` bytes."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), bytes(padding))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .serial_number(0x1D05)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=3650))
        .public_key(public)
        .add_extension(unknown, critical=False)
        .sign(signer, hashes.SHA256())
    )
