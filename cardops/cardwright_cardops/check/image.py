"""Card images: the JSON form with ``objects`` (tag to GET DATA answer) and ``keys`` (slot to PKCS#8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key

from ..errors import CardwrightError
from .model import CardData, Proof

MAX_SIZE = 4 << 20


class ImageUnreadable(CardwrightError):
    """A file that is no card image."""

    code = "IMAGE_UNREADABLE"
    default_effect = "Nothing was checked."
    default_advice = "Give a JSON file with 'objects': tags and GET DATA answers in hexadecimal."


def load_image(path: str | Path) -> CardData:
    """Read one card image. Raises ImageUnreadable, also when the file cannot be opened or is too large."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except OSError as cause:
        raise ImageUnreadable(f"{path} cannot be read: {cause.strerror}") from cause
    if len(raw) > MAX_SIZE:
        raise ImageUnreadable(f"{path} is larger than {MAX_SIZE} octets")
    try:
        seen = json.loads(raw)
    except (ValueError, RecursionError) as cause:
        raise ImageUnreadable(f"{path} is no JSON") from cause
    if not isinstance(seen, dict) or not isinstance(seen.get("objects"), dict):
        raise ImageUnreadable(f"{path} has no 'objects'")
    return parse_image(seen, str(path))


def parse_image(seen: dict[str, Any], source: str = "the image") -> CardData:
    """The same from JSON already parsed; other fields than objects, keys and card are ignored.

    Raises ImageUnreadable. A key that cannot be read is an error too: without it nothing can be said of it.
    """
    objects: dict[int, bytes | None] = {}
    proofs: dict[int, Proof] = {}
    try:
        for tag, answer in seen["objects"].items():
            objects[int(tag, 16)] = bytes.fromhex(answer)
        for slot, entry in (seen.get("keys") or {}).items():
            # Only the public half is taken, so the slow test whether the primes are primes says nothing here.
            key = load_der_private_key(bytes.fromhex(entry["pkcs8"]), None, unsafe_skip_rsa_key_validation=True)
            proofs[int(slot, 16)] = same_key(key.public_key())
    except (ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm) as cause:
        raise ImageUnreadable(f"{source} has an entry that cannot be read: {type(cause).__name__}") from cause
    return CardData(objects, proofs, str(seen.get("card", "")))


def same_key(own: PublicKeyTypes) -> Proof:
    """A proof for a public key that is known to be the slot's (from an image, metadata or attestation)."""

    def proof(other: PublicKeyTypes) -> bool:
        return own == other

    return proof
