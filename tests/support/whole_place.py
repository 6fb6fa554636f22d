"""A workstation on a running server over a line that can be spoiled: daemon in this process, people, cards, judge."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cardwright_cardops.secret import Secret
from cardwright_daemon import sessions
from cardwright_daemon.config import Pkcs11Module
from cardwright_daemon.link import line
from cardwright_daemon.link.enrolment import Token, enrol
from cardwright_daemon.link.ports import CardSession, Message, Opening
from cardwright_daemon.link.server import GrpcLink
from cardwright_daemon.operations import Phase
from cardwright_daemon.prompts import Asked
from cardwright_daemon.sessions import SHOWN_AGAIN
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc
from cardwright_simulators.card import VirtualCard
from tests.support.daemons import Run, running
from tests.support.front_desk import Desk
from tests.support.installation import PATIENCE, Site
from tests.support.line_proxy import LineProxy
from tests.support.token_sessions import SO_PIN
from tests.support.virtual import POOL
from tests.support.whole_judge import wrong_with

PIN = b"739146"
OnMessage = Callable[[int, Message], Awaitable[None]]
_SOON = {"grpc.initial_reconnect_backoff_ms": 200, "grpc.max_reconnect_backoff_ms": 200}
"""In place of up to twenty seconds until a line is tried again."""
_SERIALS = itertools.count(30_000_000)


class Typist:
    """Somebody who knows their PIN and their password. ``asked``: every question."""

    def __init__(self) -> None:
        self.password = b""
        self.asked: list[Asked] = []

    async def ask(self, asked: Asked) -> Secret:
        """See ``Prompter``."""
        self.asked.append(asked)
        assert not asked.error, asked
        return Secret(self.password if "password" in asked.what else PIN)

    async def tell(self, text: str) -> None:
        """See ``Prompter``."""


class WatchedLink(GrpcLink):
    """The way to the server. ``on_message`` is told of each message of a session, by its number from 1, before it is
    acted upon; ``said`` keeps their kinds, for each session."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.on_message: OnMessage = _nothing
        self.said: list[list[str]] = []

    async def open(self, opening: Opening) -> CardSession:
        """See ``ServerLink``."""
        self.said.append([])
        return _Watched(await super().open(opening), self, self.said[-1])


async def _nothing(number: int, message: Message) -> None:
    """All goes well."""


class _Watched:
    def __init__(self, inside: CardSession, link: WatchedLink, said: list[str]) -> None:
        self._inside, self._link, self._said = inside, link, said
        self.consent, self.refuse = inside.consent, inside.refuse
        self.answer, self.close = inside.answer, inside.close

    async def messages(self) -> AsyncIterator[Message]:
        async for message in self._inside.messages():
            self._said.append(type(message).__name__)
            await self._link.on_message(len(self._said), message)
            yield message


@dataclass
class Bound:
    """A card that the server knows, its device, and the request that is open for it."""

    card: VirtualCard
    login: str
    device: str
    request: str
    issued: bool = False


@dataclass
class Place:
    """The workstation. ``line`` is its only way to the server."""

    here: Site
    desk: Desk
    line: LineProxy
    link: WatchedLink
    run: Run
    typist: Typist
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    """Of the last ``begin``."""

    async def ask(self, service: str, method: str, request: Any) -> Any:
        """A call of the operator who issues."""
        return await asyncio.to_thread(self.desk.ask, self.desk.issuer, service, method, request)

    async def bound(self, profile: str = "yubikey-5.7") -> Bound:
        """A blank card for a new person, with a ready request to issue it."""
        serial = str(next(_SERIALS))
        login = f"p{uuid4().hex[:8]}"
        person = await asyncio.to_thread(self.desk.person, login)
        device, request = await asyncio.to_thread(self.desk.issuance, person, serial)
        given = await self.ask(
            "AuthenticationService", "SetInitialPassword", proofs.SetInitialPasswordRequest(person=person)
        )
        self.typist.password = given.password.encode()
        return Bound(VirtualCard(profile, serial=int(serial), key_pool=POOL), login, device, request)

    async def begin(self, bound: Bound, number: int = 0) -> pb.Operation:
        """What is asked for is previewed and started; the operation, under way."""
        card = (await self.run.client.card(number)).id
        purpose = pb.PURPOSE_REISSUE if bound.issued else pb.PURPOSE_ISSUE
        method = pb.METHOD_KIND_CARD if bound.issued else pb.METHOD_KIND_INITIAL_PASSWORD
        updates = self.run.client.updates
        await updates.Prove(pb.ProveRequest(card=card, purpose=purpose, method=method, account=bound.login))
        shown = await updates.PreviewUpdate(
            pb.PreviewUpdateRequest(card=card, purpose=purpose, request=bound.request)
        )
        begun = await updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=shown.digest))
        self.since = begun.operation.started_at.ToDatetime(UTC)
        return begun.operation  # type: ignore[no-any-return]

    async def over(self, operation: pb.Operation) -> pb.Operation:
        """The operation at its end."""
        async with asyncio.timeout(PATIENCE):
            answer = await self.run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=operation.id))
        return answer.operation  # type: ignore[no-any-return]

    async def issued(self, bound: Bound, number: int = 0) -> None:
        """Issue the card that is in the reader."""
        done = await self.over(await self.begin(bound, number))
        assert done.outcome == pb.OUTCOME_DONE, done
        bound.issued = True

    async def reissue(self, bound: Bound) -> None:
        """New keys are asked for."""
        made = await self.ask("RequestService", "CreateReissue", requests.CreateReissueRequest(device=bound.device))
        bound.request = made.request.id

    async def is_open(self, bound: Bound) -> bool:
        """Whether the request is not done yet."""
        found = await self.ask("RequestService", "Get", requests.GetRequestRequest(id=bound.request))
        return bool(found.request.state != requests.REQUEST_STATE_DONE)

    async def goes_on(self, bound: Bound) -> None:
        """The daemon goes on by itself until it is done, or shows what else it would do; that is agreed to."""
        desk, ended = self.run.daemon.desk, ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not ended:
                    await asyncio.sleep(0.05)
                    late = [one for one in desk.operations.all if one.over and one.started_at > self.since]
                    ended = next((one.outcome for one in late if one.phase is Phase.DONE), "")
                    if any(one.error is not None and one.error.code == "SESSION_WITHOUT_REQUEST" for one in late):
                        return  # only the server's last word was lost: its request is done, and it says so
        ends = [(one.kind.value, one.phase.value, one.outcome, one.error) for one in desk.operations.all]
        assert ended, f"{ends} {self.link.said}"
        if ended == SHOWN_AGAIN:
            # The holder proves themselves anew where the card was out meanwhile.
            done = await self.over(await self.begin(bound))
            assert done.outcome == pb.OUTCOME_DONE, done

    async def wrong(self, bound: Bound) -> list[str]:
        """What the oracle finds."""
        return await wrong_with(self.here, bound.card, bound.device, bound.request, PIN)

    async def state(self, bound: Bound) -> int:
        """Of the device, as the server says."""
        found = await self.ask("DeviceService", "Get", devices.GetDeviceRequest(id=bound.device))
        return int(found.device.state)


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons try again soon what broke off, and a line that was lost."""
    monkeypatch.setattr(sessions, "AGAIN", (0.2,))
    monkeypatch.setattr(line, "OPTIONS", tuple((dict(line.OPTIONS) | _SOON).items()))


async def station_of(here: Site, folder: Path) -> None:
    """Enrol a workstation whose credentials are kept in ``folder``."""
    host = f"desk-{uuid4().hex[:12]}"
    made = await asyncio.to_thread(
        here.process.call,
        here.administrator,
        lambda line: workstations_pb2_grpc.WorkstationServiceStub(line).CreateToken,
        workstations_pb2.CreateTokenRequest(host=host, station_class=workstations_pb2.STATION_CLASS_USER),
    )
    await enrol(folder, here.process.addresses["entry"], Token.parse(made.token), host)


def token_for(desk: Desk, person: str, number: str) -> None:
    """A PKCS#11 token in stock with the PIN of its security officer, bound to a person, and a request to issue it."""
    kind = devices.DEVICE_KIND_PKCS11_TOKEN
    lot = desk.ask(
        desk.issuer, "DeviceService", "RegisterLot",
        devices.RegisterLotRequest(name=f"tokens {uuid4().hex}", kind=kind, source=devices.SECRET_SOURCE_PER_CARD),
    )  # fmt: skip
    secret = devices.InitialSecret(name=devices.SECRET_NAME_PUK, value=SO_PIN)
    registered = desk.ask(
        desk.issuer, "DeviceService", "Register",
        devices.RegisterDevicesRequest(
            kind=kind, lot=lot.id, devices=[devices.DeliveredDevice(serial=number, secrets=[secret])]
        ),
    )  # fmt: skip
    (device,) = registered.ids
    desk.ask(desk.issuer, "DeviceService", "Bind", devices.BindDeviceRequest(id=device, person=person))
    desk.ask(desk.issuer, "RequestService", "CreateIssuance", requests.CreateIssuanceRequest(device=device))


@asynccontextmanager
async def placed(
    here: Site, desk: Desk, folder: Path, *, readers: int = 2, pkcs11: tuple[Pkcs11Module, ...] = ()
) -> AsyncIterator[Place]:
    """A workstation that is enrolled by ``folder``, with empty readers and modules, at the end of a line."""
    typist = Typist()
    async with LineProxy(here.process.addresses["calls"]) as line:
        link = WatchedLink(line.address, folder, check_seconds=30.0, jitter=lambda most: 0.05)
        async with running(
            person=typist, link=link, readers=readers, pkcs11=pkcs11  # type: ignore[arg-type]
        ) as run:  # fmt: skip
            yield Place(here, desk, line, link, run, typist)
