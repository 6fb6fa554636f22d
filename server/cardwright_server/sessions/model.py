"""Values of card sessions, and their machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.steps import Plan
from cardwright_cardops.plan.token import TokenFeatures

from ..machine import Actor, Machine, Transition
from ..policies.model import Origin

PROTOCOL = 1


class Purpose(StrEnum):
    """What a session is for."""

    ISSUE = "issue"
    UPDATE = "update"
    REISSUE = "re-issue"
    """Every key and certificate anew, for the same person on the same card."""
    UNLOCK = "unlock"
    UNLOCK_ASSISTED = "unlock-assisted"
    """As unlock, asked for by the help desk."""
    FORGOTTEN_PIN = "forgotten-pin"
    """As unlock, of a card that is not blocked."""
    RECYCLE = "recycle"
    """Everything on the card goes, and the device back to stock."""
    LOCK = "lock"
    """The PIN is blocked: somebody suspended the device with that."""
    PROVE = "prove"
    """The holder proves who they are by the card: nothing is planned, and nothing on the card changes."""

    @property
    def unlocks(self) -> bool:
        """Whether PUK and PIN are set, and nothing else."""
        return self in (Purpose.UNLOCK, Purpose.UNLOCK_ASSISTED, Purpose.FORGOTTEN_PIN)

    @property
    def follows_policy(self) -> bool:
        """Whether the card is brought to what its policy wants."""
        return self in (Purpose.ISSUE, Purpose.UPDATE, Purpose.REISSUE)


class Outcome(StrEnum):
    """How a session ended that ended well."""

    DONE = "done"
    NOTHING_DUE = "nothing-due"
    PENDING = "pending"


class SessionState(StrEnum):
    """Life of a session."""

    OPENED = "opened"
    OBSERVING = "observing"
    PREVIEWED = "previewed"
    CONSENTED = "consented"
    EXECUTING = "executing"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"


class SessionEvent(StrEnum):
    """What happens to a session."""

    OPEN = "open"
    OBSERVE = "observe"
    PREVIEW = "preview"
    CONSENT = "consent"
    EXECUTE = "execute"
    VERIFY = "verify"
    FINISH = "finish"
    FAIL = "fail"
    LOSE = "lose"


_S, _E = SessionState, SessionEvent
_SERVER = frozenset({Actor.SERVER})
_LIVE = (_S.OPENED, _S.OBSERVING, _S.PREVIEWED, _S.CONSENTED, _S.EXECUTING, _S.VERIFYING)

SESSION: Machine[SessionState, SessionEvent] = Machine(
    "card session",
    SessionState,
    SessionEvent,
    [
        Transition(None, _E.OPEN, _S.OPENED, _SERVER, note="the card's lease is held from here on"),
        Transition(_S.OPENED, _E.OBSERVE, _S.OBSERVING, _SERVER),
        Transition(_S.OBSERVING, _E.PREVIEW, _S.PREVIEWED, _SERVER, note="plan and contents are fixed"),
        Transition(_S.OBSERVING, _E.FINISH, _S.DONE, _SERVER, note="nothing is due"),
        Transition(_S.PREVIEWED, _E.CONSENT, _S.CONSENTED, frozenset({Actor.SERVER, Actor.USER})),
        Transition(_S.CONSENTED, _E.EXECUTE, _S.EXECUTING, _SERVER, note="what a batch changes is recorded before it"),
        Transition(_S.EXECUTING, _E.VERIFY, _S.VERIFYING, _SERVER, note="the card was read back"),
        Transition(_S.VERIFYING, _E.FINISH, _S.DONE, _SERVER, note="certificates are released with it"),
        *(Transition(state, _E.FAIL, _S.FAILED, _SERVER) for state in _LIVE),
        *(
            Transition(state, _E.LOSE, _S.LOST, frozenset({Actor.SERVER, Actor.TIMER}), note="line or lease")
            for state in _LIVE
        ),
    ],
)
LIVE = frozenset(_LIVE)


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a workstation says first. ``steps`` and ``items`` are the kinds that it knows; ``max_batch`` in octets.

    ``token`` is set where the card is a PKCS#11 token, whose sessions go by steps.
    """

    steps: frozenset[str]
    items: frozenset[str]
    max_batch: int
    purpose: Purpose
    card: Inventory
    request: UUID | None = None
    software: str = ""
    reader: str = ""
    token: TokenFeatures | None = None


@dataclass(frozen=True, slots=True)
class Showing:
    """What the person is to agree to: the plan, and the content of every object that it writes, by tag.

    ``pin_rules`` are the policy's for a new PIN. ``card_keys`` (SubjectPublicKeyInfo) were made in 9E, the newest
    first, of a card that tells nothing of its keys; ``card_key_unknown``: another one was begun that nobody saw.
    """

    plan: Plan
    contents: Mapping[int, bytes] = field(repr=False)
    pin_rules: PinRules
    card_keys: tuple[bytes, ...] = field(default=(), repr=False)
    card_key_unknown: bool = False

    @property
    def digests(self) -> dict[int, bytes]:
        """SHA-256 of each content, by tag."""
        return {tag: hashlib.sha256(content).digest() for tag, content in self.contents.items()}


@dataclass(frozen=True, slots=True)
class CardSession:
    """One session, as recorded."""

    id: UUID
    org: UUID
    device: UUID
    purpose: Purpose
    request: UUID | None
    workstation: UUID | None
    state: SessionState
    outcome: str
    plan: str
    done: int
    steps: int
    life: int
    version: int


@dataclass(frozen=True, slots=True)
class Agreed:
    """A session whose plan the person agreed to, or that ended well.

    ``proof`` is the person's ``Authentication`` that it ran on; None for an operator's session.
    """

    session: CardSession
    proof: UUID | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardKey:
    """A key of a slot for which a certificate was asked, and what proves where it was made.

    ``public_key`` is SubjectPublicKeyInfo DER.
    """

    slot: Slot
    fingerprint: str
    public_key: bytes = field(repr=False)
    origin: Origin
