"""From nothing to a card in a person's hands, with nothing in between that is not the real thing.

An installation founded by the command line, operators with certificates, a person who proves who they are at a
workstation, a blank virtual card, and what strangers read from it afterwards.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check.live import read_card
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import (
    authentication_pb2_grpc,
    certificates_pb2,
    certificates_pb2_grpc,
    devices_pb2_grpc,
    operators_pb2_grpc,
    people_pb2_grpc,
    requests_pb2_grpc,
    sessions_pb2,
)
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import operators_pb2 as operators
from cardwright_proto.cms.v1 import people_pb2 as people
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_simulators.card import VirtualCard
from tests.support.installation import Identity, Site, request_of
from tests.support.sessions import PIN, Station
from tests.support.virtual import POOL

SERIAL = "12345678"
POLICY_GROUP = "everyone"


class Desk:
    """The operators of a site, and what they do for a person."""

    def __init__(self, here: Site) -> None:
        self.here = here
        self.issuer = self._operator("ida", operators.ROLE_ISSUANCE)

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

    def _operator(self, login: str, role: operators.Role.ValueType) -> Identity:
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

    def issuance(self, person: str) -> tuple[str, str]:
        """A card of stock, bound to a person, and the request to issue it."""
        registered = self.ask(
            self.issuer, "DeviceService", "Register",
            devices.RegisterDevicesRequest(
                kind=devices.DEVICE_KIND_SMART_CARD, devices=[devices.DeliveredDevice(serial=SERIAL)]
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


async def test_a_person_is_issued_a_card_at_an_enrolled_workstation(here: Site, tmp_path: Path) -> None:
    desk = Desk(here)
    person = desk.person("carl")
    device, request = desk.issuance(person)
    _, station = here.enrolled()
    token = desk.proof(station, person, "carl")
    card = VirtualCard("yubikey-5.7", serial=int(SERIAL), key_pool=POOL)
    async with here.process.tunnel(station) as socket:
        without = await Station(card).run(socket, request=request)
        assert (without.error, without.outcome) == ("ACCESS_DENIED", 0)
        sitting = Station(card, metadata=[("cardwright-session", token)])
        trip = await sitting.run(socket, request=request)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)

    found = desk.ask(desk.issuer, "DeviceService", "Get", devices.GetDeviceRequest(id=device)).device
    assert found.state == devices.DEVICE_STATE_ISSUED
    kept = desk.ask(desk.issuer, "CertificateService", "Find", certificates_pb2.FindCertificatesRequest(device=device))
    assert {one.state for one in kept.certificates} == {certificates_pb2.CERTIFICATE_STATE_GOOD}
    assert len(kept.certificates) == 4

    # What is on the card, read by a reader that knows nothing of the server, and judged by openssl.
    data = run(read_card(with_pin=True), LocalExecutor(
        DirectConnection(card), KeyItems(FixedPins(Secret(PIN)), local=True)))  # fmt: skip
    root, issuer = tmp_path / "root.pem", tmp_path / "issuer.pem"
    root.write_bytes(here.process.root)
    der = here.process.get("http", "/ca/cards-1.cer")
    issuer.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(root), "-untrusted", str(issuer)]
    held = _certificates(card.snapshot())
    assert sorted(held) == ["9A", "9C", "9D", "9E"]
    for slot, certificate in held.items():
        leaf = tmp_path / f"{slot}.pem"
        leaf.write_bytes(certificate.public_bytes(Encoding.PEM))
        done = subprocess.run([*command, str(leaf)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert data is not None
    # The status that relying parties see.
    leaf, responder = tmp_path / "9A.pem", f"http://{here.process.addresses['http']}/ocsp"
    ask = ["openssl", "ocsp", "-issuer", str(issuer), "-cert", str(leaf), "-url", responder, "-CAfile", str(root)]
    said = subprocess.run(ask, capture_output=True, text=True, check=False)
    assert f"{leaf}: good" in said.stdout, said.stderr
    with pytest.raises(KeyError):
        _certificates(VirtualCard("yubikey-5.7").snapshot())


TAGS = {"9A": "5FC105", "9C": "5FC10A", "9D": "5FC10B", "9E": "5FC101"}


def _certificates(snapshot: bytes) -> dict[str, x509.Certificate]:
    """Certificates in the raw memory of a card, by slot; read without anything of the program under test."""
    objects = {tag.upper(): bytes.fromhex(raw) for tag, raw in json.loads(snapshot)["objects"].items()}
    found = {}
    for slot, tag in TAGS.items():
        raw = objects[tag]
        start = raw.index(b"\x30\x82")
        size = 4 + int.from_bytes(raw[start + 2 : start + 4], "big")
        found[slot] = x509.load_der_x509_certificate(raw[start : start + size])
    return found
