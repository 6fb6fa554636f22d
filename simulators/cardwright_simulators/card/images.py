"""Card images: the content of a card as JSON, to load into a virtual card and to save from one.

``objects`` maps a tag in hex to the hex of its GET DATA answer; ``keys`` maps a slot to its unencrypted PKCS#8 key
in hex, or to a table with that under ``pkcs8``. Anything else in the document is for people and ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.tlv import MalformedTlv, parse_one, parse_unique
from cardwright_cardops.transport.connection import Interface

from .algorithms import RSA_BITS, SM_KEY, Algorithm
from .application import default_pin_policy
from .card import VirtualCard, find_profile
from .factory import factory_state
from .keypool import KeyPool
from .keys import from_pkcs8, to_pkcs8
from .profiles import Profile
from .state import MAX_FILE, CardState, StoredKey
from .store import MemoryStore, Store
from .timing import Timing

_CHUID = 0x5FC102
_GUID = 0x34


class ImageDamaged(CardwrightError):
    """A card image that cannot be loaded."""

    code = "SIM_IMAGE_DAMAGED"
    default_effect = "No virtual card was made."
    default_advice = "Check that the file is a card image: JSON with objects by tag and keys by slot."


def load(
    image: str | Path | Mapping[str, Any],
    *,
    profile: Profile | str = "sp800-73-5",
    serial: int = 10_000_000,
    interface: Interface = Interface.CONTACT,
    store: Store | None = None,
    rng: Callable[[int], bytes] = os.urandom,
    key_pool: KeyPool | None = None,
    timing: Timing | None = None,
) -> VirtualCard:
    """A fresh card of ``profile`` with the content of ``image`` (a path or the parsed document).

    On a card with secure messaging, key 04 stays the card's own and is certified for the image's GUID. Raises
    ImageDamaged, OSError.
    """
    kind = find_profile(profile)
    state = factory_state(kind, serial, rng(32))
    try:
        document = json.loads(_read(Path(image))) if isinstance(image, str | Path) else image
        objects = {int(tag, 16): bytes.fromhex(answer) for tag, answer in document["objects"].items()}
        keys = {int(slot, 16): _key(int(slot, 16), entry) for slot, entry in document.get("keys", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ImageDamaged(f"This is no card image ({type(error).__name__}).") from error
    if kind.suite:
        _certify_again(state, kind, objects)
    state.objects.update(objects)
    state.keys.update(keys)
    store = store or MemoryStore()
    store.commit(state)
    return VirtualCard(kind, interface=interface, store=store, rng=rng, key_pool=key_pool, timing=timing)


def save(card: VirtualCard) -> dict[str, Any]:
    """The content of ``card`` as a document that :func:`load` takes; key 04 never leaves its card."""
    state = CardState.decode(card.snapshot())
    return {
        "card": state.profile,
        "objects": {f"{tag:X}": answer.hex().upper() for tag, answer in sorted(state.objects.items())},
        "keys": {
            f"{slot:02X}": {
                "type": _type(key.algorithm),
                "pkcs8": to_pkcs8(key.algorithm, key.private).hex().upper(),
            }
            for slot, key in sorted(state.keys.items())
            if slot != SM_KEY
        },
    }


def _read(path: Path) -> bytes:
    """The file at ``path``. Raises ImageDamaged for what is too large, OSError."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise ImageDamaged(f"This is no card image: it has more than {MAX_FILE} octets.")
    return raw


def _key(slot: int, entry: str | Mapping[str, str]) -> StoredKey:
    algorithm, private = from_pkcs8(bytes.fromhex(entry if isinstance(entry, str) else entry["pkcs8"]))
    return StoredKey(algorithm, private, default_pin_policy(slot))


def _type(algorithm: int) -> str:
    return f"rsa{RSA_BITS[algorithm]}" if algorithm in RSA_BITS else Algorithm(algorithm).name.lower()


def _certify_again(state: CardState, profile: Profile, objects: dict[int, bytes]) -> None:
    """Certify key 04 for the GUID of the image's CHUID; the virtual signer's certificate stays with it."""
    from . import sm_identity

    objects.pop(sm_identity.SIGNER_OBJECT, None)
    try:
        guid = parse_unique(parse_one(objects.get(_CHUID, b"")).value).get(_GUID, b"")
    except MalformedTlv:
        guid = b""
    if len(guid) == 16:
        state.cvc = sm_identity.issue(profile.suite, state.keys[SM_KEY].private[0], guid)
