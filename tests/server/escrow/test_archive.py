"""Keys are in the archive before they are anywhere else, one for a slot in a session, and go only where they may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import RETIRED_SLOTS, Slot
from cardwright_server.escrow.errors import EscrowedKeyRefused, NoSuchEscrowedKey, NotEscrowable
from cardwright_server.escrow.journal import replay
from cardwright_server.escrow.model import KEY, Archived, KeyState
from cardwright_server.sessions.model import Purpose
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.escrow_tables import escrow_release, escrowed_key, escrowed_key_transition
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.second_medium import JournalKind, Settled, remembered
from cardwright_server.store.unit import Database
from cardwright_server.vault.errors import VaultRefused, VaultUnavailable
from tests.support.escrow import Keep, certificate_for, make_keep, spki
from tests.support.mortal import Killed, Mortal

KM = Slot.KEY_MANAGEMENT


@pytest.fixture
def keep(database: Database, tmp_path: Path) -> Keep:
    return make_keep(database, tmp_path)


async def counted(database: Database, table: Any, *conditions: Any) -> int:
    found: int = await database.read(
        lambda unit: unit.value(select(func.count()).select_from(table).where(*conditions))
    )
    return found


async def history(keep: Keep, person: UUID | None = None) -> list[str]:
    found = await keep.database.read(lambda unit: keep.archive.history(unit, keep.org, person or keep.person))
    return [one.fingerprint for one in found]


async def test_a_key_is_archived_before_it_is_given(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = keep.vault.unwrap_for_card

    async def unwrap(*arguments: Any) -> Any:
        order.extend(one.event.kind for one in remembered(tmp_path / "second-medium"))
        order.extend([str(await counted(keep.database, table)) for table in (escrowed_key, escrow_release)])
        return await real(*arguments)

    monkeypatch.setattr(keep.vault, "unwrap_for_card", unwrap)
    task, session = keep.task(), uuid4()
    key = await keep.archive.key(task, session, KM, Algorithm.P256, "")
    assert order == [JournalKind.ESCROW, "1", "1"]
    kept = await keep.database.read(lambda unit: unit.row(select(escrowed_key)))
    assert kept is not None and kept.public_key == spki(key)
    assert (kept.person, kept.device, kept.session, kept.slot) == (keep.person, task.device, session, 0x9D)
    steps = await keep.database.read(
        lambda unit: unit.rows(select(escrowed_key_transition).order_by(escrowed_key_transition.c.number))
    )
    assert [(one.event, one.target) for one in steps] == [("archive", "archived"), ("deliver", "delivered")]
    assert all(KEY.permits(one.source, one.event, one.target) for one in steps)
    assert kept.version == len(steps)
    # A new key on its way to its own card is no news to anybody.
    assert await counted(keep.database, outbox) == 0
    assert await counted(keep.database, audit_entry, audit_entry.c.action == "escrow.archived") == 1


@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.P384])
async def test_a_session_gets_one_key_for_a_slot_however_often_it_asks(keep: Keep, algorithm: Algorithm) -> None:
    task, session = keep.task(), uuid4()
    keys = [await keep.archive.key(task, session, KM, algorithm, "") for _ in range(3)]
    assert {spki(key) for key in keys} == {spki(keys[0])}
    assert await counted(keep.database, escrowed_key) == await counted(keep.database, escrow_release) == 1
    other = await keep.archive.key(task, uuid4(), KM, algorithm, "")
    assert spki(other) != spki(keys[0])
    with pytest.raises(EscrowedKeyRefused):
        await keep.archive.key(task, session, KM, Algorithm.P256, "")


async def test_two_processes_make_one_key(keep: Keep, open_database: Callable[..., Database]) -> None:
    task, session = keep.task(), uuid4()
    archives = [keep.over(open_database()) for _ in range(3)]
    keys = await asyncio.gather(*(one.key(task, session, KM, Algorithm.P256, "") for one in archives))
    assert len({spki(key) for key in keys}) == 1
    assert await counted(keep.database, escrowed_key) == 1
    assert await counted(keep.database, audit_entry, audit_entry.c.action == "escrow.archived") == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_server_that_dies_while_archiving_gives_nothing_that_is_not_archived(
    keep: Keep, database_url: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    dying = Mortal(database_url, second_medium=keep.database._medium)
    dying.fatal, dying.after = 1, after
    task, session, unwrapped = keep.task(), uuid4(), []
    real = keep.vault.unwrap_for_card

    async def unwrap(*arguments: Any) -> Any:
        unwrapped.append(arguments)
        return await real(*arguments)

    monkeypatch.setattr(keep.vault, "unwrap_for_card", unwrap)
    with pytest.raises(Killed):
        await keep.over(dying).key(task, session, KM, Algorithm.P256, "")
    await dying.close()
    assert unwrapped == [] and await counted(keep.database, escrowed_key) == int(after)
    key = await keep.archive.key(task, session, KM, Algorithm.P256, "")
    again = await keep.archive.key(task, session, KM, Algorithm.P256, "")
    assert spki(key) == spki(again) and await counted(keep.database, escrowed_key) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_server_that_dies_while_binding_binds_at_the_next_try(
    keep: Keep, database_url: str, after: bool
) -> None:
    key = await keep.new(certified=False)
    public = await keep.given(key, keep.task(device=key.device), KM)
    certificate = certificate_for(public.public_key())  # type: ignore[arg-type]
    dying = Mortal(database_url, second_medium=keep.database._medium)
    dying.fatal, dying.after = 1, after
    with pytest.raises(Killed):
        await keep.over(dying).bind_certificate(keep.org, key.fingerprint, certificate)
    await dying.close()
    assert await history(keep) == ([key.fingerprint] if after else [])
    bound = await keep.archive.bind_certificate(keep.org, key.fingerprint, certificate)
    assert await keep.archive.bind_certificate(keep.org, key.fingerprint, certificate) == bound
    assert await history(keep) == [key.fingerprint] and bound.current
    assert await counted(keep.database, audit_entry, audit_entry.c.action == "escrow.certified") == 1
    assert spki(await keep.given(bound, keep.task())) == key.public_key


@pytest.mark.parametrize("after", [False, True])
async def test_a_server_that_dies_while_recovering_records_it_once(keep: Keep, database_url: str, after: bool) -> None:
    key, task, session = await keep.new(), keep.task(), uuid4()
    dying = Mortal(database_url)
    dying.fatal, dying.after = 1, after
    with pytest.raises(Killed):
        await keep.over(dying).key(task, session, Slot.RETIRED_1, key.algorithm, key.fingerprint)
    await dying.close()
    recovered = escrow_release.c.way == "retired-slot"
    assert await counted(keep.database, escrow_release, recovered) == int(after)
    for _ in range(2):
        assert spki(await keep.given(key, task, session=session)) == key.public_key
    assert await counted(keep.database, escrow_release, recovered) == 1
    assert await counted(keep.database, outbox, outbox.c.name == "escrow.released") == 1
    assert await counted(keep.database, audit_entry, audit_entry.c.action == "escrow.released") == 1
    assert (await keep.archive.archived(keep.org, key.fingerprint)).state is KeyState.RECOVERED


async def test_a_vault_that_is_away_leaves_what_can_be_taken_up(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    task, session = keep.task(), uuid4()

    async def away(*_: object) -> Any:
        raise VaultUnavailable("The vault's process is not there.")

    for call, kept in (("generate_keypair_for_escrow", 0), ("unwrap_for_card", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(keep.vault, call, away)
            with pytest.raises(VaultUnavailable):
                await keep.archive.key(task, session, KM, Algorithm.P256, "")
        assert await counted(keep.database, escrowed_key) == kept
    await keep.archive.key(task, session, KM, Algorithm.P256, "")
    assert await counted(keep.database, escrowed_key) == 1


async def test_only_algorithms_that_the_archive_keeps(keep: Keep) -> None:
    with pytest.raises(NotEscrowable):
        await keep.archive.key(keep.task(), uuid4(), KM, Algorithm.RSA4096, "")
    assert await counted(keep.database, escrowed_key) == 0


async def test_a_key_goes_only_to_cards_of_its_owner(keep: Keep, tmp_path: Path) -> None:
    key = await keep.new()
    for task, error in (
        (keep.task(uuid4()), EscrowedKeyRefused),
        (replace(keep.task(), person=None), EscrowedKeyRefused),
        (replace(keep.task(), person=None, device=key.device), EscrowedKeyRefused),
        (keep.task(uuid4(), device=key.device), EscrowedKeyRefused),
        (replace(keep.task(), org=uuid4()), NoSuchEscrowedKey),
    ):
        for slot in (Slot.RETIRED_1, KM):
            with pytest.raises(error):
                await keep.given(key, task, slot)
    with pytest.raises(NoSuchEscrowedKey):
        await keep.archive.key(keep.task(), uuid4(), Slot.RETIRED_1, key.algorithm, "0" * 64)
    assert await counted(keep.database, escrow_release, escrow_release.c.way == "retired-slot") == 0


async def test_a_key_goes_only_to_its_slot_and_to_retired_ones(keep: Keep) -> None:
    key, bare = await keep.new(), await keep.new(certified=False)
    task = keep.task()
    for slot in (Slot.AUTHENTICATION, Slot.SIGNATURE, KM, Slot.CARD_AUTHENTICATION):
        with pytest.raises(EscrowedKeyRefused):
            await keep.given(key, task, slot)
    with pytest.raises(EscrowedKeyRefused):  # nothing was ever encrypted to it
        await keep.given(bare, task)
    with pytest.raises(EscrowedKeyRefused):
        await keep.archive.key(task, uuid4(), Slot.RETIRED_1, Algorithm.P384, key.fingerprint)
    own = replace(task, device=key.device)
    assert spki(await keep.given(key, own, KM)) == key.public_key
    with pytest.raises(EscrowedKeyRefused):  # the same device, after it was wiped and began anew
        await keep.given(key, replace(own, life=2), KM)
    for slot in (Slot.RETIRED_1, RETIRED_SLOTS[-1]):
        assert spki(await keep.given(key, task, slot)) == key.public_key


async def test_a_card_in_use_gets_its_own_former_keys_only(keep: Keep) -> None:
    mine, other = keep.task(), await keep.new()
    former, current = await keep.new(mine), await keep.new(mine)
    update = replace(mine, purpose=Purpose.UPDATE)

    async def recoverable(task: Any, *replaced: str) -> list[str]:
        found = await keep.database.read(lambda unit: keep.archive.recoverable(unit, task, frozenset(replaced)))
        return [one.fingerprint for one in found]

    assert await recoverable(update) == [former.fingerprint]
    assert await recoverable(update, current.fingerprint) == [current.fingerprint, former.fingerprint]
    assert await recoverable(mine) == [former.fingerprint, other.fingerprint]
    # Wiped and given to the same person again, it is a new card.
    assert len(await recoverable(replace(mine, life=2))) == 3
    assert len(await recoverable(keep.task())) == 3
    assert await recoverable(keep.task(uuid4())) == await recoverable(replace(mine, person=None)) == []
    assert spki(await keep.given(former, update)) == former.public_key
    with pytest.raises(EscrowedKeyRefused):
        await keep.given(other, update)


async def test_a_card_gets_the_newest_twenty(keep: Keep) -> None:
    keys = [await keep.new() for _ in range(22)]
    found = await keep.database.read(lambda unit: keep.archive.recoverable(unit, keep.task()))
    assert [one.fingerprint for one in found] == [one.fingerprint for one in reversed(keys[2:])]
    assert len({one.recovered for one in found}) == 20


async def test_history_is_what_has_certificates_newest_first(keep: Keep) -> None:
    task = keep.task()
    first, second = await keep.new(task), await keep.new(task)
    await keep.new(task, certified=False)
    assert await history(keep) == [second.fingerprint, first.fingerprint]
    assert await history(keep, uuid4()) == []
    found = await keep.database.read(lambda unit: keep.archive.history(unit, keep.org, keep.person))
    assert [one.current for one in found] == [True, False]
    assert [one.certificate for one in found] == [second.certificate, first.certificate]
    # A certificate that comes late, for an older key, does not make it the current one.
    late = certificate_for((await keep.given(first, keep.task())).public_key())  # type: ignore[arg-type]
    assert not (await keep.archive.bind_certificate(keep.org, first.fingerprint, late)).current
    assert (await keep.archive.archived(keep.org, second.fingerprint)).current


async def test_a_certificate_of_another_key_is_not_bound(keep: Keep) -> None:
    key, other = await keep.new(certified=False), await keep.new()
    with pytest.raises(VaultRefused):
        await keep.archive.bind_certificate(keep.org, key.fingerprint, other.certificate)
    with pytest.raises(NoSuchEscrowedKey):
        await keep.archive.bind_certificate(uuid4(), other.fingerprint, other.certificate)
    assert await history(keep) == [other.fingerprint]


async def test_two_processes_bind_at_once(keep: Keep, open_database: Callable[..., Database]) -> None:
    key = await keep.new(certified=False)
    public = (await keep.given(key, keep.task(device=key.device), KM)).public_key()
    certificates = [certificate_for(public, name) for name in ("one", "two")]  # type: ignore[arg-type]
    archives = [keep.over(open_database()) for _ in certificates]
    await asyncio.gather(
        *(one.bind_certificate(keep.org, key.fingerprint, der) for one, der in zip(archives, certificates, strict=True))
    )
    bound = await keep.archive.archived(keep.org, key.fingerprint)
    assert bound.certificate in certificates and bound.current
    assert spki(await keep.given(bound, keep.task())) == key.public_key


async def test_a_restore_puts_keys_back_that_a_card_may_have(
    keep: Keep, tmp_path: Path, open_database: Callable[..., Database]
) -> None:
    task = keep.task()
    first, second, bare = await keep.new(task), await keep.new(task), await keep.new(certified=False)
    before = [await keep.archive.archived(keep.org, one.fingerprint) for one in (first, second, bare)]
    events = list(remembered(tmp_path / "second-medium"))
    assert [one.event.kind for one in events] == [JournalKind.ESCROW] * 5

    async def forget(unit: Any) -> None:
        for table in (escrow_release, escrowed_key_transition, escrowed_key):
            await unit.execute(table.delete())

    await keep.database.transact(forget)
    for again in (False, True):
        done = [await keep.database.transact(lambda unit, one=one: replay(unit, one)) for one in events]  # type: ignore[misc]
        assert done == [not again] * 5
    for key in before:
        found = await keep.archive.archived(keep.org, key.fingerprint)
        assert _same(found) == _same(key)
    assert await history(keep) == [second.fingerprint, first.fingerprint]
    assert spki(await keep.given(first, keep.task())) == first.public_key
    # What is left of a journal may begin with a binding; the newest key of the slot is the current one again.
    await keep.database.transact(forget)
    for event in reversed(events):
        if event.event.data["certificate"]:
            assert await keep.database.transact(partial(replay, remembered=event))
    assert [(await keep.archive.archived(keep.org, one.fingerprint)).current for one in (first, second)] == [
        False,
        True,
    ]
    abandoned = replace(events[0], settled=Settled.ABANDONED)
    await keep.database.transact(forget)
    assert not await keep.database.transact(lambda unit: replay(unit, abandoned))
    assert await counted(keep.database, escrowed_key) == 0


def _same(key: Archived) -> tuple[Any, ...]:
    return key.id, key.person, key.public_key, key.certificate, key.state, key.current, key.wrapped, key.owner


async def test_nothing_of_a_key_is_in_the_books(keep: Keep, tmp_path: Path) -> None:
    task, session = keep.task(), uuid4()
    key = await keep.archive.key(task, session, KM, Algorithm.P256, "")
    number = key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    found = await keep.archive.archived(keep.org, (await _only(keep)).fingerprint)
    texts = [repr(found).encode(), *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())]
    assert found.wrapped.data
    for text in texts:
        assert number not in text and number.hex().encode() not in text.lower()
    assert found.wrapped.data.hex() not in repr(found)


async def _only(keep: Keep) -> Any:
    return await keep.database.read(lambda unit: unit.row(select(escrowed_key)))


async def test_a_device_of_nobody_keeps_its_key_to_itself(keep: Keep) -> None:
    task = replace(keep.task(), person=None)
    key = await keep.new(task)
    assert key.person is None and key.owner == str(task.device)
    assert spki(await keep.given(key, task, KM)) == key.public_key
    with pytest.raises(EscrowedKeyRefused):
        await keep.given(key, replace(keep.task(), person=None))
