"""RequestService over gRPC: idempotency, approval by another person, and who may ask for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from cardwright_proto.cms.v1 import devices_pb2, requests_pb2
from cardwright_proto.cms.v1 import requests_pb2 as pb
from cardwright_server.api.requests import KINDS, STATES
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.model import DeviceState
from cardwright_server.people.model import Reach, Role, Scope
from cardwright_server.requests.model import RequestKind, RequestState
from cardwright_server.store.unit import Database
from tests.support.managed import Managed, managed
from tests.support.people import make_group, make_operator

MALFORMED = ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Managed]:
    async with managed(database, tmp_path) as made:
        yield made


@pytest.fixture
async def strict(database: Database, tmp_path: Path) -> AsyncIterator[Managed]:
    """A policy under which one person alone terminates nothing."""
    replacing = (('compliance = "civ"', 'compliance = "civ"\ntwo_person_termination = true'),)
    async with managed(database, tmp_path, "civ", replacing) as made:
        yield made


async def ask(
    served: Managed, method: str, request: Any, principal: Principal | None = None, **metadata: str
) -> Any:
    return await served.call(f"RequestService.{method}", request, principal or served.world.issuer, **metadata)


async def refused(
    served: Managed, method: str, request: Any, principal: Principal | None = None, **metadata: str
) -> tuple[str, str]:
    return await served.refused(f"RequestService.{method}", request, principal or served.world.issuer, **metadata)


async def test_an_issuance_that_its_maker_may_approve(served: Managed) -> None:
    world = served.world
    person = await world.person()
    device = await world.bound(person)
    made = await ask(served, "CreateIssuance", pb.CreateIssuanceRequest(device=str(device)))
    request = made.request
    assert made.created
    assert (request.kind, request.state) == (pb.REQUEST_KIND_ISSUANCE, pb.REQUEST_STATE_READY)
    assert (request.device, request.person) == (str(device), str(person.id))
    assert (request.device_serial, request.person_login) == ((await world.device(device)).serial, person.login)
    assert (request.maker, request.made_by) == (pb.REQUEST_MAKER_OPERATOR, str(world.issuer.person))
    assert request.approved_by == request.made_by
    assert request.HasField("expires_at") and not request.HasField("closed_at")
    shown = await ask(served, "Get", pb.GetRequestRequest(id=request.id), world.helper)
    assert shown.request == request
    assert [step.event for step in shown.history] == ["open", "prepare"]
    assert shown.history[0].before == pb.REQUEST_STATE_UNSPECIFIED


async def test_the_same_key_gives_the_same_request(served: Managed) -> None:
    world = served.world
    device, other = (await world.issued()).id, (await world.issued()).id
    create = pb.CreateReplacementRequest(device=str(device), reason=devices_pb2.DEVICE_REASON_RENEWED)
    first = await ask(served, "CreateReplacement", create, idempotency_key="k-1")
    recorded = await served.recorded()
    again = await ask(served, "CreateReplacement", create, idempotency_key="k-1")
    assert (first.created, again.created, again.request) == (True, False, first.request)
    assert await served.recorded() == recorded
    await ask(served, "Cancel", pb.CancelRequestRequest(id=first.request.id))
    closed = await ask(served, "CreateReplacement", create, idempotency_key="k-1")
    assert (closed.created, closed.request.id) == (False, first.request.id)
    assert closed.request.state == pb.REQUEST_STATE_CANCELLED
    fresh = await ask(served, "CreateReplacement", create, idempotency_key="k-2")
    assert fresh.created and fresh.request.id != first.request.id
    create.device = str(other)
    conflict = await refused(served, "CreateReplacement", create, idempotency_key="k-1")
    assert conflict == ("FAILED_PRECONDITION", "IDEMPOTENCY_CONFLICT")
    # Keys of others are theirs.
    elsewhere = await ask(served, "CreateReplacement", create, world.second, idempotency_key="k-1")
    assert elsewhere.created


async def test_a_request_that_is_made_twice_at_once_is_one(served: Managed) -> None:
    world = served.world
    device = await world.bound(await world.person())
    create = pb.CreateIssuanceRequest(device=str(device))
    made = await asyncio.gather(
        *(ask(served, "CreateIssuance", create, idempotency_key="once") for _ in range(4)),
        *(ask(served, "CreateIssuance", create, world.second) for _ in range(2)),
    )
    assert len({one.request.id for one in made}) == 1
    assert sum(one.created for one in made) == 1
    assert len(await world.open_requests(device)) == 1


async def test_two_operators_approve_at_once(served: Managed) -> None:
    world = served.world
    device = await world.issued()
    create = pb.CreateReplacementRequest(device=str(device.id), reason=devices_pb2.DEVICE_REASON_RENEWED)
    asked = (await ask(served, "CreateReplacement", create, world.helper)).request
    assert asked.state == pb.REQUEST_STATE_PENDING
    approve = pb.ApproveRequestRequest(id=asked.id)
    assert (await refused(served, "Approve", approve, world.helper))[0] == "PERMISSION_DENIED"
    ended = await asyncio.gather(
        *(ask(served, "Approve", approve, one) for one in (world.issuer, world.second)), return_exceptions=True
    )
    errors = [one for one in ended if isinstance(one, grpc.aio.AioRpcError)]
    assert [one.code() for one in errors] in ([grpc.StatusCode.FAILED_PRECONDITION], [grpc.StatusCode.ABORTED])
    won = next(one for one in ended if isinstance(one, pb.DeviceRequest))
    assert won.state == pb.REQUEST_STATE_APPROVED
    history = (await ask(served, "Get", pb.GetRequestRequest(id=asked.id))).history
    assert [step.event for step in history] == ["open", "approve"]
    assert history[-1].who == won.approved_by
    winner = world.issuer if won.approved_by == str(world.issuer.person) else world.second
    assert await ask(served, "Approve", approve, winner) == won


async def test_deny_and_cancel(served: Managed) -> None:
    world = served.world
    device = await world.issued()
    create = pb.CreateReplacementRequest(device=str(device.id), reason=devices_pb2.DEVICE_REASON_COMPROMISED)
    asked = (await ask(served, "CreateReplacement", create, world.helper)).request
    denied = await ask(served, "Deny", pb.DenyRequestRequest(id=asked.id))
    assert denied.state == pb.REQUEST_STATE_DENIED and denied.HasField("closed_at")
    cancel = pb.CancelRequestRequest(id=asked.id)
    assert await refused(served, "Cancel", cancel) == ("FAILED_PRECONDITION", "ILLEGAL_TRANSITION")
    again = (await ask(served, "CreateReplacement", create, world.helper)).request
    gone = await ask(served, "Cancel", pb.CancelRequestRequest(id=again.id), world.helper)
    assert gone.state == pb.REQUEST_STATE_CANCELLED


async def test_every_other_kind(served: Managed) -> None:
    world = served.world
    for method, kind, who in (
        ("Unlock", pb.REQUEST_KIND_UNLOCK, world.helper),
        ("Update", pb.REQUEST_KIND_UPDATE, world.helper),
        ("Reissue", pb.REQUEST_KIND_REISSUE, world.issuer),
        ("Recovery", pb.REQUEST_KIND_RECOVERY, world.issuer),
        ("Termination", pb.REQUEST_KIND_TERMINATE, world.helper),
    ):
        device = str((await world.issued()).id)
        request = getattr(requests_pb2, f"Create{method}Request")(device=device)
        if method == "Termination":
            request.reason = devices_pb2.DEVICE_REASON_COMPROMISED
        made = await ask(served, f"Create{method}", request, who)
        assert (made.created, made.request.kind, made.request.device) == (True, kind, device)
    stock = str(await world.stock())
    for method in ("Unlock", "Update"):
        request = getattr(requests_pb2, f"Create{method}Request")(device=stock)
        assert (await refused(served, f"Create{method}", request, world.helper))[0] in (
            "FAILED_PRECONDITION",
            "PERMISSION_DENIED",
        )


async def test_two_persons_terminate(strict: Managed) -> None:
    world = strict.world
    device = str((await world.issued()).id)
    terminate = devices_pb2.TerminateDeviceRequest(
        id=device,
        reason=devices_pb2.DEVICE_REASON_COMPROMISED,
        disposition=devices_pb2.DISPOSITION_COLLECTED,
    )
    alone = await strict.refused("DeviceService.Terminate", terminate, world.helper)
    assert alone == ("FAILED_PRECONDITION", "SECOND_PERSON_REQUIRED")
    create = pb.CreateTerminationRequest(device=device, reason=devices_pb2.DEVICE_REASON_COMPROMISED)
    asked = (await ask(strict, "CreateTermination", create, world.helper)).request
    terminate.request = asked.id
    early = await strict.refused("DeviceService.Terminate", terminate, world.helper)
    assert early[0] == "FAILED_PRECONDITION"
    await ask(strict, "Approve", pb.ApproveRequestRequest(id=asked.id), world.officer)
    ended = await strict.call("DeviceService.Terminate", terminate, world.helper)
    assert ended.state == devices_pb2.DEVICE_STATE_TERMINATED
    done = await ask(strict, "Get", pb.GetRequestRequest(id=asked.id))
    assert done.request.state == pb.REQUEST_STATE_DONE


async def test_persons_see_and_take_back_their_own(served: Managed) -> None:
    world = served.world
    person = await world.person()
    device = await world.issued(person)
    foreign = await world.issuance(await world.bound(await world.person()))
    owner = await world.proven(person, Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS)
    report = devices_pb2.ReportIncidentRequest(id=str(device.id), incident=devices_pb2.DEVICE_REASON_FORGOTTEN)
    await served.call("DeviceService.ReportIncident", report, owner)
    found = [
        one
        for one in (await ask(served, "Find", pb.FindRequestsRequest(), owner)).requests
        if one.state == pb.REQUEST_STATE_PENDING
    ]
    assert [(one.kind, one.temporary, one.maker) for one in found] == [
        (pb.REQUEST_KIND_REPLACEMENT, True, pb.REQUEST_MAKER_PERSON)
    ]
    get = pb.GetRequestRequest(id=str(foreign.id))
    assert (await refused(served, "Get", get, owner))[0] == "PERMISSION_DENIED"
    gone = await ask(served, "Cancel", pb.CancelRequestRequest(id=found[0].id), owner)
    assert gone.state == pb.REQUEST_STATE_CANCELLED
    assert await world.state(device.id) is DeviceState.ISSUED


async def test_find_filters_and_pages(served: Managed) -> None:
    world = served.world
    people = [await world.person() for _ in range(3)]
    made = [await world.issuance(await world.bound(person)) for person in people]
    found, token = [], ""
    while True:
        page = await ask(served, "Find", pb.FindRequestsRequest(page_size=2, page_token=token), world.helper)
        found += [one.id for one in page.requests]
        token = page.next_page_token
        if not token:
            break
    assert found == [str(one.id) for one in made]
    first = made[0]
    for request in (
        pb.FindRequestsRequest(device=str(first.device)),
        pb.FindRequestsRequest(person=str(first.person)),
        pb.FindRequestsRequest(kinds=[pb.REQUEST_KIND_ISSUANCE], page_size=1),
        pb.FindRequestsRequest(states=[pb.REQUEST_STATE_READY], page_size=1),
    ):
        assert [one.id for one in (await ask(served, "Find", request)).requests] == [str(first.id)], request
    none = pb.FindRequestsRequest(kinds=[pb.REQUEST_KIND_UNLOCK])
    assert not (await ask(served, "Find", none)).requests
    elsewhere = await make_group(world.database, world.org, "elsewhere")
    scope = Scope(Reach.GROUP, elsewhere.id)
    stranger = await make_operator(world.database, world.org, Role.ISSUANCE, scope=scope)
    assert not (await ask(served, "Find", pb.FindRequestsRequest(), stranger)).requests
    for method in ("Get", "Approve", "Deny", "Cancel"):
        request = getattr(requests_pb2, f"{method}RequestRequest")(id=str(first.id))
        assert (await refused(served, method, request, stranger))[0] == "PERMISSION_DENIED"
    other = await make_operator(world.database, uuid4(), Role.ISSUANCE)
    assert await refused(served, "Get", pb.GetRequestRequest(id=str(first.id)), other) == (
        "NOT_FOUND",
        "NO_SUCH_REQUEST",
    )


async def test_malformed_requests_record_nothing(served: Managed) -> None:
    world = served.world
    device = str(await world.bound(await world.person()))
    before = await served.recorded()
    create = pb.CreateIssuanceRequest(device=device)
    for key in ("x" * 81, ""):
        assert await refused(served, "CreateIssuance", create, idempotency_key=key) == MALFORMED, key
    unknown = create.SerializeToString() + b"\x12\x01x"
    for method, request in (
        ("CreateIssuance", unknown),
        ("CreateIssuance", b"\x0a"),
        ("CreateIssuance", b"\x0a\x01\xff"),
        ("CreateIssuance", pb.CreateIssuanceRequest(device="x" * (1 << 20))),
        ("CreateIssuance", pb.CreateIssuanceRequest(device=device.replace("-", ""))),
        ("CreateReplacement", pb.CreateReplacementRequest(device=device, reason=99)),  # type: ignore[arg-type]
        ("CreateTermination", pb.CreateTerminationRequest(device=device)),
        ("Find", pb.FindRequestsRequest(kinds=[pb.REQUEST_KIND_UNSPECIFIED])),
        ("Find", pb.FindRequestsRequest(states=[pb.REQUEST_STATE_READY] * 12)),
        ("Find", pb.FindRequestsRequest(device="x")),
        ("Find", pb.FindRequestsRequest(page_size=201)),
        *((f"Create{kind}", b"") for kind in ("Replacement", "Unlock", "Update", "Reissue", "Termination", "Recovery")),
        *((method, b"") for method in ("Approve", "Deny", "Cancel", "Get")),
    ):
        assert await refused(served, method, request) == MALFORMED, (method, request)
    missing = pb.CreateIssuanceRequest(device=str(uuid4()))
    assert await refused(served, "CreateIssuance", missing) == ("NOT_FOUND", "NO_SUCH_DEVICE")
    approve = pb.ApproveRequestRequest(id=str(uuid4()))
    assert await refused(served, "Approve", approve) == ("NOT_FOUND", "NO_SUCH_REQUEST")
    works = pb.CreateReplacementRequest(device=str((await world.issued()).id))
    before_works = await served.recorded()
    assert await refused(served, "CreateReplacement", works) == ("FAILED_PRECONDITION", "REQUEST_NOT_POSSIBLE")
    assert await served.recorded() == before_works
    assert not await world.open_requests(UUID(device))
    assert before_works > before


def test_every_kind_and_state_has_a_number() -> None:
    assert {KINDS.one(KINDS.number(one), "kind") for one in RequestKind} == set(RequestKind)
    assert {STATES.one(STATES.number(one), "state") for one in RequestState} == set(RequestState)
