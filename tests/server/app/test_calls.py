"""What happens around a call whatever it is about: limits, deadlines, mistakes of ours, streams that have to end."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import grpc
import pytest
import structlog
from sqlalchemy import func, select

from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc, system_pb2, system_pb2_grpc
from cardwright_server.api.around import Around, Gate, name_of
from cardwright_server.api.calling import Calls
from cardwright_server.api.identify import Identifier
from cardwright_server.authentication.errors import AccessDenied
from cardwright_server.authentication.principal import Principal, anyone
from cardwright_server.limits import Admission, Limits, Rate, Scope
from cardwright_server.metrics import Metrics
from cardwright_server.release import VersionsApart, common
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.unit import Database, Unit
from cardwright_server.workstations.watch import RevocationWatch
from tests.support.sessions import reason_of

ORG = uuid4()
ADDRESS = "192.0.2.5"
ON_SQLITE = pytest.mark.parametrize("engine_name", ["sqlite"])
Work = Callable[[Unit, Principal], Awaitable[str]]


class Answering(system_pb2_grpc.SystemServiceServicer):
    """A servicer whose one call does what a test says."""

    def __init__(self, calls: Calls, work: Work) -> None:
        self._calls = calls
        self._work = work

    async def Hello(self, request: system_pb2.HelloRequest, context: Any) -> system_pb2.HelloResponse:
        return system_pb2.HelloResponse(release=await self._calls.write(context, self._work))


@asynccontextmanager
async def answering(
    database: Database, work: Work, limits: Limits | None = None, patience: timedelta = timedelta(seconds=30)
) -> AsyncIterator[tuple[Callable[[], Awaitable[Any]], Metrics]]:
    """A call that does ``work`` for somebody who has proved nothing."""

    async def identify(context: object) -> Principal:
        return anyone(ORG, front="test", address=ADDRESS)

    metrics = Metrics({"SystemService.Hello"})
    folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    nobody = cast(Identifier, Connection(None, None))
    gate = Gate(nobody, RevocationWatch(database), Admission("sessions", 1), Admission("streams", 1))
    server = grpc.aio.server(interceptors=[Around(metrics, gate)])
    calls = Calls(database, identify, limits, metrics, patience)
    system_pb2_grpc.add_SystemServiceServicer_to_server(cast(Any, Answering)(calls, work), server)
    server.add_insecure_port(f"unix:{folder}/socket")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{folder}/socket") as channel:
            yield lambda: system_pb2_grpc.SystemServiceStub(channel).Hello(system_pb2.HelloRequest()), metrics
    finally:
        await server.stop(None)
        shutil.rmtree(folder, ignore_errors=True)


async def refused(call: Callable[[], Awaitable[Any]]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call()
    return error.value.code().name, reason_of(error.value)


async def audited(database: Database) -> int:
    statement = select(func.count()).select_from(audit_entry)
    count: int = await database.read(lambda unit: unit.value(statement))
    return count


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0


async def test_a_denial_is_kept_although_its_unit_is_not(open_database: Callable[..., Database]) -> None:
    database = open_database()
    seen: list[str] = []

    async def work(unit: Unit, principal: Principal) -> str:
        seen.append("begun")
        raise AccessDenied("SystemService.Hello is not open to you for this")

    async with answering(database, work) as (call, metrics):
        assert await refused(call) == ("PERMISSION_DENIED", "ACCESS_DENIED")
        assert counted(metrics, "cardwright_calls_denied_total", call="SystemService.Hello") == 1
    (row,) = await database.read(lambda unit: unit.rows(select(audit_entry)))
    assert (row.action, row.outcome, row.front) == ("authorization.denied", "refused", "test")
    assert row.facts == {"call": "SystemService.Hello", "code": "ACCESS_DENIED"}
    assert seen == ["begun"]


@ON_SQLITE
async def test_too_many_calls_are_turned_away_before_anything_is_done(open_database: Callable[..., Database]) -> None:
    done: list[UUID] = []

    async def work(unit: Unit, principal: Principal) -> str:
        done.append(principal.org)
        return "fine"

    limits = Limits({Scope.ADDRESS: Rate(2, 0.001)})
    async with answering(open_database(), work, limits) as (call, metrics):
        assert [(await call()).release for _ in range(2)] == ["fine", "fine"]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call()
        assert (error.value.code().name, reason_of(error.value)) == ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")
        assert counted(metrics, "cardwright_calls_limited_total", call="SystemService.Hello") == 1
        assert counted(metrics, "cardwright_calls_total", call="SystemService.Hello", status="OK") == 2
    assert len(done) == 2


@ON_SQLITE
async def test_a_mistake_of_ours_is_logged_and_not_told(open_database: Callable[..., Database]) -> None:
    database = open_database()

    async def work(unit: Unit, principal: Principal) -> str:
        raise KeyError("a secret that stood in the error")

    with structlog.testing.capture_logs() as logs:
        async with answering(database, work) as (call, _):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call()
    assert (error.value.code().name, reason_of(error.value)) == ("INTERNAL", "CALL_FAILED")
    assert "secret" not in str(error.value)
    assert [(one["event"], one["call"]) for one in logs] == [("call-failed", "SystemService.Hello")]
    assert await audited(database) == 0


@ON_SQLITE
async def test_a_call_that_takes_too_long_is_ended(open_database: Callable[..., Database]) -> None:
    async def work(unit: Unit, principal: Principal) -> str:
        await asyncio.Event().wait()
        return "never"

    async with answering(open_database(), work, patience=timedelta(seconds=0.2)) as (call, _):
        assert await refused(call) == ("DEADLINE_EXCEEDED", "CALL_TOO_LONG")


# ----------------------------------------------------------------------------------------------------------- streams


class Connection:
    """An ``Identifier`` that knows one connection."""

    def __init__(self, workstation: UUID | None, ends: datetime | None) -> None:
        principal = anyone(ORG, front="test", workstation=workstation)
        self._known = principal, ends

    async def connection(self, context: object) -> tuple[Principal, datetime | None]:
        return self._known


class Gated:
    """A gate over one connection, and a stream that ends when it is told."""

    def __init__(self, database: Database, ends: datetime | None = None, streams: int = 2, sessions: int = 1) -> None:
        self.watch = RevocationWatch(database)
        self.workstation = uuid4()
        self.end = asyncio.Event()
        self.begun = asyncio.Event()
        self.cancelled = False
        connection = cast(Identifier, Connection(self.workstation, ends))
        self.gate = Gate(connection, self.watch, Admission("sessions", sessions), Admission("streams", streams))

    async def work(self) -> None:
        self.begun.set()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def ended_with(self, name: str = "SessionService.Watch", after: Callable[[], None] | None = None) -> str:
        """The code with which a stream ended, "" if it came to its own end."""
        running = asyncio.ensure_future(self.gate.run(name, None, self.work))
        await asyncio.wait({running, asyncio.ensure_future(self.begun.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if after is not None:
            after()
        async with asyncio.timeout(20):
            try:
                await running
            except Exception as error:
                return str(getattr(error, "code", type(error).__name__))
        return ""


@pytest.fixture
async def gated(open_database: Callable[..., Database]) -> Gated:
    made = Gated(open_database())
    await made.watch.refresh()
    return made


@ON_SQLITE
async def test_a_stream_comes_to_its_own_end(gated: Gated) -> None:
    assert (await gated.ended_with(after=gated.end.set), gated.cancelled) == ("", False)


@ON_SQLITE
async def test_a_stream_ends_with_its_workstation(gated: Gated) -> None:
    def revoke() -> None:
        gated.watch._revoked = frozenset({gated.workstation})
        gated.watch._close()

    assert (await gated.ended_with("SessionService.Run", revoke), gated.cancelled) == ("CONNECTION_ENDED", True)


@ON_SQLITE
async def test_a_stream_ends_with_the_connections_certificate(open_database: Callable[..., Database]) -> None:
    gated = Gated(open_database(), ends=datetime.now(UTC) + timedelta(seconds=0.3))
    await gated.watch.refresh()
    assert (await gated.ended_with("SessionService.Run"), gated.cancelled) == ("CONNECTION_ENDED", True)


@ON_SQLITE
async def test_while_it_drains_card_sessions_go_on_and_others_end(gated: Gated) -> None:
    assert await gated.ended_with(after=gated.gate.draining.set) == "SERVER_STOPPING"
    assert await gated.ended_with("SessionService.Run") == "SERVER_STOPPING"  # begun after that
    gated.gate.draining.clear()
    gated.begun.clear()

    def drain_then_end() -> None:
        gated.gate.draining.set()
        gated.end.set()

    assert await gated.ended_with("SessionService.Run", drain_then_end) == ""


@ON_SQLITE
async def test_there_are_only_so_many_sessions_and_streams(gated: Gated) -> None:
    first = asyncio.ensure_future(gated.gate.run("SessionService.Run", None, gated.work))
    await gated.begun.wait()
    assert await gated.ended_with("SessionService.Run") == "SERVER_BUSY"
    second = asyncio.ensure_future(gated.gate.run("SessionService.Watch", None, gated.work))
    while gated.gate._streams.taken < 2:
        await asyncio.sleep(0)
    assert await gated.ended_with("SessionService.Watch") == "SERVER_BUSY"
    gated.end.set()
    await asyncio.gather(first, second)
    assert await gated.ended_with("SessionService.Run") == ""


class Mistaken(sessions_pb2_grpc.SessionServiceServicer):
    """A servicer whose streams fail as nobody foresaw, before or after a message."""

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[sessions_pb2.WatchResponse]:
        yield sessions_pb2.WatchResponse()
        raise KeyError("a secret that stood in the error")

    async def Run(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        raise KeyError("a secret that stood in the error")


async def test_a_mistake_of_ours_in_a_stream_is_logged_and_not_told(gated: Gated) -> None:
    server = grpc.aio.server(interceptors=[Around(Metrics(()), gated.gate)])
    cast(Any, sessions_pb2_grpc).add_SessionServiceServicer_to_server(cast(Any, Mistaken)(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with structlog.testing.capture_logs() as logs:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = cast(Any, sessions_pb2_grpc.SessionServiceStub(channel))
                for call, request in ((stub.Watch, sessions_pb2.WatchRequest()), (stub.Run, iter(()))):
                    with pytest.raises(grpc.aio.AioRpcError) as error:
                        _ = [one async for one in call(request)]
                    assert (error.value.code().name, reason_of(error.value)) == ("INTERNAL", "CALL_FAILED")
                    assert "secret" not in str(error.value)
    finally:
        await server.stop(None)
    told = [(one["event"], one["call"]) for one in logs]
    assert told == [("call-failed", "SessionService.Watch"), ("call-failed", "SessionService.Run")]


def test_names_of_procedures() -> None:
    assert name_of("/cardwright.cms.v1.DeviceService/Bind") == "DeviceService.Bind"


@pytest.mark.parametrize("newest, oldest, spoken", [(1, 0, 1), (1, 1, 1), (3, 1, 1), (0, 0, 0), (2, 2, 0), (1, 2, 0)])
def test_the_version_that_both_speak(newest: int, oldest: int, spoken: int) -> None:
    if spoken:
        assert common(newest, oldest) == spoken
    else:
        with pytest.raises(VersionsApart):
            common(newest, oldest)
