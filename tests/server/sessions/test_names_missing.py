"""A certificate that would have to say what nobody knows of its holder: missed before anything on the card changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import date
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.principal import server
from cardwright_server.issuance.errors import CertificateRefused, NameMissing
from cardwright_server.people.model import Person
from cardwright_server.policies.document import read, shipped
from cardwright_server.requests.model import RequestState
from cardwright_server.sessions.failures import Failure, failure_of
from cardwright_server.sessions.model import Purpose
from cardwright_server.sessions.ports import Task
from cardwright_server.store.unit import Database
from cardwright_simulators.card import Verify, VirtualCard, Write
from tests.support.people import make_person
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station, Trip

LOGON = (
    ('algorithm = "rsa2048"', 'algorithm = "p256"'),
    ('profile = "piv-authentication"', 'profile = "smartcard-logon"'),
)
"""The certificate in 9A has to have a UPN."""
UPN = {"userPrincipalName": ("ada@example.test",)}
DONE, REISSUE = sessions_pb2.OUTCOME_DONE, sessions_pb2.PURPOSE_REISSUE


@pytest.fixture
async def world(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    made = await make_session_world(open_database(), tmp_path, "civ", LOGON)
    made.stations.every = True
    yield made
    made.issuing.core.close()


async def tell(world: SessionWorld, person: Person, **attributes: tuple[str, ...]) -> None:
    """What is known of a person from now on."""
    people, known = world.world.free.people, await world.database.read(
        lambda unit: world.world.free.people.person(unit, world.org, person.id)
    )
    await world.database.transact(
        lambda unit: people.update_person(
            unit, server(world.org), person.id, known.version,
            display_name=known.display_name, mail=known.mail, attributes=attributes,
        )
    )  # fmt: skip


async def reissue(world: SessionWorld, device: UUID) -> UUID:
    """An open request for every key anew."""
    services = world.world.free
    opened = await world.database.transact(
        lambda unit: services.requests.create_reissue(unit, world.world.issuer, device)
    )
    return opened.request.id


async def run(
    world: SessionWorld,
    device: UUID,
    request: UUID,
    station: Station,
    purpose: sessions_pb2.Purpose.ValueType = sessions_pb2.PURPOSE_ISSUE,
) -> Trip:
    async with world.serving(world.office(device)) as socket:
        return await station.run(socket, purpose, request=str(request))


def changed(card: VirtualCard) -> list[object]:
    """What was written to the card, and PINs that were shown to it, since the log was emptied."""
    return [one for one in card.log if isinstance(one, Write | Verify)]


async def test_an_issuance_begins_when_the_name_is_known(world: SessionWorld) -> None:
    person = await make_person(world.database, world.org, "ada", (world.world.group,))
    card = blank()
    device = await world.bound(card, person)
    request = await world.world.issuance(device)
    before = card.snapshot()
    trip = await run(world, device, request.id, Station(card))
    assert (trip.error, trip.preview) == ("CERTIFICATE_NAME_MISSING", None)
    assert card.snapshot() == before and changed(card) == []
    assert await world.certificates_of(device) == []
    assert (await world.world.request(request.id)).state is RequestState.RETRYABLE
    card.power_off()
    await tell(world, person, **UPN)
    assert (await run(world, device, request.id, Station(card))).outcome == DONE
    assert len(await world.certificates_of(device)) == 4


async def test_a_name_that_goes_while_the_person_reads_the_plan(world: SessionWorld) -> None:
    """Between preview and consent: the keys that are on the card stay the ones that it has certificates for."""
    person = await make_person(world.database, world.org, "ada", (world.world.group,), **UPN)
    card = blank()
    device = await world.bound(card, person)
    assert (await world.issue(card, device)).outcome == DONE
    card.power_off()
    request, before = await reissue(world, device), card.snapshot()

    async def forget(message: sessions_pb2.RunRequest) -> None:
        if message.WhichOneof("kind") == "consent":
            await tell(world, person)

    card.log.clear()
    trip = await run(world, device, request, Station(card, before=forget), REISSUE)
    assert trip.preview is not None and trip.error == "CERTIFICATE_NAME_MISSING"
    assert card.snapshot() == before and changed(card) == []
    card.power_off()
    await tell(world, person, **UPN)
    assert (await run(world, device, request, Station(card), REISSUE)).outcome == DONE


async def test_a_card_whose_certificates_are_issued_already_needs_no_names(world: SessionWorld) -> None:
    person = await make_person(world.database, world.org, "ada", (world.world.group,), **UPN)
    card = blank()
    device = await world.bound(card, person)
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        # The certificates are made, and what would write them does not reach the card.
        assert (await Station(card).run(socket, cut=5, request=str(request.id))).outcome == 0
    assert len(await world.certificates_of(device)) == 4
    await tell(world, person)
    async with world.serving(world.office(device)) as socket:
        card.power_off()
        while (trip := await Station(card).run(socket, request=str(request.id))).error == "CARD_IN_SESSION":
            card.power_off()
            await asyncio.sleep(0)
    assert (trip.error, trip.outcome) == ("", DONE)


async def test_it_says_which_attribute(world: SessionWorld) -> None:
    person = await make_person(world.database, world.org, "ada", (world.world.group,))
    policy = read(shipped("civ"))
    task = Task(world.org, uuid4(), Purpose.ISSUE, policy, uuid4(), date(2040, 1, 1), person=person.id)
    says = r"smartcard-logon .*: upn \(made of the person's userPrincipalName\)"
    with pytest.raises(NameMissing, match=says) as lacks:
        await world.certificates.require_names(task, {"signature", "smartcard-logon", "recovered"})
    assert (lacks.value.missing, lacks.value.attributes) == (("upn",), ("userPrincipalName",))
    assert failure_of(lacks.value, wrote=False) == Failure(True, True)
    await tell(world, person, userPrincipalName=("no name at all",))
    with pytest.raises(CertificateRefused, match="upn cannot be written"):
        await world.certificates.require_names(task, {"smartcard-logon"})
    await tell(world, person, **UPN)
    await world.certificates.require_names(task, {"signature", "smartcard-logon", "recovered"})
