"""Which card a journal is of: nothing unknown counts as the same, except where nothing can be known."""

from __future__ import annotations

from uuid import UUID

import pytest

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.records import Entry, JournalOfAnotherCard, Kind, MemoryJournal
from tests.support.card_init import CASES

GUID = UUID(int=5)
BLANK = Identity()
NUMBERED = Entry(Kind.CARD, serial="17", guid=GUID)
UNNUMBERED = Entry(Kind.CARD, guid=GUID)
HAS_GUID = Entry(Kind.WRITTEN, guid=GUID)
CARD_KEY = Entry(Kind.CERTIFICATE, slot=Slot.CARD_AUTHENTICATION, fingerprint="ab")
OTHER_KEY = Entry(Kind.CERTIFICATE, slot=Slot.AUTHENTICATION, fingerprint="ab")


@pytest.mark.parametrize(
    ("entries", "identity"),
    [
        ((), BLANK),
        ((NUMBERED,), Identity(serial="17")),
        ((NUMBERED,), Identity(guid=GUID)),
        ((NUMBERED, HAS_GUID), Identity(serial="17")),
        ((UNNUMBERED, HAS_GUID), Identity(guid=GUID, serial="17")),
        ((UNNUMBERED, HAS_GUID, CARD_KEY), Identity(card_key="ab")),
        ((UNNUMBERED,), BLANK),
    ],
)
def test_a_card_that_shows_what_is_recorded_is_the_same(entries: tuple[Entry, ...], identity: Identity) -> None:
    assert MemoryJournal(entries).recall(identity) == entries


@pytest.mark.parametrize(
    ("entries", "identity"),
    [
        ((NUMBERED,), BLANK),
        ((NUMBERED,), Identity(serial="18")),
        ((NUMBERED,), Identity(serial="18", guid=GUID)),
        ((UNNUMBERED,), Identity(serial="17")),
        ((UNNUMBERED,), Identity(guid=UUID(int=6))),
        ((UNNUMBERED, HAS_GUID), BLANK),
        ((UNNUMBERED, HAS_GUID, CARD_KEY), Identity(card_key="cd")),
        ((UNNUMBERED, HAS_GUID, OTHER_KEY), Identity(card_key="ab")),
    ],
)
def test_a_card_that_shows_none_of_it_is_another(entries: tuple[Entry, ...], identity: Identity) -> None:
    with pytest.raises(JournalOfAnotherCard) as caught:
        MemoryJournal(entries).recall(identity)
    assert caught.value.advice


def test_the_journal_of_a_finished_card_is_refused_on_a_blank_one_without_a_number() -> None:
    case = CASES["sp800-73-5"]
    journal = MemoryJournal()
    case.run(case.card(), journal)
    blank = case.card()
    before = blank.state_hash()
    with pytest.raises(JournalOfAnotherCard):
        case.run(blank, journal)
    assert blank.state_hash() == before


@pytest.mark.parametrize("profile", ["tdes-only", "yubikey-5.7"])
def test_a_card_that_was_reset_is_not_taken_for_what_its_journal_says(profile: str) -> None:
    """A card that tells its factory values is set up again; a silent one only with another journal."""
    wanted, journal = CASES[profile], MemoryJournal()
    wanted.run(wanted.card(), journal)
    reset = wanted.card()
    if profile == "tdes-only":
        before = reset.state_hash()
        with pytest.raises(JournalOfAnotherCard) as caught:
            wanted.run(reset, journal)
        assert "reset" in caught.value.message and reset.state_hash() == before
        journal = MemoryJournal()
    wanted.run(reset, journal)
    assert wanted.faults_of(reset, journal) == []
