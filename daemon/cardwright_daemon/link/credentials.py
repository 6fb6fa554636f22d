"""What a workstation shows the server, and by what it knows it: a key, its certificate, and the server's root.

All of it is one PEM file of the user's own, replaced as a whole: there is never a key without its certificate.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError

FILE: Final = "workstation.pem"
PENDING: Final = "pending.pem"
MAX_FILE: Final = 64 * 1024
Key = ec.EllipticCurvePrivateKey


class NotEnrolled(CardwrightError):
    """This workstation has no certificate of the server, or none that can be used."""

    code = "NOT_ENROLLED"
    default_effect = "Nothing was sent to the server or to any card."
    default_advice = "Have an administrator make a token for this workstation, then run 'cardwright daemon enrol'."


@dataclass(frozen=True, slots=True)
class Credentials:
    """``certificate`` is the workstation's, ``root`` the server's. PEM in ``key``."""

    key: bytes = field(repr=False)
    certificate: x509.Certificate
    root: x509.Certificate

    @property
    def chain(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def anchor(self) -> bytes:
        """The root, PEM."""
        return self.root.public_bytes(Encoding.PEM)

    @property
    def ends(self) -> datetime:
        """When the certificate ends."""
        return self.certificate.not_valid_after_utc

    @property
    def renew_at(self) -> datetime:
        """Two thirds of the certificate's life."""
        life: timedelta = self.ends - self.certificate.not_valid_before_utc
        return self.ends - life / 3

    def usable(self, now: datetime | None = None) -> bool:
        """Whether the certificate has not ended."""
        return (now or datetime.now(UTC)) < self.ends


def default_folder() -> Path:
    """``$XDG_DATA_HOME/cardwright/workstation``."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "cardwright" / "workstation"


def load(folder: Path) -> Credentials:
    """Raises NotEnrolled."""
    path = folder / FILE
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()[: MAX_FILE + 1]
    except FileNotFoundError:
        raise NotEnrolled(f"There is no {path}.") from None
    except OSError as error:
        raise NotEnrolled(f"{path} cannot be read: {error.strerror}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise NotEnrolled(f"{path} can be read by others than its owner.", advice="Run chmod 600 on it.")
    try:
        key = load_pem_private_key(text, None)
        certificate, root = x509.load_pem_x509_certificates(text)
    except (ValueError, TypeError) as error:
        raise NotEnrolled(f"{path} does not hold a key, its certificate and the server's root.") from error
    if not isinstance(key, Key) or key.public_key() != certificate.public_key():
        raise NotEnrolled(f"The key in {path} is not that of its certificate.")
    return Credentials(_pem(key), certificate, root)


def save(folder: Path, key: Key, certificate: bytes, root: x509.Certificate) -> Credentials:
    """Put a new certificate (DER) in place, durably. Raises NotEnrolled if it is not the key's, OSError."""
    try:
        made = x509.load_der_x509_certificate(certificate)
    except ValueError as error:
        raise NotEnrolled("The server sent something that is no certificate.") from error
    if made.public_key() != key.public_key():
        raise NotEnrolled("The server sent a certificate of another key.")
    found = Credentials(_pem(key), made, root)
    write_whole(folder / FILE, found.key + found.chain + found.anchor)
    return found


def pending_key(folder: Path) -> Key:
    """The key that an enrolment is made with: the same one again, if an answer was lost. Raises OSError."""
    path = folder / PENDING
    try:
        key = load_pem_private_key(path.read_bytes()[:MAX_FILE], None)
        if isinstance(key, Key):
            return key
    except (FileNotFoundError, ValueError, TypeError):
        pass  # there is none, or the write of an earlier attempt did not end
    made = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, _pem(made))
    return made


def forget_pending(folder: Path) -> None:
    """The enrolment is done."""
    (folder / PENDING).unlink(missing_ok=True)


def request_of(key: Key) -> bytes:
    """A certificate request (PKCS #10, DER) by ``key``; the server fills in the names."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
