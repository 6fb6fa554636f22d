"""The vault's audit: complete, chained, the source of quotas and marks, and honest about a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardwright_server.vault.audit_log import AuditLog, Draft, entries_of, verify
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.errors import VaultDamaged, VaultQuota, VaultRefused, VaultUnavailable
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import Authorization, CommitPurpose, PukPurpose
from cardwright_server.vault.quotas import Charge, Counters
from tests.support.vault import CARD, PASSPHRASE, Clock, reopen, run

ACTOR = Authorization("operator-1", "request-1", "session-1")


def lines(core: VaultCore) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for path in sorted((core.directory / "audit").iterdir())
        for line in path.read_text().splitlines()
    ]


def write(log: AuditLog, *drafts: Draft) -> None:
    log.commit(b"".join(log.add(draft) for draft in drafts))


def test_every_operation_is_there_before_its_answer(core: VaultCore) -> None:
    vault = LocalVault(core)
    run(vault.puk(CARD, PukPurpose.UNLOCK, ACTOR))
    with pytest.raises(VaultRefused):
        run(vault.sign_certificate("none", "none", b""))
    [puk, refused] = lines(core)[-2:]
    assert puk["act"] == "puk" and refused["outcome"] == "refused: key"
    assert puk["about"] == {
        "card": "org-1/card-1",
        "generation": 1,
        "master": 1,
        "actor": "operator-1",
        "request": "request-1",
        "session": "session-1",
        "purpose": "unlock",
    }
    assert verify(core.directory / "audit") == (core.log.entries, core.log.head)


def test_a_full_disk_gives_no_answer_and_keeps_the_chain(core: VaultCore, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = LocalVault(core)
    run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    before = (core.log.entries, core.log.head)
    real, failing = os.write, [True]

    def full(descriptor: int, content: bytes) -> int:
        if not failing:
            return real(descriptor, content)
        real(descriptor, content[:10])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(VaultUnavailable):
        run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    assert (core.log.entries, core.log.head) == before
    failing.clear()
    run(vault.puk(CARD, PukPurpose.SET, ACTOR))
    assert verify(core.directory / "audit")[0] == before[0] + 1


def test_quotas_are_there_again_after_a_restart(core: VaultCore, clock: Clock) -> None:
    run(LocalVault(core).admin(PASSPHRASE).set_limit("puk.unlock.card", Limit(2, None)))
    run(LocalVault(core).puk(CARD, PukPurpose.UNLOCK, ACTOR))
    for expected in (True, False):
        core = reopen(core, clock)
        vault = LocalVault(core)
        run(vault.admin(PASSPHRASE).unlock())
        if expected:
            run(vault.puk(CARD, PukPurpose.UNLOCK, ACTOR))
        else:
            with pytest.raises(VaultQuota):
                run(vault.puk(CARD, PukPurpose.UNLOCK, ACTOR))
    core.close()


def test_segments_carry_what_was_folded(tmp_path: Path, clock: Clock) -> None:
    log = AuditLog(tmp_path, clock, segment_size=2000)
    for number in range(60):
        write(log, Draft("act", charges={f"limit|{number % 3}": 1}, marks={"last": str(number), "first": "here"}))
    assert len(list(tmp_path.iterdir())) > 3
    for _ in range(2):
        assert log.marks == {"last": "59", "first": "here"}
        limits = {"limit": Limit(20, None)}
        for scope in "012":
            with pytest.raises(VaultQuota):
                log.counters.require([Charge("limit", scope)], limits, log.milliseconds)
        log.counters.require([Charge("limit", "3")], limits, log.milliseconds)
        count, head = verify(tmp_path)
        assert (log.entries, log.head) == (count, head)
        log.close()
        log = AuditLog(tmp_path, clock, segment_size=2000)
    log.close()


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_change_is_found(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("audit")
    log = AuditLog(folder, Clock(), segment_size=1500)
    for number in range(20):
        write(log, Draft("act", about={"number": number}))
    anchor = (log.entries, log.head)
    log.close()
    files = sorted(folder.iterdir())
    path = files[position % len(files)]
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = verify(folder)
    except VaultDamaged:
        return
    assert found != anchor


def test_a_line_taken_out_moved_or_cut_is_found(tmp_path: Path, clock: Clock) -> None:
    log = AuditLog(tmp_path, clock)
    for number in range(5):
        write(log, Draft("act", about={"number": number}))
    log.close()
    [path] = tmp_path.iterdir()
    whole = path.read_bytes().splitlines(keepends=True)
    for changed in (whole[1:], whole[:2] + whole[3:], [*whole[:2], whole[3], whole[2], whole[4]], whole + whole[-1:]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(VaultDamaged):
            AuditLog(tmp_path, clock)
        with pytest.raises(VaultDamaged):
            verify(tmp_path)
    # A tail that was cut is a shorter audit: found by the anchor, which the server's own audit keeps.
    path.write_bytes(b"".join(whole[:3]))
    assert verify(tmp_path)[0] == 3


def test_a_line_that_a_crash_cut_is_dropped(tmp_path: Path, clock: Clock) -> None:
    log = AuditLog(tmp_path, clock)
    for number in range(3):
        write(log, Draft("act", about={"number": number}))
    log.close()
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        log = AuditLog(tmp_path, clock)
        assert log.entries == 2
        log.close()
        assert path.read_bytes() == whole[:start]


def test_time_never_goes_back(tmp_path: Path, clock: Clock) -> None:
    log = AuditLog(tmp_path, clock)
    write(log, Draft("act"))
    clock.now -= 1000
    write(log, Draft("act"))
    first, second = (entry for entry, _ in entries_of(next(tmp_path.iterdir()).read_bytes()))
    assert first.at == second.at
    log.close()


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 3)), max_size=60),
    st.integers(1, 8),
    st.integers(1, 12),
)
def test_no_window_ever_holds_more_than_its_limit(steps: list[tuple[int, int]], per_hour: int, per_day: int) -> None:
    counters, limits = Counters(), {"x": Limit(per_hour, per_day)}
    now, done = 1_800_000_000, []
    for wait, amount in steps:
        now += wait // 100
        try:
            counters.require([Charge("x", amount=amount)], limits, now * 1000)
        except VaultQuota as quota:
            if amount <= min(per_hour, per_day):
                # What it says about room is true, at least for one piece.
                later = now + quota.retry_after
                assert later > now
            continue
        counters.add("x|", amount, now * 1000)
        done += [now] * amount
    for moment in done:
        assert sum(moment - 3600 < other <= moment for other in done) <= per_hour
        assert sum(moment - 86_400 < other <= moment for other in done) <= per_day


def test_refusals_do_not_fill_the_disk(core: VaultCore) -> None:
    vault = LocalVault(core)
    run(vault.admin(PASSPHRASE).set_limit("refused", Limit(5, None)))
    before = core.log.entries
    for _ in range(20):
        with pytest.raises(VaultRefused):
            run(vault.sign_crl("none", b""))
    assert core.log.entries == before + 5
    run(vault.hmac_commit(CommitPurpose.LOOKUP, [b"x"]))
