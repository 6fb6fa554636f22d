"""Where domains meet: consumers of events, certificates of channels, recipients of mail."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from cardwright_server.devices.model import DeviceState
from cardwright_server.issuance import store
from cardwright_server.issuance.authorities import verify_role
from cardwright_server.issuance.errors import CertificateRefused, WrongRole
from cardwright_server.issuance.model import CertificateState, HolderKind, Purpose
from cardwright_server.joins.certificates import OperatorCertificates, StationCertificates, requested_key
from cardwright_server.joins.following import CertificatesFollowChannels, DevicesFollowPeople
from cardwright_server.joins.recipients import PersonsConcerned
from cardwright_server.joins.stations import KnownStations
from cardwright_server.notify.model import Datum
from cardwright_server.notify.store import Recorded
from cardwright_server.people.model import EVERYWHERE, AccountKind, Operator, Reach, Role, Scope
from cardwright_server.store.unit import Database
from cardwright_server.workstations.issuer import StationRequest
from cardwright_server.workstations.model import CERTIFICATE_LIFETIME, StationClass, StationState, Workstation
from tests.support import lifecycles
from tests.support.issuance import ON_SQLITE, csr, make_world, new_key, spki
from tests.support.people import make_group, make_operator, make_person


def event(org: UUID, name: str, kind: str, subject: UUID, person: UUID | None = None, **data: Datum) -> Recorded:
    return Recorded(uuid4(), org, 1, datetime.now(UTC), name, kind, subject, person, data, None)


def account(org: UUID, kind: AccountKind = AccountKind.PERSON) -> Operator:
    return Operator(uuid4(), org, kind, uuid4() if kind is AccountKind.PERSON else None, "first", True, 0, ())


@ON_SQLITE
async def test_certificates_end_with_their_workstation_and_with_an_operators_key(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_world(open_database(), tmp_path)
    stations = StationCertificates(world.database, world.service, world.org)
    operators = OperatorCertificates(world.database, world.service)
    station, operator, keys = uuid4(), account(world.org), [new_key(), new_key(), new_key()]
    asked = StationRequest(
        uuid4(), world.org, station, "desk-1.example.test", StationClass.USER, spki(keys[0]), CERTIFICATE_LIFETIME,
        csr(keys[0]),
    )  # fmt: skip
    made = await stations.issue(asked)
    assert await stations.issue(asked) == made  # the same act
    assert made.not_after - made.not_before == CERTIFICATE_LIFETIME
    assert await stations.root() == sha256(world.authorities[Purpose.ROOT].certificate).digest()
    first, second = [await operators.issue(world.org, operator, csr(key)) for key in keys[1:]]
    assert (await operators.issue(world.org, operator, csr(keys[1]))).id == first.id
    chain = await operators.chain(world.org)
    assert chain == [world.authorities[Purpose.WORKSTATIONS].certificate, world.authorities[Purpose.ROOT].certificate]

    async def states() -> list[CertificateState]:
        async def read(unit: object) -> list[CertificateState]:
            found = [
                one
                for kind, holder in ((HolderKind.WORKSTATION, station), (HolderKind.OPERATOR, operator.id))
                for one in await store.certificates_of_holder(unit, world.org, kind, holder)  # type: ignore[arg-type]
            ]
            places = {made.certificate: 0, first.certificate: 1, second.certificate: 2}
            return [one.state for one in sorted(found, key=lambda one: places[one.certificate])]

        return await world.database.read(read)

    good, revoked = CertificateState.GOOD, CertificateState.REVOKED
    follower = CertificatesFollowChannels()
    assert await states() == [good, good, good]
    for happened, wanted in (
        (event(world.org, "workstation.renewed", "workstation", station), [good, good, good]),
        (event(world.org, "workstation.revoked", "workstation", station), [revoked, good, good]),
        (event(world.org, "operator.key-removed", "operator", operator.id, spki=second.key), [revoked, good, revoked]),
        (event(world.org, "operator.key-removed", "operator", operator.id, spki=second.key), [revoked, good, revoked]),
    ):
        await world.database.transact(lambda unit, happened=happened: follower.handle(unit, happened))  # type: ignore[misc]
        assert await states() == wanted
    world.core.close()


@ON_SQLITE
async def test_operators_and_services_are_certified_apart_from_cards_and_from_each_other(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_world(open_database(), tmp_path)
    operators = OperatorCertificates(world.database, world.service)
    person, service = account(world.org), account(world.org, AccountKind.SERVICE)
    made = await operators.issue(world.org, person, csr(new_key()))
    other = await operators.issue(world.org, service, csr(new_key("p384")))
    for certificate, purpose, kind, reason in (
        (made, Purpose.WORKSTATIONS, HolderKind.OPERATOR, ""),
        (other, Purpose.WORKSTATIONS, HolderKind.SERVICE, ""),
        (made, Purpose.WORKSTATIONS, HolderKind.SERVICE, "holder"),
        (other, Purpose.WORKSTATIONS, HolderKind.WORKSTATION, "holder"),
        (made, Purpose.CARDS, HolderKind.OPERATOR, "issuer"),
    ):
        try:
            await world.database.read(
                lambda unit, one=certificate, at=purpose, of=kind: verify_role(unit, one.x509, at, of)  # type: ignore[misc]
            )
        except WrongRole as wrong:
            assert wrong.reason == reason
        else:
            assert reason == ""
    forged = bytearray(csr(new_key()))
    forged[-1] ^= 1
    for request, why in ((bytes(forged), "proof"), (b"no request", "proof"), (bytes(70_000), "proof")):
        with pytest.raises(CertificateRefused) as refused:
            requested_key(request)
            operators.asked(world.org, person, request)
        assert refused.value.reason == why
    world.core.close()


@ON_SQLITE
async def test_devices_follow_the_status_of_their_holder(open_database: Callable[..., Database]) -> None:
    database = open_database()
    world = await lifecycles.make_world(database)
    holder = await world.person()
    device = await world.issued(holder)
    follower = DevicesFollowPeople(world.services.devices)
    for after, state in (
        ("suspended", DeviceState.SUSPENDED),
        ("suspended", DeviceState.SUSPENDED),
        ("active", DeviceState.ISSUED),
        ("left", DeviceState.TERMINATED),
    ):
        happened = event(world.org, "person.status-changed", "person", holder.id, holder.id, before="", after=after)
        await database.transact(lambda unit, happened=happened: follower.handle(unit, happened))  # type: ignore[misc]
        assert await world.state(device.id) is state
    unrelated = event(world.org, "person.changed", "person", holder.id, holder.id)
    await database.transact(lambda unit: follower.handle(unit, unrelated))


@ON_SQLITE
async def test_who_hears_of_an_event_is_the_person_whom_it_is_about(open_database: Callable[..., Database]) -> None:
    database = open_database()
    world = await lifecycles.make_world(database)
    person = await make_person(database, world.org, "ada")
    concerned = PersonsConcerned(world.services.people, "Example")
    for who, wanted in ((person.id, [("ada@example.org", "Ada", "Example")]), (None, []), (uuid4(), [])):
        happened = event(world.org, "device.issue", "device", uuid4(), who)
        found = await database.read(
            lambda unit, happened=happened: concerned.recipients(unit, happened)  # type: ignore[misc]
        )
        assert [(one.address, one.person, one.organization) for one in found] == wanted


@ON_SQLITE
async def test_the_help_desk_hears_of_an_update_that_left_a_card_out_of_use(
    open_database: Callable[..., Database],
) -> None:
    """Who is in charge of the holder, once; not who is in charge of others, has other roles, or holds the card."""
    database = open_database()
    world = await lifecycles.make_world(database)
    org = world.org
    here, elsewhere = [(await make_group(database, org, name)).id for name in ("here", "elsewhere")]
    ada = await make_person(database, org, "ada", (here,))
    near, far = (Scope(Reach.GROUP, group) for group in (here, elsewhere))
    for login, role, scopes in (
        ("both", Role.HELP_DESK, (EVERYWHERE, near)),
        ("near", Role.HELP_DESK, (near,)),
        ("far", Role.HELP_DESK, (far,)),
        ("issuer", Role.ISSUANCE, (EVERYWHERE,)),
        ("ada", Role.HELP_DESK, (EVERYWHERE,)),
    ):
        person = ada if login == "ada" else await make_person(database, org, login)
        for scope in scopes:
            await make_operator(database, org, role, scope=scope, person=person.id)
    concerned = PersonsConcerned(world.services.people, "Example")

    async def told(after: str) -> set[str]:
        happened = event(org, "device.fail-update", "device", uuid4(), ada.id, before="updating", after=after)
        found = await database.read(lambda unit: concerned.recipients(unit, happened))
        assert len(found) == len({one.address for one in found})
        return {one.address for one in found}

    assert await told("invalid") >= {"both@example.org", "near@example.org"}
    assert await told("invalid") & {f"{login}@example.org" for login in ("far", "issuer", "ada")} == set()
    assert await told("issued") == set()


def test_only_stations_for_issuance_are_trusted() -> None:
    known, org = KnownStations(), uuid4()
    made = {kind: Workstation(uuid4(), org, "desk", kind, StationState.ACTIVE, None, 1) for kind in StationClass}
    assert not any(known.is_trusted(one.id) for one in made.values())
    for one in made.values():
        known.note(one)
    assert [kind for kind, one in made.items() if known.is_trusted(one.id)] == [StationClass.ISSUANCE]
    assert not known.is_trusted(None)
