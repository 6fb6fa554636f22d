"""Files by which operators connect: a key that is made here, what it asks for, and its certificates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError

from .files import read_bounded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

MAX_REQUEST: Final = 64 << 10
_NOTHING_DONE: Final = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_NAME",
        "CREDENTIAL_MISSING",
        "FIRST_CREDENTIAL_REFUSED",
        "KEY_TAKEN",
        "LOGIN_TAKEN",
        "NO_SUCH_OPERATOR",
        "SAME_PERSON",
    }
)
"""Codes after which the server knows nothing of the key. After all others, such as those of a vault, it may."""


class OperatorFileExists(CardwrightError):
    """There is a file of this operator already."""

    code = "OPERATOR_FILE_EXISTS"
    default_effect = "Nothing was sent to the server."
    default_advice = "Choose another name by --out."


class NewOperatorFile:
    """A file that is written once the server has certified the key.

    ``request_file``: a request by a key that the person has; None: a key is made, and the file holds it. Raises
    OperatorFileExists.
    """

    def __init__(self, target: Path, request_file: Path | None) -> None:
        if target.exists():
            raise OperatorFileExists(f"{target} is there already.")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.target = target
        self._kept = target.with_name(target.name + ".key")
        self._found = self._kept.exists()
        self._key = None if request_file is not None else _key(self._kept)
        self.request: Final = _request(self._key) if self._key is not None else _read_request(request_file)

    @property
    def holds_key(self) -> bool:
        """Whether the key is in the file, too."""
        return self._key is not None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around what asks the server: a key made for nothing is not left behind, one that may be known there is."""
        try:
            yield
        except CardwrightError as error:
            if error.code in _NOTHING_DONE and not self._found:
                self._kept.unlink(missing_ok=True)
            raise

    def finish(self, certificates: Iterable[bytes]) -> None:
        """Write the file: the key, if it was made here, and the certificates (DER), the root last."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        parts = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in certificates]
        if self._key is not None:
            parts.insert(0, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_whole(self.target, b"".join(parts))
        self._kept.unlink(missing_ok=True)


def plain(name: str) -> str:
    """A name as a file's name."""
    return "".join(one if one.isascii() and (one.isalnum() or one in "-_@") else "-" for one in name)[:100] or "-"


def _key(path: Path) -> EllipticCurvePrivateKey:
    """A new key, written before the server hears of it: if the answer is lost, the same key is shown again."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    if path.exists():
        found = load_pem_private_key(read_bounded(path, MAX_REQUEST), None)
        if isinstance(found, ec.EllipticCurvePrivateKey):
            return found
    made = ec.generate_private_key(ec.SECP256R1())
    write_whole(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _request(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _read_request(path: Path | None) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    assert path is not None
    raw = read_bounded(path, MAX_REQUEST)
    if not raw.lstrip().startswith(b"-----"):
        return raw
    try:
        return x509.load_pem_x509_csr(raw).public_bytes(Encoding.DER)
    except ValueError as error:
        raise click.BadParameter(f"{path} is no certificate request.") from error
