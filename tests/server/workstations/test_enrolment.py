"""Workstations enrol by one-use tokens, renew in time, and are gone when revoked; on both engines."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from sqlalchemy import select

from cardwright_cardops.errors import CardwrightError
from cardwright_server.authentication.errors import AccessDenied
from cardwright_server.authentication.principal import Principal, PrincipalKind, anyone
from cardwright_server.machine import IllegalTransition
from cardwright_server.people.model import EVERYWHERE, Reach, Role, Scope
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.unit import Database, Unit
from cardwright_server.store.workstation_tables import enrolment_token, workstation
from cardwright_server.workstations.errors import (
    BadHost,
    BadRequest,
    RenewalTooEarly,
    TokenExpired,
    TokenRefused,
    TokenUsed,
)
from cardwright_server.workstations.issuer import IssuedStation, StationRequest, proven_key
from cardwright_server.workstations.model import (
    STATION,
    TOKEN,
    EnrolmentToken,
    StationCertificate,
    StationClass,
    StationState,
    folded_host,
)
from cardwright_server.workstations.service import WorkstationService
from cardwright_server.workstations.watch import RevocationWatch
from tests.support.databases import Clock
from tests.support.people import authorizer, make_group, make_operator

ROOT = hashlib.sha256(b"root").digest()
HOST = "desk-7.example.org"


class VaultLocked(CardwrightError):
    code = "TEST_VAULT_LOCKED"


@dataclass
class Issuer:
    """A certificate authority in memory that keeps its acts, as issuance does."""

    clock: Clock
    locked: bool = False
    lose_answers: int = 0
    asked: list[StationRequest] = field(default_factory=list)
    made: dict[UUID, IssuedStation] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    async def root(self) -> bytes:
        return ROOT

    async def issue(self, request: StationRequest) -> IssuedStation:
        self.asked.append(request)
        if self.locked:
            raise VaultLocked("the vault is locked")
        if request.id not in self.made:
            self.made[request.id] = self._sign(request, self.clock.now)
        if self.lose_answers:
            self.lose_answers -= 1
            raise VaultLocked("the answer was lost")
        return self.made[request.id]

    def _sign(self, request: StationRequest, now: datetime) -> IssuedStation:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, request.host)])
        key = load_der_public_key(request.public_key)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key)
        built = built.serial_number(x509.random_serial_number())
        built = built.not_valid_before(now).not_valid_after(now + request.lifetime)
        certificate = built.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)
        return IssuedStation(certificate, now, now + request.lifetime)


def csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    """A PKCS#10 request whose subject tries to be someone else."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "domain-controller")])
    key = key or ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.DER)


@dataclass
class World:
    database: Database
    org: UUID
    issuer: Issuer
    service: WorkstationService
    admin: Principal
    caller: Principal

    def beside(self, database: Database) -> WorkstationService:
        """The service as another process has it."""
        return WorkstationService(database, authorizer(), self.issuer)

    async def token(self, host: str = HOST, station_class: StationClass = StationClass.USER) -> EnrolmentToken:
        return (await self.service.create_token(self.admin, host, station_class))[0]

    async def station(self, certificate: StationCertificate) -> Principal | None:
        return await self.database.read(
            lambda unit: self.service.recognize(unit, certificate.certificate, front="daemon", address="192.0.2.9")
        )

    async def states(self) -> list[tuple[str, str]]:
        async def work(unit: Unit) -> list[tuple[str, str]]:
            tokens = [("token", row.state) for row in await unit.rows(select(enrolment_token))]
            return tokens + [("workstation", row.state) for row in await unit.rows(select(workstation))]

        return await self.database.read(work)


@pytest.fixture
async def world(open_database: Callable[..., Database], clock: Clock) -> World:
    database = open_database(clock=clock)
    org = uuid4()
    admin = await make_operator(database, org, Role.ADMINISTRATOR)
    assert admin.authentication is not None
    # Tests go months ahead; the administrator's certificate outlives them.
    admin = replace(admin, authentication=replace(admin.authentication, expires_at=clock.now + timedelta(days=999)))
    issuer = Issuer(clock)
    service = WorkstationService(database, authorizer(), issuer)
    return World(database, org, issuer, service, admin, anyone(org, front="daemon", address="192.0.2.9"))


async def test_a_token_becomes_a_certificate_for_our_names_and_their_key(world: World, clock: Clock) -> None:
    token, ends = await world.service.create_token(world.admin, "Desk-7.Example.ORG.", StationClass.ISSUANCE)
    assert (ends, token.root) == (clock.now + timedelta(hours=24), ROOT)
    request = csr()
    made = await world.service.enrol(world.caller, EnrolmentToken.parse(token.text()), HOST, request)
    (asked,) = world.issuer.asked
    assert (asked.host, asked.station_class, asked.lifetime) == (HOST, StationClass.ISSUANCE, timedelta(days=30))
    assert asked.public_key == proven_key(request)
    assert made.renew_at == clock.now + timedelta(days=20)
    principal = await world.station(made)
    assert principal is not None
    assert (principal.kind, principal.org, principal.id) == (PrincipalKind.WORKSTATION, world.org, asked.workstation)
    assert await world.states() == [("token", "used"), ("workstation", "active")]


async def test_the_store_holds_no_secret_of_a_token(world: World) -> None:
    token = await world.token()
    rows = await world.database.read(lambda unit: unit.rows(select(enrolment_token)))
    assert [row.secret for row in rows] == [token.digest]
    assert token.secret.hex() not in str(rows) + repr(token) and token.secret not in rows[0]
    assert len(token.secret) == 16


async def test_two_machines_with_one_token_on_two_processes_are_one_winner(
    world: World, open_database: Callable[..., Database], clock: Clock
) -> None:
    token = await world.token()
    processes = [world.service, world.beside(open_database(clock=clock)), world.beside(open_database(clock=clock))]
    results = await asyncio.gather(
        *(process.enrol(world.caller, token, HOST, csr()) for process in processes), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in results) == ["StationCertificate", "TokenUsed", "TokenUsed"]
    assert await world.states() == [("token", "used"), ("workstation", "active")]
    assert len(world.issuer.made) == 1


async def test_one_machine_that_asks_twice_at_once_gets_one_certificate(
    world: World, open_database: Callable[..., Database], clock: Clock
) -> None:
    token, request = await world.token(), csr()
    processes = [world.service, world.beside(open_database(clock=clock))]
    first, second = await asyncio.gather(*(one.enrol(world.caller, token, HOST, request) for one in processes))
    assert first == second
    assert await world.states() == [("token", "used"), ("workstation", "active")]


async def test_a_lost_answer_and_a_locked_vault_cost_nothing(world: World) -> None:
    token, request = await world.token(), csr()
    world.issuer.locked = True
    with pytest.raises(VaultLocked):
        await world.service.enrol(world.caller, token, HOST, request)
    assert await world.states() == [("token", "claimed"), ("workstation", "enrolling")]
    with pytest.raises(TokenUsed):
        await world.service.enrol(world.caller, token, HOST, csr())
    world.issuer.locked = False
    world.issuer.lose_answers = 1
    with pytest.raises(VaultLocked):
        await world.service.enrol(world.caller, token, HOST, request)
    made = await world.service.enrol(world.caller, token, HOST, request)
    assert await world.service.enrol(world.caller, token, HOST, request) == made
    assert len(world.issuer.made) == 1


@pytest.mark.parametrize("jump", [timedelta(hours=24), timedelta(days=400)])
async def test_a_day_is_a_day_by_the_database(world: World, clock: Clock, jump: timedelta) -> None:
    token = await world.token()
    began = clock.now
    clock.now = began + jump
    with pytest.raises(TokenExpired):
        await world.service.enrol(world.caller, token, HOST, csr())
    clock.now = began - timedelta(days=1)
    await world.service.enrol(world.caller, token, HOST, csr())


async def test_what_is_wrong_with_a_token_is_not_said(world: World) -> None:
    token = await world.token()
    other = anyone(uuid4(), front="daemon")
    said = set()
    for caller, bad, host in (
        (world.caller, replace(token, secret=bytes(16)), HOST),
        (world.caller, replace(token, id=uuid4()), HOST),
        (world.caller, token, "desk-8.example.org"),
        (other, token, HOST),
    ):
        with pytest.raises(TokenRefused) as caught:
            await world.service.enrol(caller, bad, host, csr())
        said.add(caught.value.explain())
    assert len(said) == 1
    assert await world.states() == [("token", "offered")]


@pytest.mark.parametrize("text", ["", "cw1", "cw1.00.00.00", "x" * 10000, f"cw1.{'g' * 32}.{'0' * 32}.{'0' * 64}"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenRefused):
        EnrolmentToken.parse(text)


@pytest.mark.parametrize("host", ["", "-a", "a..b", "a b", "a/b", "x" * 254, "a:80", "*", "h\u00e9", "a\nb"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(BadHost):
        folded_host(host)


async def test_requests_that_prove_nothing_are_refused_before_the_token(world: World) -> None:
    token = await world.token()
    good = csr()
    spoiled = good[:-1] + bytes([good[-1] ^ 1])
    small = csr(rsa.generate_private_key(65537, 2048))
    for bad in (b"", b"\x30\x03\x02\x01\x00", good[:50], good + bytes(9000), spoiled, small):
        with pytest.raises(BadRequest):
            await world.service.enrol(world.caller, token, HOST, bad)
    assert world.issuer.asked == []
    assert await world.states() == [("token", "offered")]


async def test_a_key_is_one_workstation(world: World) -> None:
    request = csr()
    await world.service.enrol(world.caller, await world.token(), HOST, request)
    with pytest.raises(BadRequest):
        await world.service.enrol(world.caller, await world.token("desk-8"), "desk-8", request)


async def test_only_administrators_of_everywhere_make_tokens(world: World) -> None:
    group = await make_group(world.database, world.org, "Group")
    for role, scope in ((Role.HELP_DESK, EVERYWHERE), (Role.ADMINISTRATOR, Scope(Reach.GROUP, group.id))):
        who = await make_operator(world.database, world.org, role, scope=scope)
        with pytest.raises(AccessDenied):
            await world.service.create_token(who, HOST, StationClass.USER)
    with pytest.raises(AccessDenied):
        await world.service.create_token(world.caller, HOST, StationClass.USER)


async def test_renewal_from_two_thirds_on_with_a_new_key(world: World, clock: Clock) -> None:
    first = await world.service.enrol(world.caller, await world.token(), HOST, csr())
    station = await world.station(first)
    assert station is not None
    clock.advance(days=20, seconds=-1)
    with pytest.raises(RenewalTooEarly) as caught:
        await world.service.renew(station, csr())
    assert caught.value.due_at == first.renew_at
    clock.advance(seconds=1)
    request = csr()
    world.issuer.lose_answers = 1
    with pytest.raises(VaultLocked):
        await world.service.renew(station, request)
    second = await world.service.renew(station, request)
    assert await world.service.renew(station, request) == second
    assert second.not_after == clock.now + timedelta(days=30)
    for certificate in (first, second):
        found = await world.station(certificate)
        assert found is not None and found.id == station.id
    clock.advance(days=10)
    assert await world.station(first) is None
    assert await world.station(second) is not None
    clock.advance(days=20)
    assert await world.station(second) is None
    other = await world.service.enrol(world.caller, await world.token("desk-8"), "desk-8", csr())
    stranger = await world.station(other)
    assert stranger is not None
    clock.advance(days=21)
    with pytest.raises(BadRequest):
        await world.service.renew(stranger, request)


async def test_a_revoked_workstation_is_nobody_and_cannot_come_back(world: World, clock: Clock) -> None:
    token, request = await world.token(), csr()
    made = await world.service.enrol(world.caller, token, HOST, request)
    station = await world.station(made)
    assert station is not None
    for _ in range(2):
        gone = await world.database.transact(lambda unit: world.service.revoke(unit, world.admin, station.id, "stolen"))
        assert (gone.state, gone.revoked_at) == (StationState.REVOKED, clock.now)
    assert await world.station(made) is None
    with pytest.raises(TokenUsed):
        await world.service.enrol(world.caller, token, HOST, request)
    clock.advance(days=25)
    with pytest.raises(IllegalTransition):
        await world.service.renew(station, csr())
    told = select(outbox).where(outbox.c.name == "workstation.revoked")
    rows = await world.database.read(lambda unit: unit.rows(told))
    assert [(row.subject, row.data) for row in rows] == [(station.id, {"reason": "stolen"})]


async def test_revocation_reaches_the_streams_of_every_process(
    world: World, open_database: Callable[..., Database], clock: Clock
) -> None:
    here = RevocationWatch(world.database, interval=timedelta(hours=1))
    there = RevocationWatch(open_database(clock=clock), interval=timedelta(milliseconds=5))
    service = WorkstationService(world.database, authorizer(), world.issuer, here.nudge)
    made = await service.enrol(world.caller, await world.token(), HOST, csr())
    other = await service.enrol(world.caller, await world.token("desk-8"), "desk-8", csr())
    station, unharmed = await world.station(made), await world.station(other)
    assert station is not None and unharmed is not None
    await asyncio.gather(here.refresh(), there.refresh())
    running = [asyncio.create_task(watch.run()) for watch in (here, there)]
    try:
        with here.stream(station.id) as near, there.stream(station.id) as far, here.stream(unharmed.id) as kept:
            assert not (near.is_set() or far.is_set() or here.is_revoked(station.id))
            await world.database.transact(lambda unit: service.revoke(unit, world.admin, station.id, "lost"))
            async with asyncio.timeout(20):
                await asyncio.gather(near.wait(), far.wait())
            assert here.is_revoked(station.id) and there.is_revoked(station.id)
            assert not kept.is_set()
        with there.stream(station.id) as late:
            assert late.is_set()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_watch_ends_when_it_is_told_to_in_the_moment_it_is_woken(world: World) -> None:
    watch = RevocationWatch(world.database, interval=timedelta(hours=1))
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(20):
        while watch.is_revoked(uuid4()):  # until it has asked once
            await asyncio.sleep(0)
    watch.nudge()
    task.cancel()
    await asyncio.wait([task], timeout=20)
    assert task.cancelled()


async def test_what_the_watch_cannot_know_it_holds_for_revoked(world: World) -> None:
    now = [0.0]
    watch = RevocationWatch(world.database, clock=lambda: now[0])
    station = uuid4()
    assert watch.is_revoked(station)
    await watch.refresh()
    assert not watch.is_revoked(station)
    now[0] = 60.0
    assert not watch.is_revoked(station)
    now[0] = 60.1
    assert watch.is_revoked(station)
    with watch.stream(station) as event:
        assert event.is_set()
    await watch.refresh()
    assert not watch.is_revoked(station)


@pytest.mark.parametrize("seed", range(3))
async def test_walks_over_tokens_and_workstations(
    world: World, open_database: Callable[..., Database], clock: Clock, seed: int
) -> None:
    """Two machines with one token, an administrator who revokes, answers that get lost, on three processes at once."""
    chance = random.Random(seed)
    processes = [world.service, *(world.beside(open_database(clock=clock)) for _ in range(2))]
    token, requests, next_keys = await world.token(), [csr(), csr()], [csr() for _ in range(4)]
    made: list[StationCertificate] = []
    seen: list[list[tuple[str, str]]] = []

    async def act(what: str, service: WorkstationService) -> None:
        if what == "enrol":
            made.append(await service.enrol(world.caller, token, HOST, chance.choice(requests)))
        elif what == "renew" and made:
            principal = await world.station(chance.choice(made))
            if principal is not None:
                made.append(await service.renew(principal, chance.choice(next_keys)))
        elif what == "revoke":
            rows = await world.database.read(lambda unit: unit.rows(select(workstation)))
            for row in rows:
                await world.database.transact(
                    lambda unit, it=row.id: service.revoke(unit, world.admin, it, "lost")  # type: ignore[misc]
                )

    for turn in range(10):
        late = [chance.choice(["enrol", "renew", "revoke"]) for _ in range(3)]
        acts = ["enrol", "enrol", "renew"] if turn < 7 else late
        world.issuer.lose_answers = chance.choice([0, 0, 1])
        clock.advance(hours=chance.choice([0, 0, 3]) if turn < 4 else 500)
        both = [act(what, service) for what, service in zip(acts, processes, strict=True)]
        for result in await asyncio.gather(*both, return_exceptions=True):
            assert result is None or isinstance(result, CardwrightError), result
        seen.append(await world.states())

    for kind, machine in (("token", TOKEN), ("workstation", STATION)):
        states = [one for turn in seen for name, one in turn if name == kind]
        assert len(states) in (len(seen), len([turn for turn in seen if len(turn) > 1])), "there is one of each at most"
        order = [str(state) for state in dict.fromkeys(row.target for row in machine.transitions)]
        assert states == sorted(states, key=order.index), "nothing goes back"
    held = {proven_key(one) for one in requests} & {one.public_key for one in world.issuer.asked}
    assert len(held) == 1, "the token belongs to the first key"
    done = [one.action for one in await world.database.read(lambda unit: unit.rows(select(audit_entry)))]
    for action, most in (("enrolment-begun", 1), ("enrolled", 1), ("revoked", 1)):
        assert done.count(f"workstation.{action}") <= most
    if seen[-1][-1] == ("workstation", StationState.REVOKED):
        assert [await world.station(one) for one in made] == [None] * len(made)
