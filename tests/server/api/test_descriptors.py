"""Every procedure of the contract, by its descriptor: it is in the matrix, asks it, and tells nothing of others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path as Folder
from typing import Any
from uuid import uuid4

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from sqlalchemy import func, select

from cardwright_cardops import wire
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import authentication_pb2, devices_pb2, operators_pb2, sessions_pb2
from cardwright_server.authentication.authorize import Authorizer
from cardwright_server.authentication.matrix import RULES, Call, Rule
from cardwright_server.authentication.store import StoredProofs
from cardwright_server.people.model import Grant, Role
from cardwright_server.people.standing import PeopleStandings
from cardwright_server.policies.document import shipped
from cardwright_server.requests.model import RequestState
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.devices_tables import device
from cardwright_server.store.tables import load
from cardwright_server.store.unit import Database
from cardwright_server.workstations.model import EnrolmentToken
from tests.support.api import procedures, services
from tests.support.issuance import csr
from tests.support.people import NoneRevoked, make_operator
from tests.support.probes import Path, id_places, sample, with_id
from tests.support.sessions import Station, fresh_card, reader, reason_of
from tests.support.whole import Whole, whole

# What is decided here is the same on every engine; each domain's tests are run on both.
ON_SQLITE = pytest.mark.parametrize("engine_name", ["sqlite"])

OF_ORGANIZATION = frozenset({"policy", "operator", "lot", "workstation", "question", "session"})
"""Kinds of things that belong to no person: there is no other scope that they could be in."""
ALIKE: Mapping[tuple[str, str], str] = {
    ("AuthenticationService.Prove", "evidence.answers.answers.question"): "all refusals of a proof are the same",
    ("AuditService.Find", "session"): "nothing was done in a card session",
    ("AuditService.Find", "correlation"): "nothing was correlated",
    ("DeviceService.Bind", "replacement"): "only an approved replacement that waits for a device is one",
    ("GroupService.RemoveMember", "person"): "who is in no group is removed from none",
    ("SessionService.Watch", "cards.guid"): "cards that are not ours are passed over in silence",
}
"""Places where what is in scope gets the same answer as what does not exist, and why."""
SECRETS = frozenset(
    {"password", "token", "puk", "credential", "secret", "value", "vault_passphrase", "backup_passphrase"}
)
"""Names of fields that hold a secret in whatever message of ours, if it has one for secrets."""
MORE_SECRETS = frozenset({"Evidence.card", "Answer.text", "ProveResponse.session", "ClaimPfxResponse.file"})


@cache
def overrides(name: str) -> Mapping[str, Any]:
    """What a request needs besides ids, enums and the commonest texts, by path."""
    evidence = authentication_pb2.Evidence(method=authentication_pb2.METHOD_SECURITY_ANSWERS)
    evidence.answers.answers.add(question=str(uuid4()), text="x")
    seen = wire.inventory_to_wire(run(observe(), reader(fresh_card())))
    grant = operators_pb2.Grant(role=operators_pb2.ROLE_AUDITOR, everywhere=True)
    request, token = csr(ec.generate_private_key(ec.SECP256R1())), EnrolmentToken.new(uuid4(), bytes(32))
    made: dict[str, dict[str, Any]] = {
        "AuthenticationService.Prove": {"evidence": [evidence]},
        "EscrowService.ClaimPfx": {"password": "x"},
        "OperatorService.AddKey": {"certificate_request": request},
        "OperatorService.RemoveKey": {"spki": bytes(32)},
        "OperatorService.Grant": {"grant": grant},
        "OperatorService.Withdraw": {"grant": grant},
        "DeviceService.Bind": {"replacement": ""},
        "DeviceService.Register": {"devices": [devices_pb2.DeliveredDevice(serial=uuid4().hex)]},
        "DeviceService.ReportIncident": {"incident": devices_pb2.DEVICE_REASON_LOST},
        "DeviceService.Terminate": {"reason": devices_pb2.DEVICE_REASON_NOT_NEEDED},
        "PolicyService.Assign": {"name": "civ"},
        "DeviceService.RegisterLot": {"secrets": []},
        "NotifyService.SetTemplate": {"event": "device.bind"},
        "PolicyService.Draft": {"text": shipped("developer")},
        "SystemService.EnrolFirstOperator": {"display_name": "New Comer", "certificate_request": request},
        "SystemService.Backup": {"name": "x", "vault_passphrase": "x", "backup_passphrase": "x"},
        "SystemService.DestroyMaster": {"vault_passphrase": "x", "version": 1},
        "SystemService.RotateMaster": {"vault_passphrase": "x"},
        "WorkstationService.Enrol": {"token": token.text(), "request": request},
        "WorkstationService.Renew": {"request": request},
        "SessionService.Run": {"hello.card": seen, "hello.max_batch": 1 << 20},
        "WorkstationService.Revoke": {"reason": "lost"},
    }
    return made.get(name, {})


@pytest.fixture
async def world(database: Database, tmp_path: Folder) -> Any:
    async with whole(database, tmp_path) as made:
        yield made


def test_every_procedure_is_in_the_matrix_and_the_other_way_round() -> None:
    listed = {Call(name).procedure for name in RULES}
    assert procedures().keys() - listed == set()
    assert listed == procedures().keys()


def test_every_service_comes_from_a_file_of_the_contract() -> None:
    assert {Call(name).procedure.partition(".")[0] for name in RULES} == services().keys()


def test_every_text_of_a_request_is_declared_an_id_or_a_text() -> None:
    places = {name: id_places(method) for name, method in procedures().items()}
    assert sum(map(len, places.values())) > 60
    assert all((name, path) in {(n, ".".join(p)) for n, ps in places.items() for p, _ in ps} for name, path in ALIKE)


def test_secrets_are_marked_so_that_nobody_prints_them() -> None:
    files: dict[str, Any] = {service.file.name: service.file for service in services().values()}
    fields = {
        f"{message.name}.{field.name}": field
        for file in files.values()
        for message in file.message_types_by_name.values()
        for field in message.fields
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    }
    secret = {name for name, field in fields.items() if field.name in SECRETS} | MORE_SECRETS
    assert secret <= fields.keys()
    assert {name for name in secret if not fields[name].GetOptions().debug_redact} == set()


def callers_of(name: str) -> list[str]:
    """Who may make a call at all, by the names of ``Whole.callers``."""
    rules: list[Rule] = [rule for call, rule in RULES.items() if Call(call).procedure == name]
    found = {
        "everywhere": any(rule.roles for rule in rules),
        "scoped": any(rule.roles for rule in rules),
        "holder": any(rule.own for rule in rules),
        "workstation": any(rule.workstation for rule in rules),
        "anyone": any(rule.anyone for rule in rules),
    }
    return [caller for caller, may in found.items() if may]


async def outcome(world: Whole, name: str, request: Message, caller: str, hidden: str = "") -> tuple[str, ...]:
    """How a call ended, in full; without the id that was asked about."""
    method = procedures()[name]
    if name == "AuthenticationService.Prove":  # attempts are counted by login
        request = with_id(request, ("login",), uuid4().hex)
    if not (method.client_streaming or method.server_streaming):
        try:
            answer = await world.api.call(name, request, world.callers[caller])
        except grpc.aio.AioRpcError as error:
            said = (error.details() or "").replace(hidden, "ID") if hidden else error.details() or ""
            return error.code().name, reason_of(error), said
        return "OK", answer.SerializeToString().hex()
    answers, refusal = await world.api.stream(name, [request], world.callers[caller], timeout=0.5)
    errors = [one.error.code for one in answers if hasattr(one, "error") and one.HasField("error")]
    return "STREAM", str(refusal), str(errors), str(len(answers))


async def rows_of(world: Whole) -> dict[str, set[str]]:
    """Everything that is recorded, apart from the audit (denials are in it), mail about it, and counted attempts."""
    left_out = ("audit_", "outbox", "attempt_counter", "lease")

    async def read(unit: Any) -> dict[str, set[str]]:
        return {
            table.name: {str(tuple(row)) for row in await unit.rows(select(table))}
            for table in load().sorted_tables
            if not table.name.startswith(left_out)
        }

    return await world.domains.database.read(read)


@ON_SQLITE
async def test_what_is_not_the_callers_is_as_if_it_did_not_exist(world: Whole) -> None:
    """An id of another scope and of another organization, in every place for an id, by every kind of caller."""
    before, asked = await rows_of(world), 0
    wrong: list[tuple[Any, ...]] = []
    places = [(name, *place) for name, method in procedures().items() for place in id_places(method)]
    nothing: dict[tuple[str, str, Path], tuple[str, ...]] = {}
    for name, path, kind in places:
        base = sample(procedures()[name], world.mine, overrides(name))
        for caller in callers_of(name):
            unknown = str(uuid4())
            expected = await outcome(world, name, with_id(base, path, unknown), caller, unknown)
            nothing[caller, name, path] = expected
            others = {"foreign": world.foreign}
            if caller in ("scoped", "holder") and kind not in OF_ORGANIZATION:
                others["beside"] = world.beside
            for which, ids in others.items():
                other = str(ids.get(kind, uuid4()))
                found = await outcome(world, name, with_id(base, path, other), caller, other)
                asked += 1
                if found != expected:
                    wrong.append((name, ".".join(path), caller, which, found, expected))
    assert wrong == []
    assert asked > 150
    after = await rows_of(world)
    assert {name: rows ^ after[name] for name, rows in before.items() if rows != after[name]} == {}

    # Had every call failed for another reason, all of this would say nothing: in scope, the answer is another one.
    for name, path, kind in places:
        base = sample(procedures()[name], world.mine, overrides(name))
        own = str(world.mine.get(kind, uuid4()))
        answers = {
            caller: await outcome(world, name, with_id(base, path, own), caller, own) for caller in callers_of(name)
        }
        alike = all(answer == nothing[caller, name, path] for caller, answer in answers.items())
        if alike != ((name, ".".join(path)) in ALIKE):
            wrong.append((name, ".".join(path), kind, "own", alike, answers))
    assert wrong == []


@ON_SQLITE
async def test_every_procedure_asks_the_matrix_under_its_own_name(database: Database, tmp_path: Folder) -> None:
    """With nothing in the matrix, every call fails as one that is not listed, and names itself."""
    empty = Authorizer(PeopleStandings(), StoredProofs(), NoneRevoked(), {})
    wrong = []
    async with whole(database, tmp_path, empty) as world:
        before = await rows_of(world)
        for name, method in procedures().items():
            request = sample(method, world.mine, overrides(name))
            for caller in callers_of(name):
                status, reason, said = await refusal(world, name, request, caller)
                asked = Call(said.partition(" ")[0]).procedure
                if (status, reason, asked) != ("PERMISSION_DENIED", "CALL_NOT_LISTED", name):
                    wrong.append((name, caller, status, reason, said))
        assert wrong == []
        assert await rows_of(world) == before


async def refusal(world: Whole, name: str, request: Message, caller: str) -> tuple[str, str, str]:
    """Status, code and message of a call that fails before anything is answered."""
    method = procedures()[name]
    if not (method.client_streaming or method.server_streaming):
        found = await outcome(world, name, request, caller)
        return (*found[:2], found[2] if len(found) > 2 else "")  # type: ignore[return-value]
    channel: Any = world.api.channel
    metadata = world.api.metadata(world.callers[caller])
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming:
        call = channel.stream_stream(path)(iter([request.SerializeToString()]), metadata=metadata, timeout=10)
    else:
        call = channel.unary_stream(path)(request.SerializeToString(), metadata=metadata, timeout=10)
    try:
        async for _ in call:
            return "OK", "", ""
    except grpc.aio.AioRpcError as error:
        return error.code().name, reason_of(error), error.details() or ""
    return "OK", "", ""


@ON_SQLITE
async def test_messages_that_are_none_of_the_contract_are_refused_and_leave_no_trace(world: Whole) -> None:
    """Octets that are no message, a field nobody knows at any depth, and more than a message may have."""
    before, denied, wrong = await rows_of(world), await count_audited(world), []
    for name, method in procedures().items():
        if method.client_streaming:
            continue
        good = sample(method, world.mine, overrides(name)).SerializeToString()
        for what, octets in {
            "no message": b"\xff\xff\xff\xff",
            "cut short": good + b"\x0a\x7f",
            "unknown field": good + b"\xf2\x7f\x01x",
            "unknown group": good + b"\xf3\x7f\xf4\x7f",
            "too long": good + b"\xf2\x7f\x80\x80\x41" + bytes((1 << 20) + (1 << 14)),
        }.items():
            found = await sent(world, name, octets)
            if found != ("INVALID_ARGUMENT", "REQUEST_MALFORMED"):
                wrong.append((name, what, found))
    assert wrong == []
    assert await rows_of(world) == before
    assert await count_audited(world) == denied


async def sent(world: Whole, name: str, octets: bytes) -> tuple[str, str]:
    """How octets are refused; by a caller whose role would let a good message through."""
    method, caller = procedures()[name], world.callers[callers_of(name)[0]]
    if not method.server_streaming:
        return await world.api.refused(name, octets, caller)
    answers, refused = await world.api.stream(name, [octets], caller, timeout=10)
    assert not answers
    return refused or ("OK", "")


async def count_audited(world: Whole) -> int:
    """How many audit entries there are."""
    statement = select(func.count()).select_from(audit_entry)
    found: int = await world.domains.database.read(lambda unit: unit.value(statement))
    return found


@ON_SQLITE
async def test_ids_in_another_form_are_refused_and_name_their_field(world: Whole) -> None:
    """Only the canonical form of a UUID is one: no braces, no upper case, no URN, nothing empty but what may be."""
    wrong, asked = [], 0
    for name, method in procedures().items():
        if method.client_streaming or method.server_streaming:
            continue
        base = sample(method, world.mine, overrides(name))
        for path, _ in id_places(method):
            other = str(uuid4())
            for bad in ("x" * 5, f"{{{other}}}", f"urn:uuid:{other}", other.upper(), f" {other}", "a" * 5000):
                asked += 1
                found = await outcome(world, name, with_id(base, path, bad), callers_of(name)[0])
                if found[:2] != ("INVALID_ARGUMENT", "REQUEST_MALFORMED") or bad in found[2]:
                    wrong.append((name, path, bad[:50], found))
    assert wrong == []
    assert asked > 300


@ON_SQLITE
async def test_a_role_that_is_taken_away_in_mid_stream_ends_the_stream(world: Whole) -> None:
    """The person agrees to the plan; by then the operator has no role any more: nothing is sent to the card."""
    database, org = world.domains.database, world.home.org
    operator = await make_operator(database, org, Role.ISSUANCE)
    person = await world.home.person()
    bound = await world.home.device(await world.home.bound(person))
    await database.transact(lambda unit: unit.update(device, bound.id, bound.version, {"serial": "12345678"}))
    request = await world.home.issuance(bound.id)

    async def withdraw(message: sessions_pb2.RunRequest) -> None:
        if message.WhichOneof("kind") == "consent":
            officer = world.callers["everywhere"]
            grant = Grant(Role.ISSUANCE)
            await database.transact(lambda unit: world.domains.operators.withdraw(unit, officer, operator.id, grant))

    card = fresh_card()
    untouched = card.snapshot()
    station = Station(card, before=withdraw)
    world.api.always = operator
    trip = await station.run(world.api.path, request=str(request.id))
    assert trip.error == "ACCESS_DENIED"
    assert "preview" in trip.messages
    assert card.snapshot() == untouched
    assert (await world.home.request(request.id)).state is not RequestState.DONE
