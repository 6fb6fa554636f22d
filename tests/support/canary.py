"""Looking for a secret in anything that was written, said or sent, however it may be spelled."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from urllib.parse import quote_from_bytes


def forms(secret: bytes) -> dict[str, bytes]:
    """Spellings of ``secret`` under their names."""
    padded = secret.ljust(8, b"\xff")
    listed = ", ".join(map(str, secret)).encode()
    return {
        "plain": secret,
        "hex": secret.hex().encode(),
        "upper-case hex": secret.hex().upper().encode(),
        "spaced hex": secret.hex(" ").encode(),
        "colons": secret.hex(":").encode(),
        "padded": padded,
        "padded hex": padded.hex().encode(),
        "base64": base64.b64encode(secret).rstrip(b"="),
        "padded base64": base64.b64encode(padded).rstrip(b"="),
        "list": listed,
        "tight list": listed.replace(b" ", b""),
        "percent": "".join(f"%{octet:02X}" for octet in secret).encode(),
        "quoted": quote_from_bytes(padded).encode(),
        "escaped": "".join(f"\\x{octet:02x}" for octet in secret).encode(),
        "utf-16": secret.decode("latin-1").encode("utf-16-le"),
        "reversed": secret[::-1],
    }


def found(secret: bytes, *places: bytes) -> set[str]:
    """Names of the spellings in which ``secret`` stands in ``places``, also inside compressed parts of them."""
    names = set()
    for place in places:
        for text in (place, *_inflated(place)):
            lowered = text.lower()
            names |= {name for name, form in forms(secret).items() if form in text or form.lower() in lowered}
    return names


def _inflated(place: bytes) -> Iterator[bytes]:
    """What deflate streams in ``place`` hold, with the heads of zlib and gzip."""
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08", place):
        kind = zlib.MAX_WBITS if match.group()[0] == 0x78 else 31
        machine = zlib.decompressobj(kind)
        try:
            yield machine.decompress(place[match.start() :], 1 << 20)
        except zlib.error:
            continue
