"""What a person can permit: one small value for each thing that a program may do to a card.

These are the guard's own types. Every field is something that the preview showed; nothing is free text.
Fingerprints are the SHA-256 of a DER SubjectPublicKeyInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Act(Enum):
    """Operations that a person confirms by typing, each for itself (rule G4)."""

    RESET = "reset"
    SET_RETRIES = "set retries"
    MOVE_KEY = "move key"
    DELETE = "delete"
    DISCOVERY = "discovery"
    PAIRING_CODE = "pairing code"
    SM_SIGNER = "secure messaging signer"
    CHANNEL_KEYS = "channel keys"
    LEAVE_KEY = "leave key to archive"
    LOCK_CARD = "lock card"


@dataclass(frozen=True, slots=True)
class Manage:
    """Authenticate with the management key, whose algorithm is shown."""

    algorithm: int


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """Open a secure channel (SCP03) with the application or a configured security domain."""


@dataclass(frozen=True, slots=True)
class EnterPin:
    """Ask the person for the PIN and verify it."""

    reference: int = 0x80


@dataclass(frozen=True, slots=True)
class ChangePin:
    """Ask the person for the old and a new PIN and change it."""

    reference: int = 0x80


@dataclass(frozen=True, slots=True)
class UnblockPin:
    """Set a new PIN, asked from the person, with the PUK that the server knows."""


@dataclass(frozen=True, slots=True)
class ChangePuk:
    """Replace the PUK."""


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Make a key in the slot. ``replaces``: fingerprint of the key that is lost, None where there is none.

    Policies are those shown, 0 for the slot's own default; a program may ask for stronger ones.
    """

    slot: int
    algorithm: int
    pin_policy: int = 0
    touch_policy: int = 0
    replaces: bytes | None = None


@dataclass(frozen=True, slots=True)
class ImportKey:
    """Put a key into the slot. ``key``: its fingerprint where the preview knew it. Else as MakeKey."""

    slot: int
    algorithm: int
    pin_policy: int = 0
    touch_policy: int = 0
    replaces: bytes | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class RequestCertificate:
    """Sign a certification request with the key made in the slot in this session."""

    slot: int


@dataclass(frozen=True, slots=True)
class PutCertificate:
    """Write the certificate of the slot's key. ``digest``: SHA-256 of the content where the preview knew it."""

    slot: int
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class PutObject:
    """Write an object whose content has this SHA-256: what is inside 53, or all of 7F61."""

    tag: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class PutNamed:
    """Write Discovery, the pairing code or the secure messaging signer (``act``), content as in PutObject."""

    act: Act
    digest: bytes


@dataclass(frozen=True, slots=True)
class Clear:
    """Empty an object or certificate container."""

    tag: int


@dataclass(frozen=True, slots=True)
class SetManagementKey:
    """Replace the management key."""

    algorithm: int
    touch: bool = False


@dataclass(frozen=True, slots=True)
class MoveKey:
    """Move a key between slots. ``replaces``: fingerprint of the key that is lost in ``target``."""

    source: int
    target: int
    replaces: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """Delete the key with the fingerprint ``replaces``."""

    slot: int
    replaces: bytes


@dataclass(frozen=True, slots=True)
class SetRetries:
    """Set the counters of PIN and PUK."""

    pin: int
    puk: int


@dataclass(frozen=True, slots=True)
class LoseKey:
    """Have no key with the fingerprint ``key`` on the card any more, which was in ``slot``. No item asks for it."""

    slot: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Spend every try of a PIN or PUK, because the card is reset."""

    reference: int


@dataclass(frozen=True, slots=True)
class Lock:
    """Spend every try of the PIN, and nothing else: the PUK stays good and gives the card a new one."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Put the whole application back to its factory state."""


@dataclass(frozen=True, slots=True)
class ProveKey:
    """Prove a key that needs the PIN, 9A or 9C. A proof of 9E needs no permission."""

    slot: int


@dataclass(frozen=True, slots=True)
class SignIn:
    """Prove the card's holder to this audience, a URI that the prompt showed."""

    audience: str


@dataclass(frozen=True, slots=True)
class Attest:
    """Let the card state where the slot's key was made. A key made in this session needs no permission."""

    slot: int


@dataclass(frozen=True, slots=True)
class ChangeChannelKeys:
    """Replace the keys of the secure channel."""


Operation: TypeAlias = (
    Manage
    | OpenChannel
    | EnterPin
    | ChangePin
    | UnblockPin
    | ChangePuk
    | MakeKey
    | ImportKey
    | RequestCertificate
    | PutCertificate
    | PutObject
    | PutNamed
    | Clear
    | SetManagementKey
    | MoveKey
    | DeleteKey
    | SetRetries
    | LoseKey
    | Block
    | Lock
    | Reset
    | ProveKey
    | SignIn
    | Attest
    | ChangeChannelKeys
)


def act_of(operation: Operation) -> Act | None:
    """The typed confirmation that ``operation`` needs, None for an ordinary one."""
    match operation:
        case PutNamed(act=act):
            return act
        case Clear() | DeleteKey():
            return Act.DELETE
        case MoveKey():
            return Act.MOVE_KEY
        case SetRetries():
            return Act.SET_RETRIES
        case LoseKey():
            return Act.LEAVE_KEY
        case Reset() | Block():
            return Act.RESET
        case Lock():
            return Act.LOCK_CARD
        case ChangeChannelKeys():
            return Act.CHANNEL_KEYS
    return None
