"""What the daemon asks of a server, as values of its own: independent of gRPC and of how the server is reached.

A link is made once for the daemon. Every method may raise ``ServerUnreachable`` (also when the server does not answer
in time), ``ServerRefused``, and the errors that the server itself told, with their codes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol, TypeAlias
from uuid import UUID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.inventory import Identity, Inventory
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.steps import Plan
from cardwright_cardops.plan.token import TokenAnswer, TokenFeatures
from cardwright_cardops.program.items import Answers, AnyBatch
from cardwright_cardops.program.token_items import TokenBatch
from cardwright_cardops.secret import Secret


class ServerNotConfigured(CardwrightError):
    """This needs a server, and the daemon's configuration names none."""

    code = "SERVER_NOT_CONFIGURED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Enrol the workstation with a server: see docs/daemon.md."


class ServerUnreachable(CardwrightError):
    """The server cannot be reached, or did not answer in time."""

    code = "SERVER_UNREACHABLE"
    default_effect = "The card is as it was after the last finished step."
    default_advice = "Check the network, and try again; what was finished is not repeated."


class ServerRefused(CardwrightError):
    """The server does not accept this workstation: its certificate is unknown, expired or revoked."""

    code = "SERVER_REFUSED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Have the workstation enrolled again."


class LinkState(Enum):
    """How the way to the server is."""

    NOT_CONFIGURED = "not configured"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class Purpose(Enum):
    """What a session is for."""

    ISSUE = "issue"
    UPDATE = "update"
    REISSUE = "re-issue"
    UNLOCK = "unlock"
    FORGOTTEN_PIN = "forgotten-pin"
    RECOVER = "recover"
    RECYCLE = "recycle"
    """Everything on the card is erased."""
    LOCK = "lock"
    """The PIN is blocked: an operator suspended the card with that."""
    PROVE = "prove"


class Outcome(Enum):
    """How a session ended well."""

    DONE = "done"
    NOTHING_DUE = "nothing-due"
    PENDING = "pending"
    """All but certificates that are not issued yet."""


# ------------------------------------------------------------------------------------------------------------- due


@dataclass(frozen=True, slots=True)
class DueItem:
    """One thing that is due; ``what`` is a word of the server's list, for instance ``renewal``."""

    what: str
    since: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """What is due for a card, the most pressing first.

    ``until``: the answer holds until then, None: only now. ``mandatory_from``: from then on it is done unasked.
    ``suspended``: the card is held out of use.
    """

    items: tuple[DueItem, ...] = ()
    until: datetime | None = None
    purpose: Purpose = Purpose.UPDATE
    request: UUID | None = None
    mandatory_from: datetime | None = None
    suspended: bool = False

    def __bool__(self) -> bool:
        return bool(self.items)


@dataclass(frozen=True, slots=True)
class Push:
    """The server says that something changed for the card of this UUID; None: for any card."""

    guid: UUID | None = None


# -------------------------------------------------------------------------------------------------- authentication


class MethodKind(Enum):
    """How a person proves who they are; the names of the server's methods."""

    DIRECTORY_PASSWORD = "ldap-password"
    INITIAL_PASSWORD = "initial-password"
    SECURITY_ANSWERS = "security-answers"
    EMERGENCY_PASSWORD = "emergency-password"
    CARD = "card"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to prove it. ``questions`` are of SECURITY_ANSWERS: id and text. They never come into a prompt."""

    kind: MethodKind
    questions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """What a person proved: a token for the server, good until ``until``. It stays in the daemon."""

    token: Secret = field(repr=False)
    until: datetime


# -------------------------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session begins with. ``card`` was read over the connection on which the session works.

    ``keys``: fingerprints of the keys to recover. ``steps`` and ``items`` are what this daemon knows, as the contract
    names them; ``max_batch`` octets of an encoded batch.
    """

    purpose: Purpose
    card: Inventory
    reader: str
    software: str
    steps: tuple[str, ...]
    items: tuple[str, ...]
    max_batch: int
    request: UUID | None = None
    proof: Proof | None = None
    keys: tuple[str, ...] = ()
    token: TokenFeatures | None = None
    """Set where the card is a PKCS#11 token."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """The session exists."""

    session: UUID


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done. ``contents``: SHA-256 of what is written to each data object, by tag.

    ``pin_rules`` are the policy's for a new PIN, None where the server does not tell them. ``card_keys``
    (SubjectPublicKeyInfo) were made in 9E of a card that tells nothing of its keys, while the certificate there is
    another one's; ``card_key_unknown``: one was begun that nobody saw.
    """

    plan: Plan
    contents: Mapping[int, bytes]
    pin_rules: PinRules | None = None
    card_keys: tuple[bytes, ...] = ()
    card_key_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Execute:
    """A batch; ``CardSession.answer`` has to be called with its number."""

    number: int
    batch: AnyBatch


@dataclass(frozen=True, slots=True)
class ExecuteSteps:
    """Steps for a PKCS#11 token; ``CardSession.answer`` has to be called with their number."""

    number: int
    batch: TokenBatch


@dataclass(frozen=True, slots=True)
class EndStage:
    """The stage is over; no answer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The step of this kind is at work."""

    step: str
    percentage: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last message of a session that ended well."""

    outcome: Outcome


StepAnswers: TypeAlias = tuple[TokenAnswer, ...]
Message: TypeAlias = Greeted | Preview | Execute | ExecuteSteps | EndStage | Progress | Finished


class CardSession(Protocol):
    """One session of the server on one card: one stream.

    ``messages`` gives what the server says, in order, and ends after Finished; it raises what went wrong, be it the
    line or an error that the server told. It is iterated once.
    """

    def messages(self) -> AsyncIterator[Message]:
        """What the server says."""

    async def consent(self, plan: bytes, *, unasked: bool = False) -> None:
        """The person agreed to the plan with this SHA-256; ``unasked``: nobody was asked, as it is mandatory."""

    async def refuse(self) -> None:
        """The person did not agree."""

    async def answer(self, number: int, answers: Answers | StepAnswers | CardwrightError) -> None:
        """The answers to the batch or steps with ``number``, or why nothing of them was done."""

    async def close(self, *, silently: bool = False) -> None:
        """End the session, with a word to the server where that is still possible. Never raises.

        ``silently``: without one. To the server it broke off then, and was not ended by the person.
        """


# ---------------------------------------------------------------------------------------------------------- escrow


@dataclass(frozen=True, slots=True)
class EscrowedKey:
    """A key that the server keeps for the holder of a card. ``fingerprint``: hex SHA-256 of its public key."""

    fingerprint: str
    algorithm: str
    not_before: datetime | None = None
    not_after: datetime | None = None
    downloadable: bool = False


@dataclass(frozen=True, slots=True)
class Pfx:
    """A key as PKCS #12, claimed once, and its password."""

    content: bytes = field(repr=False)
    password: Secret = field(repr=False)


# --------------------------------------------------------------------------------------------------------- sign-in


@dataclass(frozen=True, slots=True)
class SignInChallenge:
    """A portal that waits for a sign-in. ``audience`` is the origin that the server vouches for."""

    audience: str
    nonce: bytes


class CardProving(Protocol):
    """The server waits for the card to sign: who can do that, behind its PIN, is its holder."""

    @property
    def challenge(self) -> SignInChallenge:
        """What is to be signed by the key in 9A. The audience is the server's name for itself, and no origin."""

    async def finish(self, token: bytes) -> Proof:
        """Give the token (TokenAB of RFC 3163, DER); what it is worth."""

    async def close(self) -> None:
        """Give it up, unless it is finished. Never raises."""


class ServerLink(Protocol):
    """The server, as the daemon sees it."""

    @property
    def state(self) -> LinkState:
        """How it is now."""

    @property
    def error(self) -> CardwrightError | None:
        """Why it cannot be used, None while it can or nothing was tried."""

    async def start(self, pushed: Callable[[Push], None]) -> None:
        """Begin; does not wait for the server. ``pushed`` is called on the loop."""

    async def stop(self) -> None:
        """End every call and stream."""

    def watch(self, cards: Sequence[Identity]) -> None:
        """These cards are in the readers now: news about them are pushed. The first sixteen count."""

    async def due(self, card: Identity, proof: bytes = b"") -> Due:
        """What is due for a card, within the configured time. A card that is not the server's has nothing due.

        ``proof``: what 9E signed to ``check_nonce`` of this minute; without it the server says only whether.
        """

    async def methods(self, card: Identity, purpose: Purpose | None, account: str) -> tuple[Method, ...]:
        """Ways to prove who the person is, any of which is enough for ``purpose``; None: all that the server offers."""

    async def prove(
        self, card: Identity, purpose: Purpose, account: str, kind: MethodKind, values: Mapping[str, Secret]
    ) -> Proof:
        """Prove it. ``values``: answers by the id of their question, a password under ""."""

    async def prove_by_card(self, opening: Opening) -> CardProving:
        """Begin a proof by the card of ``opening``, whose purpose is PROVE."""

    async def open(self, opening: Opening) -> CardSession:
        """Begin a session."""

    async def escrowed(self, card: Identity, proof: Proof | None) -> tuple[EscrowedKey, ...]:
        """Keys that the server keeps for the holder of the card."""

    async def pfx(self, card: Identity, key: str, proof: Proof | None) -> Pfx:
        """Claim one key."""

    async def sign_in_challenge(self, link: str) -> SignInChallenge:
        """Ask the server what this one-time link is for."""

    async def sign_in(self, link: str, token: bytes) -> str:
        """Give the token (TokenAB of RFC 3163, DER) for it; the one-time address to open in the browser."""
