"""A process that is behind says so: calls that wait too long are seen, and further ones are turned away at once."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cardwright_cardops.rpc_status import DETAILS, error_of
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc
from cardwright_server.api.around import Around, Gate
from cardwright_server.api.backlog import CORE_OPTIONS, CROWDED, Backlog
from cardwright_server.limits import Admission, ServerBusy
from cardwright_server.metrics import Metrics


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_what_waits_now_counts_and_so_does_what_waited_last() -> None:
    clock, answered = Hands(), asyncio.Event()
    backlog = Backlog(2.0, clock=clock)
    backlog.admit(CROWDED)
    asking = asyncio.create_task(backlog.measure(answered.wait))
    await asyncio.sleep(0)
    clock.now += 1.9
    backlog.admit(CROWDED)
    clock.now += 0.2
    with pytest.raises(ServerBusy, match="calls") as refused:
        backlog.admit(CROWDED)
    assert 1.0 <= refused.value.retry_after <= 3.0
    clock.now += 10
    answered.set()
    await asking
    assert backlog.seconds == pytest.approx(12.1)
    with pytest.raises(ServerBusy):
        backlog.admit(CROWDED)
    await backlog.measure(answered.wait)
    assert backlog.seconds == 0
    backlog.admit(CROWDED)


async def test_a_line_that_is_not_there_yet_is_nobodys_backlog() -> None:
    clock = Hands()
    backlog = Backlog(2.0, clock=clock)

    async def fails() -> None:
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())

    await backlog.measure(fails)
    assert backlog.seconds == 0


class Counting(sessions_pb2_grpc.SessionServiceServicer):
    """Nothing is ever due."""

    def __init__(self) -> None:
        self.served = 0

    async def Due(self, request: sessions_pb2.DueRequest, context: Any) -> sessions_pb2.DueResponse:
        self.served += 1
        return sessions_pb2.DueResponse()

    async def Run(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        raise NotImplementedError

    def Watch(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


class Served:
    """A server with what is around its calls."""

    def __init__(self, folder: Path, longest: float) -> None:
        self.servicer = Counting()
        self.clock = Hands()
        self.backlog = Backlog(longest, clock=self.clock)
        nobody: Any = None
        gate = Gate(nobody, nobody, Admission("sessions", 1), Admission("streams", 1), self.backlog)
        self.server = grpc.aio.server(interceptors=[Around(Metrics(()), gate)], options=CORE_OPTIONS)
        sessions_pb2_grpc.add_SessionServiceServicer_to_server(self.servicer, self.server)
        self.socket = f"unix:{folder}/s"
        self.server.add_insecure_port(self.socket)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def ask_itself(self) -> None:
        async with grpc.aio.insecure_channel(self.socket) as line:
            due: Any = sessions_pb2_grpc.SessionServiceStub(line).Due
            await due(sessions_pb2.DueRequest(), metadata=(self.backlog.mark,), wait_for_ready=True)

    async def outcomes(self, many: int, address: str) -> Counter[str]:
        found = Counter[str]()

        async def one(due: Any) -> None:
            try:
                await due(sessions_pb2.DueRequest(protocol=1), timeout=60)
                found["OK"] += 1
            except grpc.aio.AioRpcError as error:
                details = [value for name, value in error.trailing_metadata() or () if name == DETAILS]
                told = error_of(details[0]) if details and isinstance(details[0], bytes) else None
                assert told is not None and told.retry_after
                found[f"{error.code().name} {told.code}"] += 1

        async with grpc.aio.insecure_channel(address) as line:
            stub = sessions_pb2_grpc.SessionServiceStub(line)
            await asyncio.gather(*(one(stub.Due) for _ in range(many)))
        return found


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK = _END_STREAM = 1
_END_HEADERS = 4


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Without index and Huffman code (RFC 7541 section 6.2.2)."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


_CALL = b"".join(
    _literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/cardwright.cms.v1.SessionService/Due"),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)


class Crowd:
    """Calls on one connection, octet by octet (RFC 9113): it can be asked whether they have arrived."""

    def __init__(self, port: int) -> None:
        self._line = socket.create_connection(("127.0.0.1", port), timeout=60)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *ended: object) -> None:
        self._line.close()

    def come(self, many: int) -> None:
        """Returns when the server's core has read all calls, which it tells by the answer to a PING behind them."""
        request = sessions_pb2.DueRequest(protocol=1).SerializeToString()
        calls = (
            _frame(_HEADERS, _END_HEADERS, number, _CALL)
            + _frame(_DATA, _END_STREAM, number, struct.pack(">?I", False, len(request)) + request)
            for number in range(1, 2 * many, 2)
        )
        ping = b"all here"
        self._line.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + b"".join(calls) + _frame(_PING, 0, 0, ping))
        with self._line.makefile("rb") as answers:
            wanted = _frame(_PING, _ACK, 0, ping)
            while True:
                head = answers.read(9)
                assert len(head) == 9, "the server hung up"
                if head + answers.read(int.from_bytes(head[:3])) == wanted:
                    return


@pytest.fixture
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    made = Served(tmp_path_factory.mktemp("s"), longest=0.05)
    await made.server.start()
    yield made
    await made.server.stop(None)


async def test_two_thousand_calls_at_once_are_all_answered(served: Served) -> None:
    """Without the options of the core hundreds of them would end as CANCELLED."""
    assert await served.outcomes(2000, f"127.0.0.1:{served.port}") == {"OK": 2000}


async def test_a_call_to_itself_waits_behind_all_that_came_before(served: Served) -> None:
    with Crowd(served.port) as crowd:
        crowd.come(300)  # blocks the loop, so that none is taken up meanwhile
        await served.backlog.measure(served.ask_itself)
        assert served.servicer.served == 300


async def test_while_it_is_behind_others_are_told_when_to_come_again(served: Served) -> None:
    address, answered = f"127.0.0.1:{served.port}", asyncio.Event()
    assert await served.outcomes(20, address) == {"OK": 20}
    asking = asyncio.create_task(served.backlog.measure(answered.wait))
    await asyncio.sleep(0)
    served.clock.now += 1
    assert await served.outcomes(20, address) == {"RESOURCE_EXHAUSTED SERVER_BUSY": 20}
    assert served.servicer.served == 20
    served.backlog.admit("DeviceService.Get")  # what does not come in crowds has a line of its own
    answered.set()
    await asking
    # Its own call is no check, and a stranger's that looks like it is one.
    await served.backlog.measure(served.ask_itself)
    assert served.servicer.served == 20
    async with grpc.aio.insecure_channel(address) as line:
        lie = ((served.backlog.mark[0], "00" * 16),)
        await sessions_pb2_grpc.SessionServiceStub(line).Due(sessions_pb2.DueRequest(), metadata=lie)
    assert served.servicer.served == 21
    await served.backlog.measure(answered.wait)
    assert await served.outcomes(20, address) == {"OK": 20}
