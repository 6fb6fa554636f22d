"""What is written down because the card cannot tell it, and the journal that keeps it.

An entry is kept *before* the item that makes it true is sent, so every state after a fault is one the planner
knows. Entries of one card are folded into ``Records``, which the planner reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol
from uuid import UUID

from ..errors import CardwrightError
from ..piv.references import Slot
from ..secret import Secret
from .inventory import Identity, Inventory


class JournalFailed(CardwrightError):
    """The journal could not be kept, so nothing that depends on it was sent to the card."""

    code = "JOURNAL_FAILED"
    default_effect = "The step that needed it was not begun; earlier ones stand."
    default_advice = "Make room or give another file, and start again: what is done is not repeated."


class JournalMalformed(CardwrightError):
    """A secrets file that is damaged or is none."""

    code = "JOURNAL_MALFORMED"
    default_effect = "Nothing on the card was changed; the file was not changed."
    default_advice = "Give the file that an earlier 'card init' of this card wrote, or the name of a new one."


class JournalOfAnotherCard(CardwrightError):
    """The journal was begun for a card with another number."""

    code = "JOURNAL_OTHER_CARD"
    default_effect = "Nothing on the card was changed."
    default_advice = "Give the secrets file of this card, or a new one."


class Kind(Enum):
    """Kinds of entries. Those ending in SET, DONE or WRITTEN are kept after the card has confirmed."""

    CARD = "card"
    """Which card this is about: serial, and the GUID that it has or is to get."""
    MANAGEMENT_KEY = "management key candidate"
    MANAGEMENT_KEY_SET = "management key set"
    MANAGEMENT_KEY_REFUSED = "management key refused"
    PUK = "puk candidate"
    PUK_SET = "puk set"
    PIN = "pin about to be set"
    PIN_SET = "pin set"
    RETRIES = "retries about to be set"
    RESET = "card about to be reset"
    RESET_DONE = "card reset"
    GENERATING = "key about to be generated"
    KEY = "key about to be imported"
    CERTIFICATE = "certificate issued"
    WRITTEN = "slot finished"
    """Without a slot: the card has the GUID, in a CHUID that it showed or took."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal; which fields mean something depends on the kind.

    ``reference`` names a secret ("default", "factory", or a random name). ``value`` is that secret, a PKCS #8 key or a
    DER certificate. ``fingerprint`` belongs to a key; for GENERATING it is that of what goes.
    """

    kind: Kind
    reference: str = ""
    slot: Slot | None = None
    fingerprint: str = ""
    algorithm: int | None = None
    value: Secret | None = field(default=None, repr=False)
    serial: str = ""
    guid: UUID | None = None


DEFAULT: str = "default"
"""The reference of the value that a card came with: the maker's, unless it was delivered with another one."""
FACTORY: str = "factory"
"""The reference of the maker's value that a command of ours put back. It is a candidate only of a card that says so."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """A secret's possible values: ``names`` newest first. ``settled``: the card confirmed the newest.

    ``refused`` are names that the card said are wrong, of the management key only.
    """

    names: tuple[str, ...] = ()
    settled: bool = False
    refused: frozenset[str] = frozenset()

    @property
    def in_flight(self) -> bool:
        """Whether a change was begun that the card has not confirmed."""
        return bool(self.names) and not self.settled

    def begun(self, name: str) -> Candidates:
        """A change to ``name`` is about to be sent."""
        rest = tuple(other for other in self.names if other != name)
        return Candidates((name, *rest), False, self.refused - {name})

    def confirmed(self, name: str) -> Candidates:
        """The card took ``name``: no older value is wanted any more."""
        return Candidates((name,), True, frozenset())

    def rejected(self, name: str) -> Candidates:
        """The card said that ``name`` is wrong."""
        return replace(self, refused=self.refused | {name})


@dataclass(frozen=True, slots=True)
class Records:
    """The facts of one card's journal. ``generating``, ``keys`` and ``certificates`` are by slot.

    ``generating`` holds what goes by a GENERATE or import that was begun; ``keys`` the fingerprint of the key about to
    be imported; ``certificates`` (slot, fingerprint of the certified key) of what was issued. ``resetting``: a reset
    was begun that the card has not confirmed. ``reset``: it was reset, and nothing was begun since.
    """

    guid: UUID | None = None
    management_key: Candidates = Candidates()
    puk: Candidates = Candidates()
    pin_in_flight: bool = False
    pin_settled: bool = False
    generating: Mapping[Slot, str] = field(default_factory=dict)
    keys: Mapping[Slot, str] = field(default_factory=dict)
    certificates: frozenset[tuple[Slot, str]] = frozenset()
    resetting: bool = False
    reset: bool = False

    def with_entry(self, entry: Entry) -> Records:
        """The facts after one more entry."""
        if self.reset and entry.kind in _CHANGES:
            return replace(self, reset=False).with_entry(entry)
        match entry.kind:
            case Kind.CARD:
                return replace(self, guid=entry.guid or self.guid)
            case Kind.MANAGEMENT_KEY:
                return replace(self, management_key=self.management_key.begun(entry.reference))
            case Kind.MANAGEMENT_KEY_SET:
                return replace(self, management_key=self.management_key.confirmed(entry.reference))
            case Kind.MANAGEMENT_KEY_REFUSED:
                return replace(self, management_key=self.management_key.rejected(entry.reference))
            case Kind.PUK:
                return replace(self, puk=self.puk.begun(entry.reference))
            case Kind.PUK_SET:
                return replace(self, puk=self.puk.confirmed(entry.reference))
            case Kind.PIN:
                return replace(self, pin_in_flight=True, pin_settled=False)
            case Kind.PIN_SET:
                return replace(self, pin_in_flight=False, pin_settled=True)
            case Kind.RETRIES:
                puk = replace(self.puk.begun(FACTORY), settled=False)
                return replace(self, puk=puk, pin_in_flight=True, pin_settled=False)
            case Kind.RESET:
                # Until the card confirmed it, each secret is the one that it was, or the factory's.
                return replace(
                    self,
                    management_key=self.management_key.begun(DEFAULT),
                    puk=self.puk.begun(DEFAULT),
                    pin_in_flight=True,
                    pin_settled=False,
                    resetting=True,
                    reset=False,
                )
            case Kind.RESET_DONE:
                return Records(reset=True)
            case Kind.GENERATING if entry.slot is not None:
                return replace(self, generating={**self.generating, entry.slot: entry.fingerprint})
            case Kind.KEY if entry.slot is not None:
                return replace(self, keys={**self.keys, entry.slot: entry.fingerprint})
            case Kind.CERTIFICATE if entry.slot is not None:
                return replace(self, certificates=self.certificates | {(entry.slot, entry.fingerprint)})
            case Kind.WRITTEN if entry.slot is not None:
                rest = {slot: mark for slot, mark in self.generating.items() if slot is not entry.slot}
                return replace(self, generating=rest)
        return self


_CHANGES = frozenset(
    {Kind.MANAGEMENT_KEY, Kind.PUK, Kind.PIN, Kind.RETRIES, Kind.GENERATING, Kind.KEY, Kind.CERTIFICATE, Kind.WRITTEN}
)
"""What is recorded of work on a card: after it, the card is not as its reset left it."""


def fold(entries: Iterable[Entry], start: Records | None = None) -> Records:
    """The facts of a journal, oldest entry first."""
    records = start or Records()
    for entry in entries:
        records = records.with_entry(entry)
    return records


class Journal(Protocol):
    """Keeps entries of one card."""

    def recall(self, identity: Identity) -> tuple[Entry, ...]:
        """What is kept of this card. Raises JournalOfAnotherCard, JournalFailed."""

    def note(self, entries: tuple[Entry, ...]) -> None:
        """Keep ``entries``; they are on the disk when this returns. Raises JournalFailed."""

    def entries(self) -> tuple[Entry, ...]:
        """Everything kept so far, oldest first."""


class MemoryJournal:
    """A journal for tests and for cards whose secrets go elsewhere."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)

    def note(self, entries: tuple[Entry, ...]) -> None:
        """Remember ``entries``."""
        self._entries.extend(entries)

    def recall(self, identity: Identity) -> tuple[Entry, ...]:
        """Everything remembered. Raises JournalOfAnotherCard."""
        require_same_card(self._entries, identity)
        return self.entries()

    def entries(self) -> tuple[Entry, ...]:
        """Everything remembered."""
        return tuple(self._entries)


class LateJournal:
    """A journal that is opened when the card is known, because its place depends on the card."""

    __slots__ = ("_journal", "_open")

    def __init__(self, open_for: Callable[[Identity], Journal]) -> None:
        self._open = open_for
        self._journal: Journal = MemoryJournal()

    def recall(self, identity: Identity) -> tuple[Entry, ...]:
        """Open the card's journal; what is kept in it. Raises what opening raises, JournalOfAnotherCard."""
        self._journal = self._open(identity)
        return self._journal.recall(identity)

    def note(self, entries: tuple[Entry, ...]) -> None:
        """Keep ``entries``. Raises JournalFailed."""
        self._journal.note(entries)

    def entries(self) -> tuple[Entry, ...]:
        """Everything kept; nothing before the card is known."""
        return self._journal.entries()


def require_same_card(entries: Iterable[Entry], identity: Identity) -> None:
    """Raise JournalOfAnotherCard unless ``identity`` is that of the journal's card, as far as can be told.

    Only while neither the journal nor the card has a number, and no GUID is known to have reached the card, nothing
    can be told: then who gave the journal vouches for it.
    """
    kept = tuple(entries)
    named = [entry for entry in kept if entry.kind is Kind.CARD]
    for entry in named:
        if not identity.is_same_card(Identity(guid=entry.guid, serial=entry.serial)):
            raise JournalOfAnotherCard("The secrets file was begun for another card.")
    if not named or shows_card(kept, identity):
        return
    if identity.serial:
        raise JournalOfAnotherCard("The secrets file was begun for a card that has no serial number; this one has one.")
    if any(entry.serial for entry in named):
        raise JournalOfAnotherCard("The secrets file was begun for a card with a serial number; this one shows none.")
    if any(entry.kind is Kind.WRITTEN and entry.guid is not None for entry in kept):
        raise JournalOfAnotherCard(
            "The secrets file is of a card that has its CHUID; this one shows none.",
            advice="Give the secrets file of this card, or a new one; for a card that was reset, a new one.",
        )


def require_not_reset(entries: Iterable[Entry], inventory: Inventory) -> None:
    """Raise JournalOfAnotherCard for a card that was reset since the journal saw its GUID on it, and cannot say so.

    A card that tells which secrets are the factory's is believed. Of a silent one the journal would be: its secrets
    would be taken for set, and tries be spent for them.
    """
    if inventory.pin.is_default is not None or inventory.is_bound:
        return
    if any(row.kind is Kind.WRITTEN and row.guid is not None for row in entries):
        raise JournalOfAnotherCard(
            "The secrets file is of a card that has its CHUID; this one shows none: it was reset.",
            advice="Move the file away, or give a new one: the card is then taken for a fresh one.",
        )


def shows_card(entries: Iterable[Entry], identity: Identity) -> bool:
    """Whether a card shows something that only the journal's card can show: its number, GUID or card key."""
    kept = tuple(entries)
    named = [entry for entry in kept if entry.kind is Kind.CARD]
    made = [entry for entry in kept if entry.kind in (Kind.KEY, Kind.CERTIFICATE)]
    return (
        any(entry.serial == identity.serial for entry in named if entry.serial)
        or any(entry.guid == identity.guid for entry in named if entry.guid)
        or any(entry.fingerprint == identity.card_key for entry in made
               if entry.fingerprint and entry.slot is Slot.CARD_AUTHENTICATION)
    )  # fmt: skip
