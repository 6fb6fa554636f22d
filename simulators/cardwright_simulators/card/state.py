"""What a card remembers without power: secrets, counters, keys, objects. One JSON document each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from cardwright_cardops.errors import CardwrightError

FORMAT: Final = 1

MAX_FILE: Final = 16 << 20
"""Octets of a stored card or an image: many times what the largest card holds."""


class StateDamaged(CardwrightError):
    """A stored card that cannot be read back."""

    code = "SIM_STATE_DAMAGED"
    default_effect = "The virtual card was not started; its file was not changed."
    default_advice = "Delete the file to begin with a fresh card, or restore it from a copy."


@dataclass(slots=True)
class Reference:
    """A PIN, PUK, pairing code or fingerprint template with its try counter (``maximum`` 0: never blocks)."""

    value: bytes = field(repr=False)
    tries: int
    maximum: int
    default: bool = False


@dataclass(slots=True)
class ManagementKey:
    """The key of reference 9B. ``touch`` is the touch policy octet."""

    algorithm: int
    value: bytes = field(repr=False)
    touch: int = 1
    default: bool = False


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A private key in a slot.

    ``private`` is p, q, e for RSA (big-endian), else the one scalar or seed of the curve. ``pin_policy``:
    1 never, 2 once, 3 always; ``touch_policy``: 1 never, 2 always, 3 cached.
    """

    algorithm: int
    private: tuple[bytes, ...] = field(repr=False)
    pin_policy: int
    touch_policy: int = 1
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """Access modes of an object or key that was created with its own (contact and contactless octets)."""

    contact: int
    contactless: int
    mechanism: int = 0


@dataclass(slots=True)
class CardState:
    """The whole persistent state. ``objects`` maps a tag to the complete GET DATA answer."""

    profile: str
    serial: int
    seed: bytes = field(repr=False)
    management: ManagementKey
    references: dict[int, Reference] = field(default_factory=dict)
    keys: dict[int, StoredKey] = field(default_factory=dict)
    objects: dict[int, bytes] = field(default_factory=dict)
    access: dict[int, Access] = field(default_factory=dict)
    key_access: dict[int, Access] = field(default_factory=dict)
    channel_keys: dict[int, tuple[bytes, bytes, bytes]] = field(default_factory=dict, repr=False)
    sequence: int = 0
    cvc: bytes = b""

    def document(self) -> dict[str, Any]:
        """The state as JSON values; octets are upper-case hex."""
        return {
            "format": FORMAT,
            "profile": self.profile,
            "serial": self.serial,
            "seed": _hex(self.seed),
            "management": {
                "algorithm": self.management.algorithm,
                "value": _hex(self.management.value),
                "touch": self.management.touch,
                "default": self.management.default,
            },
            "references": {
                f"{number:02X}": {
                    "value": _hex(item.value),
                    "tries": item.tries,
                    "maximum": item.maximum,
                    "default": item.default,
                }
                for number, item in sorted(self.references.items())
            },
            "keys": {
                f"{slot:02X}": {
                    "algorithm": key.algorithm,
                    "private": [_hex(part) for part in key.private],
                    "pin_policy": key.pin_policy,
                    "touch_policy": key.touch_policy,
                    "generated": key.generated,
                }
                for slot, key in sorted(self.keys.items())
            },
            "objects": {f"{tag:X}": _hex(answer) for tag, answer in sorted(self.objects.items())},
            "access": _access_document(self.access),
            "key_access": _access_document(self.key_access),
            "channel_keys": {
                f"{version:02X}": [_hex(part) for part in parts]
                for version, parts in sorted(self.channel_keys.items())
            },
            "sequence": self.sequence,
            "cvc": _hex(self.cvc),
        }

    def encode(self) -> bytes:
        """The canonical JSON text of :meth:`document`."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """Hex SHA-256 of :meth:`encode`."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def decode(cls, text: bytes) -> CardState:
        """The state written by :meth:`encode`. Raises StateDamaged."""
        try:
            return cls._from_document(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise StateDamaged(f"This is no stored virtual card ({type(error).__name__}).") from error

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> CardState:
        if document["format"] != FORMAT:
            raise StateDamaged(f"The stored card has format {document['format']}, this program knows {FORMAT}.")
        management = document["management"]
        return cls(
            profile=str(document["profile"]),
            serial=int(document["serial"]),
            seed=bytes.fromhex(document["seed"]),
            management=ManagementKey(
                int(management["algorithm"]),
                bytes.fromhex(management["value"]),
                int(management["touch"]),
                bool(management["default"]),
            ),
            references={
                int(number, 16): Reference(
                    bytes.fromhex(item["value"]), int(item["tries"]), int(item["maximum"]), bool(item["default"])
                )
                for number, item in document["references"].items()
            },
            keys={
                int(slot, 16): StoredKey(
                    int(key["algorithm"]),
                    tuple(bytes.fromhex(part) for part in key["private"]),
                    int(key["pin_policy"]),
                    int(key["touch_policy"]),
                    bool(key["generated"]),
                )
                for slot, key in document["keys"].items()
            },
            objects={int(tag, 16): bytes.fromhex(answer) for tag, answer in document["objects"].items()},
            access=_access(document["access"]),
            key_access=_access(document["key_access"]),
            channel_keys={
                int(version, 16): _three(bytes.fromhex(part) for part in parts)
                for version, parts in document["channel_keys"].items()
            },
            sequence=int(document["sequence"]),
            cvc=bytes.fromhex(document["cvc"]),
        )


def _hex(octets: bytes) -> str:
    return octets.hex().upper()


def _access_document(table: dict[int, Access]) -> dict[str, list[int]]:
    return {f"{number:X}": [item.contact, item.contactless, item.mechanism] for number, item in sorted(table.items())}


def _access(document: dict[str, list[int]]) -> dict[int, Access]:
    return {int(number, 16): Access(*(int(mode) for mode in modes)) for number, modes in document.items()}


def _three(parts: Any) -> tuple[bytes, bytes, bytes]:
    encryption, mac, data = parts
    return encryption, mac, data
