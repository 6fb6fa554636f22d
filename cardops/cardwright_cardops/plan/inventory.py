"""What is on a card now: one frozen value with a stable JSON form. ``observe`` reads it, ``planner`` compares it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ..errors import CardwrightError
from ..piv import containers
from ..piv.algorithms import PinPolicy, PublicKey, TouchPolicy
from ..piv.references import Slot
from ..piv.vendor.yubico import KeyOrigin

FORMAT: Final = 1


class Presence(Enum):
    """What is known of an object."""

    PRESENT = "present"
    ABSENT = "absent"
    DAMAGED = "damaged"
    """There, but its codec cannot read it; ``defect`` says why."""
    PROTECTED = "protected"
    """The card shows it only after the PIN, or over another interface."""
    UNREAD = "unread"
    """Not asked for, or the answer was lost."""


@dataclass(frozen=True, slots=True)
class ObjectState:
    """One container. ``digest`` is the hex SHA-256 of its value (inside 53), ``size`` the value's octets."""

    tag: int
    presence: Presence
    digest: str = ""
    size: int = 0
    defect: str = ""


@dataclass(frozen=True, slots=True)
class CertificateState:
    """The certificate of a slot. ``fingerprint`` is its own, ``key`` that of its public key; both hex SHA-256."""

    slot: Slot
    fingerprint: str
    key: str
    subject: str
    issuer: str
    serial_number: int
    not_before: datetime
    not_after: datetime


class Evidence(Enum):
    """How a key is known to be there."""

    METADATA = "metadata"
    """The card told it."""
    CERTIFICATE = "certificate"
    """A certificate stands in its container; whether the key belongs to it is not proved."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """The key of a slot. ``public_key`` is a DER SubjectPublicKeyInfo, ``fingerprint`` its hex SHA-256.

    ``algorithm`` is the octet on the wire; None, DEFAULT and "" are "the card did not say".
    """

    slot: Slot
    evidence: Evidence
    algorithm: int | None = None
    fingerprint: str = ""
    public_key: bytes = b""
    origin: KeyOrigin | None = None
    pin_policy: PinPolicy | None = None
    touch_policy: TouchPolicy | None = None


@dataclass(frozen=True, slots=True)
class SecretState:
    """PIN, PUK or management key as far as the card tells. None is "not told"."""

    is_default: bool | None = None
    tries_total: int | None = None
    tries_left: int | None = None
    algorithm: int | None = None
    """Of the management key: the octet on the wire."""
    touch_policy: TouchPolicy | None = None

    @property
    def is_blocked(self) -> bool:
        """Whether the card says that no try is left."""
        return self.tries_left == 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the card is. ``fascn`` hex, ``serial`` the vendor's number in decimal, ``card_key`` the 9E fingerprint."""

    guid: UUID | None = None
    fascn: str = ""
    serial: str = ""
    card_key: str = ""

    def is_same_card(self, other: Identity) -> bool:
        """Whether nothing that both know differs."""
        pairs = (
            (self.guid, other.guid), (self.fascn, other.fascn),
            (self.serial, other.serial), (self.card_key, other.card_key),
        )  # fmt: skip
        return all(mine == theirs for mine, theirs in pairs if mine and theirs)


@dataclass(frozen=True, slots=True)
class Features:
    """What the card was found to have, by asking it. None: not asked."""

    metadata: bool | None = None
    serial: bool | None = None
    version: str = ""
    """What the card claims; clones lie, so it never unlocks anything."""
    label: str = ""
    aid: str = ""
    announced: tuple[int, ...] = ()
    """Algorithm identifiers of tag AC in the answer of SELECT."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """A card as it was observed. Tuples are sorted by slot or tag, so equal cards have equal documents."""

    identity: Identity = Identity()
    features: Features = Features()
    objects: tuple[ObjectState, ...] = ()
    keys: tuple[KeyState, ...] = ()
    certificates: tuple[CertificateState, ...] = ()
    pin: SecretState = SecretState()
    puk: SecretState = SecretState()
    management_key: SecretState = SecretState()
    expiration: date | None = None
    """Of the CHUID."""
    pin_usage: str = ""
    """The PIN usage policy of Discovery, 4 hexadecimal digits."""
    retired_counts: tuple[int, int] | None = None
    """Key History: keys with certificates on the card, and off it."""
    security_object_holds: bool | None = None
    """Whether the hashes of the Security Object fit the objects that were read; None without one."""
    defects: tuple[str, ...] = ()
    """What else the card answered that cannot be read, in words."""

    @property
    def is_bound(self) -> bool:
        """Whether the card may have a CHUID, so that somebody issued it."""
        return self.object(containers.CHUID.tag).presence is not Presence.ABSENT

    def object(self, tag: int) -> ObjectState:
        """The state of a container, UNREAD where nothing is known."""
        return next((row for row in self.objects if row.tag == tag), ObjectState(tag, Presence.UNREAD))

    def key(self, slot: Slot) -> KeyState | None:
        """The key of a slot."""
        return next((row for row in self.keys if row.slot is slot), None)

    def certificate(self, slot: Slot) -> CertificateState | None:
        """The readable certificate of a slot."""
        return next((row for row in self.certificates if row.slot is slot), None)

    def with_object(self, state: ObjectState) -> Inventory:
        """A copy in which the container is as ``state`` says."""
        rows = [row for row in self.objects if row.tag != state.tag]
        return replace(self, objects=tuple(sorted([*rows, state], key=lambda row: row.tag)))

    def with_key(self, state: KeyState) -> Inventory:
        """A copy with another key in the slot."""
        rows = [row for row in self.keys if row.slot is not state.slot]
        return replace(self, keys=tuple(sorted([*rows, state], key=lambda row: row.slot)))

    def with_certificate(self, state: CertificateState) -> Inventory:
        """A copy with another certificate in the slot."""
        rows = [row for row in self.certificates if row.slot is not state.slot]
        return replace(self, certificates=tuple(sorted([*rows, state], key=lambda row: row.slot)))

    def document(self) -> dict[str, Any]:
        """JSON values in a stable order; octets are lower-case hex, moments ISO 8601 in UTC."""
        return {
            "format": FORMAT,
            "identity": {
                "guid": None if self.identity.guid is None else str(self.identity.guid),
                "fascn": self.identity.fascn,
                "serial": self.identity.serial,
                "card_key": self.identity.card_key,
            },
            "features": {
                "metadata": self.features.metadata,
                "serial": self.features.serial,
                "version": self.features.version,
                "label": self.features.label,
                "aid": self.features.aid,
                "announced": [f"{number:02X}" for number in self.features.announced],
            },
            "objects": [
                {
                    "tag": f"{row.tag:X}", "presence": row.presence.value, "digest": row.digest,
                    "size": row.size, "defect": row.defect,
                }
                for row in self.objects
            ],
            "keys": [_key_document(row) for row in self.keys],
            "certificates": [
                {
                    "slot": row.slot.label, "fingerprint": row.fingerprint, "key": row.key,
                    "subject": row.subject, "issuer": row.issuer, "serial_number": f"{row.serial_number:x}",
                    "not_before": row.not_before.isoformat(), "not_after": row.not_after.isoformat(),
                }
                for row in self.certificates
            ],
            "pin": _secret_document(self.pin),
            "puk": _secret_document(self.puk),
            "management_key": _secret_document(self.management_key),
            "expiration": None if self.expiration is None else self.expiration.isoformat(),
            "pin_usage": self.pin_usage,
            "retired_counts": None if self.retired_counts is None else list(self.retired_counts),
            "security_object_holds": self.security_object_holds,
            "defects": list(self.defects),
        }  # fmt: skip

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Inventory:
        """Read what ``document`` wrote. Raises ValueError for anything else."""
        try:
            return cls._from_document(document)
        except (AttributeError, TypeError, LookupError, ArithmeticError, CardwrightError) as cause:
            raise ValueError(f"a damaged inventory ({type(cause).__name__})") from cause

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Inventory:
        if document["format"] != FORMAT:
            raise ValueError("an inventory of another format")
        identity, features = document["identity"], document["features"]
        counts, expiration = document["retired_counts"], document["expiration"]
        return cls(
            identity=Identity(
                None if identity["guid"] is None else UUID(identity["guid"]),
                identity["fascn"], identity["serial"], identity["card_key"],
            ),
            features=Features(
                features["metadata"], features["serial"], features["version"], features["label"], features["aid"],
                tuple(int(number, 16) for number in features["announced"]),
            ),
            objects=tuple(
                ObjectState(
                    int(row["tag"], 16), Presence(row["presence"]), row["digest"], row["size"], row["defect"]
                )
                for row in document["objects"]
            ),
            keys=tuple(_key_of(row) for row in document["keys"]),
            certificates=tuple(
                CertificateState(
                    Slot.named(row["slot"]), row["fingerprint"], row["key"], row["subject"], row["issuer"],
                    int(row["serial_number"], 16),
                    datetime.fromisoformat(row["not_before"]).astimezone(UTC),
                    datetime.fromisoformat(row["not_after"]).astimezone(UTC),
                )
                for row in document["certificates"]
            ),
            pin=_secret_of(document["pin"]),
            puk=_secret_of(document["puk"]),
            management_key=_secret_of(document["management_key"]),
            expiration=None if expiration is None else date.fromisoformat(expiration),
            pin_usage=document["pin_usage"],
            retired_counts=None if counts is None else (counts[0], counts[1]),
            security_object_holds=document["security_object_holds"],
            defects=tuple(document["defects"]),
        )  # fmt: skip


def fingerprint(key: PublicKey) -> str:
    """Hex SHA-256 of the key's SubjectPublicKeyInfo."""
    return hashlib.sha256(spki(key)).hexdigest()


def spki(key: PublicKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_key(der: bytes) -> PublicKey:
    """The key in a DER SubjectPublicKeyInfo that ``spki`` made."""
    return load_der_public_key(der)  # type: ignore[return-value]


def canonical(document: Any) -> bytes:
    """The one octet string for JSON values: sorted members, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sorted_by_slot(rows: Iterable[KeyState]) -> tuple[KeyState, ...]:
    """Keys in the order in which an inventory has them."""
    return tuple(sorted(rows, key=lambda row: row.slot))


def _key_document(row: KeyState) -> dict[str, Any]:
    return {
        "slot": row.slot.label,
        "evidence": row.evidence.value,
        "algorithm": None if row.algorithm is None else f"{row.algorithm:02X}",
        "fingerprint": row.fingerprint,
        "public_key": row.public_key.hex(),
        "origin": None if row.origin is None else row.origin.value,
        "pin_policy": None if row.pin_policy is None else row.pin_policy.name.lower(),
        "touch_policy": None if row.touch_policy is None else row.touch_policy.name.lower(),
    }


def _key_of(row: dict[str, Any]) -> KeyState:
    return KeyState(
        Slot.named(row["slot"]),
        Evidence(row["evidence"]),
        None if row["algorithm"] is None else int(row["algorithm"], 16),
        row["fingerprint"],
        bytes.fromhex(row["public_key"]),
        None if row["origin"] is None else KeyOrigin(row["origin"]),
        None if row["pin_policy"] is None else PinPolicy[row["pin_policy"].upper()],
        None if row["touch_policy"] is None else TouchPolicy[row["touch_policy"].upper()],
    )


def _secret_document(state: SecretState) -> dict[str, Any]:
    return {
        "is_default": state.is_default,
        "tries_total": state.tries_total,
        "tries_left": state.tries_left,
        "algorithm": None if state.algorithm is None else f"{state.algorithm:02X}",
        "touch_policy": None if state.touch_policy is None else state.touch_policy.name.lower(),
    }


def _secret_of(row: dict[str, Any]) -> SecretState:
    return SecretState(
        row["is_default"],
        row["tries_total"],
        row["tries_left"],
        None if row["algorithm"] is None else int(row["algorithm"], 16),
        None if row["touch_policy"] is None else TouchPolicy[row["touch_policy"].upper()],
    )
