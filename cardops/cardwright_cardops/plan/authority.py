"""What a plan needs from outside, as values: questions to an Authority and its answers.

The execution yields ``Ask`` and is sent the replies; whether they come from this process or over a line is the
driver's affair. An authority that cannot go on raises a CardwrightError, which the execution sees at the Ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias
from uuid import UUID

from ..errors import CardwrightError
from ..iso7816.apdu import CommandAPDU
from ..piv.algorithms import Algorithm, ManagementAlgorithm, PrivateKey, PublicKey
from ..piv.management_key import ManagementKey
from ..piv.references import Slot
from ..program.items import SignRequest, UseKey
from ..secret import Secret
from .inventory import Inventory
from .steps import Plan


class AuthorityRefused(CardwrightError):
    """The authority refused what a step needs. ``reason`` is its own sentence."""

    code = "AUTHORITY_REFUSED"
    default_advice = "Ask whoever runs the authority; what is done on the card is not repeated next time."

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"The authority refused {what}: {reason}")
        self.reason = reason


# ------------------------------------------------------------------------------------------------- questions


@dataclass(frozen=True, slots=True)
class Preflight:
    """May this plan be carried out? Asked before the first command that changes anything."""

    plan: Plan
    inventory: Inventory


@dataclass(frozen=True, slots=True)
class KeyAlgorithms:
    """Of which algorithm can the management key ``name`` be, when the card says ``told`` (None: nothing)?"""

    name: str
    told: ManagementAlgorithm | None


@dataclass(frozen=True, slots=True)
class AnswerWitness:
    """Answer the card's witness with the management key ``name``. The key itself need not leave the authority."""

    name: str
    algorithm: ManagementAlgorithm
    witness: bytes


@dataclass(frozen=True, slots=True)
class CheckWitness:
    """Has the card proved that it holds the management key? ``answer`` is what it said to the challenge."""

    name: str
    algorithm: ManagementAlgorithm
    challenge: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class NewManagementKey:
    """A new management key, kept by the authority before it answers."""

    algorithm: ManagementAlgorithm


@dataclass(frozen=True, slots=True)
class Puk:
    """The value of the PUK ``name``; "" asks for the one that shall be set."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class KeyToImport:
    """A private key for a slot; ``fingerprint`` "" asks for a new one, or the one begun last time."""

    slot: Slot
    algorithm: Algorithm
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Certify:
    """A certificate for the public key of a slot. ``private_key`` is there for keys that are imported now."""

    slot: Slot
    algorithm: Algorithm
    profile: str
    public_key: PublicKey
    private_key: PrivateKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SignsAhead:
    """What shall the key that is about to be made in a slot sign for its certificate?

    Asked where a round trip can be saved: the answer is SignFirst, or Granted to be asked when the key is there.
    """

    slot: Slot
    algorithm: Algorithm
    profile: str


@dataclass(frozen=True, slots=True)
class Signed:
    """What the card answered to the item of ``SignFirst``: a signature, or a PKCS #10 request.

    ``statement`` and ``signer``: where it was wanted, what the card states of the key, and the certificate of the key
    that signed the statement; both DER.
    """

    request: Certify
    item: UseKey | SignRequest
    answer: bytes
    statement: bytes = field(default=b"", repr=False)
    signer: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ObjectContent:
    """The content of a data object, as its codec encodes it.

    ``written`` are the contents that this plan writes before it, by tag; ``inventory`` is the card at the start.
    """

    tag: int
    inventory: Inventory
    written: Mapping[int, bytes]


Question: TypeAlias = (
    Preflight
    | KeyAlgorithms
    | AnswerWitness
    | CheckWitness
    | NewManagementKey
    | Puk
    | KeyToImport
    | Certify
    | SignsAhead
    | Signed
    | ObjectContent
)

# --------------------------------------------------------------------------------------------------- replies


@dataclass(frozen=True, slots=True)
class Granted:
    """Yes. ``guid``: of a plan, the GUID that the card has or is to get."""

    guid: UUID | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """No, and why, in a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Not yet: the slot keeps its key, and a later session brings the certificate."""


@dataclass(frozen=True, slots=True)
class Algorithms:
    """To be tried in this order."""

    algorithms: tuple[ManagementAlgorithm, ...]


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """The second step of mutual authentication, and the challenge in it."""

    command: CommandAPDU
    challenge: bytes


@dataclass(frozen=True, slots=True)
class ManagementKeyGiven:
    """A management key and the name under which it is recorded."""

    name: str
    key: ManagementKey


@dataclass(frozen=True, slots=True)
class SecretGiven:
    """A PUK of 8 octets and the name under which it is recorded."""

    name: str
    value: Secret


@dataclass(frozen=True, slots=True)
class KeyGiven:
    """A private key."""

    key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignFirst:
    """The card has to sign this first; ``Signed`` then asks again. ``attest``: and to state where the key is from."""

    item: UseKey | SignRequest
    attest: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A DER certificate, or the content of an object."""

    content: bytes = field(repr=False)


Reply: TypeAlias = (
    Granted
    | Refused
    | Pending
    | Algorithms
    | WitnessAnswer
    | ManagementKeyGiven
    | SecretGiven
    | KeyGiven
    | SignFirst
    | Issued
)


class Authority(Protocol):
    """Answers in this process."""

    def answer(self, questions: tuple[Question, ...]) -> tuple[Reply, ...]:
        """One reply for each question, in order. Raises CardwrightError when it cannot go on at all."""


class RemoteAuthority(Protocol):
    """Answers over a line, or from a database."""

    async def answer(self, questions: tuple[Question, ...]) -> tuple[Reply, ...]:
        """As ``Authority.answer``."""
