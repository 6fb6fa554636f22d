"""What the daemon tells, as values: frozen, with enums for words and moments in UTC."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Final, TypeAlias
from uuid import UUID

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.inventory import Identity, Inventory, SecretState
from cardwright_cardops.plan.steps import Plan


class CardKind(Enum):
    """How a card is reached."""

    PIV = "piv"
    """In a PC/SC or virtual reader."""
    PKCS11 = "pkcs11"
    """A token of a PKCS#11 module."""


class CardState(Enum):
    """Whether the daemon knows a card."""

    READING = "reading"
    """It was just put in."""
    READY = "ready"
    UNREADABLE = "unreadable"


class OperationKind(Enum):
    """What an operation is for."""

    READ = "read"
    CHECK = "check"
    CHANGE_PIN = "change-pin"
    UNBLOCK_PIN = "unblock-pin"
    ISSUE = "issue"
    UPDATE = "update"
    UNLOCK = "unlock"
    FORGOTTEN_PIN = "forgotten-pin"
    RECOVER = "recover"
    SIGN_IN = "sign-in"
    RECYCLE = "recycle"
    LOCK = "lock"


class Phase(Enum):
    """Where an operation stands."""

    PREPARING = "preparing"
    PROMPTING = "prompting"
    """A person is asked for something."""
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(Enum):
    """How a session with the server ended well."""

    DONE = "done"
    NOTHING_DUE = "nothing-due"
    PENDING = "pending"
    """All but certificates that are not issued yet; a later session brings them."""
    SHOWN_AGAIN = "shown-again"
    """Of going on after a session that broke off: more has to be done than was agreed to. Nothing was done."""


class Purpose(Enum):
    """What a session with the server is for."""

    ISSUE = "issue"
    UPDATE = "update"
    REISSUE = "re-issue"
    UNLOCK = "unlock"
    FORGOTTEN_PIN = "forgotten-pin"
    RECOVER = "recover"
    RECYCLE = "recycle"
    """Everything on the card is erased: an operator asked for it."""
    LOCK = "lock"
    """The card's PIN is blocked: an operator suspended the card with that."""


class MethodKind(Enum):
    """How a person proves who they are to the server."""

    DIRECTORY_PASSWORD = "directory-password"
    INITIAL_PASSWORD = "initial-password"
    SECURITY_ANSWERS = "security-answers"
    EMERGENCY_PASSWORD = "emergency-password"
    CARD = "card"


PROVED_BY_CARD: Final = frozenset({Purpose.UPDATE, Purpose.REISSUE, Purpose.RECOVER})
"""For these the server wants the card and its PIN: the card is in use, and its holder can be asked."""


class LinkState(Enum):
    """How the daemon's way to the server is."""

    NOT_CONFIGURED = "not-configured"
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class CheckLevel(Enum):
    """How strict a conformance check is."""

    BASIC = "basic"
    CIV = "civ"
    PIV_I = "piv-i"
    PIV = "piv"


class Severity(Enum):
    """How grave a finding is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


# ---------------------------------------------------------------------------------------------- readers and cards


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader; ``card`` is the id of the card in it, "" without one."""

    name: str
    card: str = ""


@dataclass(frozen=True, slots=True)
class FailedModule:
    """A PKCS#11 module of the daemon's configuration that cannot be used, by the path of its file, and why."""

    path: str
    problem: CardwrightError


@dataclass(frozen=True, slots=True)
class Readers:
    """All readers; ``service`` is why the smart card service cannot be used, None while it can.

    ``modules`` cannot be used either, as it was when tokens were last looked for: ``DaemonClient.cards`` looks.
    """

    readers: tuple[Reader, ...]
    service: CardwrightError | None = None
    modules: tuple[FailedModule, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """A card that is in. ``id`` lasts until it is taken out; ``operation`` is the id of the one that has it, or ""."""

    id: str
    kind: CardKind
    reader: str
    state: CardState
    identity: Identity
    atr: bytes = b""
    problem: CardwrightError | None = None
    operation: str = ""
    inserted_at: datetime | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        if self.identity.serial:
            return f"card {self.identity.serial}"
        return f"card {self.identity.guid}" if self.identity.guid else f"the card in {self.reader}"


@dataclass(frozen=True, slots=True)
class TokenObject:
    """A key or certificate on a PKCS#11 token; ``der`` is its SubjectPublicKeyInfo or the certificate."""

    id: bytes
    label: str
    algorithm: str
    key_reference: str
    der: bytes
    is_certificate: bool
    subject: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What is on a card: ``inventory`` of a PIV card, ``objects`` and ``problems`` of a PKCS#11 token."""

    observed_at: datetime | None
    inventory: Inventory | None = None
    objects: tuple[TokenObject, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check; ``object`` is a tag or key reference in hexadecimal, "" for the card."""

    code: str
    severity: Severity
    object: str
    message: str
    reference: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found; ``objects`` are the tags that were looked at."""

    good: bool
    findings: tuple[Finding, ...]
    objects: tuple[str, ...]
    at: datetime | None


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One command and its answer; octets only where they are public. ``sw`` is 0 where no status word came."""

    number: int
    at: float
    seconds: float
    instruction: str
    header: bytes
    lc: int
    le: int
    answered: int
    sw: int
    tag: str
    data: bytes
    answer: bytes
    error: str


# ---------------------------------------------------------------------------------------------------- PINs, prompts


@dataclass(frozen=True, slots=True)
class Asking:
    """Where the daemon asks the person. All empty: in the daemon's own surroundings.

    ``current`` and ``new`` answer in the person's place; a daemon takes them only if its configuration says so.
    """

    tty: str = ""
    tty_type: str = ""
    display: str = ""
    current: bytes = field(default=b"", repr=False)
    new: bytes = field(default=b"", repr=False)

    @classmethod
    def here(cls) -> Asking:
        """This process's terminal and display."""
        tty = ""
        try:
            if sys.stdin is not None and sys.stdin.isatty():
                tty = os.ttyname(sys.stdin.fileno())
        except (OSError, ValueError):
            pass  # closed, or no terminal after all
        return cls(tty, os.environ.get("TERM", "") if tty else "", os.environ.get("DISPLAY", ""))


@dataclass(frozen=True, slots=True)
class PinStatus:
    """What a card says of its PIN and PUK."""

    pin: SecretState
    puk: SecretState


# ------------------------------------------------------------------------------------------------------- operations


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on a card. ``percentage`` is 0 to 100; ``step`` the kind of the plan's step at work, ``words`` the
    same for people; ``error`` is why it failed or was cancelled. ``unasked``: the daemon began it by itself.
    ``continues``: it broke off, and the daemon goes on by itself in another one (``DaemonClient.gone_on_with``)."""

    id: str
    kind: OperationKind
    card: str
    reader: str
    phase: Phase
    percentage: int = 0
    step: str = ""
    words: str = ""
    outcome: Outcome | None = None
    error: CardwrightError | None = None
    cancellable: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    unasked: bool = False
    continues: bool = False

    @property
    def over(self) -> bool:
        """Whether it ended, in whichever way."""
        return self.phase in (Phase.DONE, Phase.FAILED, Phase.CANCELLED)


# ---------------------------------------------------------------------------------------------------------- updates


REVOKED: Final = "revoked"
"""Word of a DueItem: the card is at its end."""
ACTIVATION: Final = "activation"
"""Word of a DueItem: the card was written elsewhere, and its holder has to say that they have it."""


@dataclass(frozen=True, slots=True)
class DueItem:
    """One thing that the server wants done: renewal, policy, replacement, recovered-keys, unlock, ..."""

    what: str
    since: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """What is due for a card, the most pressing first; false where nothing is.

    ``until``: the answer holds until then. ``mandatory_from``: from then on it cannot be put off. ``postponed_until``:
    the person said later. ``continues``: consent that was given covers what is left. ``begins_at``: when the daemon
    begins it by itself, where it is mandatory and the machine's administrator allows that. ``suspended``: the card is
    held out of use.
    """

    items: tuple[DueItem, ...] = ()
    purpose: Purpose = Purpose.UPDATE
    until: datetime | None = None
    mandatory_from: datetime | None = None
    postponed_until: datetime | None = None
    request: UUID | None = None
    continues: bool = False
    begins_at: datetime | None = None
    suspended: bool = False

    def __bool__(self) -> bool:
        return bool(self.items)

    @property
    def is_over(self) -> bool:
        """Whether the card is revoked and nothing more is done to it: there is nothing to start."""
        return bool(self.items) and all(one.what == REVOKED for one in self.items)

    @property
    def activates(self) -> bool:
        """Whether the holder's session, once they have proved who they are, is all that is wanted."""
        return any(one.what == ACTIVATION for one in self.items)

    def is_postponed(self, now: datetime | None = None) -> bool:
        """Whether it is not offered yet."""
        return self.postponed_until is not None and self.postponed_until > (now or datetime.now(UTC))

    def is_mandatory(self, now: datetime | None = None) -> bool:
        """Whether it cannot be put off."""
        return self.mandatory_from is not None and self.mandatory_from <= (now or datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of a plan in words. ``may_be_pulled``: the card may leave meanwhile without losing a key in use."""

    id: str
    kind: str
    words: str
    seconds: float
    may_be_pulled: bool


@dataclass(frozen=True, slots=True)
class UpdatePreview:
    """What would be done, and about how many ``seconds`` it takes. ``digest`` names it when it is started.

    ``confirmations``: acts that the person has to confirm each by its name. Without ``plan`` nothing is due.
    """

    plan: Plan | None
    digest: bytes = b""
    steps: tuple[PlanStep, ...] = ()
    seconds: float = 0.0
    confirmations: tuple[str, ...] = ()
    until: datetime | None = None
    asks_pin: bool = False
    asks_new_pin: bool = False

    @property
    def nothing_due(self) -> bool:
        """Whether the card is as it should be."""
        return self.plan is None


@dataclass(frozen=True, slots=True)
class Method:
    """A way to prove who one is. ``questions`` are the server's text, to be shown beside the daemon's prompts."""

    kind: MethodKind
    questions: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------- escrow, workstation


@dataclass(frozen=True, slots=True)
class EscrowedKey:
    """A key that the server keeps; ``fingerprint`` is the SHA-256 of its SubjectPublicKeyInfo in hexadecimal."""

    fingerprint: str
    algorithm: str
    not_before: datetime | None = None
    not_after: datetime | None = None
    on_card: bool = False
    downloadable: bool = False


@dataclass(frozen=True, slots=True)
class ReportedReader:
    """A reader in a report; ``problem`` is the code of what is wrong with the card, or ""."""

    name: str
    has_card: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ReportedError:
    """An error that happened, by its code; ``operation`` names where."""

    code: str
    at: datetime | None = None
    operation: str = ""


@dataclass(frozen=True, slots=True)
class WorkstationReport:
    """For the help desk: nothing in it says who the person is or which card it is."""

    version: str
    python: str
    platform: str
    libraries: tuple[tuple[str, str], ...]
    readers: tuple[ReportedReader, ...]
    service: str
    link: LinkState
    link_error: str
    errors: tuple[ReportedError, ...]
    modules: tuple[ReportedError, ...]
    started_at: datetime | None
    listeners: int
    refused: int
    hardened: bool


# ----------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class ReaderChanged:
    """A reader is there, or (not ``present``) gone."""

    reader: Reader
    present: bool


@dataclass(frozen=True, slots=True)
class CardChanged:
    """A card is in and as told here, or (not ``present``) was taken out."""

    card: Card
    present: bool


@dataclass(frozen=True, slots=True)
class OperationChanged:
    """An operation is as told here."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class ServiceChanged:
    """The smart card service came (no error) or went."""

    error: CardwrightError | None


@dataclass(frozen=True, slots=True)
class DueChanged:
    """The server said what is due for the card with this id."""

    card: str
    due: Due


@dataclass(frozen=True, slots=True)
class Synced:
    """All that is there has been told; from here on come changes."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Events were lost. ``count`` is how many the daemon dropped because they were not fetched in time: list again.

    None: the line to the daemon was lost. Everything that is there is told anew then, up to the next ``Synced``; what
    is not told any more is gone.
    """

    count: int | None = None


Event: TypeAlias = ReaderChanged | CardChanged | OperationChanged | ServiceChanged | DueChanged | Synced | Missed
