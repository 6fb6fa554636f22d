"""The workstations: they enrol, stand connected, see cards come in, and issue what they are given.

Insertions come in an open loop: each has its moment, whether or not the one before was answered.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import grpc

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.plan.observe import Look, observe
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc

from ..card import VirtualCard
from ..card.keypool import KeyPool
from .errors import code_of
from .identity import Enrolment, Identity
from .report import Part, Report, Times
from .session import Session
from .tasks import PROTOCOL, Named, Task

AHEAD: Final = 20_000
"""Requests that are made before they are needed."""
AT_ONCE: Final = 16
"""Enrolments under way at the same time."""
CHECK_SECONDS: Final = 30.0
STAND_SECONDS: Final = 120.0
"""For all workstations to stand."""
PIN: Final = b"739146"
_IDENTITY: Final = Look(slots=(), objects=())
_FAILURES: Final = (grpc.aio.AioRpcError, CardwrightError, TimeoutError)


@contextmanager
def _uncollected() -> Iterator[None]:
    """What there is now is not gone through by the collector meanwhile: its pauses would be told of as the server's."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True, slots=True)
class Plan:
    """What they do. ``rate``: insertions a second, for ``seconds``; ``parallel``: issuances at the same time.

    ``names`` are cards that exist by name only; without them each workstation has ``cards`` virtual ones.
    """

    rate: float = 0.0
    seconds: float = 0.0
    cards: int = 1
    names: Sequence[Named] = ()
    tasks: Sequence[Task] = ()
    parallel: int = 1
    first_serial: int = 10_000_000
    profile: str = "yubikey-5.7"


class Station:
    """One workstation: a connection of its own, and cards."""

    def __init__(self, identity: Identity, address: str, cards: Sequence[VirtualCard]) -> None:
        self.line = identity.connect(address)
        self.cards = cards
        self.hints = 0
        self._server: Any = sessions_pb2_grpc.SessionServiceStub(self.line)
        self._watch: Any = None
        self._listening: asyncio.Task[None] | None = None

    async def stand(self, named: Sequence[Named]) -> None:
        """Connect, and listen to hints about ``named``. Raises grpc.aio.AioRpcError."""
        request = sessions_pb2.WatchRequest(protocol=PROTOCOL, cards=[one.request().card for one in named[:16]])
        self._watch = self._server.Watch(request, wait_for_ready=True)
        await self._watch.initial_metadata()
        if self._watch.done():
            await self._watch.read()  # raises why it is over
        self._listening = asyncio.create_task(self._listen())

    @property
    def stands(self) -> bool:
        """Whether the stream is open."""
        return self._listening is not None and not self._listening.done()

    async def check(self, request: sessions_pb2.DueRequest) -> sessions_pb2.DueResponse:
        """What is due for a card. Raises grpc.aio.AioRpcError."""
        answer: sessions_pb2.DueResponse = await self._server.Due(request, timeout=CHECK_SECONDS)
        return answer

    async def close(self) -> None:
        """Hang up."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        await self.line.close()

    async def _listen(self) -> None:
        try:
            async for _ in self._watch:
                self.hints += 1
        except grpc.aio.AioRpcError:
            return  # seen by ``stands``


class Fleet:
    """``count`` workstations against the server at ``calls``; newcomers are let in at ``entry`` (HOST:PORT both).

    Inside ``async with`` they are enrolled. ``identities`` takes the place of enrolments; each may have several
    workstations.
    """

    def __init__(
        self,
        count: int,
        calls: str,
        entry: str = "",
        *,
        administrator: Identity | None = None,
        identities: Sequence[Identity] = (),
    ) -> None:
        if not identities and administrator is None:
            raise ValueError("either identities, or an administrator who makes them")
        self._count = count
        self._calls = calls
        self._entry = entry
        self._administrator = administrator
        self._open = AsyncExitStack()
        self._parts: list[Part] = []
        self._pool = KeyPool.shared()
        self.identities = list(identities)
        self.stations: list[Station] = []

    async def __aenter__(self) -> Fleet:
        await self._enrol()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    async def work(self, plan: Plan) -> Report:
        """All of a plan, one part after the other."""
        await self.stand(plan)
        if plan.rate and plan.seconds:
            await self.insertions(plan)
        if plan.tasks:
            await self.issuances(plan)
        return Report(tuple(self._parts))

    # ----------------------------------------------------------------------------------------------------- parts

    async def stand(self, plan: Plan) -> Part:
        """All connect at once, cold, and each waits until its stream is open."""
        serials = itertools.count(plan.first_serial)
        many = 0 if plan.names else plan.cards
        self.stations = [
            Station(identity, self._calls, [self._card(plan, next(serials)) for _ in range(many)])
            for identity in itertools.islice(itertools.cycle(self.identities), self._count)
        ]
        for station in self.stations:
            self._open.push_async_callback(station.close)
        names = itertools.cycle(plan.names or (Named(),))

        async def one(station: Station) -> None:
            shown = [Named(serial=str(card.serial)) for card in station.cards] or [next(names)]
            async with asyncio.timeout(STAND_SECONDS):
                await station.stand(shown)

        return await self._measured("stand", [partial(one, station) for station in self.stations])

    async def insertions(self, plan: Plan) -> Part:
        """Cards come in at ``rate`` for ``seconds``; each is read, if it is one, and asked about.

        What cards that are only names say is made before the first comes in, as far as it fits into ``AHEAD``: the
        work of many workstations is otherwise this one process's.
        """
        loop = asyncio.get_running_loop()
        count = int(plan.rate * plan.seconds)
        stations = itertools.cycle(random.sample(self.stations, len(self.stations)))
        names: Iterator[Named] = itertools.cycle(random.sample(plan.names, len(plan.names)))
        times, tasks = Times(), set[asyncio.Task[None]]()
        said = deque(
            next(names).request(ahead=timedelta(seconds=number / plan.rate))
            for number in range(min(count, AHEAD) if plan.names else 0)
        )
        gc.collect()
        began, cpu = loop.time(), time.process_time()

        def request(station: Station) -> sessions_pb2.DueRequest:
            if said:
                return said.popleft()
            return (next(names) if plan.names else self._read(random.choice(station.cards))).request()

        async def one(station: Station, due_at: float) -> None:
            try:
                await station.check(request(station))
                times.seconds.append(loop.time() - due_at)
            except _FAILURES as error:
                times.errors[code_of(error)] += 1

        with _uncollected():
            for number in range(count):
                due_at = began + number / plan.rate
                if (wait := due_at - loop.time()) > 0:
                    await asyncio.sleep(wait)
                task = asyncio.create_task(one(next(stations), due_at))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if tasks:
                await asyncio.wait(tasks)
        return self._add(Part("insertions", times, loop.time() - began, time.process_time() - cpu))

    async def issuances(self, plan: Plan) -> Part:
        """Blank cards are issued, ``parallel`` at the same time, each at a workstation of its own."""
        free = asyncio.Semaphore(plan.parallel)
        stations = itertools.cycle(self.stations)

        async def one(task: Task, station: Station) -> None:
            course = await Session(station.line, self._card(plan, task.serial), Secret(PIN)).issue(task)
            if course.outcome != "done":
                raise _Otherwise(course.outcome)

        works = [partial(one, task, station) for task, station in zip(plan.tasks, stations, strict=False)]
        return await self._measured("issuances", works, free)

    # ------------------------------------------------------------------------------------------------------------

    async def _enrol(self) -> None:
        if self.identities:
            return
        assert self._administrator is not None
        async with Enrolment(self._administrator, self._calls, self._entry) as enrolment:

            async def one() -> None:
                self.identities.append(await enrolment.enrol())

            part = await self._measured("enrol", [one] * self._count, asyncio.Semaphore(AT_ONCE))
        if not self.identities:
            raise NobodyEnrolled(f"No workstation could be enrolled: {', '.join(part.times.errors)}.")

    def _card(self, plan: Plan, serial: int) -> VirtualCard:
        return VirtualCard(plan.profile, serial=serial, key_pool=self._pool)

    @staticmethod
    def _read(card: VirtualCard) -> Named:
        """The card as the workstation sees it when it comes in."""
        seen = run(observe(_IDENTITY), LocalExecutor(DirectConnection(card), KeyItems(FixedPins(None))))
        return Named(seen.identity.guid, seen.identity.serial or "")

    async def _measured(
        self, name: str, works: Sequence[Callable[[], Awaitable[None]]], free: asyncio.Semaphore | None = None
    ) -> Part:
        loop, times = asyncio.get_running_loop(), Times()
        turn = free or asyncio.Semaphore(len(works))
        began, cpu = loop.time(), time.process_time()

        async def one(work: Callable[[], Awaitable[None]]) -> None:
            async with turn:
                begun = loop.time()
                try:
                    await work()
                    times.seconds.append(loop.time() - begun)
                except _FAILURES as error:
                    times.errors[code_of(error)] += 1

        await asyncio.gather(*(one(work) for work in works))
        return self._add(Part(name, times, loop.time() - began, time.process_time() - cpu))

    def _add(self, part: Part) -> Part:
        self._parts.append(part)
        return part


class NobodyEnrolled(CardwrightError):
    """No workstation has a certificate."""

    code = "NOBODY_ENROLLED"
    default_effect = "Nothing was done."
    default_advice = "Check both addresses, and that the operator is an administrator."


class _Otherwise(CardwrightError):
    """A session ended well, but the card was not issued."""

    code = "NOT_ISSUED"
    default_advice = "See what the server's log says of the session."

    def __init__(self, outcome: str) -> None:
        super().__init__(f"The session ended with {outcome}.")
