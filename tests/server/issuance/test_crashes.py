"""The server dies after any commit, or the vault fails: asking again ends the same, and nothing is signed twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import func, select

from cardwright_server.audit.model import SERVER
from cardwright_server.issuance import status, store
from cardwright_server.issuance.journal import replay
from cardwright_server.issuance.model import CertificateState, Issued, Refused, RevocationReason
from cardwright_server.machine import Actor
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.issuance_tables import certificate_order, issued_certificate, revocation_list
from cardwright_server.store.second_medium import JournalKind, SecondMedium, Settled, remembered
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.errors import VaultUnavailable
from tests.support.issuance import ON_SQLITE, World, make_world, new_key

T = TypeVar("T")


class Killed(Exception):
    """The process is gone."""


class Dying:
    """A database whose process dies right before or right after the n-th commit."""

    def __init__(self, database: Database, commit: int, *, after: bool) -> None:
        self._database = database
        self._left = commit
        self._after = after

    async def transact(self, work: Callable[[Unit], Awaitable[T]]) -> T:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        result = await self._database.transact(work)
        if self._left == 0:
            raise Killed
        return result

    async def read(self, work: Callable[[Unit], Awaitable[T]], **options: Any) -> T:
        return await self._database.read(work, **options)


async def counted(database: Database, table: Any) -> int:
    found: int = await database.read(lambda unit: unit.value(select(func.count()).select_from(table)))
    return found


@pytest.mark.parametrize("commit", [1, 2])
@pytest.mark.parametrize("after", [False, True])
async def test_issuing_goes_on_where_it_stopped(world: World, commit: int, after: bool) -> None:
    request = world.request(new_key())
    before = await counted(world.database, issued_certificate)
    with pytest.raises(Killed):
        await world.service.certify(Dying(world.database, commit, after=after), SERVER, request)  # type: ignore[arg-type]
    prepared = await world.database.read(lambda unit: store.certificate_by_request(unit, world.org, request.id))
    issued = await world.issue(request)
    assert await counted(world.database, issued_certificate) == before + 1
    assert await counted(world.database, certificate_order) == 1
    if prepared is not None:
        assert (issued.serial, issued.tbs) == (prepared.serial, prepared.tbs)
        assert issued.x509.tbs_certificate_bytes == prepared.tbs


@ON_SQLITE
async def test_a_vault_that_is_away_harms_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    request = world.request(new_key())

    async def away(*_: object) -> bytes:
        raise VaultUnavailable("The vault's process is not there.")

    with monkeypatch.context() as patch:
        patch.setattr(world.vault, "sign_certificate", away)
        with pytest.raises(VaultUnavailable):
            await world.service.certify(world.database, SERVER, request)
    assert (await world.issue(request)).state is CertificateState.HELD


async def test_a_crash_while_publishing_skips_a_number_and_no_list(world: World) -> None:
    await world.publisher.publish_due(world.database)
    with pytest.raises(Killed):
        await world.publisher.publish_due(Dying(world.database, 2, after=False), force=True)  # type: ignore[arg-type]
    await world.publisher.publish_due(world.database, force=True)
    rows = await world.database.read(
        lambda unit: unit.rows(select(revocation_list.c.number, revocation_list.c.published_at))
    )
    numbers = sorted(row.number for row in rows if row.published_at is not None)
    assert 3 in numbers and len([one for one in numbers if one == 3]) == 1


async def test_recover_signs_what_was_left_and_gives_up_what_is_stale(
    open_database: Any, clock: Any, tmp_path: Path
) -> None:
    database = open_database(clock=clock)
    world = await make_world(database, tmp_path, now=lambda: clock().timestamp())
    young, old = world.request(new_key()), world.request(new_key())
    await world.do(lambda unit: world.service.prepare(unit, SERVER, old))
    clock.advance(hours=20, minutes=30)
    await world.do(lambda unit: world.service.prepare(unit, SERVER, young))
    assert await world.service.recover(database, SERVER) == 1  # the young one may still be in someone's hands
    clock.advance(minutes=2)
    assert await world.service.recover(database, SERVER) == 1
    assert await world.service.recover(database, SERVER) == 0
    assert isinstance(await world.service.certify(database, SERVER, young), Issued)
    answer = await world.service.certify(database, SERVER, old)
    assert isinstance(answer, Refused) and answer.reason == "stale"
    given_up = await database.read(lambda unit: store.certificate_by_request(unit, world.org, old.id))
    assert given_up is not None and given_up.state is CertificateState.REVOKED
    world.core.close()


async def test_each_step_is_audited_and_none_names_the_person(world: World) -> None:
    issued = await world.issue(world.request(new_key()))

    async def act(unit: Unit) -> None:
        await status.release(unit, SERVER, world.org, issued.session)  # type: ignore[arg-type]

    await world.do(act)
    rows = await world.database.read(
        lambda unit: unit.rows(
            select(audit_entry.c.action, audit_entry.c.facts)
            .where(audit_entry.c.target == issued.id)
            .order_by(audit_entry.c.created_at)
        )
    )
    assert [row.action for row in rows] == ["certificate.prepare", "certificate.issue", "certificate.release"]
    assert "Ada" not in str(rows) and "ada@" not in str(rows)


async def test_a_restored_database_learns_what_it_missed(open_database: Any, tmp_path: Path) -> None:
    medium = SecondMedium(tmp_path / "journal")
    database = open_database(second_medium=medium)
    world = await make_world(database, tmp_path)
    kept = await world.issue(world.request(new_key()))
    stolen = await world.issue(world.request(new_key()))
    assert stolen.session is not None
    await world.do(partial(status.release, who=SERVER, org=world.org, session=stolen.session))
    lost = await world.issue(world.request(new_key()))

    async def revoke(unit: Unit) -> None:
        await status.revoke(unit, SERVER, Actor.SERVER, [kept], RevocationReason.KEY_COMPROMISE)
        found = await store.certificate_by_id(unit, world.org, stolen.id)
        assert found is not None
        for reason in ("stolen", "mislaid"):
            [found] = await status.hold(unit, SERVER, Actor.HELP_DESK, [found], reason)
        await status.resume(unit, SERVER, Actor.HELP_DESK, [found], "mislaid")

    await world.do(revoke)
    await medium.close()

    # As if restored to before the second certificate and the revocation.
    async def forget(unit: Unit) -> None:
        await unit.execute(certificate_order.delete().where(certificate_order.c.certificate == lost.id))
        await unit.execute(issued_certificate.delete().where(issued_certificate.c.id == lost.id))
        values: dict[str, Any] = {"state": CertificateState.GOOD, "holds": [], "reason": None}
        older = issued_certificate.c.id.in_([kept.id, stolen.id])
        await unit.execute(issued_certificate.update().where(older).values(values))

    await world.do(forget)
    events = list(remembered(tmp_path / "journal"))
    assert {one.event.kind for one in events} == {JournalKind.ISSUE, JournalKind.REVOKE}
    assert {one.settled for one in events} == {Settled.TOOK_EFFECT}
    done = [await world.do(partial(replay, remembered=one)) for one in events]
    assert done.count(True) == 6
    back = await database.read(lambda unit: store.certificate_by_id(unit, world.org, lost.id))
    assert back is not None
    assert (back.serial, back.tbs, back.key, back.holder) == (lost.serial, lost.tbs, lost.key, lost.holder)
    assert (back.state, back.holds, back.certificate) == (CertificateState.HELD, {"unreleased"}, lost.certificate)
    gone = await database.read(lambda unit: store.certificate_by_id(unit, world.org, kept.id))
    assert gone is not None and gone.state is CertificateState.REVOKED
    assert gone.reason is RevocationReason.KEY_COMPROMISE
    held = await database.read(lambda unit: store.certificate_by_id(unit, world.org, stolen.id))
    assert held is not None and (held.state, held.holds) == (CertificateState.HELD, {"stolen"})
    # Once more from the beginning ends the same.
    for one in events:
        await world.do(partial(replay, remembered=one))
    again = await database.read(lambda unit: store.certificate_by_id(unit, world.org, stolen.id))
    assert again is not None and again.holds == {"stolen"}
    world.core.close()
