"""Secure Messaging Certificate Signer (SP 800-73-5 part 1 section 3.3.7, appendix A table 42)."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import ClassVar

from ...iso7816 import tlv
from ..containers import SM_SIGNER, Container
from . import certificate
from .layout import FE, Content, Inner, Leftovers, Need, write

INTERMEDIATE_CVC = 0x7F21
_CERTIFICATE, _INFO = 0x70, 0x71


@dataclass(frozen=True, slots=True)
class SmSigner(Leftovers):
    """The X.509 certificate that signs the card's CVC, and the intermediate CVC between them if there is one.

    ``intermediate_cvc`` is the whole data object 7F21, empty if absent.
    """

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(_CERTIFICATE, "X.509 certificate for content signing", range(1, 1857)),
        Inner(_INFO, "CertInfo", (1,)),
        Inner(INTERMEDIATE_CVC, "Intermediate CVC", range(602), Need.OPTIONAL),
        FE,
    )

    der: bytes = field(repr=False)
    intermediate_cvc: bytes = field(default=b"", repr=False)
    compressed: bool = False

    @classmethod
    def decode(cls, value: bytes, container: Container = SM_SIGNER) -> SmSigner:
        """Read the value inside tag 53. Raises MalformedObject; the CVC is not looked into."""
        content = Content(container, cls.LAYOUT, value)
        stored = content.need(_CERTIFICATE)
        info = content.get(_INFO) or b"\0"
        if info not in (b"\0", b"\1"):
            raise content.damaged(f"CertInfo {info.hex().upper()} is unknown")
        compressed = info == b"\1"
        der = certificate.inflate(stored, container) if compressed else stored
        try:
            tlv.parse_one(der, 0x30)
        except tlv.MalformedTlv as cause:
            raise content.damaged(f"the certificate is no DER: {cause}") from cause
        cvc = content.get(INTERMEDIATE_CVC)
        return cls(
            der=der,
            intermediate_cvc=tlv.encode(INTERMEDIATE_CVC, cvc) if cvc else b"",
            compressed=compressed,
            **content.kept,
        )

    def encode(self) -> bytes:
        """The value inside tag 53."""
        stored = gzip.compress(self.der, mtime=0) if self.compressed else self.der
        cvc = tlv.parse_one(self.intermediate_cvc, INTERMEDIATE_CVC).value if self.intermediate_cvc else None
        return write(((_CERTIFICATE, stored), (_INFO, bytes((self.compressed,))), (INTERMEDIATE_CVC, cvc)), self)
