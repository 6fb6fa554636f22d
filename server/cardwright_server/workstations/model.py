"""Values of workstations, and the machines of a workstation and of an enrolment token."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

from ..machine import OPERATORS, Actor, Machine, Transition
from .errors import BadHost, BadReason, TokenRefused

TOKEN_LIFETIME = timedelta(hours=24)
CERTIFICATE_LIFETIME = timedelta(days=30)
SECRET = 16

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_REASON = re.compile(r"[a-z0-9-]{1,40}")
_TOKEN = re.compile(r"cw1\.([0-9a-f]{32})\.([0-9a-f]{32})\.([0-9a-f]{64})")


class StationClass(StrEnum):
    """What a workstation is for; policies decide by it what may be done there."""

    USER = "user"
    MANAGED = "managed"
    ISSUANCE = "issuance"


class StationState(StrEnum):
    """Whether its certificates count."""

    ENROLLING = "enrolling"
    """The token was used; the certificate is being made."""
    ACTIVE = "active"
    REVOKED = "revoked"


class StationEvent(StrEnum):
    """What happens to a workstation."""

    CLAIM = "claim"
    CERTIFY = "certify"
    RENEW = "renew"
    REVOKE = "revoke"


class TokenState(StrEnum):
    """How far a token has been used. That its day is over is not a state: the time says it."""

    OFFERED = "offered"
    CLAIMED = "claimed"
    """By one key, which may ask again until it has its certificate."""
    USED = "used"


class TokenEvent(StrEnum):
    """What happens to a token."""

    OFFER = "offer"
    CLAIM = "claim"
    REPEAT = "repeat"
    USE = "use"


_SERVER = frozenset({Actor.SERVER})
_USER = frozenset({Actor.USER})

STATION = Machine(
    "workstation",
    StationState,
    StationEvent,
    [
        Transition(None, StationEvent.CLAIM, StationState.ENROLLING, _USER, note="by an enrolment token"),
        Transition(StationState.ENROLLING, StationEvent.CERTIFY, StationState.ACTIVE, _SERVER),
        Transition(StationState.ENROLLING, StationEvent.REVOKE, StationState.REVOKED, OPERATORS),
        Transition(StationState.ACTIVE, StationEvent.RENEW, StationState.ACTIVE, _USER, note="from two thirds on"),
        Transition(
            StationState.ACTIVE, StationEvent.REVOKE, StationState.REVOKED, OPERATORS, note="closes its streams"
        ),
    ],
)

TOKEN = Machine(
    "enrolment token",
    TokenState,
    TokenEvent,
    [
        Transition(None, TokenEvent.OFFER, TokenState.OFFERED, frozenset({Actor.ADMINISTRATOR})),
        Transition(TokenState.OFFERED, TokenEvent.CLAIM, TokenState.CLAIMED, _USER, note="from now on for one key"),
        Transition(TokenState.CLAIMED, TokenEvent.REPEAT, TokenState.CLAIMED, _USER, note="the same key"),
        Transition(TokenState.CLAIMED, TokenEvent.USE, TokenState.USED, _SERVER, note="the certificate is recorded"),
        Transition(
            TokenState.USED, TokenEvent.REPEAT, TokenState.USED, _USER, note="the same key: the answer was lost"
        ),
    ],
)


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """What an administrator takes to a workstation: shown once. ``root`` pins the server on the first connection."""

    id: UUID
    secret: bytes = field(repr=False)
    root: bytes

    @classmethod
    def new(cls, identifier: UUID, root: bytes) -> EnrolmentToken:
        """A token with 128 random bits; ``root`` is the SHA-256 of the server's root certificate (DER)."""
        return cls(identifier, secrets.token_bytes(SECRET), root)

    @classmethod
    def parse(cls, text: str) -> EnrolmentToken:
        """A token as it was typed or pasted. Raises TokenRefused for anything else."""
        found = _TOKEN.fullmatch(text.strip()) if len(text) < 300 else None
        if found is None:
            raise TokenRefused("that is no enrolment token")
        return cls(UUID(found[1]), bytes.fromhex(found[2]), bytes.fromhex(found[3]))

    def text(self) -> str:
        """The form that ``parse`` reads."""
        return f"cw1.{self.id.hex}.{self.secret.hex()}.{self.root.hex()}"

    @property
    def digest(self) -> bytes:
        """What is kept of the secret; 128 random bits need no slow hash."""
        return sha256(self.id.bytes + self.secret).digest()


@dataclass(frozen=True, slots=True)
class Workstation:
    """A machine with a daemon. Its certificate identifies a channel, and is no evidence of what runs there."""

    id: UUID
    org: UUID
    host: str
    station_class: StationClass
    state: StationState
    revoked_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True)
class StationCertificate:
    """A certificate (DER) of a workstation; ``renew_at``: two thirds of its life."""

    certificate: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime

    @property
    def renew_at(self) -> datetime:
        """From then on it can be renewed."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3


def reason_code(text: str) -> str:
    """A short code, as it is. Raises BadReason for anything else."""
    if _REASON.fullmatch(text) is None:
        raise BadReason("that is no code for a reason")
    return text


def folded_host(host: str) -> str:
    """A host name (RFC 1123) in lower case, without a dot at the end. Raises BadHost."""
    folded = host.strip().removesuffix(".").lower()
    if len(folded) > 253 or not _HOST.fullmatch(folded):
        raise BadHost("that is no host name")
    return folded
