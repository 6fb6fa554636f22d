"""Hours of a workstation in minutes: cards come and go in several readers while lines are cut and cards are pulled.

``python -m tests.soak.run --seconds 3600``, or ``make soak``. One daemon in this process, twenty virtual cards, and a
server behind the daemon's ServerLink (tests/support/daemon_server.py). In the end every card is taken to its goal
without faults and judged by the oracle, nothing may be at work or held, and memory may not have grown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from cardwright_cardops.program.items import AnyBatch
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_daemon import sessions
from cardwright_daemon.prompts import Asked
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.around import Around
from tests.support.daemon_server import Server, as_it_is
from tests.support.daemon_sessions import PIN, faults_of, issue, preview, quiet, start
from tests.support.daemons import PATIENCE, Client, Run, running, told
from tests.support.virtual import POOL

CARDS, READERS = 20, 4
WARM_UP = 0.4
"""Of the run; memory is compared from there on."""
MOST_GROWTH = 8 << 20
"""Octets beyond which memory is not flat: caches, and pieces that the allocator keeps."""
EXPECTED = frozenset(
    ("CARD_REMOVED", "NO_CARD", "NO_SUCH_CARD", "CARD_IN_OPERATION", "SERVER_UNREACHABLE", "STAGE_ENDED")
)


class Typist:
    """Somebody who knows the PIN."""

    async def ask(self, asked: Asked) -> Secret:
        """See ``Prompter``."""
        return Secret(PIN)

    async def tell(self, text: str) -> None:
        """See ``Prompter``."""


@dataclass(eq=False)
class Pulled(Around[VirtualCard]):
    """A card that leaves its reader after so many more commands, and then is an ordinary one again."""

    after: int | None = None

    def transmit(self, command: bytes) -> bytes:
        """To the card and back, unless it leaves."""
        if self.after is not None:
            self.after -= 1
            if self.after <= 0:
                self.after = None
                if self.after_command:
                    self.inside.transmit(command)
                raise CardRemoved("The card was pulled.", sent=True)
        return self.inside.transmit(command)

    @property
    def after_command(self) -> bool:
        """Whether the card still did what it was told when it left."""
        return bool(self.inside.serial & 1)


class Watcher:
    """A program that stays and hears everything, as the desktop agent does.

    One stream for the whole run: grpcio 1.85 keeps 80 to 240 octets of each call that is given up while something is
    under way (https://github.com/grpc/grpc/issues/43360), which would be all that grows here.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cards: dict[str, pb.Card] = {}
        self._left: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        """Until cancelled."""
        async for event in self._client.cards.WatchEvents(pb.WatchEventsRequest()):
            if event.HasField("card"):
                card = event.card.card
                if event.card.present and self._left.get(card.reader) != card.id:
                    self._cards[card.reader] = card
                self._changed.set()

    async def card(self, number: int) -> pb.Card:
        """See ``Client.card``."""
        while True:
            self._changed.clear()
            found = self._cards.get(_reader(number))
            if found is not None and found.state != pb.CARD_STATE_READING:
                return found
            await self._changed.wait()

    def left(self, number: int) -> None:
        """The card was taken out of this reader, whatever is still told of it."""
        if (card := self._cards.pop(name := _reader(number), None)) is not None:
            self._left[name] = card.id


def _reader(number: int) -> str:
    return f"Virtual reader {number:02}"


@dataclass
class Soak:
    """One run, for so many seconds or insertions; ``seed`` decides what happens, as far as threads let it."""

    seconds: float
    seed: int
    insertions: int = 0
    """How many there are; 0: as many as there is time for."""
    done: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.server = Server(on_batch=self._spoilt)
        self.serials = 1000
        self.idle = [self._fresh() for _ in range(CARDS)]

    def _fresh(self) -> Pulled:
        self.serials += 1
        return Pulled(VirtualCard("yubikey-5.7", serial=self.serials, key_pool=POOL))

    async def _spoilt(self, number: int, batch: AnyBatch) -> AnyBatch:
        if self.random.random() < 0.04:
            self.done["line cut"] += 1
            raise ConnectionError
        return batch

    async def run(self) -> None:
        """Everything; what is wrong in the end is in ``wrong``."""
        pauses, sessions.AGAIN = sessions.AGAIN, (0.05, 0.2)  # type: ignore[misc]
        try:
            async with running(person=Typist(), link=self.server, readers=READERS) as run:  # type: ignore[arg-type]
                self.began = time.monotonic()
                self.watcher = Watcher(run.client)
                listening = asyncio.create_task(self.watcher.listen())
                await asyncio.gather(*(self._reader(run, number) for number in range(READERS)))
                listening.cancel()
                self.server.on_batch = as_it_is
                for pulled in self.idle:
                    await self._finish(run, pulled)
                async with asyncio.timeout(PATIENCE):
                    await quiet(run)
                self._nothing_left(run)
        finally:
            sessions.AGAIN = pauses  # type: ignore[misc]
        self._judge_memory()

    # --------------------------------------------------------------------------------------------------- one reader

    async def _reader(self, run: Run, number: int) -> None:
        while (part := self._part()) < 1:
            if number == 0:
                self._look_after(part)
            pulled = self.idle.pop(self.random.randrange(len(self.idle)))
            run.bench.insert(pulled, number)
            self.done["insertion"] += 1
            try:
                async with asyncio.timeout(PATIENCE * 3):
                    await self._use(run, pulled, number)
            except grpc.aio.AioRpcError as error:
                code = told(error).code
                self.done[code] += 1
                if code not in EXPECTED:
                    self.wrong.append(f"card {pulled.inside.serial}: {code}")
            pulled.after = None
            with contextlib.suppress(ValueError):  # it left by itself, perhaps just now
                run.bench.slots[number].remove()
            run.bench.source.look()
            self.watcher.left(number)
            # A finished card is judged, and given back to the factory.
            if not faults_of(self.server, pulled.inside):
                self.done["card finished"] += 1
                if self.random.random() < 0.7:
                    self.server.journals.pop(str(pulled.inside.serial), None)
                    pulled = self._fresh()
            self.idle.append(pulled)

    async def _use(self, run: Run, pulled: Pulled, number: int) -> None:
        chance = self.random.random()
        if chance < 0.1:
            return  # in and out, before anybody could look
        card = await self.watcher.card(number)
        if chance < 0.2:
            await run.client.pins.GetPinStatus(pb.GetPinStatusRequest(card=card.id))
            return
        if chance < 0.3:
            await run.client.cards.GetInventory(pb.GetInventoryRequest(card=card.id, refresh=True))
            return
        if chance < 0.6:
            pulled.after = self.random.randrange(1, 140)
        purpose = pb.PURPOSE_UPDATE if card.identity.guid else pb.PURPOSE_ISSUE
        shown = await preview(run, card.id, purpose)
        if shown.nothing_due or chance < 0.35:
            self.done["nothing due" if shown.nothing_due else "left at the preview"] += 1
            return
        self.done[(await start(run, card.id, shown)).error.code or "session"] += 1

    def _part(self) -> float:
        """How much of the run is over; 1 or more: all."""
        if self.insertions:
            return self.done["insertion"] / self.insertions
        return (time.monotonic() - self.began) / self.seconds

    def _look_after(self, part: float) -> None:
        """Measure, and forget what only the test's server keeps."""
        self.server.sessions[:] = [one for one in self.server.sessions if not one.closed]
        for kept in (self.server.openings, self.server.asked, self.server.consented, self.server.unasked):
            kept.clear()
        if not self.memory or part - self.memory[-1][0] > 1 / 50:
            gc.collect()
            self.memory.append((part, resident()))

    # ----------------------------------------------------------------------------------------------------- the end

    async def _finish(self, run: Run, pulled: Pulled) -> None:
        """One more insertion, or a second where another consent is needed."""
        pulled.after = None
        for _ in range(3):
            if not faults_of(self.server, pulled.inside):
                return
            run.bench.insert(pulled)
            try:
                await run.client.card()
                # What the daemon does by itself comes first.
                await quiet(run)
                if faults_of(self.server, pulled.inside):
                    await issue(run)
            except grpc.aio.AioRpcError as error:
                self.done[f"{told(error).code} at the end"] += 1
            finally:
                run.bench.remove()
        self.wrong += [f"card {pulled.inside.serial}: {text}" for text in faults_of(self.server, pulled.inside)]

    def _nothing_left(self, run: Run) -> None:
        desk = run.daemon.desk
        self.wrong += [f"still at work: {one.kind.value}" for one in desk.operations.all if not one.over]
        if desk.sessions._waiting:
            self.wrong.append("previews are kept of cards that are gone")
        for slot in run.bench.slots:
            if not slot._lock.acquire(blocking=False):
                self.wrong.append(f"a transaction is open in {slot.name}")
            else:
                slot._lock.release()

    def _judge_memory(self) -> None:
        warm = [octets for at, octets in self.memory if at >= WARM_UP]
        third = max(1, len(warm) // 3)
        self.grown = sum(warm[-third:]) // third - sum(warm[:third]) // third if warm else 0
        if self.grown > MOST_GROWTH:
            self.wrong.append(f"memory grew by {self.grown / 2**20:.1f} MiB after the warm-up")

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {name}" for name, count in self.done.most_common())
        took = time.monotonic() - self.began
        return f"soak: {took:.0f} s, seed {self.seed}, memory {self.grown / 2**20:+.1f} MiB: {counted}"


def resident() -> int:
    """Octets of this process in memory, without what the allocator keeps of memory that was let go."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given: Any = parser.parse_args()
    soak = Soak(given.seconds, given.seed)
    asyncio.run(soak.run())
    print(soak)
    for text in soak.wrong:
        print(f"wrong: {text}", file=sys.stderr)
    sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()
