"""What tests put around the streams of card sessions: what counts round trips, and what stands for other domains."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import grpc

from cardwright_server.api.sessions import SessionServicer
from cardwright_server.authentication.errors import ProofRefused
from cardwright_server.authentication.model import Authentication, Method
from cardwright_server.authentication.principal import Principal
from cardwright_server.store.unit import Unit

SEEN: dict[str, list[list[str]]] = {}
"""What servers did on their streams, by socket: reads and writes in order."""


def round_trips(client: Sequence[str], servers: Sequence[Sequence[str]]) -> int:
    """How often the line was crossed there and back, one crossing after the other, until the last message was read.

    Both ends do one thing after the other; what is read was written half a round trip before. So messages that are on
    their way at the same time count once, however many they are.
    """
    sides = [list(client), list(servers[0]) if servers else []]
    clocks, written = [0, 0], [list[int](), list[int]()]
    taken, moved = [0, 0], True
    while moved:
        moved = False
        for me, other in ((0, 1), (1, 0)):
            while sides[me] and (sides[me][0] == "write" or len(written[other]) > taken[me]):
                if sides[me].pop(0) == "write":
                    written[me].append(clocks[me])
                else:
                    clocks[me] = max(clocks[me], written[other][taken[me]] + 1)
                    taken[me] += 1
                moved = True
    return clocks[0] // 2


class _Counted:
    """A stream's context that notes what is read and written."""

    def __init__(self, context: Any, seen: list[str]) -> None:
        self._context = context
        self._seen = seen

    async def read(self) -> Any:
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            self._seen.append("read")
        return message

    async def write(self, message: Any) -> None:
        self._seen.append("write")
        await self._context.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class CountedServicer(SessionServicer):
    """Notes what it does on each stream in ``seen``."""

    seen: list[list[str]]

    async def Run(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]
        self.seen.append([])
        await super().Run(request_iterator, _Counted(context, self.seen[-1]))


class NoProofs:
    """``Proofs`` that keeps none."""

    async def put_proof(
        self,
        unit: Unit,
        principal: Principal,
        person: UUID,
        methods: frozenset[Method],
        *,
        device: UUID | None = None,
        request: UUID | None = None,
    ) -> Authentication:
        raise AssertionError("nobody proves anything here")

    async def principal_of(self, unit: Unit, principal: Principal, proof: UUID) -> Principal:
        raise ProofRefused("nobody proved anything here")


class NoStations:
    """No workstation is trusted."""

    def is_trusted(self, workstation: UUID | None) -> bool:
        return False


class Unrevoked:
    """``Streams`` of workstations that stay."""

    @contextmanager
    def stream(self, workstation: UUID) -> Iterator[asyncio.Event]:
        yield asyncio.Event()
