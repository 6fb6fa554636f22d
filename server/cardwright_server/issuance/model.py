"""Values of issuance, and the machine of a certificate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.piv.algorithms import PublicKey

from ..machine import Actor, Machine, Transition
from ..policies.model import Origin


class Purpose(StrEnum):
    """What an authority certifies. A certificate of one purpose is never taken for one of another."""

    ROOT = "root"
    CARDS = "cards"
    WORKSTATIONS = "workstations"
    SERVERS = "servers"


class HolderKind(StrEnum):
    """What the key of a certificate belongs to. ``Holder.id`` is the id of such a thing."""

    DEVICE_SLOT = "device-slot"
    PHONE = "phone"
    ACCOUNT = "account"
    SERVICE = "service"
    OPERATOR = "operator"
    WORKSTATION = "workstation"
    SERVER = "server"
    AUTHORITY = "authority"
    OCSP_RESPONDER = "ocsp-responder"
    CONTENT_SIGNER = "content-signer"


OWN = frozenset(
    {HolderKind.AUTHORITY, HolderKind.OCSP_RESPONDER, HolderKind.CONTENT_SIGNER, HolderKind.SERVER}
)
"""Holders whose certificates are the server's own: it renews them, and they begin without hold."""
WITHOUT_HOLD = OWN | {HolderKind.WORKSTATION, HolderKind.OPERATOR, HolderKind.SERVICE}
"""Holders that have no card to be read back first."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose certificate it is. ``part``: the slot of a device (``9a``), the name of a key of the vault, else "".

    ``person``: whom it concerns, for those who list what belongs to a person.
    """

    kind: HolderKind
    id: UUID
    part: str = ""
    person: UUID | None = None


class CertificateState(StrEnum):
    """Life of a certificate. Its end by time is no state: look at ``not_after``."""

    PREPARED = "prepared"
    """Serial and TBSCertificate are committed; whether there is a signature is not known for certain."""
    HELD = "held"
    GOOD = "good"
    REVOKED = "revoked"


class CertificateEvent(StrEnum):
    """What happens to a certificate."""

    PREPARE = "prepare"
    SIGN = "sign"
    HOLD = "hold"
    RESUME = "resume"
    REVOKE = "revoke"


_S, _E = CertificateState, CertificateEvent
_SERVER = frozenset({Actor.SERVER})
_HOLDERS = frozenset({Actor.SERVER, Actor.TIMER, Actor.HELP_DESK, Actor.ISSUANCE, Actor.SECURITY_OFFICER, Actor.USER})
_REVOKERS = frozenset({Actor.SERVER, Actor.TIMER, Actor.HELP_DESK, Actor.SECURITY_OFFICER})

CERTIFICATE = Machine(
    "certificate",
    CertificateState,
    CertificateEvent,
    [
        Transition(None, _E.PREPARE, _S.PREPARED, _SERVER, note="serial and TBSCertificate, before the vault signs"),
        Transition(_S.PREPARED, _E.SIGN, _S.HELD, _SERVER, "held", note="until the card was read back"),
        Transition(_S.PREPARED, _E.SIGN, _S.GOOD, _SERVER, note="keys that are on no card"),
        Transition(_S.PREPARED, _E.HOLD, _S.PREPARED, _HOLDERS, note="the reason counts once it is signed"),
        Transition(_S.HELD, _E.HOLD, _S.HELD, _HOLDERS, note="one more reason"),
        Transition(_S.GOOD, _E.HOLD, _S.HELD, _HOLDERS),
        Transition(_S.PREPARED, _E.RESUME, _S.PREPARED, _HOLDERS),
        Transition(_S.HELD, _E.RESUME, _S.HELD, _HOLDERS, "held", note="other reasons remain"),
        Transition(_S.HELD, _E.RESUME, _S.GOOD, _HOLDERS),
        Transition(_S.PREPARED, _E.REVOKE, _S.REVOKED, _REVOKERS, note="a signature may exist: it counts as issued"),
        Transition(_S.HELD, _E.REVOKE, _S.REVOKED, _REVOKERS),
        Transition(_S.GOOD, _E.REVOKE, _S.REVOKED, _REVOKERS),
    ],
)

UNRELEASED = "unreleased"
"""Reason of the hold that every certificate for a card begins with; ``release`` takes it away, ``resume`` never."""


class RevocationReason(StrEnum):
    """CRLReason (RFC 5280 section 5.3.1), as far as an end is meant. A hold is no revocation here."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation-of-operation"
    PRIVILEGE_WITHDRAWN = "privilege-withdrawn"

    @property
    def number(self) -> int:
        """The value of the ENUMERATED."""
        return _NUMBERS[self]


_NUMBERS = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
}
CERTIFICATE_HOLD = 6


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA. ``name`` is its key's in the vault; ``certificate`` DER, empty until it has one.

    ``responder`` is the vault's key that answers OCSP for it, "" if none does. ``crl_floor``: OCSP says "try later"
    until a CRL with a higher number is published (after a restore).
    """

    id: UUID
    org: UUID
    name: str
    purpose: Purpose
    foreign: bool
    subject: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    responder: str
    active: bool
    crl_floor: int
    version: int

    @property
    def x509(self) -> x509.Certificate:
        """Its certificate. Raises ValueError while it has none."""
        return x509.load_der_x509_certificate(self.certificate)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of our books. ``certificate`` is DER, empty while only prepared. ``serial`` is hex, lower case.

    ``status_at``: since when the state is what it is.
    """

    id: UUID
    org: UUID
    request: UUID
    authority: UUID
    serial: str
    profile: str
    profile_version: int
    holder: Holder
    key: str
    origin: Origin
    state: CertificateState
    holds: frozenset[str]
    status_at: datetime
    reason: RevocationReason | None
    not_before: datetime
    not_after: datetime
    session: UUID | None
    tbs: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    version: int

    @property
    def x509(self) -> x509.Certificate:
        """Parsed. Raises ValueError while it is only prepared."""
        return x509.load_der_x509_certificate(self.certificate)


class OrderState(StrEnum):
    """What became of a request for a certificate."""

    ASKED = "asked"
    PENDING = "pending"
    ISSUED = "issued"
    REFUSED = "refused"


class OrderEvent(StrEnum):
    """What a backend answers."""

    ASK = "ask"
    WAIT = "wait"
    ISSUE = "issue"
    REFUSE = "refuse"


_O, _A = OrderState, OrderEvent

ORDER = Machine(
    "certificate order",
    OrderState,
    OrderEvent,
    [
        Transition(None, _A.ASK, _O.ASKED, _SERVER),
        Transition(_O.ASKED, _A.WAIT, _O.PENDING, _SERVER, note="the authority answers later"),
        Transition(_O.ASKED, _A.ISSUE, _O.ISSUED, _SERVER),
        Transition(_O.ASKED, _A.REFUSE, _O.REFUSED, _SERVER),
        Transition(_O.PENDING, _A.WAIT, _O.PENDING, _SERVER),
        Transition(_O.PENDING, _A.ISSUE, _O.ISSUED, _SERVER, note="collected at a later contact"),
        Transition(_O.PENDING, _A.REFUSE, _O.REFUSED, _SERVER),
    ],
)


@dataclass(frozen=True, slots=True)
class Order:
    """A request for a certificate and its answer. ``asked`` is SHA-256 (hex) of what was asked.

    ``reference`` is the backend's own name for it; ``public_key`` and ``csr`` are DER, ``csr`` "" if there is none.
    """

    id: UUID
    org: UUID
    request: UUID
    asked: str
    backend: str
    state: OrderState
    certificate: UUID | None
    reference: str
    refusal: str
    profile: str
    profile_version: int
    holder: Holder
    origin: Origin
    public_key: bytes = field(repr=False)
    csr: bytes = field(repr=False)
    session: UUID | None
    version: int


@dataclass(frozen=True, slots=True)
class Issued:
    """There is a certificate."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Pending:
    """The authority has not answered yet; ask with the same request later."""

    order: UUID


@dataclass(frozen=True, slots=True)
class Refused:
    """There will be no certificate for this request. ``reason`` is a stable word, ``message`` a sentence."""

    reason: str
    message: str


Answer = Issued | Pending | Refused


def key_fingerprint(public_key: bytes) -> str:
    """Hex SHA-256 of a SubjectPublicKeyInfo: by which keys are compared."""
    return hashlib.sha256(public_key).hexdigest()


def public_key_of(der: bytes) -> PublicKey:
    """The key of a SubjectPublicKeyInfo. Raises ValueError for one that no slot holds."""
    key = load_der_public_key(der)
    if not isinstance(key, PublicKey):
        raise ValueError("no key of a kind that is certified")
    return key
