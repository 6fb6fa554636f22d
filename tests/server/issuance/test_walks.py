"""Random walks over certificates and orders by several processes at once: legal steps only, nothing lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import func, select

from cardwright_server.audit.model import SERVER
from cardwright_server.issuance import status, store
from cardwright_server.issuance.authorities import add_foreign
from cardwright_server.issuance.backend import BackendAnswer, Declined
from cardwright_server.issuance.model import (
    CERTIFICATE,
    ORDER,
    Answer,
    Certificate,
    CertificateEvent,
    CertificateState,
    Issued,
    Order,
    OrderState,
    Pending,
    Purpose,
    Refused,
    RevocationReason,
)
from cardwright_server.issuance.service import Prepared
from cardwright_server.machine import Actor, GuardRefused, IllegalTransition, Transition
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.errors import StaleVersion
from cardwright_server.store.issuance_tables import certificate_order, issued_certificate
from cardwright_server.store.unit import Database, Unit
from tests.support.foreign_authority import Slow
from tests.support.issuance import World, make_world, new_key
from tests.support.walks import Fired, Plan, plans, walk

_C, _E = CertificateState, CertificateEvent


@dataclass
class CertificateSubject:
    """A certificate, held, resumed, released and revoked as devices and operators do it. Its journal is made of what
    the clients were told, in the order of the row's versions: each version once.
    """

    clients: list[Database]
    org: UUID
    id: UUID
    session: UUID
    done: dict[int, Fired[CertificateState, CertificateEvent]] = field(default_factory=dict)

    async def now(self, unit: Unit) -> Certificate:
        found = await store.certificate_by_id(unit, self.org, self.id)
        assert found is not None
        return found

    async def fire(
        self, client: int, event: CertificateEvent, actor: Actor
    ) -> Transition[CertificateState, CertificateEvent]:
        async def work(unit: Unit) -> tuple[Certificate, Certificate]:
            before = await self.now(unit)
            rows = CERTIFICATE.candidates(before.state, event, actor)
            if not rows or event not in (_E.HOLD, _E.RESUME, _E.REVOKE):
                raise IllegalTransition(CERTIFICATE.name, before.state, event, actor, known=bool(rows))
            match event:
                case _E.HOLD:
                    await status.hold(unit, SERVER, actor, [before], f"reason-{client}")
                case _E.REVOKE:
                    await status.revoke(unit, SERVER, actor, [before], RevocationReason.SUPERSEDED)
                case _ if actor is Actor.SERVER and client == 0:
                    await status.release(unit, SERVER, self.org, self.session)
                case _:
                    await status.resume(unit, SERVER, actor, [before], f"reason-{client}")
            after = await self.now(unit)
            if after.version == before.version:
                raise GuardRefused(CERTIFICATE.name, event, ("nothing to do",))
            return before, after

        before, after = await self.clients[client].transact(work)
        assert after.version == before.version + 1 and after.version not in self.done
        self.done[after.version] = Fired(before.state, event, actor, after.state)
        candidates = CERTIFICATE.candidates(before.state, event, actor)
        return next(row for row in candidates if row.target is after.state)

    async def state(self) -> CertificateState:
        return (await self.clients[0].read(self.now)).state

    async def journal(self) -> list[Fired[CertificateState, CertificateEvent]]:
        return [self.done[version] for version in sorted(self.done)]


@pytest.fixture
async def clients(open_database: Callable[..., Database]) -> list[Database]:
    return [open_database(pool=1) for _ in range(3)]


@pytest.fixture
async def world(clients: list[Database], tmp_path: Path) -> World:
    return await make_world(clients[0], tmp_path)


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(plan=plans(CERTIFICATE, steps=10))
async def test_walks_over_certificates(world: World, clients: list[Database], plan: Plan[CertificateEvent]) -> None:
    made = await world.issue(world.request(new_key()))
    assert made.session is not None and made.state is _C.HELD
    subject = CertificateSubject(clients, made.org, made.id, made.session)
    journal = await walk(CERTIFICATE, subject, [[(_E.RESUME, Actor.SERVER), *plan[0]], *plan[1:]])
    now = await clients[0].read(subject.now)
    assert now.version == made.version + len(journal)
    assert (now.state is _C.HELD) is bool(now.holds)
    assert (now.state is _C.REVOKED) is (now.reason is not None)
    changed = select(func.count()).where(audit_entry.c.target == made.id, audit_entry.c.action != "certificate.issue")
    prepared = 1
    assert await clients[0].read(lambda unit: unit.value(changed)) == len(journal) + prepared


class Fickle(Slow):
    """Answers as chance has it, with pauses in which others come first."""

    chance: random.Random

    async def collect(self, order: Order) -> BackendAnswer:
        self.ready, self.declines = (self.chance.random() < share for share in (0.3, 0.1))
        answer = await super().collect(order)
        await asyncio.sleep(0)
        return answer


@pytest.mark.parametrize("seed", range(3))
async def test_walks_over_orders(clients: list[Database], tmp_path: Path, seed: int) -> None:
    """Whatever another authority answers to whom first, an order has one end, and one certificate at most."""
    far = Fickle()
    far.chance = random.Random(seed)
    world = await make_world(clients[0], tmp_path, backends=(far,), routes={"smartcard-logon": "elsewhere"})
    await world.do(lambda unit: add_foreign(unit, world.org, "elsewhere", Purpose.CARDS, far.certificate()))
    requests = [world.request(new_key(), "smartcard-logon") for _ in range(2)]
    told: dict[UUID, list[Answer]] = {one.id: [] for one in requests}
    states: dict[UUID, list[OrderState]] = {one.id: [] for one in requests}

    async def client(number: int) -> None:
        for _ in range(6):
            request = far.chance.choice(requests)
            try:
                told[request.id].append(await world.service.certify(clients[number], SERVER, request))
            except StaleVersion:
                continue
            order = await clients[number].read(lambda unit, it=request: store.order_by_request(unit, it.org, it.id))  # type: ignore[misc]
            assert order is not None
            states[request.id].append(order.state)

    await asyncio.gather(*(client(number) for number in range(3)))
    for request in requests:
        final = [one for one in told[request.id] if not isinstance(one, Pending)]
        assert len({type(one) for one in final}) <= 1
        certificates = {one.certificate.id for one in final if isinstance(one, Issued)}
        assert len(certificates) <= 1
        (row,) = await clients[0].read(
            lambda unit, it=request.id: unit.rows(select(certificate_order).where(certificate_order.c.request == it))  # type: ignore[misc]
        ) or (None,)
        assert row is not None or not told[request.id]
        if row is None:
            continue
        seen = [OrderState.ASKED, *dict.fromkeys(states[request.id])]
        ends = [one for one in seen if one in ORDER.final]
        assert ends == ([OrderState(row.state)] if ends else [])
        assert (row.certificate is not None) is (row.state == OrderState.ISSUED)
        kept = select(func.count()).where(issued_certificate.c.request == request.id)
        found = await clients[0].read(lambda unit, it=kept: unit.value(it))  # type: ignore[misc]
        assert found == (1 if row.state == OrderState.ISSUED else 0)
    world.core.close()


async def test_of_two_answers_the_first_counts(clients: list[Database], tmp_path: Path) -> None:
    """Two processes asked while it was pending; one was declined, the other one got a certificate that is no use."""
    far = Slow()
    world = await make_world(clients[0], tmp_path, backends=(far,), routes={"smartcard-logon": "elsewhere"})
    await world.do(lambda unit: add_foreign(unit, world.org, "elsewhere", Purpose.CARDS, far.certificate()))
    request = world.request(new_key(), "smartcard-logon")
    assert isinstance(await world.service.certify(clients[0], SERVER, request), Pending)
    order = await clients[0].read(lambda unit: store.order_by_request(unit, request.org, request.id))
    assert order is not None
    waiting, answers = Prepared(order, None, None), []
    for answer in (Declined("not-today"), far.signed(order)):
        answers.append(await world.do(lambda unit, it=answer: world.service.record(unit, SERVER, waiting, it)))  # type: ignore[misc]
    assert [type(one) for one in answers] == [Refused, Refused]
    kept = select(func.count()).where(issued_certificate.c.request == request.id)
    assert await clients[0].read(lambda unit: unit.value(kept)) == 0
    world.core.close()
