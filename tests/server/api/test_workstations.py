"""WorkstationService over gRPC, with the real authority for workstations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_proto.cms.v1 import workstations_pb2 as pb
from cardwright_server.api.workstations import WorkstationServicer
from cardwright_server.authentication.principal import Principal, anyone
from cardwright_server.issuance.model import Purpose
from cardwright_server.joins.certificates import StationCertificates
from cardwright_server.people.model import Role
from cardwright_server.store.unit import Database
from cardwright_server.workstations.model import EnrolmentToken
from cardwright_server.workstations.service import WorkstationService
from tests.support import issuance
from tests.support.api import Api, serving
from tests.support.issuance import csr, spki
from tests.support.people import authorizer, make_operator


@dataclass
class World:
    """An installation behind the API."""

    ca: issuance.World
    api: Api
    service: WorkstationService
    admin: Principal
    newcomer: Principal

    async def token(self, host: str) -> str:
        """A token for a host."""
        request = pb.CreateTokenRequest(host=host, station_class=pb.STATION_CLASS_MANAGED)
        made = await self.api.call("WorkstationService.CreateToken", request, self.admin)
        return str(made.token)

    async def enrolled(self, host: str) -> pb.StationCertificate:
        """A workstation's certificate."""
        request = pb.EnrolRequest(token=await self.token(host), host=host, request=csr(new_key()))
        made: pb.StationCertificate = await self.api.call("WorkstationService.Enrol", request, self.newcomer)
        return made


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    ca = await issuance.make_world(database, tmp_path)
    service = WorkstationService(database, authorizer(), StationCertificates(database, ca.service, ca.org))
    async with serving(database, lambda calls: [WorkstationServicer(calls, service)]) as api:
        admin = await make_operator(database, ca.org, Role.ADMINISTRATOR)
        yield World(ca, api, service, admin, anyone(ca.org, front="entry"))
    ca.core.close()


@issuance.ON_SQLITE
async def test_a_workstation_from_token_to_revocation(world: World) -> None:
    text, key = await world.token("Desk-7.example.org."), new_key()
    root = EnrolmentToken.parse(text).root
    assert root == sha256(world.ca.authorities[Purpose.ROOT].certificate).digest()
    enrol = pb.EnrolRequest(token=text, host="desk-7.example.org", request=csr(key))
    made = await world.api.call("WorkstationService.Enrol", enrol, world.newcomer)
    assert spki_of(made.certificate) == spki(key)
    life = made.not_after.ToDatetime() - made.not_before.ToDatetime()
    assert made.renew_at.ToDatetime() - made.not_before.ToDatetime() == life * 2 / 3
    assert await world.api.call("WorkstationService.Enrol", enrol, world.newcomer) == made
    enrol.request = csr(new_key())
    used = await world.api.refused("WorkstationService.Enrol", enrol, world.newcomer)
    assert used == ("FAILED_PRECONDITION", "TOKEN_USED")

    found = await world.api.call("WorkstationService.Find", pb.FindWorkstationsRequest(), world.admin)
    [station] = found.workstations
    assert (station.host, station.station_class, station.state) == (
        "desk-7.example.org",
        pb.STATION_CLASS_MANAGED,
        pb.STATION_STATE_ACTIVE,
    )
    caller = await world.ca.database.read(
        lambda unit: world.service.recognize(unit, made.certificate, front="test", address="")
    )
    assert caller is not None
    renew = pb.RenewRequest(request=csr(new_key()))
    early = await world.api.refused("WorkstationService.Renew", renew, caller)
    assert early == ("FAILED_PRECONDITION", "RENEWAL_TOO_EARLY")

    revoke = pb.RevokeWorkstationRequest(id=station.id, reason="stolen")
    gone = await world.api.call("WorkstationService.Revoke", revoke, world.admin)
    assert gone.state == pb.STATION_STATE_REVOKED and gone.HasField("revoked_at")
    assert await world.api.call("WorkstationService.Revoke", revoke, world.admin) == gone


def spki_of(certificate: bytes) -> bytes:
    key = x509.load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@issuance.ON_SQLITE
async def test_pages_hold_every_workstation_once_also_of_one_host(world: World) -> None:
    for host in ("b.example.org", "a.example.org", "b.example.org"):
        await world.enrolled(host)
    found, token = [], ""
    while True:
        request = pb.FindWorkstationsRequest(page_size=1, page_token=token)
        page = await world.api.call("WorkstationService.Find", request, world.admin)
        found += page.workstations
        token = page.next_page_token
        if not token:
            break
    assert [one.host for one in found] == ["a.example.org", "b.example.org", "b.example.org"]
    assert len({one.id for one in found}) == 3


@issuance.ON_SQLITE
async def test_bad_requests(world: World) -> None:
    station = await world.enrolled("c.example.org")
    found = await world.api.call("WorkstationService.Find", pb.FindWorkstationsRequest(), world.admin)
    identifier, text = found.workstations[0].id, await world.token("d.example.org")
    good = csr(new_key())
    no_host = pb.CreateTokenRequest(host="a b", station_class=pb.STATION_CLASS_USER)
    malformed, invalid = ("INVALID_ARGUMENT", "REQUEST_MALFORMED"), "INVALID_ARGUMENT"
    for name, request, who, refusal in (
        ("CreateToken", pb.CreateTokenRequest(host="x"), world.admin, malformed),
        ("CreateToken", no_host, world.admin, (invalid, "BAD_HOST")),
        ("Enrol", pb.EnrolRequest(token=text, host="d.example.org"), world.newcomer, malformed),
        ("Enrol", pb.EnrolRequest(token=text, host="d.example.org", request=bytes(8193)), world.newcomer, malformed),
        (
            "Enrol",
            pb.EnrolRequest(token=text, host="d.example.org", request=b"x"),
            world.newcomer,
            (invalid, "BAD_CERTIFICATE_REQUEST"),
        ),
        (
            "Enrol",
            pb.EnrolRequest(token="cw1.x", host="d.example.org", request=good),
            world.newcomer,
            ("FAILED_PRECONDITION", "TOKEN_REFUSED"),
        ),
        (
            "Enrol",
            pb.EnrolRequest(token=text, host="e.example.org", request=good),
            world.newcomer,
            ("FAILED_PRECONDITION", "TOKEN_REFUSED"),
        ),
        ("Revoke", pb.RevokeWorkstationRequest(id=identifier), world.admin, malformed),
        (
            "Revoke",
            pb.RevokeWorkstationRequest(id=identifier, reason="Mr Smith left"),
            world.admin,
            (invalid, "BAD_REASON"),
        ),
    ):
        assert await world.api.refused(f"WorkstationService.{name}", request, who) == refusal, (name, request)
    assert station.certificate
