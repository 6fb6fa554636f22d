"""Typed steps of a plan: plain values that travel, are shown to people, and are bound by a digest.

Secrets, keys and certificates are not in them; an Authority gives them when the step is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, TypeAlias

from ..piv import containers
from ..piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from ..piv.references import Slot
from .inventory import Identity, canonical

FORMAT: Final = 1

_GENERATE_SECONDS: Final = {
    Algorithm.RSA1024: 2.0,
    Algorithm.RSA2048: 8.0,
    Algorithm.RSA3072: 30.0,
    Algorithm.RSA4096: 90.0,
}
"""What a slow card takes on average; curves take a second."""


@dataclass(frozen=True, slots=True)
class SetPuk:
    """CHANGE REFERENCE DATA of the PUK, from the newest candidate to the target."""

    kind: ClassVar[str] = "set-puk"
    seconds: ClassVar[float] = 0.2
    may_be_pulled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SetPin:
    """RESET RETRY COUNTER with the PUK: the person's new PIN, whatever the old one was."""

    kind: ClassVar[str] = "set-pin"
    seconds: ClassVar[float] = 0.2
    may_be_pulled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SetRetries:
    """New try counters, and PIN and PUK set again at once: the card puts both back to factory values."""

    pin: int
    puk: int

    kind: ClassVar[str] = "set-retries"
    seconds: ClassVar[float] = 0.6
    may_be_pulled: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class SetManagementKey:
    """A new management key 9B, recorded as a candidate before."""

    algorithm: ManagementAlgorithm
    touch: bool = False

    kind: ClassVar[str] = "set-management-key"
    seconds: ClassVar[float] = 0.2
    may_be_pulled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class GenerateKey:
    """GENERATE ASYMMETRIC KEY PAIR. ``replaces`` is the fingerprint of the key that goes, "" for none."""

    slot: Slot
    algorithm: Algorithm
    pin_policy: PinPolicy = PinPolicy.DEFAULT
    touch_policy: TouchPolicy = TouchPolicy.DEFAULT
    replaces: str = ""

    kind: ClassVar[str] = "generate-key"

    @property
    def seconds(self) -> float:
        """How long a slow card takes."""
        return _GENERATE_SECONDS.get(self.algorithm, 1.0)

    @property
    def may_be_pulled(self) -> bool:
        """Not while a key that is in use goes."""
        return not self.replaces


@dataclass(frozen=True, slots=True)
class ImportKey:
    """Write a key that was made outside. ``key`` is the fingerprint of the one that is wanted, "" for a new one."""

    slot: Slot
    algorithm: Algorithm
    pin_policy: PinPolicy = PinPolicy.DEFAULT
    touch_policy: TouchPolicy = TouchPolicy.DEFAULT
    key: str = ""
    replaces: str = ""

    kind: ClassVar[str] = "import-key"
    seconds: ClassVar[float] = 1.0

    @property
    def may_be_pulled(self) -> bool:
        """Not while a key that is in use goes."""
        return not self.replaces


@dataclass(frozen=True, slots=True)
class WriteCertificate:
    """PUT DATA of the certificate for the slot's key. ``key`` is its fingerprint, "" for one that this plan makes."""

    slot: Slot
    algorithm: Algorithm
    profile: str = "self-signed"
    key: str = ""

    kind: ClassVar[str] = "write-certificate"
    may_be_pulled: ClassVar[bool] = True
    seconds: ClassVar[float] = 1.0

    @property
    def tag(self) -> int:
        """Tag of the container."""
        return self.slot.certificate_tag


@dataclass(frozen=True, slots=True)
class WriteObject:
    """PUT DATA of a data object whose content the authority gives."""

    tag: int

    kind: ClassVar[str] = "write-object"
    may_be_pulled: ClassVar[bool] = True

    @property
    def seconds(self) -> float:
        """By the size that the container is made for."""
        return 0.2 + containers.CONTAINERS[self.tag].min_capacity / 4000


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """What a slot of a PKCS#11 token holds goes: the key with the fingerprint ``key``, and its certificate."""

    slot: Slot
    key: str

    kind: ClassVar[str] = "delete-key"
    seconds: ClassVar[float] = 0.2
    may_be_pulled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ResetCard:
    """Block PIN and PUK, then RESET: keys, certificates, objects and secrets go. It stands alone in its plan."""

    kind: ClassVar[str] = "reset-card"
    seconds: ClassVar[float] = 3.0
    may_be_pulled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class LockCard:
    """Block the PIN: every try is spent. The PUK is left alone, as the way back. It stands alone in its plan."""

    kind: ClassVar[str] = "lock-card"
    seconds: ClassVar[float] = 1.0
    may_be_pulled: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class LeaveKey:
    """The key that is in ``slot`` goes, and no retired slot takes it: it stays in the archive only. Nothing is sent.

    ``key``: its fingerprint. A step of its own, so that the person is told, and agrees to it by name.
    """

    slot: Slot
    key: str

    kind: ClassVar[str] = "leave-key"
    seconds: ClassVar[float] = 0.0
    may_be_pulled: ClassVar[bool] = True


Step: TypeAlias = (
    SetPuk
    | SetPin
    | SetRetries
    | SetManagementKey
    | GenerateKey
    | ImportKey
    | WriteCertificate
    | WriteObject
    | DeleteKey
    | LeaveKey
    | ResetCard
    | LockCard
)
STEP_KINDS: Final[Mapping[str, type[Step]]] = {
    kind.kind: kind
    for kind in (
        SetPuk,
        SetPin,
        SetRetries,
        SetManagementKey,
        GenerateKey,
        ImportKey,
        WriteCertificate,
        WriteObject,
        DeleteKey,
        LeaveKey,
        ResetCard,
        LockCard,
    )
}
"""The vocabulary, by name: two sides of a line compare it before they plan."""


def step_id(step: Step) -> str:
    """A name for the step that is unique in its plan: ``generate-key-9A``, ``write-object-5FC102``."""
    if isinstance(step, GenerateKey | ImportKey | WriteCertificate | DeleteKey | LeaveKey):
        return f"{step.kind}-{step.slot.label}"
    if isinstance(step, WriteObject):
        return f"{step.kind}-{step.tag:X}"
    return step.kind


def step_document(step: Step) -> dict[str, Any]:
    """JSON values: ``kind`` and the fields, numbers of slots, tags and algorithms in hexadecimal."""
    document: dict[str, Any] = {"kind": step.kind}
    for row in fields(step):
        value = getattr(step, row.name)
        if isinstance(value, Slot | Algorithm | ManagementAlgorithm):
            value = f"{int(value):02X}"
        elif isinstance(value, PinPolicy | TouchPolicy):
            value = value.name.lower()
        elif row.name == "tag":
            value = f"{value:X}"
        document[row.name] = value
    return document


def step_from_document(document: Mapping[str, Any]) -> Step:
    """Read what ``step_document`` wrote. For anything else ValueError, KeyError, TypeError or AttributeError."""
    rest = dict(document)
    kind = STEP_KINDS[rest.pop("kind")]
    readers: dict[str, Any] = {
        "slot": lambda text: Slot(int(text, 16)),
        "algorithm": lambda text: (ManagementAlgorithm if kind is SetManagementKey else Algorithm)(int(text, 16)),
        "tag": lambda text: int(text, 16),
        "pin_policy": lambda text: PinPolicy[text.upper()],
        "touch_policy": lambda text: TouchPolicy[text.upper()],
    }
    made = kind(**{name: readers[name](value) if name in readers else value for name, value in rest.items()})
    if step_document(made) != dict(document):
        raise ValueError("a step with a value of another type")
    return made


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps for one card. ``card`` is the identity for which they were planned."""

    policy: str
    card: Identity
    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def seconds(self) -> float:
        """How long it takes on a slow card, about."""
        return sum(step.seconds for step in self.steps)

    def document(self) -> dict[str, Any]:
        """JSON values in a stable order."""
        card = self.card
        return {
            "format": FORMAT,
            "policy": self.policy,
            "card": {
                "guid": None if card.guid is None else str(card.guid),
                "fascn": card.fascn,
                "serial": card.serial,
                "card_key": card.card_key,
            },
            "steps": [step_document(step) for step in self.steps],
        }

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the canonical document: what a preview binds."""
        return hashlib.sha256(canonical(self.document())).hexdigest()
