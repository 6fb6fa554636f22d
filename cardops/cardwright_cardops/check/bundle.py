"""Certificates, CRLs and OCSP responses from files, PEM or DER."""

from __future__ import annotations

from pathlib import Path

from asn1crypto import pem
from cryptography import x509

from ..errors import CardwrightError
from ..piv.objects.certificate import readable

MAX_SIZE = 32 << 20
_KINDS = {
    "certificates": {"CERTIFICATE", "X509 CERTIFICATE"},
    "CRLs": {"X509 CRL"},
    "OCSP responses": {"OCSP RESPONSE"},
}


class TrustUnreadable(CardwrightError):
    """Trust anchors, CRLs or OCSP responses that cannot be read."""

    code = "TRUST_DATA_UNREADABLE"
    default_effect = "Nothing was checked."
    default_advice = "Give certificates, CRLs and OCSP responses in PEM, or one of them in DER."


def load_certificates(path: str | Path) -> list[x509.Certificate]:
    """All certificates of a PEM bundle, or the one of a DER file. Raises TrustUnreadable."""
    try:
        return [readable(der) for der in _blocks(path, "certificates")]
    except ValueError as cause:
        raise TrustUnreadable(f"{path} holds a certificate that cannot be read: {cause}") from cause


def load_crls(path: str | Path) -> list[bytes]:
    """All CRLs of a PEM bundle, or the one of a DER file, as DER. Raises TrustUnreadable."""
    return _blocks(path, "CRLs")


def load_ocsp(path: str | Path) -> list[bytes]:
    """All OCSP responses of a PEM bundle, or the one of a DER file, as DER. Raises TrustUnreadable."""
    return _blocks(path, "OCSP responses")


def _blocks(path: str | Path, kind: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except OSError as cause:
        raise TrustUnreadable(f"{path} cannot be read: {cause.strerror}") from cause
    if len(raw) > MAX_SIZE:
        raise TrustUnreadable(f"{path} is larger than {MAX_SIZE} octets")
    if not pem.detect(raw):
        return [raw]
    try:
        found = [der for name, _, der in pem.unarmor(raw, multiple=True) if name in _KINDS[kind]]
    except (ValueError, TypeError) as cause:
        raise TrustUnreadable(f"{path} is no PEM") from cause
    if not found:
        raise TrustUnreadable(f"{path} has no {kind}")
    return found
