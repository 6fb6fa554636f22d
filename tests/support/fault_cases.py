"""Everything that can go wrong in one session, one thing at a time, from moments of one undisturbed session.

    unsent N   the card is pulled before its Nth command
    lost N     the card is pulled after its Nth command, and the answer with it
    cut N      the workstation hangs up before its Nth message
    dead N     everything stops at moment N: card and committed books are as they were then, nothing else is left

After each, one more session without any disturbance has to reach the end that the undisturbed one had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.sessions.ledger import LEASE
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.oracle.books import Books
from tests.support.fault_world import FaultWorld, Job, Moment
from tests.support.sessions import Station, Trip

GOOD = (sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE)
PULLED = {"unsent": "apdu={0}+:remove", "lost": "apdu={0}:remove-after,apdu={1}+:remove"}
"""What a card does that is pulled, for ``FaultyCard``."""


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong. ``place`` counts from 1."""

    kind: str
    place: int
    label: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.place}" + (f" ({self.label})" if self.label else "")


@dataclass(frozen=True)
class Course:
    """An undisturbed session: its moments, how often what happened, and its end.

    ``commands``: by number, the headers of those that the server asked the card for.
    """

    job: Job
    moments: tuple[Moment, ...]
    commands: dict[int, str]
    messages: int
    end: dict[str, Any]

    @property
    def cases(self) -> list[Case]:
        """Everything that can go wrong, once each."""
        pulls = [Case(kind, place, head) for kind in PULLED for place, head in self.commands.items()]
        cuts = [Case("cut", place) for place in range(1, self.messages)]
        dead = [Case("dead", place, one.label) for place, one in enumerate(self.moments, 1)]
        return [*pulls, *cuts, *dead]


class WatchedCard:
    """A card that tells before and after each command."""

    def __init__(self, card: VirtualCard, watch: Callable[[str], None]) -> None:
        self._card = card
        self._watch = watch
        self.commands: list[str] = []

    def transmit(self, command: bytes) -> bytes:
        """As the card."""
        # The name of the object goes along, nothing else of the data.
        self.commands.append(command[: 10 if command[1] in (0xCB, 0xDB) else 4].hex())
        name = f"command {len(self.commands)}, {self.commands[-1]}"
        self._watch(f"before {name}")
        answer = self._card.transmit(command)
        self._watch(f"after {name}")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._card, name)


async def undisturbed(here: FaultWorld, job: Job, *, judged: bool = True) -> Course:
    """Carry the job out once, and keep every moment of it that differs from those before.

    ``judged``: with AssertionError unless the judge is content.
    """
    card = await here.back_to(job.start)
    moments: dict[bytes, Moment] = {}
    begun: list[int] = []

    def keep(label: str) -> None:
        if begun:
            # A command changes no row, so the books are read again for everything else only.
            last = moments[next(reversed(moments))] if "command" in label else None
            one = here.moment(card, label, last)
            moments.setdefault(one.digest, one)

    async def sent(message: sessions_pb2.RunRequest) -> None:
        begun.append(len(watched.commands))
        keep(f"before the workstation's {message.WhichOneof('kind')}")

    watched = WatchedCard(card, keep)
    async with here.serving(job.principal) as socket:
        here.database.watch = keep
        try:
            trip = await here.session(job, Station(watched, before=sent), socket)
        finally:
            here.database.watch = None
    assert trip.outcome == sessions_pb2.OUTCOME_DONE or not judged, trip
    keep("in the end")
    found = await here.wrong(job, card) if judged else []
    assert found == [], found
    commands = {place: head for place, head in enumerate(watched.commands, 1) if place > begun[0]}
    end = await here.picture(job, card) if judged else {}
    return Course(job, tuple(moments.values()), commands, len(begun), end)


async def carried_out(here: FaultWorld, course: Course, case: Case) -> list[str]:
    """Let one thing go wrong, then have one more session; what is wrong after it, in words."""
    job = course.job
    if case.kind == "dead":
        moment = course.moments[case.place - 1]
        card = await here.back_to(moment, later=LEASE + timedelta(seconds=1))
    else:
        card = await here.back_to(job.start)
    async with here.serving(job.principal) as socket:
        if case.kind in PULLED:
            faulty = FaultyCard(card, PULLED[case.kind].format(case.place, case.place + 1))
            await here.session(job, Station(faulty), socket)
            if not faulty.struck:
                return ["the session ended before the fault"]
        elif case.kind == "cut":
            await here.session(job, Station(card), socket, cut=case.place)
        trip = await _once_more(here, job, card, socket)
    wrong = [] if trip is None or trip.outcome in GOOD else [f"one more session ended with {trip.error or trip.status}"]
    return wrong + await here.wrong(job, card, course.end or None)


async def _once_more(here: FaultWorld, job: Job, card: VirtualCard, socket: str) -> Trip | None:
    """A session once the one before let go of the card; None where its work was done already."""
    while True:
        card.power_off()
        if is_done(here, job):
            return None
        trip = await here.session(job, Station(card), socket)
        if trip.error != "CARD_IN_SESSION":
            return trip


def is_done(here: FaultWorld, job: Job) -> bool:
    """Whether the request of a job is done, or the card locked that nobody asked for by a request."""
    books = Books.read(here.path)
    if job.purpose == sessions_pb2.PURPOSE_LOCK:
        return not books.of("device_due", device=here.device.hex, what="lock")
    return job.request is not None and books.of("device_request", id=job.request.hex)[0][
        "state"] == "done"  # fmt: skip


async def failures(here: FaultWorld, course: Course, cases: Sequence[Case]) -> dict[str, list[str]]:
    """What is wrong, by case."""
    found = {}
    for case in cases:
        if wrong := await carried_out(here, course, case):
            found[str(case)] = wrong
    return found
