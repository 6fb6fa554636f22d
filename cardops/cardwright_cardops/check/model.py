"""What goes into a check and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

Proof: TypeAlias = Callable[[PublicKeyTypes], bool]
"""Says whether the private key of one slot belongs to this public key.

A live card signs or decrypts something random for it; an image compares with the key that it holds. It
may raise CardwrightError when the card would not do it; then the key counts as not proved, not as wrong.
"""


class Level(Enum):
    """How much a card has to be.

    ``piv`` and ``piv-i``: the federal profiles. ``civ``: like piv without FASC-N, policy OIDs and federal
    content signers. ``basic``: everything can be read, nothing contradicts anything else, certificates
    belong to their keys; nothing has to be there.
    """

    PIV = "piv"
    PIV_I = "piv-i"
    CIV = "civ"
    BASIC = "basic"


class Severity(Enum):
    """``error``: the card is not good at this level. ``warning``: look at it. ``info``: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for info to 2 for error."""
        return (Severity.INFO, Severity.WARNING, Severity.ERROR).index(self)


@dataclass(frozen=True, slots=True)
class CardData:
    """What is on a card. A tag that is missing in ``objects`` is absent from the card.

    ``objects``: tag to GET DATA answer, None where it could not be read (PIN not given).
    ``proofs``: key reference to Proof. ``factory_secrets``: the references (80 PIN, 81 PUK, 9B management key) that
    the card itself says still have the value they left the factory with.
    """

    objects: Mapping[int, bytes | None] = field(repr=False)
    proofs: Mapping[int, Proof] = field(default_factory=dict, repr=False)
    name: str = ""
    factory_secrets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. ``object`` is the container's tag in upper-case hexadecimal; a certificate or
    key is named by its certificate container, a PIN, PUK or management key by its key reference, and what is
    about the card as a whole by "". ``reference`` is the section of the standard.
    """

    code: str
    severity: Severity
    object: str
    message: str
    reference: str

    def to_json(self) -> dict[str, str]:
        """The stable form: code, severity, object, message, reference."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "object": self.object,
            "message": self.message,
            "reference": self.reference,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a check: findings in the order of the data model, errors first within one object."""

    level: Level
    at: datetime
    findings: tuple[Finding, ...]
    objects: tuple[str, ...]

    @property
    def worst(self) -> Severity | None:
        """The highest severity, None when nothing was found."""
        return max((finding.severity for finding in self.findings), key=lambda each: each.rank, default=None)

    @property
    def good(self) -> bool:
        """Whether there is no error."""
        return self.worst is not Severity.ERROR

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity is severity)

    def to_json(self) -> dict[str, object]:
        """The stable form: level, at (ISO 8601), objects (tags that were looked at), good, findings."""
        return {
            "level": self.level.value,
            "at": self.at.isoformat(),
            "objects": list(self.objects),
            "good": self.good,
            "findings": [finding.to_json() for finding in self.findings],
        }
