"""The vocabulary of card programs: items, groups, batches, and the answers to them.

A program is a generator that yields a Batch and receives its Answers. It never touches a reader. An item is
one thing for the card however many APDUs it takes. APDU items spell their command out; key items are named
only, and the executing end builds them itself: it holds the PIN, asks the person, keeps the tries guard.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, TypeVar

from ..errors import CardwrightError
from ..iso7816.apdu import CommandAPDU
from ..iso7816.status import SW, CardFailure, StatusError, error_for
from ..secret import Secret

T = TypeVar("T")

ONLY_OK: Final = frozenset((int(SW.OK),))

INS_SELECT: Final = 0xA4
INS_VERIFY: Final = 0x20
INS_CHANGE_REFERENCE_DATA: Final = 0x24
INS_RESET_RETRY_COUNTER: Final = 0x2C
INS_GENERAL_AUTHENTICATE: Final = 0x87
INS_GENERATE: Final = 0x47
INS_GET_DATA: Final = 0xCB
INS_GET_METADATA: Final = 0xF7
INS_GET_SERIAL: Final = 0xF8
INS_GET_VERSION: Final = 0xFD

_NOT_ALL_TAKEN: Final = "The card did not take all of it; the object may be empty or as before: read it again."

_READS: Final = frozenset((INS_GET_DATA, INS_GET_METADATA, INS_GET_SERIAL, INS_GET_VERSION))


class Want(Enum):
    """What of an answer the program needs."""

    DATA = "data"
    DIGEST = "digest"
    """The SHA-256 of the data, 32 octets, in its place."""
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Apdu:
    """An APDU item. A status word outside ``accept`` is unexpected and ends the group.

    ``expect`` is the SHA-256 that the answer's data must have; anything else is unexpected too and ends the
    batch. So a batch can make sure of the card's identity without a round trip.
    """

    command: CommandAPDU
    accept: frozenset[int] = ONLY_OK
    want: Want = Want.DATA
    expect: bytes | None = None


@dataclass(frozen=True, slots=True)
class VerifyPin:
    """VERIFY of the PIN that the person gave. ``reference``: 80 application PIN, 00 Global PIN."""

    reference: int = 0x80


@dataclass(frozen=True, slots=True)
class SetPin:
    """CHANGE REFERENCE DATA of the PIN: old and new from the person."""

    reference: int = 0x80


@dataclass(frozen=True, slots=True)
class Unblock:
    """RESET RETRY COUNTER with ``puk`` (8 octets); the new PIN comes from the person."""

    puk: Secret


@dataclass(frozen=True, slots=True)
class SetPuk:
    """CHANGE REFERENCE DATA of the PUK, both values 8 octets."""

    old: Secret
    new: Secret


@dataclass(frozen=True, slots=True)
class Block:
    """Spend every try of a PIN or PUK with values that the executing end makes up, because the card is to be wiped.

    ``reference``: 80 application PIN, 81 PUK. Answered with 9000 once the card says that no try is left.
    """

    reference: int


@dataclass(frozen=True, slots=True)
class Prove:
    """Sign a proof that this card holds the key of ``slot`` now; the executing end adds its own random."""

    slot: int
    algorithm: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class SignRequest:
    """A PKCS#10 certification request for the key made in ``slot`` in this session; ``subject`` DER Name."""

    slot: int
    subject: bytes


@dataclass(frozen=True, slots=True)
class SignIn:
    """FIPS 196 entity authentication with 9A towards ``audience``, a URI (RFC 3163); own random added."""

    algorithm: int
    audience: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class UseKey:
    """GENERAL AUTHENTICATE with an asymmetric key on ``data``. Local programs only: it has no wire form.

    ``data`` is the padded block (RSA), the hash or message (signature) or the other party's point
    (``agree``), as SP 800-73-5 part 2 section 3.2.4 has it.
    """

    slot: int
    algorithm: int
    data: bytes
    agree: bool = False


KeyItem: TypeAlias = VerifyPin | SetPin | Unblock | SetPuk | Block | Prove | SignRequest | SignIn | UseKey
Item: TypeAlias = Apdu | KeyItem


@dataclass(frozen=True, slots=True)
class Group:
    """Items that are adjacent on the card. ``essential``: an unexpected status ends the batch too."""

    items: tuple[Item, ...]
    essential: bool = False

    @property
    def only_reads(self) -> bool:
        """Whether no item selects, changes, or gains or loses a security status."""
        return all(isinstance(item, Apdu) and is_read(item.command) for item in self.items)


@dataclass(frozen=True, slots=True)
class Batch:
    """An open batch. Batches with the same ``stage`` share one transaction; "" is a short one of its own."""

    groups: tuple[Group, ...]
    stage: str = ""

    @property
    def items(self) -> tuple[Item, ...]:
        """All items in order."""
        return tuple(item for group in self.groups for item in group.items)


@dataclass(frozen=True, slots=True)
class SealedItem:
    """One wrapped command as its APDUs go to the card, chaining fixed; ``header`` is the clear CLA INS P1 P2."""

    header: bytes
    apdus: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """Commands wrapped for a secure channel (SCP03), no key items; stops at the first status not 9000."""

    items: tuple[SealedItem, ...]
    stage: str = ""


class Outcome(Enum):
    """What is known of an item."""

    ANSWERED = "answered"
    IN_DOUBT = "in doubt"
    """It may have taken effect: its answer, or a part of it, was lost."""
    NOT_SENT = "not sent"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one item: ``data`` as the item wanted it, ``cause`` of a doubt or of not being sent."""

    outcome: Outcome
    sw: int | None = None
    data: bytes = b""
    cause: CardwrightError | None = None

    @property
    def ok(self) -> bool:
        """Answered with 9000."""
        return self.sw == SW.OK and self.outcome is Outcome.ANSWERED

    def require(self, doing: str, accept: frozenset[int] = ONLY_OK) -> bytes:
        """The data, if the card answered with an accepted status word.

        Raises the cause of a lost or unsent item, else the StatusError of the status word, also of the one that
        stopped a chained command.
        """
        if self.outcome is Outcome.ANSWERED and self.sw in accept:
            return self.data
        if self.outcome is Outcome.IN_DOUBT and self.sw is not None:
            refused = error_for(self.sw, doing)
            # Words without a meaning of their own, and faults of the card, say no more than the broken chain.
            if type(refused) is not StatusError and not isinstance(refused, CardFailure):
                refused.effect = _NOT_ALL_TAKEN
                raise refused from self.cause
        if self.cause is not None:
            raise self.cause
        if self.sw is None:
            raise ItemNotSent(doing)
        raise error_for(self.sw, doing)

    def __repr__(self) -> str:
        word = "" if self.sw is None else f" {self.sw:04X}"
        return f"Answer({self.outcome.value}{word}, {len(self.data)} octets)"


NOT_SENT: Final = Answer(Outcome.NOT_SENT)
"""An item behind the end of its group or batch."""

Answers: TypeAlias = tuple[tuple[Answer, ...], ...]
"""Answers of a batch: one tuple for each group, one answer for each item; a sealed batch has one group."""

AnyBatch: TypeAlias = Batch | SealedBatch

Program: TypeAlias = Generator[AnyBatch, Answers, T]


class ItemNotSent(CardwrightError):
    """An item was not sent because an earlier one of its group or batch ended it."""

    code = "ITEM_NOT_SENT"
    default_effect = "This command did not reach the card."
    default_advice = "See to the earlier error, then start again."

    def __init__(self, doing: str) -> None:
        super().__init__(f"{doing}: not tried, because an earlier command failed.")
        self.doing = doing


class ItemRefused(CardwrightError):
    """The executing end refuses an item by rule; nothing of its batch went to the card."""

    code = "ITEM_REFUSED"
    default_effect = "Nothing of this batch was sent to the card."
    default_advice = "The program, or the server it came from, asked for something it may not ask for."


class UnexpectedAnswer(CardwrightError):
    """The data of an answer is not the data that the item pinned: another card, or a changed object."""

    code = "UNEXPECTED_ANSWER"
    default_effect = "The rest of the batch was not sent."
    default_advice = "If the card was swapped, put the right one back; else start again."


def is_read(command: CommandAPDU) -> bool:
    """Whether ``command`` only reads, without effect on selection or any security status."""
    if command.ins == INS_VERIFY:
        return not command.data and command.p1 == 0x00
    return command.ins in _READS


def refusal(command: CommandAPDU) -> str:
    """Why ``command`` may not be an APDU item; "" when it may.

    Whatever carries a PIN or PUK, or uses a private key, is a key item: the executing end builds it.
    """
    ins = command.ins
    if ins == INS_VERIFY and command.data:
        return "VERIFY with a value is a key item"
    if ins in (INS_CHANGE_REFERENCE_DATA, INS_RESET_RETRY_COUNTER):
        return "changing a PIN or PUK is a key item"
    if ins == INS_GENERAL_AUTHENTICATE and command.p2 not in (0x9B, 0x04):
        return "GENERAL AUTHENTICATE with an asymmetric key is a key item"
    return ""


def ask(*items: Item, stage: str = "", essential: bool = False) -> Program[tuple[Answer, ...]]:
    """A batch of one group; returns the answers to its items."""
    answers = yield Batch((Group(items, essential),), stage)
    return answers[0]
