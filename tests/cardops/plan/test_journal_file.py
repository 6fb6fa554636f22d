"""The secrets file: synced, owner's only, never overwritten, and read strictly."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.journal_file import FileJournal, JournalMalformed
from cardwright_cardops.plan.records import (
    DEFAULT,
    FACTORY,
    Candidates,
    Entry,
    JournalFailed,
    JournalOfAnotherCard,
    Kind,
    fold,
)
from cardwright_cardops.secret import Secret

ENTRIES = (
    Entry(Kind.CARD, serial="17", guid=UUID(int=5)),
    Entry(Kind.MANAGEMENT_KEY, "1", algorithm=0x0A, value=Secret(bytes(24))),
    Entry(Kind.GENERATING, slot=Slot.AUTHENTICATION),
    Entry(Kind.KEY, slot=Slot.KEY_MANAGEMENT, fingerprint="ab", algorithm=0x11, value=Secret(b"key")),
)


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "card.secrets"
    journal = FileJournal.begin(path)
    assert not path.exists()
    journal.note(ENTRIES[:2])
    journal.note(ENTRIES[2:])
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert FileJournal.resume(path).entries() == ENTRIES == journal.entries()
    FileJournal.resume(path).note(ENTRIES[:1])
    assert FileJournal.resume(path).entries() == (*ENTRIES, ENTRIES[0])


def test_entries_are_synced_before_note_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    path = tmp_path / "card.secrets"
    FileJournal.begin(path).note(ENTRIES)
    assert synced[0] == path.stat().st_size
    assert len(synced) == 2  # the file, and its folder


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "card.secrets"
    path.write_bytes(b"precious")
    with pytest.raises(JournalFailed):
        FileJournal.begin(path)
    late = FileJournal.begin(tmp_path / "late.secrets")
    (tmp_path / "late.secrets").symlink_to(path)
    with pytest.raises(JournalFailed):
        late.note(ENTRIES)
    assert path.read_bytes() == b"precious"


def test_a_folder_that_is_not_there_fails_before_anything(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed):
        FileJournal.begin(tmp_path / "missing" / "card.secrets").note(ENTRIES)


def test_a_last_line_that_was_cut_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "card.secrets"
    FileJournal.begin(path).note(ENTRIES)
    whole = path.read_bytes()
    for size in range(len(whole) - 1, whole.rindex(b"\n", 0, -1), -7):
        path.write_bytes(whole[:size])
        assert FileJournal.resume(path).entries() == ENTRIES[:-1]
        assert path.read_bytes() == whole[:size], "reading changes nothing"
        FileJournal.resume(path).note(ENTRIES[-1:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"notes\nof mine, no end", b"one line only", b"\n", b"{}\nrest", b"\xff\nrest"])
def test_a_file_of_another_kind_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    with pytest.raises(JournalMalformed):
        FileJournal.resume(path)
    assert path.read_bytes() == content
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(JournalFailed):
        FileJournal.resume(link)


def test_a_head_that_was_cut_records_nothing_and_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "card.secrets"
    FileJournal.begin(path).note(ENTRIES)
    whole = path.read_bytes()
    for size in range(whole.index(b"\n") + 2):
        path.write_bytes(whole[:size])
        journal = FileJournal.resume(path)
        assert journal.entries() == ()
        assert path.read_bytes() == whole[:size]
        journal.note(ENTRIES)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("room", [0, 1, 20, 60, 200])
def test_a_full_disk_loses_nothing_and_can_be_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    path = tmp_path / "card.secrets"
    left, write = [room], os.write

    def short(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        sent = write(handle, data[: left[0]])
        left[0] -= sent
        return sent

    monkeypatch.setattr(os, "write", short)
    monkeypatch.setattr(os, "ftruncate", lambda handle, size: None)  # nor does giving back work
    with pytest.raises(JournalFailed):
        FileJournal.begin(path).note(ENTRIES)
    assert path.stat().st_size == room
    monkeypatch.undo()
    journal = FileJournal.resume(path)
    seen = journal.entries()
    assert seen == ENTRIES[: len(seen)] and len(seen) < len(ENTRIES)
    journal.note(ENTRIES[len(seen) :])
    journal.close()
    assert FileJournal.resume(path).entries() == ENTRIES


def test_two_that_began_one_file_do_not_both_write_it(tmp_path: Path) -> None:
    path = tmp_path / "card.secrets"
    first, second = FileJournal.begin(path), FileJournal.begin(path)
    first.note(ENTRIES[:1])
    for _ in range(2):
        with pytest.raises(JournalFailed) as caught:
            second.note(ENTRIES[1:])
        assert caught.value.advice
    first.close()
    with pytest.raises(JournalFailed):
        second.note(ENTRIES[1:])
    assert FileJournal.resume(path).entries() == ENTRIES[:1]


def test_a_file_in_use_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "card.secrets"
    first = FileJournal.begin(path)
    first.note(ENTRIES[:1])
    late = FileJournal.resume(path)
    other = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    assert subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True).returncode == 1
    with pytest.raises(JournalFailed, match="in use"):
        late.note(ENTRIES[1:2])
    first.note(ENTRIES[1:2])
    first.close()
    with pytest.raises(JournalFailed, match="changed"):
        late.note(ENTRIES[1:2])
    FileJournal.resume(path).note(ENTRIES[2:])
    assert FileJournal.resume(path).entries() == ENTRIES
    assert subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True).returncode == 0


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_damage_is_said(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "card.secrets"
    FileJournal.begin(path).note(ENTRIES)
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + noise + raw[at + len(noise) :])
    try:
        FileJournal.resume(path)
    except JournalMalformed as error:
        assert str(path) in error.message


def test_a_journal_knows_its_card(tmp_path: Path) -> None:
    journal = FileJournal.begin(tmp_path / "card.secrets")
    journal.note(ENTRIES)
    assert journal.recall(Identity(serial="17", guid=UUID(int=5))) == ENTRIES
    assert journal.recall(Identity(serial="17")) == ENTRIES
    for other in (Identity(serial="18"), Identity(guid=UUID(int=6))):
        with pytest.raises(JournalOfAnotherCard):
            journal.recall(other)


def test_candidates_are_newest_first_until_one_is_confirmed() -> None:
    begun = Candidates().begun(DEFAULT).begun("1").begun("2")
    assert (begun.names, begun.in_flight) == (("2", "1", DEFAULT), True)
    assert begun.begun("1").names == ("1", "2", DEFAULT)
    assert begun.rejected("2").refused == {"2"}
    assert begun.rejected("2").begun("2").refused == frozenset()
    settled = begun.confirmed("1")
    assert (settled.names, settled.in_flight) == (("1",), False)


def test_entries_fold_into_facts() -> None:
    records = fold(
        (
            *ENTRIES,
            Entry(Kind.RETRIES),
            Entry(Kind.CERTIFICATE, slot=Slot.AUTHENTICATION, fingerprint="cd"),
            Entry(Kind.WRITTEN, slot=Slot.AUTHENTICATION),
        )
    )
    assert records.guid == UUID(int=5)
    assert records.management_key.names == ("1",)
    assert records.keys == {Slot.KEY_MANAGEMENT: "ab"}
    assert records.generating == {}
    assert records.certificates == {(Slot.AUTHENTICATION, "cd")}
    assert (records.pin_in_flight, records.puk.names) == (True, (FACTORY,))
