"""A policy closes ways out of the archive: files, and old keys for temporary cards. The version in force decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import update

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.references import Slot
from cardwright_server.escrow.errors import FileNotAllowed, RecoveryNotAllowed
from cardwright_server.escrow.model import Archived
from cardwright_server.people.model import Person
from cardwright_server.policies.document import read, shipped
from cardwright_server.policies.model import Policy
from cardwright_server.requests.model import RequestState
from cardwright_server.sessions.model import Purpose
from cardwright_server.sessions.ports import Task
from cardwright_server.store.devices_tables import device
from cardwright_server.store.unit import Database, Unit
from tests.support.escrow import Counter, make_keep, spki
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import World, make_world

BEFORE = "[[slots]]"
CLOSED = "[escrow]\nfiles = false\ntemporary = false\n\n[[slots]]"


@dataclass
class Case:
    """A person with a card in use, and a key that was made for it."""

    world: World
    counter: Counter
    person: Person
    key: Archived
    task: Task

    async def close(self) -> None:
        """A version of the policy that closes both ways is published."""
        text = shipped("civ").replace(BEFORE, CLOSED, 1)
        author, policies = self.world.second, self.world.free.policies

        async def work(unit: Unit) -> None:
            draft = await policies.draft(unit, author, text)
            await policies.publish(unit, self.world.officer, draft.id)

        await self.world.database.transact(work)


@pytest.fixture
async def case(database: Database, tmp_path: Path) -> Case:
    world = await make_world(database)
    person = await world.person("ada")
    keep = replace(make_keep(database, tmp_path), org=world.org, person=person.id)
    task = keep.task(device=(await world.issued(person)).id)
    return Case(world, Counter(keep, world.services, person), person, await keep.new(task), task)


@ON_SQLITE
async def test_a_policy_that_allows_no_files_is_obeyed_at_once(case: Case) -> None:
    owner, service = await case.counter.proven(), case.counter.service()
    open_one = await service.offer_pfx(owner, case.key.id)
    await case.close()
    with pytest.raises(FileNotAllowed) as refused:
        await service.offer_pfx(owner, case.key.id)
    assert refused.value.code == "PFX_NOT_ALLOWED"
    # An offer that was open when the version came is worth nothing, and is not spent by that.
    for _ in range(4):
        with pytest.raises(FileNotAllowed):
            await service.claim_pfx(owner, open_one.offer, open_one.password)


@ON_SQLITE
async def test_the_card_of_the_proof_counts_as_well_as_that_of_the_key(case: Case) -> None:
    foreign = await case.counter.keep.new()  # of a device that is not there any more
    owner, service = await case.counter.proven(), case.counter.service()
    assert owner.authentication is not None
    by_card = replace(owner, authentication=replace(owner.authentication, device=case.task.device))
    assert await service.offer_pfx(by_card, foreign.id)
    await case.close()
    assert await service.offer_pfx(owner, foreign.id)
    with pytest.raises(FileNotAllowed):
        await service.offer_pfx(by_card, foreign.id)


@ON_SQLITE
async def test_a_temporary_card_gets_no_old_keys_where_the_policy_says_so(case: Case) -> None:
    keep, world = case.counter.keep, case.world
    closed: Policy = read(shipped("civ").replace(BEFORE, CLOSED, 1))
    for policy, temporary, gets in ((closed, True, False), (closed, False, True), (case.task.policy, True, True)):
        task = keep.task(policy=policy, temporary=temporary)
        found = await keep.database.read(lambda unit, t=task: keep.archive.recoverable(unit, t))  # type: ignore[misc]
        assert (case.key.id in {one.id for one in found}) is gets
        if gets:
            assert spki(await keep.given(case.key, task)) == case.key.public_key
        else:
            with pytest.raises(RecoveryNotAllowed) as refused:
                await keep.given(case.key, task)
            assert refused.value.code == "RECOVERY_NOT_ALLOWED"
            # Its own key is no old one.
            mine = await keep.new(task)
            assert await keep.given(mine, task, Slot.KEY_MANAGEMENT)
    # Nor are they approved for it.
    stand_in = case.task.device
    requests = world.services.requests
    opened = await world.database.transact(lambda unit: requests.create_recovery(unit, world.issuer, stand_in))
    asked = opened.request
    if asked.state is RequestState.PENDING:
        asked = await world.database.transact(lambda unit: requests.approve(unit, world.second, asked.id))
    await world.database.transact(
        lambda unit: unit.execute(update(device).where(device.c.id == stand_in).values(temporary=True))
    )

    async def recover() -> str:
        try:
            await world.database.transact(
                lambda unit: case.counter.service().recover(unit, world.officer, asked.id, [case.key.id])
            )
        except CardwrightError as error:
            return error.code
        return ""

    assert await recover() == ""
    await case.close()
    assert await recover() == "RECOVERY_NOT_ALLOWED"
    assert case.task.purpose is Purpose.ISSUE
