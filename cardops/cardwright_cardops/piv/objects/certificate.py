"""Certificate containers (SP 800-73-5 part 1 section 3.1.3, appendix A tables 10, 15-17 and 20-39)."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from typing import ClassVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ...iso7816 import tlv
from ..containers import CERT_9A, Container
from .layout import FE, Content, Inner, Leftovers, MalformedObject, Need, write

MAX_CERTIFICATE = 64 * 1024
"""Octets that a compressed certificate may have after inflation."""
_CERTIFICATE, _INFO, _MSCUID = 0x70, 0x71, 0x72
_COMPRESSED = 0x01
_GZIP, _ZLIB = 31, 15
_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CertificateObject(Leftovers):
    """One certificate as DER, inflated. ``compressed`` says how it stands on the card."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(_CERTIFICATE, "certificate", range(1, 1857)),
        Inner(_INFO, "CertInfo", (1,)),
        Inner(_MSCUID, "MSCUID", range(39), Need.LEGACY),
        FE,
    )

    der: bytes = field(repr=False)
    compressed: bool = False

    @classmethod
    def decode(cls, value: bytes, container: Container = CERT_9A) -> CertificateObject:
        """Read the value inside tag 53. Raises MalformedObject.

        A missing CertInfo means a plain certificate. Beside the standard's gzip the zlib form of Net iD
        (01 00, length, zlib data) is read; gzip is written. The DER is one SEQUENCE, not more is checked.
        """
        content = Content(container, cls.LAYOUT, value)
        stored = content.need(_CERTIFICATE)
        info = content.get(_INFO) or b"\0"
        if len(info) != 1 or info[0] & ~_COMPRESSED:
            raise content.damaged(f"CertInfo {info.hex().upper()} is unknown")
        compressed = bool(info[0] & _COMPRESSED)
        der = inflate(stored, container) if compressed else stored
        try:
            tlv.parse_one(der, 0x30)
        except tlv.MalformedTlv as cause:
            raise content.damaged(f"the certificate is no DER: {cause}") from cause
        return cls(der=der, compressed=compressed, **content.kept)

    def encode(self) -> bytes:
        """The value inside tag 53; a compressed certificate is written as one gzip member."""
        stored = gzip.compress(self.der, mtime=0) if self.compressed else self.der
        return write(((_CERTIFICATE, stored), (_INFO, bytes((self.compressed,)))), self)

    def x509(self, container: Container = CERT_9A) -> x509.Certificate:
        """The certificate. Raises MalformedObject (naming ``container``) when it is none."""
        return load(self.der, container)


def load(der: bytes, container: Container) -> x509.Certificate:
    """A certificate with extensions that can be read. Raises MalformedObject otherwise."""
    try:
        return readable(der)
    except ValueError as cause:
        raise MalformedObject(container, f"not an X.509 certificate: {cause}") from cause


def readable(der: bytes) -> x509.Certificate:
    """A certificate, once every part that anybody looks at was read: the library reads them late, and raises then.

    Raises ValueError.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
        _ = (certificate.extensions, certificate.subject, certificate.issuer, certificate.serial_number)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except _UNREADABLE as cause:
        raise ValueError(str(cause)) from cause
    return certificate


def inflate(stored: bytes, container: Container) -> bytes:
    """The certificate in a gzip member or a Net iD zlib block, at most MAX_CERTIFICATE octets."""
    if stored[:2] == b"\x01\x00":
        expected: int | None = int.from_bytes(stored[2:4], "little")
        engine, data = zlib.decompressobj(_ZLIB), stored[4:]
    else:
        expected = None
        engine, data = zlib.decompressobj(_GZIP), stored
    try:
        der = engine.decompress(data, MAX_CERTIFICATE + 1)
    except zlib.error as cause:
        raise MalformedObject(container, "the compressed certificate is damaged") from cause
    if len(der) > MAX_CERTIFICATE:
        raise MalformedObject(container, f"the certificate inflates to more than {MAX_CERTIFICATE} octets")
    if not engine.eof or engine.unused_data or expected not in (None, len(der)):
        raise MalformedObject(container, "the compressed certificate is cut, or something follows it")
    return der
