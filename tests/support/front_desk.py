"""The operators of a running installation, and what they do so that a person gets a card."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import (
    authentication_pb2_grpc,
    certificates_pb2_grpc,
    devices_pb2_grpc,
    operators_pb2_grpc,
    people_pb2_grpc,
    requests_pb2_grpc,
)
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import operators_pb2 as operators
from cardwright_proto.cms.v1 import people_pb2 as people
from cardwright_proto.cms.v1 import requests_pb2 as requests
from tests.support.installation import Identity, Site, request_of

POLICY_GROUP = "everyone"


class Desk:
    """The operators of a site, and what they do for a person."""

    def __init__(self, here: Site) -> None:
        self.here = here
        self.issuer = self.operator("ida", operators.ROLE_ISSUANCE)

    def ask(self, identity: Identity, service: str, method: str, request: Any) -> Any:
        stubs: Any = {
            "PersonService": people_pb2_grpc.PersonServiceStub,
            "GroupService": people_pb2_grpc.GroupServiceStub,
            "OperatorService": operators_pb2_grpc.OperatorServiceStub,
            "DeviceService": devices_pb2_grpc.DeviceServiceStub,
            "RequestService": requests_pb2_grpc.RequestServiceStub,
            "AuthenticationService": authentication_pb2_grpc.AuthenticationServiceStub,
            "CertificateService": certificates_pb2_grpc.CertificateServiceStub,
        }
        return self.here.process.call(identity, lambda line: getattr(stubs[service](line), method), request)

    def person(self, login: str) -> str:
        """Someone who is to get a card."""
        administrator = self.here.administrator
        made = self.ask(
            administrator, "PersonService", "Create",
            people.CreatePersonRequest(
                login=login, display_name=login.title(), mail=f"{login}@example.test",
                attributes=[people.PersonAttribute(name="userPrincipalName", values=[f"{login}@example.test"])],
            ),
        )  # fmt: skip
        groups = self.ask(administrator, "GroupService", "Find", people.FindGroupsRequest()).groups
        (group,) = [one.id for one in groups if one.name == POLICY_GROUP]
        self.ask(administrator, "GroupService", "AddMember", people.AddMemberRequest(group=group, person=made.id))
        return str(made.id)

    def operator(self, login: str, role: operators.Role.ValueType) -> Identity:
        """A further operator: made by the administrator, given a role by the security officer."""
        here = self.here
        person = self.person(login)
        account = self.ask(
            here.administrator, "OperatorService", "Create",
            operators.CreateOperatorRequest(kind=operators.ACCOUNT_KIND_PERSON, person=person, label=login),
        )  # fmt: skip
        key = ec.generate_private_key(ec.SECP256R1())
        added = self.ask(
            here.administrator, "OperatorService", "AddKey",
            operators.AddOperatorKeyRequest(operator=account.id, certificate_request=request_of(key)),
        )  # fmt: skip
        grant = operators.GrantRequest(operator=account.id, grant=operators.Grant(role=role, everywhere=True))
        self.ask(here.officer, "OperatorService", "Grant", grant)
        return Identity.of(key, added.certificate, *added.chain[:-1])

    def issuance(self, person: str, serial: str) -> tuple[str, str]:
        """A card of stock, bound to a person, and the request to issue it."""
        registered = self.ask(
            self.issuer, "DeviceService", "Register",
            devices.RegisterDevicesRequest(
                kind=devices.DEVICE_KIND_SMART_CARD, devices=[devices.DeliveredDevice(serial=serial)]
            ),
        )  # fmt: skip
        (device,) = registered.ids
        self.ask(self.issuer, "DeviceService", "Bind", devices.BindDeviceRequest(id=device, person=person))
        made = self.ask(
            self.issuer, "RequestService", "CreateIssuance", requests.CreateIssuanceRequest(device=device)
        ).request
        assert made.state == requests.REQUEST_STATE_READY
        return str(device), str(made.id)

    def proof(self, station: Identity, person: str, login: str) -> str:
        """The person proves who they are by the password that they were given, at a workstation."""
        given = self.ask(
            self.issuer, "AuthenticationService", "SetInitialPassword", proofs.SetInitialPasswordRequest(person=person)
        )
        evidence = proofs.Evidence(method=proofs.METHOD_INITIAL_PASSWORD, password=given.password)
        said = self.ask(
            station, "AuthenticationService", "Prove", proofs.ProveRequest(login=login, evidence=[evidence])
        )
        return str(said.session)
