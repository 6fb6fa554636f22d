"""A card goes back to stock at an issuance station: shown as due, confirmed by name, cut in the middle, finished."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from cardwright_daemon.link.enrolment import Token, enrol
from cardwright_daemon.link.server import GrpcLink
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import operators_pb2 as operators
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc
from cardwright_simulators.card import VirtualCard
from tests.support.daemons import Person, Run, failing, running
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.virtual import POOL

PIN = b"739146"


async def link_at(here: Site, folder: Path, kind: workstations_pb2.StationClass.ValueType) -> GrpcLink:
    """The way to the server of a new workstation of a class."""
    host = f"desk-{uuid4().hex[:12]}"

    def token() -> str:
        stub = workstations_pb2_grpc.WorkstationServiceStub
        asked = workstations_pb2.CreateTokenRequest(host=host, station_class=kind)
        return str(here.process.call(here.administrator, lambda line: stub(line).CreateToken, asked).token)

    await enrol(folder, here.process.addresses["entry"], Token.parse(await asyncio.to_thread(token)), host)
    return GrpcLink(here.process.addresses["calls"], folder, check_seconds=30.0, jitter=lambda most: 0.05)


async def over(run: Run, operation: pb.Operation) -> pb.Operation:
    """The operation at its end."""
    answer = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=operation.id))
    return answer.operation  # type: ignore[no-any-return]


def factory(card: VirtualCard) -> bool:
    """Whether nothing is on it but what its maker put there."""
    now, new = (json.loads(one.snapshot()) for one in (card, VirtualCard("yubikey-5.7", serial=card.serial)))
    return all(now[name] == new[name] for name in ("references", "management", "keys", "objects"))


async def test_a_card_is_recycled_at_an_issuance_station(here: Site, desk: Desk, tmp_path: Path) -> None:
    login, serial = f"p{uuid4().hex[:8]}", str(uuid4().int % 10**8)
    helper = await asyncio.to_thread(desk.operator, f"h{uuid4().hex[:8]}", operators.ROLE_HELP_DESK)
    person = await asyncio.to_thread(desk.person, login)
    device, request = await asyncio.to_thread(desk.issuance, person, serial)

    async def ask(who: Any, service: str, method: str, message: Any) -> Any:
        return await asyncio.to_thread(desk.ask, who, service, method, message)

    given = await ask(desk.issuer, "AuthenticationService", "SetInitialPassword",
                      proofs.SetInitialPasswordRequest(person=person))  # fmt: skip
    card = VirtualCard("yubikey-5.7", serial=int(serial), key_pool=POOL)
    user = await link_at(here, tmp_path / "user", workstations_pb2.STATION_CLASS_USER)
    somebody = Person(given.password.encode(), PIN, PIN)
    async with running(card, person=somebody, link=user) as run:
        shown = await run.client.card()
        await run.client.updates.Prove(
            pb.ProveRequest(card=shown.id, purpose=pb.PURPOSE_ISSUE, method=pb.METHOD_KIND_INITIAL_PASSWORD,
                            account=login)
        )  # fmt: skip
        preview = await run.client.updates.PreviewUpdate(
            pb.PreviewUpdateRequest(card=shown.id, purpose=pb.PURPOSE_ISSUE, request=request)
        )
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=shown.id, digest=preview.digest))
        assert (await over(run, begun.operation)).outcome == pb.OUTCOME_DONE
        await ask(helper, "DeviceService", "Terminate", devices.TerminateDeviceRequest(
            id=device, reason=devices.DEVICE_REASON_LEFT, disposition=devices.DISPOSITION_COLLECTED))  # fmt: skip
        wanted = (await ask(desk.issuer, "RequestService", "CreateRecycle",
                            requests.CreateRecycleRequest(device=device))).request  # fmt: skip
        assert wanted.kind == requests.REQUEST_KIND_RECYCLE and wanted.state == requests.REQUEST_STATE_READY
        due = (await run.client.updates.GetDue(pb.GetDueRequest(card=shown.id, refresh=True))).due
        assert (due.purpose, due.request) == (pb.PURPOSE_RECYCLE, wanted.id)
        recycle = pb.PreviewUpdateRequest(card=shown.id, purpose=due.purpose, request=due.request)
        assert (await failing(run.client.updates.PreviewUpdate(recycle))).code == "RECYCLED_ELSEWHERE"
    card.power_off()

    station = await link_at(here, tmp_path / "station", workstations_pb2.STATION_CLASS_ISSUANCE)
    async with running(card, person=Person(), link=station) as run:
        shown = await run.client.card()
        recycle = pb.PreviewUpdateRequest(card=shown.id, purpose=pb.PURPOSE_RECYCLE, request=wanted.id)
        preview = await run.client.updates.PreviewUpdate(recycle)
        assert [(step.kind, step.may_be_pulled) for step in preview.steps] == [("reset-card", True)]
        assert list(preview.confirmations) == ["reset"] and not (preview.asks_pin or preview.asks_new_pin)
        before = card.snapshot()
        for confirmed, code in (([], "CONFIRMATION_MISSING"), (["delete"], "CONFIRMATION_MISSING"),
                                (["yes"], "REQUEST_INVALID")):  # fmt: skip
            asked = pb.StartUpdateRequest(card=shown.id, digest=preview.digest, confirmed=confirmed)
            assert (await failing(run.client.updates.StartUpdate(asked))).code == code
        assert json.loads(card.snapshot())["references"] == json.loads(before)["references"]
        begun = await run.client.updates.StartUpdate(
            pb.StartUpdateRequest(card=shown.id, digest=preview.digest, confirmed=["reset"])
        )
        ended = await over(run, begun.operation)
        assert (ended.kind, ended.outcome) == (pb.OPERATION_KIND_RECYCLE, pb.OUTCOME_DONE), ended.error
        assert factory(card)
    found = (await ask(desk.issuer, "DeviceService", "Get", devices.GetDeviceRequest(id=device))).device
    assert (found.state, found.life, found.person) == (devices.DEVICE_STATE_STOCK, 2, "")
