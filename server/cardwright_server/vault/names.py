"""Distinguished names as people type them."""

from __future__ import annotations

from cryptography import x509

from .errors import VaultRefused


def name_from_text(text: str) -> bytes:
    """The DER Name of RFC 4514 text, most significant part last; empty for empty text. Raises VaultRefused."""
    if not text:
        return b""
    try:
        return x509.Name.from_rfc4514_string(text).public_bytes()
    except ValueError:
        raise VaultRefused("subject", "The subject is no distinguished name in the form of RFC 4514.") from None
