"""Values of device policies, and the machine of their versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.policy import DevicePolicy

from ..machine import Actor, Machine, Transition


class Compliance(StrEnum):
    """What a policy claims. Under PIV the server refuses what FIPS 201-3 refuses."""

    PIV = "piv"
    CIV = "civ"


class ClearSecrets(StrEnum):
    """Which workstations may see a PUK, management key or imported key (an open channel shows it to them)."""

    NEVER = "never"
    TRUSTED_STATION = "trusted_station"
    ANY = "any"

    def allows(self, *, trusted: bool) -> bool:
        """Whether a secret may go in clear to a workstation that is, or is not, a trusted station."""
        return self is ClearSecrets.ANY or (self is ClearSecrets.TRUSTED_STATION and trusted)


class Origin(StrEnum):
    """What is known of where a key was made, weakest first."""

    UNPROVEN = "unproven"
    TRUSTED_STATION = "trusted_station"
    SEALED = "sealed"
    ATTESTED = "attested"

    def proves(self, least: Origin) -> bool:
        """Whether evidence of this kind is enough where ``least`` is wanted."""
        order = list(Origin)
        return order.index(self) >= order.index(least)


class DeviceKind(StrEnum):
    """What a device is."""

    SMART_CARD = "smart-card"
    USB_KEY = "usb-key"
    VIRTUAL_CARD = "virtual-card"
    PKCS11_TOKEN = "pkcs11-token"
    PHONE = "phone"


class UnlockMethod(StrEnum):
    """How a blocked or forgotten PIN may be set anew."""

    SELF = "self"
    """The person alone, by the methods of the matrix."""
    ASSISTED = "assisted"
    """The help desk makes the request first."""
    OPERATOR = "operator"
    """At an operator's station."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy document, read and checked.

    ``card`` is what the planner needs. ``least_origin`` is what each slot's key must prove at least. ``escrowed`` are
    slots whose keys the server makes and archives. ``max_devices`` counts live devices of a person under this policy.
    """

    name: str
    title: str
    compliance: Compliance
    clear_secrets: ClearSecrets
    device_kinds: frozenset[DeviceKind]
    max_devices: int
    self_bind: bool
    user_retry: bool
    validity: timedelta
    temporary: timedelta
    """Validity of a device that stands in for a forgotten one."""
    activate_within: timedelta
    mandatory_after: timedelta | None
    """How long after the publication of a version cards can be brought to it later; None: for ever."""
    unlock: frozenset[UnlockMethod]
    two_person_termination: bool
    card: DevicePolicy
    least_origin: Mapping[Slot, Origin]
    escrowed: frozenset[Slot]
    files: bool
    """Whether owners get archived keys as files."""
    recovers_to_temporary: bool
    """Whether a device that stands in for another one gets its holder's old keys."""
    pin: PinRules
    old_keys_may_leave: bool = True
    """Whether a renewal may put an archived key off a card that has no retired slot for it."""
    activation: bool = False
    """Whether a card that an operator wrote waits, its certificates on hold, until its holder activates it."""
    delete_superseded: bool = False
    """Of PKCS#11 tokens: keys that were certified once and that are named no more go."""

    @property
    def strict(self) -> bool:
        """Whether it claims compliance with FIPS 201-3."""
        return self.compliance is Compliance.PIV


class VersionState(StrEnum):
    """Life of one version of a policy."""

    DRAFT = "draft"
    PUBLISHED = "published"
    SUPERSEDED = "superseded"
    DISCARDED = "discarded"


class VersionEvent(StrEnum):
    """What happens to a version."""

    DRAFT = "draft"
    PUBLISH = "publish"
    SUPERSEDE = "supersede"
    DISCARD = "discard"


_ADMINISTRATOR = frozenset({Actor.ADMINISTRATOR})
_Row = Transition[VersionState, VersionEvent]

VERSION = Machine(
    "policy version",
    VersionState,
    VersionEvent,
    (
        _Row(None, VersionEvent.DRAFT, VersionState.DRAFT, _ADMINISTRATOR),
        _Row(
            VersionState.DRAFT,
            VersionEvent.PUBLISH,
            VersionState.PUBLISHED,
            frozenset({Actor.SECURITY_OFFICER}),
            guard="is_another_person",
            effects=("supersede_older",),
            note="devices of older versions become due",
        ),
        _Row(VersionState.DRAFT, VersionEvent.DISCARD, VersionState.DISCARDED, _ADMINISTRATOR),
        _Row(VersionState.PUBLISHED, VersionEvent.SUPERSEDE, VersionState.SUPERSEDED, frozenset({Actor.SERVER})),
    ),
)


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of a policy: its document as it was written, and who did what with it."""

    id: UUID
    org: UUID
    policy: UUID
    name: str
    number: int
    state: VersionState
    text: str
    digest: str
    drafted_by: UUID
    published_by: UUID | None
    published_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True)
class AssignedPolicy:
    """A published version that applies: which policy, which number, and what it says."""

    policy: UUID
    number: int
    document: Policy
