"""The journal beside the database: on the disk before the commit, readable after a crash at any octet."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cardwright_server.store.ids import SYSTEM, new_id
from cardwright_server.store.second_medium import (
    JournalEvent,
    JournalKind,
    SecondMedium,
    SecondMediumDamaged,
    SecondMediumMissing,
    SecondMediumUnavailable,
    Settled,
    begin,
    belongs,
    current_epoch,
    raise_epoch,
    remembered,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(number: int, kind: JournalKind = JournalKind.ISSUE) -> JournalEvent:
    return JournalEvent(kind, SYSTEM, UUID(int=number), {"serial": f"{number:x}", "number": number, "held": True})


def numbers(folder: Path) -> list[int]:
    return [one.event.subject.int for one in remembered(folder)]


async def written(folder: Path, count: int = 3) -> Path:
    """A journal of ``count`` settled transactions of one event each; gives its file."""
    medium = SecondMedium(folder)
    for number in range(count):
        unit = await medium.append([event(number)], NOW + timedelta(seconds=number))
        medium.settle(unit, took_effect=number != 1)
    await medium.close()
    (path,) = folder.iterdir()
    return path


async def test_what_is_written_is_read(tmp_path: Path) -> None:
    medium = SecondMedium(tmp_path / "journal")
    first = await medium.append([event(1), event(2, JournalKind.REVOKE)], NOW)
    second = await medium.append([event(3, JournalKind.TOKEN_USE)], NOW + timedelta(seconds=1))
    third = await medium.append([event(4, JournalKind.ESCROW)], NOW + timedelta(seconds=2))
    medium.settle(first, took_effect=True)
    medium.settle(second, took_effect=False)
    await medium.close()
    found = list(remembered(tmp_path / "journal"))
    assert [one.event for one in found] == [
        event(1),
        event(2, JournalKind.REVOKE),
        event(3, JournalKind.TOKEN_USE),
        event(4, JournalKind.ESCROW),
    ]
    assert [one.unit for one in found] == [first, first, second, third]
    assert [one.settled for one in found] == [
        Settled.TOOK_EFFECT,
        Settled.TOOK_EFFECT,
        Settled.ABANDONED,
        Settled.IN_DOUBT,
    ]
    assert {one.epoch for one in found} == {1}
    assert found[2].at == NOW + timedelta(seconds=1)


async def test_several_processes_write_side_by_side(tmp_path: Path) -> None:
    one, two = SecondMedium(tmp_path), SecondMedium(tmp_path)
    for number in range(6):
        await (one, two)[number % 2].append([event(number)], NOW + timedelta(seconds=number))
    await one.close()
    await two.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert numbers(tmp_path) == list(range(6))


async def test_waiting_transactions_share_one_sync(tmp_path: Path) -> None:
    syncs = 0

    def sync(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        os.fsync(descriptor)

    medium = SecondMedium(tmp_path, sync=sync)
    await asyncio.gather(*(medium.append([event(number)], NOW) for number in range(50)))
    await medium.close()
    assert sorted(numbers(tmp_path)) == list(range(50))
    assert syncs <= 2


async def test_a_full_medium_is_told_once_before_and_when_something_has_to_be_recorded(tmp_path: Path) -> None:
    full = True

    def write(descriptor: int, octets: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, octets)

    medium = SecondMedium(tmp_path, write=write)
    with capture_logs() as logged:
        await medium.check()
        assert medium.condition.code == "SECOND_MEDIUM_UNAVAILABLE"
        for number in range(2):
            with pytest.raises(SecondMediumUnavailable):
                await medium.append([event(number)], NOW)
        full = False
        await medium.append([event(3)], NOW)
        assert medium.condition.code == ""
        await medium.check()
        full = True
        with pytest.raises(SecondMediumUnavailable):
            await medium.append([event(4)], NOW)
        full = False
        await medium.check()
        assert medium.condition.code == ""
    await medium.close()
    told = [(one["event"], one["action"], one["code"]) for one in logged]
    failed, recovered = (
        (word, "second-medium", "SECOND_MEDIUM_UNAVAILABLE") for word in ("part-failed", "part-recovered")
    )
    assert told == [failed, recovered, failed, recovered]
    assert numbers(tmp_path) == [3]
    assert {path.suffix for path in tmp_path.iterdir()} == {".journal"}


async def test_a_medium_that_is_taken_away_is_told(tmp_path: Path) -> None:
    medium = SecondMedium(tmp_path / "mounted")
    await medium.append([event(1)], NOW)
    (tmp_path / "mounted").rename(tmp_path / "away")
    await medium.check()
    assert medium.condition.code == "SECOND_MEDIUM_UNAVAILABLE"
    await medium.close()


async def test_append_returns_after_the_sync_and_not_before(tmp_path: Path) -> None:
    order: list[str] = []

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        order.append("on the disk")

    medium = SecondMedium(tmp_path, sync=sync)
    await medium.append([event(1)], NOW)
    order.append("returned")
    await medium.close()
    assert order == ["on the disk", "returned"]


async def test_a_mistake_while_writing_is_told_to_who_waits_and_holds_nobody_up(tmp_path: Path) -> None:
    failures = [ValueError("a mistake")]

    def sync(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        os.fsync(descriptor)

    medium = SecondMedium(tmp_path, sync=sync)
    async with asyncio.timeout(20):
        with pytest.raises(SecondMediumUnavailable, match="ValueError") as caught:
            await medium.append([event(1)], NOW)
        assert isinstance(caught.value.__cause__, ValueError)
        await medium.append([event(2)], NOW)
    await medium.close()
    assert numbers(tmp_path) == [2]


async def test_a_journal_cut_at_any_octet_gives_what_was_whole(tmp_path: Path) -> None:
    path = await written(tmp_path / "whole")
    octets = path.read_bytes()
    ends = [at + 1 for at, octet in enumerate(octets) if octet == 10]
    for length in range(len(octets) + 1):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(octets[:length])
        lines = sum(1 for end in ends if end <= length)
        # Line 1 is the head; then event and settlement by turns.
        assert numbers(folder) == list(range(lines // 2)), length
    assert [one.settled for one in remembered(tmp_path / "whole")] == [
        Settled.TOOK_EFFECT,
        Settled.ABANDONED,
        Settled.TOOK_EFFECT,
    ]


async def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = await written(tmp_path)
    octets = bytearray(path.read_bytes())
    last_line = octets[:-1].rindex(b"\n")
    for at in range(0, last_line, 7):
        damaged = octets.copy()
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(SecondMediumDamaged):
            list(remembered(tmp_path))


async def test_a_line_taken_out_or_put_elsewhere_is_an_error(tmp_path: Path) -> None:
    path = await written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in (lines[:2] + lines[3:], lines[1:], [*lines[:2], lines[3], lines[2], *lines[4:]]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(SecondMediumDamaged):
            list(remembered(tmp_path))


@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / f"{1:08d}-{new_id().hex}.journal").write_bytes(octets)
    try:
        assert list(remembered(folder)) == []
    except SecondMediumDamaged:
        assert b"\n" in octets


async def test_foreign_files_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    await written(tmp_path)
    (tmp_path / "copy of 1.journal").write_bytes(b"")
    with pytest.raises(SecondMediumDamaged, match="copy of 1"):
        list(remembered(tmp_path))


@pytest.mark.parametrize("fails", ["write", "half a write", "sync"])
async def test_a_disk_that_fails_acknowledges_nothing_and_a_new_file_goes_on(tmp_path: Path, fails: str) -> None:
    broken = False

    def write(descriptor: int, octets: bytes) -> int:
        if broken and fails == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        if broken and fails == "half a write" and len(octets) > 20:
            return os.write(descriptor, octets[:20])
        if broken and fails == "half a write":
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, octets)

    def sync(descriptor: int) -> None:
        if broken and fails == "sync":
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)

    medium = SecondMedium(tmp_path, write=write, sync=sync)
    await medium.append([event(1)], NOW)
    broken = True
    with pytest.raises(SecondMediumUnavailable):
        await medium.append([event(2)], NOW + timedelta(seconds=1))
    broken = False
    await medium.append([event(3)], NOW + timedelta(seconds=2))
    await medium.close()
    assert numbers(tmp_path) == [1, 3]
    assert len(list(tmp_path.iterdir())) == 2


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    medium = SecondMedium(tmp_path / "file" / "folder")
    with pytest.raises(SecondMediumUnavailable):
        await medium.append([event(1)], NOW)
    await medium.close()


async def test_a_writer_that_knows_whose_it_is_begins_no_journal_elsewhere(tmp_path: Path) -> None:
    """A disk that is not mounted leaves no folder, an empty one, or what somebody else wrote there."""
    ours, folder, away = UUID(int=7), tmp_path / "journal", tmp_path / "away"
    begin(folder, ours)
    assert belongs(folder, ours) and not belongs(folder, SYSTEM)
    medium = SecondMedium(folder)
    medium.belong_to(ours)
    folder.rename(away)
    for there in ("no folder", "an empty one", "another journal"):
        if there == "an empty one":
            folder.mkdir()
        elif there == "another journal":
            begin(folder, SYSTEM)
        before = sorted(folder.glob("*"))
        with pytest.raises(SecondMediumMissing):
            await medium.append([event(1)], NOW)
        await medium.check()
        assert medium.condition.code == SecondMediumMissing.code
        with pytest.raises(SecondMediumMissing):
            SecondMedium(folder).belong_to(ours)
        assert sorted(folder.glob("*")) == before
    shutil.rmtree(folder)
    away.rename(folder)
    await medium.append([event(1)], NOW)
    await medium.close()
    assert (medium.condition.code, numbers(folder)) == ("", [1])


async def test_a_journal_whose_head_names_nobody_is_known_by_its_events(tmp_path: Path) -> None:
    await written(tmp_path)
    assert belongs(tmp_path, SYSTEM) and not belongs(tmp_path, UUID(int=7))


async def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    path = await written(tmp_path / "journal")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_epochs(tmp_path: Path) -> None:
    await written(tmp_path)
    assert current_epoch(tmp_path) == 1
    assert raise_epoch(tmp_path) == 2
    assert current_epoch(tmp_path) == 2
    medium = SecondMedium(tmp_path)
    await medium.append([event(9)], NOW - timedelta(days=1))  # a clock set back does not put it before the restore
    await medium.close()
    assert [(one.epoch, one.event.subject.int) for one in remembered(tmp_path)] == [(1, 0), (1, 1), (1, 2), (2, 9)]


CHILD = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from cardwright_server.store.ids import SYSTEM
from cardwright_server.store.second_medium import JournalEvent, JournalKind, SecondMedium

async def main():
    medium = SecondMedium(Path(sys.argv[1]))
    for number in range(100_000):
        await medium.append([JournalEvent(JournalKind.ISSUE, SYSTEM, UUID(int=number))], datetime.now(UTC))
        print(number, flush=True)

asyncio.run(main())
"""


def test_what_a_killed_process_was_told_is_there(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    process.wait(10)
    acknowledged = [int(line) for line in told if line.endswith("\n")]
    found = sorted(numbers(tmp_path))
    assert acknowledged == list(range(len(acknowledged)))
    assert found == list(range(len(found)))
    assert len(found) - len(acknowledged) in (0, 1)
