"""CertificateService over gRPC: the books of real authorities, revocation with its reason, and signer rotation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509

from cardwright_proto.cms.v1 import certificates_pb2 as pb
from cardwright_server.api.certificates import HOLDERS, REASONS, STATES, CertificateServicer
from cardwright_server.authentication.authorize import Permission
from cardwright_server.authentication.model import Method
from cardwright_server.issuance.authorities import make_content_signer
from cardwright_server.issuance.model import CertificateState, HolderKind, RevocationReason
from cardwright_server.issuance.status import CertificateService
from cardwright_server.people.model import Person, Role
from cardwright_server.people.service import PeopleService
from cardwright_server.store.unit import Database, Unit
from cardwright_server.vault.model import SigningAlgorithm
from tests.support.api import Api, serving
from tests.support.issuance import World, make_world, new_key
from tests.support.people import authorizer, make_operator, make_person, make_proven
from tests.support.vault import subject

MALFORMED = ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(database, tmp_path)
    yield made
    made.core.close()


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    authorize = authorizer()
    people = PeopleService(authorize)

    async def covered(unit: Unit, permission: Permission) -> Any:
        return people.covered(permission)

    rotate = partial(world.own.rotate_signer, world.database, authorize)
    service = CertificateService(authorize, covered)
    async with serving(world.database, lambda calls: [CertificateServicer(calls, service, rotate)]) as made:
        yield made


@pytest.fixture
async def holder(world: World) -> Person:
    return await make_person(world.database, world.org, "ada")


async def issued_to(world: World, person: Person) -> Any:
    request = world.request(new_key())
    return await world.issue(replace(request, holder=replace(request.holder, person=person.id)))


async def test_a_certificate_is_found_read_and_revoked(world: World, api: Api, holder: Person) -> None:
    helper = await make_operator(world.database, world.org, Role.HELP_DESK)
    issued = await issued_to(world, holder)
    found = await api.call("CertificateService.Find", pb.FindCertificatesRequest(person=str(holder.id)), helper)
    assert ([one.id for one in found.certificates], found.next_page_token) == ([str(issued.id)], "")
    assert found.certificates[0].der == b""
    for request in (
        pb.FindCertificatesRequest(serial=issued.serial.upper()),
        pb.FindCertificatesRequest(device=str(issued.holder.id)),
    ):
        again = await api.call("CertificateService.Find", request, helper)
        assert [one.id for one in again.certificates] == [str(issued.id)]
    shown = await api.call("CertificateService.Get", pb.GetCertificateRequest(id=str(issued.id)), helper)
    assert x509.load_der_x509_certificate(shown.der) == issued.x509
    assert (shown.state, list(shown.holds)) == (pb.CERTIFICATE_STATE_HELD, ["unreleased"])
    assert (shown.holder_kind, shown.part) == (pb.CERTIFICATE_HOLDER_DEVICE_SLOT, "9a")
    assert (shown.person, shown.origin, shown.reason) == (str(holder.id), "sealed", pb.REVOCATION_REASON_UNSPECIFIED)
    assert shown.not_after.ToDatetime(tzinfo=UTC) == issued.not_after
    revoke = pb.RevokeCertificateRequest(id=str(issued.id), reason=pb.REVOCATION_REASON_KEY_COMPROMISE)
    gone = await api.call("CertificateService.Revoke", revoke, helper)
    assert (gone.state, gone.reason) == (pb.CERTIFICATE_STATE_REVOKED, pb.REVOCATION_REASON_KEY_COMPROMISE)
    revoke.reason = pb.REVOCATION_REASON_UNTOLD
    assert await api.call("CertificateService.Revoke", revoke, helper) == gone


async def test_pages_have_everything_once(world: World, api: Api) -> None:
    auditor = await make_operator(world.database, world.org, Role.AUDITOR)
    everything = await api.call("CertificateService.Find", pb.FindCertificatesRequest(), auditor)
    assert len(everything.certificates) == 8  # four authorities, three responders, one content signer
    found, token = [], ""
    while True:
        request = pb.FindCertificatesRequest(page_size=3, page_token=token)
        page = await api.call("CertificateService.Find", request, auditor)
        found += list(page.certificates)
        token = page.next_page_token
        if not token:
            break
    assert found == list(everything.certificates)


async def test_authorities_and_their_certificates(world: World, api: Api) -> None:
    helper = await make_operator(world.database, world.org, Role.HELP_DESK)
    found = (await api.call("CertificateService.Authorities", pb.FindAuthoritiesRequest(), helper)).authorities
    assert {one.purpose for one in found} == {1, 2, 3, 4}
    assert {one.certificate for one in found} == {one.certificate for one in world.authorities.values()}
    assert all(one.active and not one.foreign for one in found)


async def test_the_content_signer_is_rotated(world: World, api: Api) -> None:
    officer = await make_operator(world.database, world.org, Role.SECURITY_OFFICER)
    before = await api.call("CertificateService.RotateSigner", pb.RotateSignerRequest(), officer)
    name, der = "cards-1-content-2", subject("Second Signer").public_bytes()
    await make_content_signer(world.vault, world.admin, name, der, SigningAlgorithm.P256)
    after = await api.call("CertificateService.RotateSigner", pb.RotateSignerRequest(), officer)
    assert (before.certificate.part, after.certificate.part) == ("cards-1-content", name)
    assert after.certificate.holder_kind == pb.CERTIFICATE_HOLDER_CONTENT_SIGNER
    helper = await make_operator(world.database, world.org, Role.HELP_DESK)
    refusal = await api.refused("CertificateService.RotateSigner", pb.RotateSignerRequest(), helper)
    assert refusal[0] == "PERMISSION_DENIED"


async def test_who_may_not(world: World, api: Api, holder: Person) -> None:
    issued = await issued_to(world, holder)
    get = pb.GetCertificateRequest(id=str(issued.id))
    revoke = pb.RevokeCertificateRequest(id=str(issued.id), reason=pb.REVOCATION_REASON_SUPERSEDED)
    owner = await make_proven(world.database, holder, Method.CARD)
    assert (await api.call("CertificateService.Get", get, owner)).id == str(issued.id)
    stranger = await make_proven(
        world.database, await make_person(world.database, world.org, "eve"), Method.CARD
    )
    own_desk = await make_operator(world.database, world.org, Role.HELP_DESK, person=holder.id)
    issuer = await make_operator(world.database, world.org, Role.ISSUANCE)
    for name, request, who in (
        ("Get", get, stranger),
        ("Find", pb.FindCertificatesRequest(), owner),
        ("Revoke", revoke, owner),
        ("Revoke", revoke, own_desk),
        ("Revoke", revoke, issuer),
    ):
        assert (await api.refused(f"CertificateService.{name}", request, who))[0] == "PERMISSION_DENIED", name
    elsewhere = await make_operator(world.database, uuid4(), Role.SECURITY_OFFICER)
    unknown = ("NOT_FOUND", "CERTIFICATE_UNKNOWN")
    assert await api.refused("CertificateService.Get", get, elsewhere) == unknown
    assert await api.refused("CertificateService.Revoke", revoke, elsewhere) == unknown
    found = await api.call("CertificateService.Find", pb.FindCertificatesRequest(), elsewhere)
    assert not found.certificates


async def test_malformed_requests_change_nothing(world: World, api: Api, holder: Person) -> None:
    helper = await make_operator(world.database, world.org, Role.HELP_DESK)
    issued = await issued_to(world, holder)
    for name, request in (
        ("Get", b""),
        ("Get", pb.GetCertificateRequest(id="0")),
        ("Revoke", pb.RevokeCertificateRequest(id=str(issued.id))),
        ("Revoke", pb.RevokeCertificateRequest(id=str(issued.id), reason=9)),  # type: ignore[arg-type]
        ("Revoke", pb.RevokeCertificateRequest(reason=pb.REVOCATION_REASON_SUPERSEDED)),
        ("Find", pb.FindCertificatesRequest(serial="xyz")),
        ("Find", pb.FindCertificatesRequest(serial="a" * 41)),
        ("Find", pb.FindCertificatesRequest(page_size=201)),
        ("Authorities", b"\x0a\x01x"),
        ("RotateSigner", b"\x0a\x01x"),
    ):
        assert await api.refused(f"CertificateService.{name}", request, helper) == MALFORMED, (name, request)
    shown = await api.call("CertificateService.Get", pb.GetCertificateRequest(id=str(issued.id)), helper)
    assert shown.state == pb.CERTIFICATE_STATE_HELD
    assert shown.not_before.ToDatetime(tzinfo=UTC) < datetime.now(UTC)


def test_every_state_reason_and_holder_has_a_number() -> None:
    assert {STATES.one(STATES.number(one), "state") for one in CertificateState} == set(CertificateState)
    assert {REASONS.one(REASONS.number(one), "reason") for one in RevocationReason} == set(RevocationReason)
    assert {HOLDERS.one(HOLDERS.number(one), "holder") for one in HolderKind} == set(HolderKind)
