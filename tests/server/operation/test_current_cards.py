"""An older database is restored, while cards, workstations and relying parties have gone on (S11)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from cardwright_cardops.check import Level
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.plan.records import Kind
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.audit.desk import Details
from cardwright_server.audit.service import find
from cardwright_server.audit.store import Filter
from cardwright_server.authentication.authorize import Authorize
from cardwright_server.authentication.enrolment import EnrolmentService
from cardwright_server.authentication.errors import AccessDenied, ProofRefused
from cardwright_server.authentication.first import FirstCredentialRefused, FirstOperators
from cardwright_server.authentication.hashing import Cost, Hasher
from cardwright_server.authentication.methods import GivenPassword, PasswordEvidence
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import LOCAL_FRONT, Principal, anyone, server
from cardwright_server.authentication.service import Attempt, AuthenticationService
from cardwright_server.devices.due import DueList, What
from cardwright_server.devices.errors import NoSuchDevice
from cardwright_server.devices.model import DeviceState, Disposition, HoldReason, Reason
from cardwright_server.escrow.errors import OfferClaimed
from cardwright_server.escrow.service import EscrowService
from cardwright_server.issuance import crl
from cardwright_server.issuance.model import Certificate, CertificateState, Purpose, RevocationReason
from cardwright_server.issuance.ocsp import OcspResponder
from cardwright_server.joins.certificates import StationCertificates
from cardwright_server.joins.escrowing import CardPolicies
from cardwright_server.operation.backup import back_up
from cardwright_server.operation.restore import REPLAYS
from cardwright_server.people.erasure import ErasureService
from cardwright_server.people.journal import key_event
from cardwright_server.people.model import EVERYWHERE, Grant, Operator, Person, PersonStatus, Reach, Role, Scope
from cardwright_server.people.operators import OperatorService
from cardwright_server.people.service import PeopleService
from cardwright_server.requests.model import RequestState
from cardwright_server.requests.restored import close_overtaken
from cardwright_server.sessions import store as session_store
from cardwright_server.store import migrate
from cardwright_server.store.authentication_tables import given_password
from cardwright_server.store.ids import new_id
from cardwright_server.store.people_tables import membership
from cardwright_server.store.second_medium import JournalKind, Remembered, remembered
from cardwright_server.store.unit import Unit
from cardwright_server.workstations.errors import TokenUsed
from cardwright_server.workstations.model import StationClass, StationState
from cardwright_server.workstations.service import WorkstationService
from cardwright_simulators.card import VirtualCard
from tests.support.databases import PostgreSql
from tests.support.issuance import ON_SQLITE, aside, csr, pem, serving
from tests.support.managed import certificate_service
from tests.support.people import EveryUnlockIsOpen, allow, authorizer, key_of, make_operator, make_proven
from tests.support.restoring import Place
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import PIN, Station, Trip, reader

Replay = Callable[[Unit, Remembered], Awaitable[bool]]
QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
NEW_PIN, LAST_PIN = b"271828", b"314159"
HOST = "desk-7.example.test"
UNLOCK = sessions_pb2.PURPOSE_UNLOCK_ASSISTED


@pytest.fixture
async def place(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """With empty tables, on each engine."""
    server: PostgreSql | None = None if engine_name == "sqlite" else request.getfixturevalue("postgresql")
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    names = [] if server is None else [server.create() for _ in range(2)]
    urls = [server.url(name) for name in names] if server is not None else [
        f"sqlite:///{folder / name}" for name in ("store.db", "restored.db")
    ]  # fmt: skip
    await migrate.upgrade(urls[0])
    made = Place(folder, urls[0], urls[1])
    yield made
    await made.closed()
    for name in names:
        assert server is not None
        server.drop(name)


def files(world: SessionWorld) -> EscrowService:
    """As ``app.py`` wires it."""
    services, vault = world.world.services, world.issuing.vault
    rules = CardPolicies(services.lifecycle, services.policies)
    return EscrowService(
        world.database, authorizer(), services.people, services.requests, services.due, vault, rules
    )


def desks(world: SessionWorld, authorize: Authorize | None = None) -> WorkstationService:
    """As ``app.py`` wires it."""
    issuer = StationCertificates(world.database, world.issuing.service, world.org)
    return WorkstationService(world.database, authorize or authorizer(), issuer)


async def reissued(world: SessionWorld, card: VirtualCard, device: UUID, pin: bytes = PIN) -> Trip:
    """Every key and certificate anew."""
    to = world.world
    await world.database.transact(lambda unit: to.services.requests.create_reissue(unit, to.issuer, device))
    card.power_off()
    async with world.serving(world.office(device)) as socket:
        return await Station(card, pin=pin).run(socket, sessions_pb2.PURPOSE_REISSUE)


async def unlocked(world: SessionWorld, card: VirtualCard, device: UUID, pin: bytes) -> Trip:
    """The PIN set anew with the PUK, and the PUK rotated."""
    to = world.world
    await world.database.transact(lambda unit: to.services.requests.create_unlock(unit, to.helper, device))
    card.power_off()
    async with world.serving(world.office(device), to.helper) as socket:
        return await Station(card, pin=pin).run(socket, UNLOCK)


async def updated(world: SessionWorld, card: VirtualCard, device: UUID) -> int:
    """Outcome of a session for what is due."""
    card.power_off()
    trip = await world.update(card, device)
    assert trip.error == ""
    return trip.outcome


async def generations(world: SessionWorld, device: UUID) -> list[str]:
    """Of the PUK, oldest first."""
    journal = await world.database.read(lambda unit: session_store.records(unit, world.org, device))
    return [row.reference for row in journal.entries if row.kind is Kind.PUK and "." in row.reference]


async def secrets_due(world: SessionWorld, device: UUID) -> bool:
    """Whether the PUK is to be changed at the next trusted station."""
    found = await world.database.read(lambda unit: DueList().due(unit, world.org, device))
    return What.SECRETS in [one.what for one in found.what]


async def publish(world: SessionWorld, *, force: bool = False) -> int:
    """Lists of every authority; the number of that for cards."""
    await world.issuing.publisher.publish_due(world.database, force=force)
    cards = world.issuing.authorities[Purpose.CARDS].id
    found = await world.database.read(lambda unit: crl.current(unit, cards))
    assert found is not None
    return found.number


async def ask(world: SessionWorld, folder: Path, *certificates: Certificate) -> list[str]:
    """What openssl says of certificates."""
    root = pem(folder, "root", world.issuing.authorities[Purpose.ROOT].certificate)
    cards = pem(folder, "cards", world.issuing.authorities[Purpose.CARDS].certificate)
    said = []
    async with serving(world.database, OcspResponder(world.database, world.issuing.vault)) as base:
        for one in certificates:
            command = ("openssl", "ocsp", "-issuer", cards, "-serial", f"0x{one.serial}", "-url", f"{base}/ocsp")
            done = await aside(
                subprocess.run, (*command, "-CAfile", root), capture_output=True, text=True, check=False, timeout=60
            )
            text = done.stdout + done.stderr
            said += [word for word in ("trylater", ": good", ": revoked", ": unknown") if word in text]
    return said


def keys_of(card: VirtualCard) -> dict[str, str]:
    """Fingerprints by slot."""
    return {row.slot.label: row.fingerprint for row in run(observe(EVERYTHING), reader(card)).keys}


def private_of(card: VirtualCard) -> dict[str, object]:
    """Private keys in the card's raw memory, by slot."""
    return {slot: key["private"] for slot, key in json.loads(card.snapshot())["keys"].items()}


async def good_of(world: SessionWorld, device: UUID) -> dict[str, str]:
    """Fingerprints of keys whose certificates count, by part."""
    found = await world.certificates_of(device)
    return {one.holder.part: one.key for one in found if one.state is CertificateState.GOOD}


@ON_SQLITE
async def test_current_cards_go_on_with_a_restored_database(place: Place, tmp_path: Path) -> None:
    world = await make_session_world(place.opened(), place.folder, "civ", QUICK)
    persons: list[Person] = [await world.person(login) for login in ("ada", "bob", "carol")]
    cards = [blank(serial=number) for number in (1, 2, 3)]
    first, second = [await world.bound(card, person) for card, person in zip(cards[:2], persons[:2], strict=True)]
    for card, device in ((cards[0], first), (cards[1], second)):
        assert (await world.issue(card, device)).error == ""
    old = next(one for one in await world.certificates_of(first) if one.holder.part == "9d")
    admin = await make_operator(world.database, world.org, Role.ADMINISTRATOR)
    token, _ = await desks(world).create_token(admin, HOST, StationClass.USER)
    owner = await make_proven(world.database, persons[0], Method.CARD)
    archived = await world.archive.archived(world.org, old.key)
    offered = await files(world).offer_pfx(owner, archived.id)
    await publish(world)
    source = tmp_path / "backup"
    await back_up(place.installation, world.issuing.admin, Secret(b"another one, for the safe"), source)

    # The world goes on.
    assert (await reissued(world, cards[0], first)).error == ""
    assert (await unlocked(world, cards[0], first, NEW_PIN)).error == ""
    third = await world.bound(cards[2], persons[2])
    assert (await world.issue(cards[2], third)).error == ""
    helper, devices = world.world.helper, world.world.services.devices
    await world.database.transact(lambda unit: devices.report_incident(unit, helper, second, Reason.STOLEN))
    stolen = await world.certificates_of(second)
    station = ec.generate_private_key(ec.SECP256R1())
    caller = anyone(world.org, front="daemon", address="192.0.2.9")
    enrolled = await desks(world).enrol(caller, token, HOST, csr(station))
    assert await files(world).claim_pfx(owner, offered.offer, offered.password)
    for _ in range(3):
        last = await publish(world, force=True)
    truth = {device: await good_of(world, device) for device in (first, third)}
    made, before = await generations(world, first), private_of(cards[0])
    assert len(made) == 2 and len(truth[first]) == len(truth[third]) == 4

    done = await place.restored(world, source)
    assert done.replayed > 0
    world = place.world(world)

    # What is known of the cards is what is true of them.
    assert {device: await good_of(world, device) for device in (first, third)} == truth
    assert await generations(world, first) == made
    assert [await world.world.state(one) for one in (first, second, third)] == [
        DeviceState.ISSUED, DeviceState.INVALID, DeviceState.ISSUED,
    ]  # fmt: skip
    assert (await world.world.device(third)).person == persons[2].id
    for device in (first, third):
        key = await world.archive.archived(world.org, truth[device]["9d"])
        assert key.current and key.device == device
    assert not (await world.archive.archived(world.org, old.key)).current
    # Workstations of users saw PUKs: those are due to be changed, also of cards that the backup did not know.
    assert [await secrets_due(world, device) for device in (first, third)] == [True, True]

    # Relying parties hear nothing until a newer list is out.
    renewed, new = [
        next(one for one in await world.certificates_of(device) if one.key == truth[device]["9a"])
        for device in (first, third)
    ]
    assert await ask(world, tmp_path, renewed, new, stolen[0]) == ["trylater"] * 3
    assert await publish(world) > last
    assert await ask(world, tmp_path, renewed, new) == [": good"] * 2
    assert ": good" not in await ask(world, tmp_path, *stolen)

    # What was used is used.
    with pytest.raises(TokenUsed):
        await desks(world).enrol(caller, token, HOST, csr(ec.generate_private_key(ec.SECP256R1())))
    assert await desks(world).enrol(caller, token, HOST, csr(station)) == enrolled
    with pytest.raises(OfferClaimed):
        await files(world).claim_pfx(owner, offered.offer, offered.password)

    # The cards themselves: objects of unknown content are written once more, keys stay, the PUK opens, and the next
    # re-issue reaches its goal.
    for card, device in ((cards[0], first), (cards[2], third)):
        assert [await updated(world, card, device) for _ in range(2)] == [
            sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE,
        ]  # fmt: skip
    assert private_of(cards[0]) == before
    assert (await unlocked(world, cards[0], first, LAST_PIN)).error == ""
    assert len(set(await generations(world, first))) == 3
    trip = await reissued(world, cards[0], first, LAST_PIN)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    held = keys_of(cards[0])
    assert {truth[first]["9d"], old.key} <= set(held.values()) and held["9D"] != truth[first]["9d"]
    assert await good_of(world, first) == {slot.lower(): held[slot] for slot in ("9A", "9C", "9D", "9E")}
    assert await refusal(world, cards[1], second) == "CARD_NOT_IN_USE"
    assert (await world.judged(cards[2], Level.BASIC)).good
    kinds = {one.event.kind for one in remembered(place.installation.second_medium)}
    assert kinds == set(JournalKind) - {JournalKind.RIGHTS}
    await place.closed()
    world.issuing.core.close()


async def refusal(world: SessionWorld, card: VirtualCard, device: UUID) -> str:
    """The error of a session that would unlock a card."""
    card.power_off()
    async with world.serving(world.office(device), world.world.helper) as socket:
        return (await Station(card, pin=NEW_PIN).run(socket, UNLOCK)).error


async def again_of(replay: Replay, one: Remembered, unit: Unit) -> bool:
    """One replay of one event."""
    return await replay(unit, one)


async def test_every_replay_may_be_repeated(place: Place, tmp_path: Path) -> None:
    """On both engines: a second replay of the same journal finds nothing to do."""
    world = await make_session_world(place.opened(), place.folder, "civ", QUICK)
    ada, card = await world.person(), blank()
    admin = await make_operator(world.database, world.org, Role.ADMINISTRATOR)
    token, _ = await desks(world).create_token(admin, HOST, StationClass.USER)
    source = tmp_path / "backup"
    await back_up(place.installation, world.issuing.admin, Secret(b"another one, for the safe"), source)
    device = await world.bound(card, ada)
    assert (await world.issue(card, device)).error == ""
    caller = anyone(world.org, front="daemon", address="192.0.2.9")
    enrolled = await desks(world).enrol(caller, token, HOST, csr(ec.generate_private_key(ec.SECP256R1())))
    found = await world.database.read(
        lambda unit: desks(world).recognize(unit, enrolled.certificate, front="daemon", address="")
    )
    assert found is not None
    await place.restored(world, source)
    world = place.world(world)
    again = await world.database.read(
        lambda unit: desks(world).recognize(unit, enrolled.certificate, front="daemon", address="")
    )
    assert again == found
    assert len(await good_of(world, device)) == 4
    events = list(remembered(place.installation.second_medium))
    for one in events:
        for replay in REPLAYS:
            assert not await world.database.transact(partial(again_of, replay, one))
    assert await world.world.state(device) is DeviceState.ISSUED
    assert [await updated(world, card, device) for _ in range(2)] == [
        sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE,
    ]  # fmt: skip
    await place.closed()
    world.issuing.core.close()


async def test_what_was_taken_away_stays_away(place: Place, tmp_path: Path) -> None:
    """On both engines: rights, passwords, credentials, workstations and devices in use; not what took no effect."""
    world = await make_session_world(place.opened(), place.folder, "civ", QUICK)
    org, database, itself = world.org, world.database, server(world.org)
    operators, helper = OperatorService(allow), world.world.helper
    without_key, without_role, closed, kept = [
        await make_operator(database, org, Role.AUDITOR, Role.HELP_DESK) for _ in range(4)
    ]
    hasher = Hasher(Cost(memory=64, passes=1))
    people = world.world.services.people
    enrolment = EnrolmentService(allow, people, hasher, EveryUnlockIsOpen())
    ada, asked = await world.person(), new_id()
    handed = await enrolment.prepare_password()
    await database.transact(lambda unit: enrolment.set_emergency_password(unit, helper, ada.id, asked, handed))
    other = new_id()
    first = FirstOperators(authorizer(), people, operators)
    credential, _ = await database.transact(lambda unit: first.create(unit, other))
    device, locked = await world.world.issued(ada), await world.world.issued()
    station = await enrolled_one(world)
    source = tmp_path / "backup"
    await back_up(place.installation, world.issuing.admin, Secret(b"another one, for the safe"), source)

    def proving(over: SessionWorld) -> AuthenticationService:
        verifier = GivenPassword(Method.EMERGENCY_PASSWORD, hasher)
        return AuthenticationService(over.database, authorizer(), people, {Method.EMERGENCY_PASSWORD: verifier})

    evidence = {Method.EMERGENCY_PASSWORD: PasswordEvidence(Secret(handed.text.encode()))}
    attempt, caller = Attempt("ada", evidence), anyone(org, front="daemon", address="192.0.2.9")

    async def enrol(unit: Unit) -> Operator:
        local = anyone(other, front=LOCAL_FRONT)
        key = key_of("first")
        return await first.enrol(
            unit, local, credential, Role.ADMINISTRATOR, login="anna", display_name="Anna", spki=key
        )

    async def go_on(unit: Unit) -> None:
        assert without_key.key is not None
        await operators.remove_key(unit, itself, without_key.id, without_key.key)
        await operators.withdraw(unit, itself, without_role.id, Grant(Role.HELP_DESK))
        await operators.set_active(unit, itself, closed.id, False)
        await world.world.services.devices.suspend(unit, helper, device.id, HoldReason.INVESTIGATION)
        await desks(world, allow).revoke(unit, itself, station, "stolen")

    async def lock(unit: Unit) -> None:
        lifecycle = world.world.services.lifecycle
        await lifecycle.locks.begin(unit, await lifecycle.device(unit, org, locked.id))

    await database.transact(go_on)
    held_for = world.world.services.devices
    await database.transact(lambda unit: held_for.suspend(unit, helper, locked.id, lock_card=True))
    await database.transact(lock)
    proof = await proving(world).prove(caller, attempt)
    await database.transact(enrol)
    assert kept.key is not None
    never = await place.media[-1].append([key_event(org, kept.id, kept.key)], datetime.now(UTC))
    place.media[-1].settle(never, took_effect=False)

    await place.restored(world, source)
    world = place.world(world)

    async def roles(who: Principal) -> set[Role] | None:
        assert who.key is not None
        found = await world.database.read(
            lambda unit: operators.recognize(unit, who.key or b"", expires_at=unit.now, front="test", address="")
        )
        return None if found is None else {grant.role for grant in found.grants}

    assert await roles(without_key) is None and await roles(closed) is None
    assert await roles(without_role) == {Role.AUDITOR}
    assert await roles(kept) == {Role.AUDITOR, Role.HELP_DESK}
    with pytest.raises(ProofRefused):
        await proving(world).prove(caller, attempt)
    with pytest.raises(ProofRefused):
        await world.database.read(lambda unit: proving(world).principal_of(unit, caller, proof.id))
    with pytest.raises(FirstCredentialRefused):
        await world.database.transact(enrol)
    assert (await world.database.transact(lambda unit: first.create(unit, other)))[0] != credential
    there = await world.database.read(lambda unit: desks(world).workstation(unit, org, station))
    assert there.state is StationState.REVOKED
    assert await world.world.state(device.id) is DeviceState.SUSPENDED
    held = await world.database.read(lambda unit: world.world.free.devices.holds(unit, helper, device.id))
    assert held == {HoldReason.INVESTIGATION}
    assert (await world.world.device(locked.id)).card_locked, "its PIN may be blocked"
    found = await world.database.read(lambda unit: DueList().due(unit, org, locked.id))
    assert [one.what for one in found.what] == [What.LOCK], "and is to be"
    for one in remembered(place.installation.second_medium):
        for replay in REPLAYS:
            assert not await world.database.transact(partial(again_of, replay, one))
    await place.closed()
    world.issuing.core.close()


async def test_what_is_over_does_not_begin_again(place: Place, tmp_path: Path) -> None:
    """On both engines: requests that were carried out, persons who were erased, a credential that was replaced."""
    world = await make_session_world(place.opened(), place.folder, "civ", QUICK)
    org, database, itself, to = world.org, world.database, server(world.org), world.world
    ada, eve = await world.person("ada"), await world.person("eve")
    card = blank()
    device = await world.bound(card, ada)
    waiting = await to.bound(await world.person("bob"))
    done, open_one = [await to.issuance(one) for one in (device, waiting)]
    hasher, people = Hasher(Cost(memory=64, passes=1)), to.services.people
    enrolment = EnrolmentService(allow, people, hasher, EveryUnlockIsOpen())
    handed = await enrolment.prepare_password()
    await database.transact(
        lambda unit: enrolment.set_emergency_password(unit, to.helper, eve.id, new_id(), handed)
    )
    other, first = new_id(), FirstOperators(authorizer(), people, OperatorService(allow))
    credential, _ = await database.transact(lambda unit: first.create(unit, other))
    source = tmp_path / "backup"
    await back_up(place.installation, world.issuing.admin, Secret(b"another one, for the safe"), source)

    async with world.serving(world.office(device)) as socket:
        assert (await Station(card).run(socket, request=str(done.id))).error == ""
    erasing = ErasureService(PeopleService(allow), (world.authentication, files(world), Details()))

    async def leave(unit: Unit) -> None:
        await PeopleService(allow).set_status(unit, itself, eve.id, PersonStatus.LEFT)
        await erasing.erase(unit, itself, eve.id)

    await database.transact(leave)
    replaced, _ = await database.transact(lambda unit: first.create(unit, other))
    await place.restored(world, source)
    world = place.world(world)
    to = world.world
    assert await to.state(device) is DeviceState.ISSUED
    assert [(await to.request(one.id)).state for one in (done, open_one)] == [
        RequestState.CANCELLED, RequestState.READY,
    ]  # fmt: skip
    said = await world.database.read(
        lambda unit: find(unit, org, Filter(action="request.close", target=done.id))
    )
    assert [(one.document["facts"]["before"], one.document["who_kind"]) for one in said] == [("ready", "system")]
    assert await world.database.read(lambda unit: people.by_login(unit, org, "eve")) is None
    rows = [
        await world.database.read(lambda unit, t=table: unit.rows(select(t).where(t.c.person == eve.id)))  # type: ignore[misc]
        for table in (given_password, membership)
    ]
    assert rows == [[], []]

    async def enrol(unit: Unit, text: Secret) -> Operator:
        local, key = anyone(other, front=LOCAL_FRONT), key_of("first")
        return await first.enrol(
            unit, local, text, Role.ADMINISTRATOR, login="anna", display_name="Anna", spki=key
        )

    for text in (credential, replaced):
        with pytest.raises(FirstCredentialRefused):
            await world.database.transact(partial(enrol, text=text))
    for one in remembered(place.installation.second_medium):
        for replay in REPLAYS:
            assert not await world.database.transact(partial(again_of, replay, one))
    assert await close_overtaken(world.database) == 0
    # The device's next request is possible at once.
    assert (await reissued(world, card, device)).error == ""
    await place.closed()
    world.issuing.core.close()


async def test_a_card_of_someone_who_is_not_known_any_more_is_ended_by_grants_for_everywhere(
    place: Place, tmp_path: Path
) -> None:
    """On both engines: the person was added, and got the card, after the backup was made."""
    world = await make_session_world(place.opened(), place.folder, "civ", QUICK)
    source = tmp_path / "backup"
    await back_up(place.installation, world.issuing.admin, Secret(b"another one, for the safe"), source)
    eve = await world.person("eve")
    device = await world.bound(card := blank(), eve)
    assert (await world.issue(card, device)).error == ""
    await place.restored(world, source)
    world = place.world(world)
    to, org = world.world, world.org
    devices, requests, books = to.services.devices, to.services.requests, certificate_service(to, authorizer())
    assert (await world.person("eve")).id != eve.id, "added again, they are another person"
    first, *others = await world.certificates_of(device)
    roles = (Role.ISSUANCE, Role.HELP_DESK, Role.SECURITY_OFFICER)
    stranger, everywhere, *narrow = [
        await make_operator(world.database, whose, *roles, scope=scope) for whose, scope in (
            (new_id(), EVERYWHERE), (org, EVERYWHERE),
            (org, Scope(Reach.GROUP, to.group)), (org, Scope(Reach.BRANCH, branch="ou=none,dc=example")),
        )
    ]  # fmt: skip
    ending: list[Callable[[Principal, Unit], Awaitable[object]]] = [
        lambda who, unit: devices.get(unit, who, device),
        lambda who, unit: books.get(unit, who, first.id),
        lambda who, unit: devices.suspend(unit, who, device),
        lambda who, unit: books.revoke(unit, who, first.id, RevocationReason.KEY_COMPROMISE),
        lambda who, unit: devices.report_incident(unit, who, device, Reason.STOLEN),
        lambda who, unit: requests.create_termination(unit, who, device, Reason.STOLEN),
        lambda who, unit: devices.terminate(unit, who, device, Reason.STOLEN, Disposition.NOT_COLLECTED),
    ]
    giving: list[Callable[[Principal, Unit], Awaitable[object]]] = [
        lambda who, unit: devices.resume(unit, who, device),
        lambda who, unit: requests.create_reissue(unit, who, device),
        lambda who, unit: requests.create_unlock(unit, who, device),
    ]
    for call, who in (*product(ending, narrow), *product(giving, (everywhere, *narrow))):
        with pytest.raises(AccessDenied):
            await world.database.transact(partial(call, who))
    with pytest.raises(NoSuchDevice):
        await world.database.transact(partial(ending[-1], stranger))
    seen = [
        [one.id for one in await world.database.read(partial(devices.find, principal=who, person=eve.id))]
        for who in (everywhere, *narrow)
    ]
    assert seen == [[device], [], []]
    for call in ending:
        await world.database.transact(partial(call, everywhere))
    assert await to.state(device) is DeviceState.TERMINATED
    assert {one.state for one in await world.certificates_of(device)} == {CertificateState.REVOKED}
    await publish(world)
    assert await ask(world, tmp_path, first, *others) == [": revoked"] * 4
    await place.closed()
    world.issuing.core.close()


async def enrolled_one(world: SessionWorld) -> UUID:
    """A workstation in use."""
    admin = await make_operator(world.database, world.org, Role.ADMINISTRATOR)
    token, _ = await desks(world).create_token(admin, HOST, StationClass.USER)
    caller = anyone(world.org, front="daemon", address="192.0.2.9")
    made = await desks(world).enrol(caller, token, HOST, csr(ec.generate_private_key(ec.SECP256R1())))
    found = await world.database.read(
        lambda unit: desks(world).recognize(unit, made.certificate, front="daemon", address="")
    )
    assert found is not None
    return found.id
