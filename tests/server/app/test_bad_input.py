"""Bad input and bad surroundings on a running server: a stable code, nothing half recorded, and the next attempt works.

What needs other neighbours is held where they are: certificates that do not chain in ``test_serving.py``, directories
in ``test_neighbours.py`` and ``tests/server/people``, other authorities in ``tests/server/issuance/test_backends.py``,
keys that are not the card's in ``tests/server/sessions``, a database that is gone also in ``tests/faults``.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import (
    devices_pb2,
    devices_pb2_grpc,
    operators_pb2,
    operators_pb2_grpc,
    people_pb2,
    people_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
    workstations_pb2,
    workstations_pb2_grpc,
)
from cardwright_server.config import load
from cardwright_server.policies.document import shipped
from cardwright_server.vault.client import AdminClient
from tests.support.installation import PASSPHRASE, PATIENCE, Identity, Site, refusal, request_of

RECORDS = ("person", "device", "policy_version", "workstation", "operator", "operator_key", "issued_certificate")


def refused(ask: Callable[[], Any]) -> tuple[str, str]:
    """How a call is refused."""
    with pytest.raises(grpc.RpcError) as error:
        ask()
    return refusal(error.value)


def recorded(here: Site) -> dict[str, int]:
    """How many rows there are of what these tests might leave behind."""
    with closing(sqlite3.connect(f"file:{here.data / 'store.db'}?mode=ro", uri=True)) as store:
        known = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert known >= set(RECORDS), set(RECORDS) - known
        return {name: store.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in RECORDS}


def call(here: Site, who: Identity, stub: Any, method: str, request: Any) -> Any:
    return here.process.call(who, lambda line: getattr(stub(line), method), request)


def person(here: Site, login: str) -> Any:
    request = people_pb2.CreatePersonRequest(login=login, display_name=login)
    return call(here, here.administrator, people_pb2_grpc.PersonServiceStub, "Create", request)


def test_a_contradictory_policy(here: Site) -> None:
    def draft(text: str) -> Any:
        request = policies_pb2.DraftPolicyRequest(text=text)
        return call(here, here.administrator, policies_pb2_grpc.PolicyServiceStub, "Draft", request)

    good = shipped("developer").replace('name = "developer"', 'name = "own"')
    before = recorded(here)
    assert refused(lambda: draft(good + "\n[pin]\nretries = 3\n")) == ("INVALID_ARGUMENT", "POLICY_CONTRADICTORY")
    assert refused(lambda: draft(good + "\n[pin]\ncolour = 3\n")) == ("INVALID_ARGUMENT", "POLICY_INVALID")
    assert recorded(here) == before
    assert draft(good).name == "own"


def test_messages_that_are_none_and_devices_that_are_not_there(here: Site) -> None:
    before = recorded(here)
    with here.process.calls(here.administrator) as line:
        create: Any = line.unary_unary("/cardwright.cms.v1.PersonService/Create")
        too_long = bytes((1 << 20) + (1 << 14))
        for octets in (b"\xff\xff\xff", b"\x0a\x7fcut short", too_long):
            assert refused(lambda octets=octets: create(octets, timeout=PATIENCE)) == (  # type: ignore[misc]
                "INVALID_ARGUMENT", "REQUEST_MALFORMED",
            )  # fmt: skip
        # Far beyond it gRPC itself ends the call, before anything is read.
        assert refused(lambda: create(bytes(8 << 20), timeout=PATIENCE)) == ("RESOURCE_EXHAUSTED", "")
    get = devices_pb2.GetDeviceRequest(id=str(uuid4()))
    stub = devices_pb2_grpc.DeviceServiceStub
    assert refused(lambda: call(here, here.administrator, stub, "Get", get)) == ("NOT_FOUND", "NO_SUCH_DEVICE")
    assert recorded(here) == before


def test_wrong_tokens_and_requests_that_are_not_by_their_key(here: Site) -> None:
    host, key = f"desk-{uuid4().hex[:12]}", ec.generate_private_key(ec.SECP256R1())
    asked = workstations_pb2.CreateTokenRequest(host=host, station_class=workstations_pb2.STATION_CLASS_USER)
    stub = workstations_pb2_grpc.WorkstationServiceStub
    token = call(here, here.administrator, stub, "CreateToken", asked).token

    def enrol(token: str, request: bytes) -> Any:
        with here.process.entry() as line:
            made = workstations_pb2.EnrolRequest(token=token, host=host, request=request)
            return stub(line).Enrol(made, timeout=PATIENCE)

    good = request_of(key)
    version, name, secret, root = token.split(".")
    wrong = ".".join((version, name, secret[::-1], root))
    before = recorded(here)
    assert refused(lambda: enrol(wrong, good))[1] == "TOKEN_REFUSED"
    assert refused(lambda: enrol("nonsense", good))[1] == "TOKEN_REFUSED"
    # The signature is another one's: nobody proves to have the key.
    other = request_of(ec.generate_private_key(ec.SECP256R1()))
    for bad in (good[:-8] + other[-8:], b"nonsense"):
        assert refused(lambda bad=bad: enrol(token, bad))[1] == "BAD_CERTIFICATE_REQUEST"  # type: ignore[misc]
    assert recorded(here) == before
    assert enrol(token, good).certificate


def test_a_locked_vault(here: Site) -> None:
    sockets = load(here.data).vault_sockets

    async def administer(name: str) -> None:
        admin = AdminClient(sockets, Secret(PASSPHRASE))
        await getattr(admin, name)()
        await admin.close()

    holder = person(here, f"p{uuid4().hex[:8]}").id
    account = operators_pb2.CreateOperatorRequest(
        kind=operators_pb2.ACCOUNT_KIND_PERSON, person=holder, label="someone"
    )
    stub, key = operators_pb2_grpc.OperatorServiceStub, ec.generate_private_key(ec.SECP256R1())
    made = call(here, here.administrator, stub, "Create", account)
    add = operators_pb2.AddOperatorKeyRequest(operator=made.id, certificate_request=request_of(key))
    before = recorded(here)
    asyncio.run(administer("lock"))
    try:
        assert refused(lambda: call(here, here.administrator, stub, "AddKey", add)) == ("UNAVAILABLE", "VAULT_LOCKED")
        after = recorded(here)
        assert after["operator_key"] <= before["operator_key"] + 1
    finally:
        asyncio.run(administer("unlock"))
    done = call(here, here.administrator, stub, "AddKey", add)
    assert done.certificate
    assert recorded(here)["operator_key"] == before["operator_key"] + 1


def test_a_full_disk(here: Site) -> None:
    """No file may grow: neither database nor second medium nor log takes another octet."""
    assert here.process.process is not None
    pid, login = here.process.process.pid, f"p{uuid4().hex[:8]}"
    before = recorded(here)
    usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, usual[1]))
    try:
        assert refused(lambda: person(here, login)) == ("UNAVAILABLE", "DATABASE_FULL")
        assert recorded(here) == before
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
    assert person(here, login).login == login
    assert recorded(here)["person"] == before["person"] + 1
    assert here.process.process.poll() is None
