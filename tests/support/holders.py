"""The holder of a card at a workstation of their own, in a world whose every moment can be gone back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.people.model import Role
from cardwright_server.policies.document import shipped
from cardwright_server.store.unit import Unit
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.oracle.books import Books
from tests.support.fault_cases import PULLED, Case, Course, is_done
from tests.support.fault_world import ON_CURVES, FaultWorld, Job, issued, make_fault_world, renewal, unlock
from tests.support.people import make_operator
from tests.support.sessions import Station, Trip, a_workstation

PROVE = sessions_pb2.PURPOSE_PROVE
DONE = sessions_pb2.OUTCOME_DONE


@dataclass
class Holder:
    """``station``: their workstation, which has proved nothing of them. ``person``: who they are."""

    here: FaultWorld
    station: Principal
    person: UUID

    async def proven(self, *methods: Method, request: UUID | None = None) -> Principal:
        """They proved it by these methods; emergency passwords are for ``request``."""
        keeper = self.here.world.authentication
        proof = await self.here.database.transact(
            lambda unit: keeper.put_proof(unit, self.station, self.person, frozenset(methods), request=request)
        )
        return await self.behind(proof.id)

    async def behind(self, proof: UUID) -> Principal:
        """Who calls with a proof."""
        keeper = self.here.world.authentication
        return await self.here.database.read(lambda unit: keeper.principal_of(unit, self.station, proof))

    async def by_card(self, card: VirtualCard, pin: bytes) -> tuple[Principal | None, str]:
        """They proved it by the card; None and why not, where the server did not believe it."""
        async with self.here.serving(self.station) as socket:
            trip = await Station(card, pin=pin, guarded=False).run(socket, PROVE)
        card.power_off()
        if trip.outcome != DONE:
            return None, trip.error
        return await self.behind(UUID(trip.authentication)), ""


    async def again(self, job: Job, card: VirtualCard) -> tuple[Principal | None, str]:
        """They proved it once more: by the card, or where its PIN is blocked by another emergency password."""
        if job.purpose == sessions_pb2.PURPOSE_UNLOCK_ASSISTED:
            return await self.proven(Method.EMERGENCY_PASSWORD, request=job.request), ""
        return await self.by_card(card, job.pin)


async def holder_of(here: FaultWorld) -> Holder:
    """The holder of the device."""
    (row,) = Books.read(here.path).of("device", id=here.device.hex)
    return Holder(here, a_workstation(here.world.org), UUID(row["person"]))


# ---------------------------------------------------------------------------------------------------------------- jobs


async def own_renewal(here: FaultWorld) -> tuple[Job, Holder]:
    """Certificates end soon, and the holder has them renewed."""
    job, card = await renewal(here)
    return await _proved(here, job, card)


async def own_upgrade(here: FaultWorld) -> tuple[Job, Holder]:
    """The policy wants another kind of key in 9A, so the holder gets that one anew; the key in 9E stays."""
    card = await issued(here)
    text, world = shipped("civ"), here.world.world
    for old, new in (*ON_CURVES, ('slot = "9a"\nalgorithm = "p256"', 'slot = "9a"\nalgorithm = "p384"')):
        assert old in text
        text = text.replace(old, new)
    author = await make_operator(here.database, here.world.org, Role.ADMINISTRATOR)

    async def publish(unit: Unit) -> None:
        draft = await world.services.policies.draft(unit, author, text)
        await world.services.policies.publish(unit, world.officer, draft.id)

    await here.database.transact(publish)
    return await _proved(here, Job("update", here.moment(card), sessions_pb2.PURPOSE_UPDATE, world.issuer), card)


async def own_reissue(here: FaultWorld) -> tuple[Job, Holder]:
    """An operator wants all keys anew, and the holder has that done."""
    card = await issued(here)
    world = here.world.world
    opened = await here.database.transact(
        lambda unit: world.services.requests.create_reissue(unit, world.issuer, here.device)
    )
    job = Job("re-issue", here.moment(card), sessions_pb2.PURPOSE_REISSUE, world.issuer, request=opened.request.id)
    return await _proved(here, job, card)


async def own_unlock(here: FaultWorld, *methods: Method) -> tuple[Job, Holder]:
    """The help desk asked for it, and read out a password that is good once."""
    job, card = await unlock(here)
    holder = await holder_of(here)
    principal = await holder.proven(*(methods or (Method.EMERGENCY_PASSWORD,)), request=job.request)
    return replace(
        job, start=here.moment(card), principal=principal, purpose=sessions_pb2.PURPOSE_UNLOCK_ASSISTED
    ), holder


async def _proved(here: FaultWorld, job: Job, card: VirtualCard) -> tuple[Job, Holder]:
    holder = await holder_of(here)
    principal, why = await holder.by_card(card, job.pin)
    assert principal is not None, why
    return replace(job, start=here.moment(card), principal=principal), holder


OWN_JOBS = {"update": own_renewal, "upgrade": own_upgrade, "re-issue": own_reissue, "unlock": own_unlock}


async def own_job(profile: str, name: str, folder: Path, template: Path) -> tuple[FaultWorld, Job, Holder]:
    """A world with a job that the holder has begun to do: they have proved who they are. Close the world."""
    here = await make_fault_world(profile, name, folder, template)
    try:
        job, holder = await OWN_JOBS[name](here)
    except BaseException:
        await here.close()
        raise
    return here, job, holder


# --------------------------------------------------------------------------------------------------------------- faults


@dataclass
class Ways:
    """How often what was left was gone on with, and how often it was begun with another proof."""

    by_the_first: list[str] = field(default_factory=list)
    by_another: list[str] = field(default_factory=list)


async def killed(here: FaultWorld, course: Course, case: Case) -> VirtualCard:
    """Let one thing go wrong with a session of the holder's; the card, out of its reader. The daemon is gone, too."""
    job = course.job
    if case.kind == "dead":
        return await here.back_to(course.moments[case.place - 1])
    card = await here.back_to(job.start)
    async with here.serving(job.principal) as socket:
        if case.kind == "cut":
            await here.session(job, Station(card), socket, cut=case.place)
        else:
            faulty = FaultyCard(card, PULLED[case.kind].format(case.place, case.place + 1))
            await here.session(job, Station(faulty), socket)
            assert faulty.struck
    card.power_off()
    return card


async def begun_again(
    here: FaultWorld, job: Job, principal: Principal, card: VirtualCard, *, guarded: bool = True
) -> Trip:
    """The next session, after the lease of the last; not ``guarded``: of a workstation that finds nothing wrong."""
    here.clock.now += timedelta(seconds=31)
    async with here.serving(principal) as socket:
        trip = await here.session(job, Station(card, guarded=guarded), socket)
    card.power_off()
    return trip


async def finished_by_holder(
    here: FaultWorld, holder: Holder, course: Course, cases: Sequence[Case]
) -> tuple[dict[str, list[str]], Ways]:
    """What is wrong, by case, after the holder did what was left; they prove it anew where the server asks them to."""
    job, ways, wrong = course.job, Ways(), dict[str, list[str]]()
    for case in cases:
        card = await killed(here, course, case)
        if is_done(here, job):
            continue
        trip, found = await begun_again(here, job, holder.station, card), list[str]()
        if trip.error == "PROOF_REQUIRED":
            ways.by_another.append(str(case))
            principal, why = await holder.again(job, card)
            if principal is None:
                found.append(f"the holder cannot prove it again: {why}")
            else:
                trip = await begun_again(here, job, principal, card)
        else:
            ways.by_the_first.append(str(case))
        if trip.outcome not in (DONE, sessions_pb2.OUTCOME_NOTHING_DUE):
            found.append(f"one more session ended with {trip.error or trip.status}")
        found += await here.wrong(job, card, course.end or None)
        if found:
            wrong[str(case)] = found
    return wrong, ways

