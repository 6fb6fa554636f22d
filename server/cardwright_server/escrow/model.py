"""Values of the escrow, and the machines of keys, recoveries and offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import RETIRED_SLOTS, Slot
from cardwright_cardops.plan.policy import RecoveredKey

from ..machine import Actor, Machine, Transition
from ..requests.model import Request, RequestState
from ..store.unit import Unit
from ..vault.model import ArchiveContext, EscrowClass, Wrapped

MOST_RECOVERED = len(RETIRED_SLOTS)
"""Keys that a card takes besides the one in use."""
OFFER_LIFETIME = timedelta(minutes=5)
FRESH = timedelta(minutes=5)
"""How old the proof with a card may be when a file is asked for: each file needs the PIN anew."""
MOST_ATTEMPTS = 3
"""Wrong passwords after which an offer is void."""
RECOVERY_LIFETIME = timedelta(days=7)
DAY = timedelta(days=1)
CARRIED_OUT = frozenset({RequestState.READY, RequestState.EXECUTING, RequestState.RETRYABLE})
"""States of a request that was approved and is not over: only then keys leave under it."""


class Requests(Protocol):
    """What the escrow asks about requests (``RequestService`` is one)."""

    async def request(self, unit: Unit, org: UUID, identifier: UUID) -> Request:
        """A request of an organization. Raises NoSuchRequest."""


class KeyState(StrEnum):
    """Where an archived key has been."""

    ARCHIVED = "archived"
    """Only here."""
    DELIVERED = "delivered"
    """It went to the card that it was made for, or was about to."""
    RECOVERED = "recovered"
    """It also went, or was about to go, to a retired slot or into a file."""


class KeyEvent(StrEnum):
    """What happens to an archived key."""

    ARCHIVE = "archive"
    DELIVER = "deliver"
    RECOVER = "recover"


class RecoveryState(StrEnum):
    """Life of one key's approved recovery to one device."""

    RELEASED = "released"
    DELIVERED = "delivered"
    EXPIRED = "expired"


class RecoveryEvent(StrEnum):
    """What happens to it."""

    RELEASE = "release"
    DELIVER = "deliver"
    EXPIRE = "expire"


class OfferState(StrEnum):
    """Life of an offer of a file."""

    OFFERED = "offered"
    CLAIMED = "claimed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    VOID = "void"


class OfferEvent(StrEnum):
    """What happens to it."""

    OFFER = "offer"
    CLAIM = "claim"
    EXPIRE = "expire"
    SUPERSEDE = "supersede"
    MISTAKE = "mistake"
    EXHAUST = "exhaust"


class Way(StrEnum):
    """How a key left the archive."""

    CARD = "card"
    """To the slot of the card that it was made for."""
    RETIRED = "retired-slot"
    """To a retired slot of this or another card of its owner."""
    FILE = "file"


_SERVER = frozenset({Actor.SERVER})
_OFFICER = frozenset({Actor.SECURITY_OFFICER})
_USER = frozenset({Actor.USER})
_TIMER = frozenset({Actor.TIMER})
_K, _R, _O = KeyState, RecoveryState, OfferState
_Key = Transition[KeyState, KeyEvent]
_Recovery = Transition[RecoveryState, RecoveryEvent]
_Offer = Transition[OfferState, OfferEvent]

KEY = Machine(
    "escrowed key",
    KeyState,
    KeyEvent,
    (
        _Key(None, KeyEvent.ARCHIVE, _K.ARCHIVED, _SERVER),
        _Key(_K.ARCHIVED, KeyEvent.DELIVER, _K.DELIVERED, _SERVER),
        _Key(_K.DELIVERED, KeyEvent.DELIVER, _K.DELIVERED, _SERVER, note="a session was cut, the next one goes on"),
        _Key(_K.RECOVERED, KeyEvent.DELIVER, _K.RECOVERED, _SERVER),
        *(_Key(state, KeyEvent.RECOVER, _K.RECOVERED, _SERVER | _USER) for state in KeyState),
    ),
)

RECOVERY = Machine(
    "key recovery",
    RecoveryState,
    RecoveryEvent,
    (
        _Recovery(None, RecoveryEvent.RELEASE, _R.RELEASED, _OFFICER, note="the request was approved before"),
        _Recovery(_R.RELEASED, RecoveryEvent.DELIVER, _R.DELIVERED, _SERVER),
        _Recovery(_R.DELIVERED, RecoveryEvent.DELIVER, _R.DELIVERED, _SERVER, note="the same card, after a cut"),
        *(_Recovery(state, RecoveryEvent.EXPIRE, _R.EXPIRED, _TIMER) for state in (_R.RELEASED, _R.DELIVERED)),
    ),
)

OFFER = Machine(
    "PFX offer",
    OfferState,
    OfferEvent,
    (
        _Offer(None, OfferEvent.OFFER, _O.OFFERED, _USER),
        _Offer(_O.OFFERED, OfferEvent.CLAIM, _O.CLAIMED, _USER),
        _Offer(_O.OFFERED, OfferEvent.MISTAKE, _O.OFFERED, _USER, note="a wrong password"),
        _Offer(_O.OFFERED, OfferEvent.EXHAUST, _O.VOID, _USER, note="the third wrong password"),
        _Offer(_O.OFFERED, OfferEvent.SUPERSEDE, _O.SUPERSEDED, _USER, note="a newer offer of the same key"),
        _Offer(_O.OFFERED, OfferEvent.EXPIRE, _O.EXPIRED, _TIMER),
    ),
)


@dataclass(frozen=True, slots=True)
class Archived:
    """A key in the archive. ``wrapped`` is sealed: worth nothing without the vault.

    ``person`` owns it, or the device where nobody does. ``device``, ``life`` (which life of the device), ``slot`` and
    ``session`` say what it was made for. ``fingerprint``: hexadecimal SHA-256 of ``public_key`` (SubjectPublicKeyInfo
    DER). ``certificate``: DER, b"" until there is one. ``superseded_at``: since when its slot has a newer key.
    """

    id: UUID
    org: UUID
    person: UUID | None
    device: UUID
    life: int
    slot: Slot
    session: UUID
    algorithm: Algorithm
    fingerprint: str
    public_key: bytes = field(repr=False)
    owner: str
    escrow_class: EscrowClass
    wrapped: Wrapped = field(repr=False)
    certificate: bytes = field(repr=False)
    state: KeyState
    created_at: datetime
    certified_at: datetime | None
    superseded_at: datetime | None
    version: int
    may_stay: bool = False
    """Whether a card that has no place for it may do without: it is its own former key, and nobody asked for it."""

    @property
    def context(self) -> ArchiveContext:
        """What the vault bound it to."""
        return ArchiveContext(str(self.org), self.owner, self.public_key, self.certificate, self.escrow_class)

    @property
    def current(self) -> bool:
        """Whether it is its slot's newest key, with a certificate."""
        return self.certified_at is not None and self.superseded_at is None

    @property
    def recovered(self) -> RecoveredKey:
        """It as a policy names it for a retired slot."""
        return RecoveredKey(self.fingerprint, self.algorithm, not self.may_stay)


@dataclass(frozen=True, slots=True)
class Recovery:
    """That a key may go to a device under a request, until ``expires_at``."""

    id: UUID
    key: UUID
    request: UUID
    device: UUID
    person: UUID
    approved_by: UUID
    state: RecoveryState
    expires_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class PfxOffer:
    """That a person may claim a file with a key of theirs, once. ``commitment`` is to the password."""

    id: UUID
    org: UUID
    key: UUID
    person: UUID
    authentication: UUID
    workstation: UUID | None
    commitment: bytes = field(repr=False)
    attempts: int
    state: OfferState
    created_at: datetime
    expires_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much is released in a day, besides the vault's own quotas: keys for recovery, and offers of files."""

    keys_by_operator: int = 100
    keys_of_person: int = 40
    offers_of_person: int = 10
