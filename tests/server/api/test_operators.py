"""OperatorService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_proto.cms.v1 import operators_pb2 as pb
from cardwright_server.api.operators import OperatorServicer
from cardwright_server.audit.model import SERVER
from cardwright_server.authentication.principal import Principal
from cardwright_server.issuance.card_keys import IssuedKeys
from cardwright_server.issuance.model import Holder, HolderKind
from cardwright_server.issuance.status import release
from cardwright_server.joins.certificates import OperatorCertificates
from cardwright_server.joins.connecting import OperatorConnections
from cardwright_server.people.model import Role
from cardwright_server.people.operators import OperatorService
from cardwright_server.store.unit import Database
from tests.support import issuance
from tests.support.api import Api, serving
from tests.support.issuance import csr, spki
from tests.support.people import authorizer, make_operator, make_person


@dataclass
class World:
    """An installation behind the API."""

    ca: issuance.World
    api: Api
    admin: Principal
    officer: Principal

    async def operator(self, person: UUID | None = None) -> pb.Operator:
        """A new account of a new person."""
        holder = person or (await make_person(self.ca.database, self.ca.org, "desk")).id
        request = pb.CreateOperatorRequest(kind=pb.ACCOUNT_KIND_PERSON, person=str(holder), label="Desk")
        made: pb.Operator = await self.api.call("OperatorService.Create", request, self.admin)
        return made


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    ca = await issuance.make_world(database, tmp_path)
    operators = OperatorService(authorizer(), IssuedKeys())
    connections = OperatorConnections(database, operators, OperatorCertificates(database, ca.service))
    async with serving(database, lambda calls: [OperatorServicer(calls, operators, connections)]) as api:
        admin = await make_operator(database, ca.org, Role.ADMINISTRATOR)
        yield World(ca, api, admin, await make_operator(database, ca.org, Role.SECURITY_OFFICER))
    ca.core.close()


async def test_an_operator_from_account_to_close(world: World) -> None:
    made = await world.operator()
    assert (made.label, made.active, list(made.grants), list(made.keys)) == ("Desk", True, [], [])
    key = ec.generate_private_key(ec.SECP256R1())
    add = pb.AddOperatorKeyRequest(operator=made.id, certificate_request=csr(key))
    added = await world.api.call("OperatorService.AddKey", add, world.admin)
    digest = sha256(spki(key)).digest()
    assert list(added.operator.keys) == [pb.OperatorKey(spki=digest)]
    leaf = x509.load_der_x509_certificate(added.certificate)
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(added.chain[0]))
    again = await world.api.call("OperatorService.AddKey", add, world.admin)
    assert (again.operator, again.certificate) == (added.operator, added.certificate)

    grant = pb.GrantRequest(operator=made.id, grant=pb.Grant(role=pb.ROLE_HELP_DESK, branch="ou=a,dc=example"))
    given = await world.api.call("OperatorService.Grant", grant, world.officer)
    assert list(given.grants) == [grant.grant]
    withdraw = pb.WithdrawRequest(operator=made.id, grant=grant.grant)
    assert not (await world.api.call("OperatorService.Withdraw", withdraw, world.officer)).grants
    remove = pb.RemoveOperatorKeyRequest(operator=made.id, spki=digest)
    assert not (await world.api.call("OperatorService.RemoveKey", remove, world.officer)).keys
    close = pb.SetOperatorActiveRequest(operator=made.id, active=False)
    assert not (await world.api.call("OperatorService.SetActive", close, world.admin)).active
    last = pb.SetOperatorActiveRequest(operator=str(world.officer.id), active=False)
    refused = await world.api.refused("OperatorService.SetActive", last, world.admin)
    assert refused == ("FAILED_PRECONDITION", "LAST_HOLDER")


async def test_a_key_counts_as_hardware_only_where_a_proved_card_of_the_person_has_it(world: World) -> None:
    database, org = world.ca.database, world.ca.org
    person = await make_person(database, org, "carol")
    made = await world.operator(person.id)
    key = ec.generate_private_key(ec.SECP256R1())
    holder = Holder(HolderKind.DEVICE_SLOT, UUID(int=7), "9a", person.id)
    on_card = await world.ca.issue(world.ca.request(key, holder=holder))
    add = pb.AddOperatorKeyRequest(operator=made.id, certificate_request=csr(key))
    held = await world.api.call("OperatorService.AddKey", add, world.admin)
    assert not held.operator.keys[0].hardware, "its certificate is on hold: nobody read the card back"

    digest = sha256(spki(key)).digest()
    remove = pb.RemoveOperatorKeyRequest(operator=made.id, spki=digest)
    await world.api.call("OperatorService.RemoveKey", remove, world.admin)
    assert on_card.session is not None
    await database.transact(lambda unit: release(unit, SERVER, org, on_card.session))  # type: ignore[arg-type]
    added = await world.api.call("OperatorService.AddKey", add, world.admin)
    assert list(added.operator.keys) == [pb.OperatorKey(spki=digest, hardware=True, device=str(UUID(int=7)))]
    someone = await make_operator(database, org, Role.AUDITOR)
    taken = pb.AddOperatorKeyRequest(operator=str(someone.id), certificate_request=csr(key))
    # Another person's account gets neither the key nor a certificate of it.
    assert await world.api.refused("OperatorService.AddKey", taken, world.admin) == ("ALREADY_EXISTS", "KEY_TAKEN")


@issuance.ON_SQLITE
async def test_pages_and_malformed_requests(world: World) -> None:
    first = await world.api.call("OperatorService.Find", pb.FindOperatorsRequest(page_size=1), world.officer)
    rest = pb.FindOperatorsRequest(page_size=1, page_token=first.next_page_token)
    second = await world.api.call("OperatorService.Find", rest, world.officer)
    assert {one.id for one in (*first.operators, *second.operators)} == {str(world.admin.id), str(world.officer.id)}
    assert second.next_page_token == ""
    assert [list(one.grants) for one in first.operators if one.id == str(world.admin.id)] in (
        [],
        [[pb.Grant(role=pb.ROLE_ADMINISTRATOR, everywhere=True)]],
    )
    operator = str(world.officer.id)
    malformed = ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    role = pb.ROLE_ISSUANCE
    for name, request in (
        ("Grant", pb.GrantRequest(operator=operator)),
        ("Grant", pb.GrantRequest(operator=operator, grant=pb.Grant(role=role))),
        ("Grant", pb.GrantRequest(operator=operator, grant=pb.Grant(role=role, everywhere=False))),
        ("Grant", pb.GrantRequest(operator=operator, grant=pb.Grant(role=role, group="x"))),
        ("Grant", pb.GrantRequest(operator=operator, grant=pb.Grant(role=role, branch=""))),
        ("RemoveKey", pb.RemoveOperatorKeyRequest(operator=operator, spki=bytes(31))),
        ("AddKey", pb.AddOperatorKeyRequest(operator=operator)),
        ("AddKey", pb.AddOperatorKeyRequest(operator=operator, certificate_request=bytes(17 * 1024))),
        ("Create", pb.CreateOperatorRequest(kind=pb.ACCOUNT_KIND_SERVICE)),
    ):
        assert await world.api.refused(f"OperatorService.{name}", request, world.admin) == malformed, request
    no_dn = pb.GrantRequest(operator=str(world.admin.id), grant=pb.Grant(role=role, branch="no name"))
    refused = await world.api.refused("OperatorService.Grant", no_dn, world.officer)
    assert refused == ("INVALID_ARGUMENT", "BAD_NAME")
