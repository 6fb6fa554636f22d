"""The workstation of the demo: a daemon in this process, two readers, and the people at the prompts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization.pkcs7 import pkcs7_decrypt_der

from cardwright_cardops.piv import programs
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.local_key import open_key
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.program.items import Program
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_daemon.app import Daemon
from cardwright_daemon.config import Config, Updates
from cardwright_daemon.link.enrolment import Token, enrol
from cardwright_daemon.prompts import Asked
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc
from cardwright_simulators.card import KeyPool, VirtualCard

from .counting import CountedCard, CountedLink, Counts
from .office import Office
from .readers import Readers
from .story import DemoFailed, Operation, Story

HOST = "demo-desk"
_PATIENCE = 60.0


class Person:
    """Somebody with a card, and what they type. ``said``: what prompts showed them."""

    def __init__(self, login: str, serial: str, pin: bytes) -> None:
        self.login = login
        self.serial = serial
        self.pin = pin
        self.next_pin = pin
        self.password = b""
        self.said: list[str] = []
        self.person = ""
        self.device = ""


class Prompts:
    """Stands for pinentry: a question names the card, so the right person answers it."""

    def __init__(self, people: list[Person]) -> None:
        self._people = people
        self.asked: list[str] = []

    async def ask(self, asked: Asked) -> Secret:
        """See ``Prompter``."""
        self.asked.append(asked.sentence)
        if asked.error:
            raise DemoFailed(f"A prompt was not answered well: {asked.sentence} {asked.error}")
        person = self._of(asked.act)
        if "password" in asked.what:
            return Secret(person.password)
        return Secret(person.next_pin if asked.what.startswith("new ") else person.pin)

    async def tell(self, text: str) -> None:
        """See ``Prompter``."""
        for person in self._people:
            person.said.append(text)

    def _of(self, act: str) -> Person:
        for person in self._people:
            if person.serial in act:
                return person
        raise DemoFailed(f"A prompt named no card: {act}")


class Workplace:
    """Cards in readers, and a client of the daemon's local API, as the desktop agent is one."""

    def __init__(self, folder: Path, office: Office, people: list[Person], story: Story, readers: Readers) -> None:
        self.story = story
        self.prompts = Prompts(people)
        self.readers = readers
        self._folder = folder
        self._office = office
        pool = KeyPool(size=2)
        self.cards = {
            person.serial: CountedCard(VirtualCard("yubikey-5.7", serial=int(person.serial), key_pool=pool))
            for person in people
        }
        self._counts = {serial: card.counts for serial, card in self.cards.items()}
        self._watching = asyncio.Event()
        self._alerts: dict[str, Any] = {}
        self._alerted = asyncio.Event()
        self.agent: Any = None
        self.updates: Any = None
        self.pins: Any = None
        self.operations: Any = None
        self.escrow: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Workplace]:
        """Enrol this machine, start the daemon, connect to it."""
        station = self._folder / "station"
        token = await self._office.token(HOST)
        await enrol(station, self._office.addresses["entry"], Token.parse(token), HOST)
        self.story.say("the workstation is enrolled by a one-use token, and has its own certificate")
        config = Config(folder=str(self._folder / "run"), pcsc=False, updates=Updates(spread=0.0, check_seconds=30.0))
        link = CountedLink(self._office.addresses["calls"], station, check_seconds=30.0, counts=self._counts)
        daemon = Daemon(config, sources=[self.readers.source], link=link, asker=self.prompts)
        async with daemon, grpc.aio.insecure_channel(f"unix:{daemon.socket}") as channel:
            self.agent = agent_pb2_grpc.CardServiceStub(channel)
            self.updates = agent_pb2_grpc.UpdateServiceStub(channel)
            self.pins = agent_pb2_grpc.PinServiceStub(channel)
            self.operations = agent_pb2_grpc.OperationServiceStub(channel)
            self.escrow = agent_pb2_grpc.EscrowServiceStub(channel)
            self.story.say("the daemon watches two readers")
            narrator = asyncio.create_task(self.narrate())
            try:
                async with _patience():
                    await self._watching.wait()
                yield self
            finally:
                narrator.cancel()
                await asyncio.wait([narrator])

    # ------------------------------------------------------------------------------------------------------ cards

    async def insert(self, person: Person) -> None:
        """Into a reader that is free."""
        await asyncio.to_thread(self.readers.insert, self.cards[person.serial])

    def pull_after(self, person: Person, keys: int) -> None:
        """The card leaves in the middle of what comes next."""
        card = self.cards[person.serial]
        card.pulled = lambda: self.readers.pull(card)
        card.pull_after = keys

    async def card(self, person: Person) -> str:
        """The daemon's id of a card that is in a reader and known."""
        event = await self.until(
            lambda event: (
                event.HasField("card")
                and event.card.present
                and event.card.card.state == pb.CARD_STATE_READY
                and event.card.card.identity.serial == person.serial
            )
        )
        return str(event.card.card.id)

    # ------------------------------------------------------------------------- what another program sees of a card

    @contextmanager
    def _executor(self, person: Person, pin: bytes | None = None) -> Iterator[LocalExecutor]:
        connection = self.readers.connect(self.cards[person.serial])
        try:
            yield LocalExecutor(connection, KeyItems(FixedPins(None if pin is None else Secret(pin)), local=True))
        finally:
            connection.close()

    async def certificate(self, person: Person, slot: Slot) -> x509.Certificate | None:
        """The certificate of a slot."""

        def read() -> Program[x509.Certificate | None]:
            yield from programs.read_marks()
            stored = yield from programs.read_certificate(slot)
            return None if stored is None else stored.x509()

        def work() -> x509.Certificate | None:
            with self._executor(person) as executor:
                return run(read(), executor)

        return await asyncio.to_thread(work)

    async def retired(self, person: Person) -> Slot:
        """The first retired slot with a certificate."""
        for slot in (one for one in Slot if one.is_retired):
            if await self.certificate(person, slot) is not None:
                return slot
        raise DemoFailed(f"Card {person.serial} has no retired key.")

    async def decrypt(self, person: Person, slot: Slot, sealed: bytes) -> bytes:
        """Open a CMS message (DER) with a key of the card."""
        certificate = await self.certificate(person, slot)
        assert certificate is not None

        def open_it() -> bytes:
            with self._executor(person, person.pin) as executor:
                key = open_key(executor, slot)
                return pkcs7_decrypt_der(sealed, certificate, key, [])  # type: ignore[arg-type]

        return await asyncio.to_thread(open_it)

    async def block(self, person: Person) -> None:
        """Wrong PINs until no try is left, as someone does who mixes up two cards."""

        def wrong() -> None:
            connection = self.readers.connect(self.cards[person.serial])
            try:
                with connection.transaction():
                    connection.transmit(bytes.fromhex("00A4040005A000000308"))
                    for _ in range(16):
                        answer = connection.transmit(bytes.fromhex("0020008008303030303030FFFF"))
                        if answer == bytes.fromhex("6983"):
                            return
            finally:
                connection.close()
            raise DemoFailed("The card did not block.")

        await asyncio.to_thread(wrong)

    async def alert(self, card: str) -> Any:
        """What the daemon says is due for a card, once it says that something is; each alert is given once."""
        async with _patience():
            while not self._alerts.get(card):
                self._alerted.clear()
                await self._alerted.wait()
        return self._alerts.pop(card)

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The first event that is as wanted."""
        stream = self.agent.WatchEvents(pb.WatchEventsRequest(), timeout=60)
        async for event in stream:
            if wanted(event):
                stream.cancel()
                return event
        raise DemoFailed("The daemon told no more.")

    # ------------------------------------------------------------------------------------------------- operations

    async def measured(self, kind: str, person: Person, work: Callable[[], Any]) -> Any:
        """Do something with a card, and note what it took."""
        counts: Counts = self._counts[person.serial]
        counts.clear()
        begin = time.monotonic()
        done = await work()
        self.story.operations.append(
            Operation(
                kind, person.serial, counts.round_trips, counts.apdus, time.monotonic() - begin, counts.card_seconds
            )
        )
        return done

    async def ended(self, operation: Any) -> Any:
        """An operation at its end. Raises DemoFailed unless it ended well."""
        now = await self.over(operation)
        if now.phase != pb.OPERATION_PHASE_DONE:
            raise DemoFailed(f"{now.error.code}: {now.error.message}")
        return now

    async def over(self, operation: Any) -> Any:
        """An operation at its end, however it ended."""
        answer = await self.operations.WaitOperation(pb.WaitOperationRequest(operation=operation.id), timeout=120)
        return answer.operation

    async def known_operations(self) -> set[str]:
        """Ids of the operations that there were until now."""
        return {one.id for one in (await self.operations.ListOperations(pb.ListOperationsRequest())).operations}

    async def next_operation(self, kind: pb.OperationKind.ValueType, known: set[str]) -> Any:
        """The end of the next operation of a kind that the daemon begins by itself."""

        async def begun() -> Any:
            listed = await self.operations.ListOperations(pb.ListOperationsRequest())
            return next((one for one in listed.operations if one.kind == kind and one.id not in known), None)

        stream = self.agent.WatchEvents(pb.WatchEventsRequest(), timeout=60)
        async for event in stream:
            # Looked at again with every event: one that was over before the stream began is only in the list.
            if (event.HasField("synced") or event.HasField("operation")) and (found := await begun()) is not None:
                stream.cancel()
                return await self.over(found)
        raise DemoFailed("The daemon told no more.")

    async def narrate(self) -> None:
        """Tell what operations do and keep alerts, until cancelled. One stream: what is due is told once."""
        seen: dict[str, str] = {}
        async for event in self.agent.WatchEvents(pb.WatchEventsRequest()):
            if event.HasField("synced"):
                self._watching.set()
            if event.HasField("due"):
                self._alerts[event.due.card] = event.due.due.items
                self._alerted.set()
            if event.HasField("operation"):
                now = event.operation.operation
                if now.step_words and seen.get(now.id) != now.step_words:
                    seen[now.id] = now.step_words
                    self.story.say(f"    {self.readers.side(now.reader):<5} {now.percentage:3d} %  {now.step_words}")


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_PATIENCE):
            yield
    except TimeoutError:
        raise DemoFailed("The daemon did not say what was waited for.") from None
