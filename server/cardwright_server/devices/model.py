"""Values of devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from cryptography.x509 import ReasonFlags

from ..policies.compliance import REVOCATION
from ..policies.model import DeviceKind


class DeviceState(StrEnum):
    """Where a device is in its life. A blocked PIN is seen on the card and is no state here."""

    STOCK = "stock"
    ASSIGNED = "assigned"
    IN_PRODUCTION = "in-production"
    FAILED = "failed"
    PRODUCED = "produced"
    """Written, and waiting to be activated by its holder."""
    ISSUED = "issued"
    UPDATING = "updating"
    SUSPENDED = "suspended"
    INVALID = "invalid"
    """Out of use for a reason, and not yet replaced: it may come back."""
    TERMINATED = "terminated"
    DISPOSED = "disposed"


class DeviceEvent(StrEnum):
    """What happens to a device."""

    REGISTER = "register"
    BIND = "bind"
    UNBIND = "unbind"
    START = "start"
    INTERRUPT = "interrupt"
    """Its card session ended without success or failure: pulled, cut, killed. The next one goes on."""
    ISSUE = "issue"
    PRODUCE = "produce"
    FAIL = "fail"
    ACTIVATE = "activate"
    LAPSE = "lapse"
    """It was not activated in time."""
    SUSPEND = "suspend"
    RESUME = "resume"
    START_UPDATE = "start-update"
    UPDATE = "update"
    FAIL_UPDATE = "fail-update"
    REPORT_INCIDENT = "report-incident"
    RESTORE = "restore"
    EXPIRE = "expire"
    REPLACE = "replace"
    REVOKE = "revoke"
    """It was lost or stolen, and its revocation cannot wait for a replacement any longer."""
    TERMINATE = "terminate"
    START_RECYCLE = "start-recycle"
    """A card session is about to erase it: from here on it is good for nothing else."""
    RECYCLE = "recycle"
    DISPOSE = "dispose"


class Reason(StrEnum):
    """Why a device is as it is."""

    NONE = ""
    RECYCLED = "recycled"
    FAILED = "failed"
    FORGOTTEN = "forgotten"
    DAMAGED = "damaged"
    LOST = "lost"
    STOLEN = "stolen"
    EXPIRED = "expired"
    RENEWED = "renewed"
    NOT_ACTIVATED = "not-activated"
    NOT_NEEDED = "not-needed"
    RETURNED = "returned"
    """A temporary device that was given back."""
    LEFT = "left"
    AFFILIATION = "affiliation"
    FRAUD = "fraud"
    COMPROMISED = "compromised"


INCIDENTS = (Reason.FORGOTTEN, Reason.DAMAGED, Reason.LOST, Reason.STOLEN)
"""What people report, from the lightest to the gravest."""
OUT_OF_REACH = frozenset({Reason.LOST, Reason.STOLEN})
"""Somebody else may have it."""
REVOKE_AFTER = REVOCATION - timedelta(hours=1)
"""How long after such a report certificates are only on hold under ``compliance = piv``. An hour is for the CRL."""


class HoldReason(StrEnum):
    """Why a device is suspended: one of several at once, each lifted by itself."""

    OPERATOR = "operator"
    INVESTIGATION = "investigation"
    PERSON = "person"
    """Its holder is suspended. Set and lifted by the server."""
    POLICY = "policy"
    """A rule of the server. Set and lifted by the server."""


SERVERS_HOLDS = frozenset({HoldReason.PERSON, HoldReason.POLICY})


class Disposition(StrEnum):
    """What became of a device that is at its end (FIPS 201-3 section 2.9.4 wants it on record)."""

    COLLECTED = "collected"
    DESTROYED = "destroyed"
    NOT_COLLECTED = "not-collected"
    """Only its certificates were revoked."""
    LOST = "lost"


LIVE = frozenset(
    {
        DeviceState.ASSIGNED,
        DeviceState.IN_PRODUCTION,
        DeviceState.FAILED,
        DeviceState.PRODUCED,
        DeviceState.ISSUED,
        DeviceState.UPDATING,
        DeviceState.SUSPENDED,
        DeviceState.INVALID,
    }
)
"""States in which it is somebody's."""
STANDING_IN = frozenset(
    {
        DeviceState.IN_PRODUCTION,
        DeviceState.PRODUCED,
        DeviceState.ISSUED,
        DeviceState.UPDATING,
        DeviceState.SUSPENDED,
    }
)
"""States in which a replacement keeps the device that it replaces from coming back."""
IN_USE = frozenset({DeviceState.ISSUED, DeviceState.UPDATING, DeviceState.SUSPENDED, DeviceState.INVALID})
"""States of a device that its holder was given, and that has not ended."""
WITH_CREDENTIALS = LIVE - {DeviceState.ASSIGNED}
"""States that end by termination."""


@dataclass(frozen=True, slots=True)
class CrlReasons:
    """Reasons for revocation (RFC 5280 section 5.3.1), for most keys and for the key-management key."""

    keys: ReasonFlags
    key_management: ReasonFlags


def _both(reason: ReasonFlags) -> CrlReasons:
    return CrlReasons(reason, reason)


_LOST = CrlReasons(ReasonFlags.key_compromise, ReasonFlags.superseded)
CRL_REASONS: Mapping[Reason, CrlReasons] = {
    Reason.LOST: _LOST,
    Reason.STOLEN: _LOST,
    Reason.COMPROMISED: _both(ReasonFlags.key_compromise),
    Reason.DAMAGED: _both(ReasonFlags.superseded),
    Reason.FORGOTTEN: _both(ReasonFlags.superseded),
    Reason.EXPIRED: _both(ReasonFlags.superseded),
    Reason.RENEWED: _both(ReasonFlags.superseded),
    Reason.FAILED: _both(ReasonFlags.superseded),
    Reason.RECYCLED: _both(ReasonFlags.superseded),
    Reason.NOT_ACTIVATED: _both(ReasonFlags.cessation_of_operation),
    Reason.NOT_NEEDED: _both(ReasonFlags.cessation_of_operation),
    Reason.RETURNED: _both(ReasonFlags.cessation_of_operation),
    Reason.LEFT: _both(ReasonFlags.cessation_of_operation),
    Reason.AFFILIATION: _both(ReasonFlags.affiliation_changed),
    Reason.FRAUD: _both(ReasonFlags.privilege_withdrawn),
}
"""Why a device's end revokes its certificates. An escrowed key is not compromised by a lost card with a PIN."""
TERMINATIONS = frozenset(CRL_REASONS) - {Reason.EXPIRED, Reason.FAILED, Reason.RECYCLED, Reason.NOT_ACTIVATED}
"""Reasons that an operator may give."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device. ``guid`` and ``fascn`` (text form) are those of its present life; ``session`` works on it now."""

    id: UUID
    org: UUID
    kind: DeviceKind
    serial: str
    lot: UUID | None
    state: DeviceState
    reason: Reason
    person: UUID | None
    policy: UUID | None
    policy_number: int | None
    replaces: UUID | None
    temporary: bool
    guid: UUID | None
    fascn: str | None
    session: UUID | None
    life: int
    card_locked: bool
    issued_at: datetime | None
    expires_at: datetime | None
    activate_by: datetime | None
    disposition: str
    version: int


class SecretSource(StrEnum):
    """Where a lot's devices have their initial secrets from."""

    FACTORY = "factory"
    """The factory values that everybody knows; nothing is kept."""
    CONSTANT = "constant"
    PER_CARD = "per-card"
    """A file from the vendor with each card's own."""
    VENDOR_MASTER = "vendor-master"


class Derivation(StrEnum):
    """How a card's secret comes from a vendor's master key: names that the vault knows."""

    NONE = ""
    SP800_108_CMAC = "sp800-108-cmac"
    VISA2 = "visa2"
    EMV_CPS = "emv-cps"


def derivation_data(derivation: Derivation, serial: str) -> bytes | None:
    """What a vendor's KDF takes of the card with this serial number; None where the number says nothing to it.

    VISA2 and EMV CPS take the 10 octets of diversification data that the card gives at INITIALIZE UPDATE: 20
    hexadecimal digits, or a decimal number of 4 octets, which is the chip's serial number at its place in them.
    """
    if derivation is Derivation.SP800_108_CMAC:
        return serial.encode()
    if derivation is Derivation.NONE:
        return None
    if len(serial) == 20 and set(serial) <= _HEX:
        return bytes.fromhex(serial)
    if serial.isascii() and serial.isdecimal() and len(serial) <= 10 and int(serial) < 1 << 32:
        return bytes(4) + int(serial).to_bytes(4, "big") + bytes(2)
    return None


_HEX = frozenset("0123456789abcdefABCDEF")


class SecretName(StrEnum):
    """Initial secrets of a card."""

    PIN = "pin"
    PUK = "puk"
    MANAGEMENT_KEY = "management-key"
    SCP03 = "scp03"
    MASTER = "master"
    """A vendor's master key. It belongs into the vault, under the id of its lot, and is never kept here."""


@dataclass(frozen=True, slots=True)
class Lot:
    """A delivery of devices of one kind with one source of initial secrets."""

    id: UUID
    org: UUID
    name: str
    kind: DeviceKind
    source: SecretSource
    derivation: Derivation
