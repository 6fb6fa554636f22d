"""A daemon in this process with virtual readers, and its clients."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import msgspec

from cardwright_cardops.pinentry import PinentryCancelled
from cardwright_cardops.rpc_status import DETAILS, RemoteError, error_of
from cardwright_cardops.secret import Secret
from cardwright_daemon.answers import Answers
from cardwright_daemon.app import Daemon
from cardwright_daemon.config import Config, Pins, Updates
from cardwright_daemon.link.ports import ServerLink
from cardwright_daemon.machine import NOTHING_ALLOWED, Machine
from cardwright_daemon.prompts import Asked
from cardwright_daemon.readers import ReaderSource, VirtualReaders
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.slot import Card, SlotReader
from tests.support.virtual import POOL

PATIENCE = 20.0


class Person:
    """Somebody at the prompts. Gives ``answers`` one after another; what was asked is in ``asked``.

    An answer that is an Event is waited for, None closes the dialog.
    """

    def __init__(self, *answers: bytes | asyncio.Event | None) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self.told: list[str] = []
        self.waits = asyncio.Event()
        """Somebody is asked and does not answer."""
        self.asking = 0
        """Dialogs that are open."""

    async def ask(self, asked: Asked) -> Secret:
        self.asked.append(asked)
        answer = self.answers.pop(0)
        if isinstance(answer, asyncio.Event):
            self.waits.set()
            self.asking += 1
            try:
                await answer.wait()
            finally:
                self.asking -= 1
            return await self.ask(asked)
        if answer is None:
            raise PinentryCancelled("The PIN entry was cancelled.")
        return Secret(answer)

    async def tell(self, text: str) -> None:
        self.told.append(text)


class Bench:
    """Virtual readers of a daemon."""

    def __init__(self, count: int = 2) -> None:
        self.slots = [SlotReader(f"Virtual reader {number:02}") for number in range(count)]
        self.source = VirtualReaders(self.slots)

    def insert(self, card: Card, number: int = 0) -> Card:
        """Put ``card`` into a reader."""
        self.slots[number].insert(card)
        self.source.look()
        return card

    def remove(self, number: int = 0) -> Card:
        """Take the card out."""
        card = self.slots[number].remove()
        self.source.look()
        return card


@dataclass
class Client:
    """A program that uses the daemon."""

    channel: grpc.aio.Channel
    cards: Any = field(init=False)
    pins: Any = field(init=False)
    operations: Any = field(init=False)
    updates: Any = field(init=False)
    escrow: Any = field(init=False)
    workstation: Any = field(init=False)

    def __post_init__(self) -> None:
        self.cards = agent_pb2_grpc.CardServiceStub(self.channel)
        self.pins = agent_pb2_grpc.PinServiceStub(self.channel)
        self.operations = agent_pb2_grpc.OperationServiceStub(self.channel)
        self.updates = agent_pb2_grpc.UpdateServiceStub(self.channel)
        self.escrow = agent_pb2_grpc.EscrowServiceStub(self.channel)
        self.workstation = agent_pb2_grpc.WorkstationServiceStub(self.channel)

    async def until(self, wanted: Callable[[pb.WatchEventsResponse], bool]) -> pb.WatchEventsResponse:
        """Watch until an event is as wanted."""
        call = self.cards.WatchEvents(pb.WatchEventsRequest())
        try:
            async with asyncio.timeout(PATIENCE):
                async for event in call:
                    if wanted(event):
                        return event  # type: ignore[no-any-return]
        finally:
            call.cancel()
        raise AssertionError("the stream ended")

    async def card(self, number: int = 0) -> pb.Card:
        """The card in a reader, once it is known or cannot be."""
        name = f"Virtual reader {number:02}"
        event = await self.until(
            lambda event: event.HasField("card")
            and event.card.present
            and event.card.card.reader == name
            and event.card.card.state != pb.CARD_STATE_READING
        )
        return event.card.card


@dataclass
class Run:
    """A running daemon, its readers, and a client."""

    daemon: Daemon
    bench: Bench
    client: Client
    person: Person


def token(serial: int = 12345678, profile: str = "yubikey-5.7") -> VirtualCard:
    """A fresh token."""
    return VirtualCard(profile, serial=serial, key_pool=POOL)


def short_folder() -> Path:
    """A folder whose path leaves room for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    return folder / "run"


def config(folder: Path, **changes: Any) -> Config:
    """No PC/SC, no waiting."""
    plain = Config(folder=str(folder), pcsc=False, updates=Updates(spread=0.0), pins=Pins(headless=False))
    return msgspec.structs.replace(plain, **changes)


@asynccontextmanager
async def client_of(socket: Path) -> AsyncIterator[Client]:
    """A program that uses the daemon at ``socket``."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
        yield Client(channel)


@asynccontextmanager
async def running(
    *cards: Card,
    person: Person | None = None,
    asks: bool = True,
    sources: Iterable[ReaderSource] = (),
    link: ServerLink | None = None,
    readers: int = 2,
    machine: Machine = NOTHING_ALLOWED,
    answers: Answers | None = None,
    **changes: Any,
) -> AsyncIterator[Run]:
    """A daemon with ``cards`` in its first readers. Without ``asks`` it asks by pinentry."""
    folder = short_folder()
    bench, somebody = Bench(readers), person or Person()
    for number, card in enumerate(cards):
        bench.slots[number].insert(card)
    made = Daemon(
        config(folder, **changes), sources=[bench.source, *sources], link=link, asker=somebody if asks else None,
        machine=machine, answers=answers,
    )  # fmt: skip
    try:
        async with made as daemon, client_of(daemon.socket) as client:
            yield Run(daemon, bench, client, somebody)
    finally:
        shutil.rmtree(folder.parent)


def told(error: grpc.aio.AioRpcError) -> RemoteError:
    """Our error in a status."""
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes):
            found = error_of(value)
            assert found is not None
            return found
    raise AssertionError(f"no details: {error}")


async def failing(call: Any) -> RemoteError:
    """The error that ``call`` ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return told(error)
    raise AssertionError("the call succeeded")
